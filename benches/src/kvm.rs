//! Guests: what a processor of theirs computes, what a page and an interrupt of another host cost, and the operations of GiantVM's table.
//!
//! Owns these figures and their bars. The images are those that `cargo xtask guests` has built.

use crate::bed::{Bed, times};
use crate::data;
use crate::disa;
use crate::figure::{Bar, Figure, Samples, microseconds, seconds};
use crate::list::{Bench, LONG_ROUNDS, ONE_CORE, ROUNDS, in_turns, latencies, on_one_core, on_two_cores, part, udp_round_trip};
use crate::timed::{Timed, timed};
use anyhow::{Context, Result, bail, ensure};
use dvm_hosts::{User, output_within};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// All of them.
pub const BENCHES: [Bench; 5] = [
    Bench { name: "kvm-loop", run: compute },
    Bench { name: "kvm-read", run: remote_read },
    Bench { name: "kvm-ipi", run: interrupt },
    Bench { name: "kvm-kmeans-gain", run: k_means },
    Bench { name: "kvm-table", run: table },
];

const TWO_HOSTS: &str = "h0,h1";
const ONE_HOST: &str = "h0";
const BOTH_CORES: &str = "0,1";
const RUN_LATEST: Duration = Duration::from_secs(120);
const STEPS: &str = "200000000";
const LOOP_MOST: f64 = 1.02;
/// What a figure may be above what it is made of.
const ABOVE: f64 = 1.2;
const GAIN_LEAST: f64 = 0.85;
/// Odd orders of pages need a power of two.
const PAGES: usize = 1024;
/// Enough that pages go back and forth where they are written by both.
const TABLE_OPERATIONS: &str = "1000000";
/// A core that is slower for a whole run, as those of virtual machines are now and then, must not make the median.
const GAIN_ROUNDS: usize = 9;
const CENTROIDS: &str = "50bad9aa63f0251f";

fn image(bed: &Bed, name: &str) -> Result<PathBuf> {
    let target = bed.executor().parent().and_then(Path::parent).context("no target directory")?.join("guests").join(name);
    ensure!(target.exists(), "{} is not built: cargo xtask guests", target.display());
    Ok(target)
}

/// The command that runs a guest with a processor on each of these hosts, the root pinned.
fn guest(bed: &Bed, hosts: &str, cpus: usize, list: &str, words: &[&str]) -> Result<Command> {
    let (name, words) = words.split_first().context("a guest has a name")?;
    let mut command = bed.hosts.command(0, User::Root, Path::new("taskset"))?;
    command.args(["-c", list]).arg(&bed.hosts.binaries().exec).args(["kvm", "run", "--stat", "--mem", "128M", "--cpus"]);
    command.arg(cpus.to_string()).args(["--hosts", hosts, "--socket"]).arg(&bed.hosts.host(0)?.socket);
    command.arg(image(bed, name)?).args(words);
    Ok(command)
}

/// What it prints, and the figures behind it.
fn said(mut command: Command) -> Result<[String; 2]> {
    let output = output_within(&mut command, RUN_LATEST)?;
    if !output.status.success() {
        bail!("a guest ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok([&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
}

/// A counter of all agents, of lines `host NAME counter value ...`.
fn counted(told: &str, name: &str) -> u64 {
    let words = told.lines().filter(|line| line.starts_with("host ")).flat_map(|line| line.split(' ').collect::<Vec<_>>());
    let words: Vec<&str> = words.collect();
    let values = words.windows(2).filter(|pair| pair[0] == name).filter_map(|pair| pair[1].parse::<u64>().ok());
    values.sum()
}

fn measure(bed: &Bed, hosts: &str, cpus: usize, words: [&str; 2]) -> Result<String> {
    let [said, _] = said(guest(bed, hosts, cpus, ONE_CORE, &["measure", words[0], words[1]])?)?;
    Ok(said)
}

fn compute(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_one_core(bed)?;
    let [ours, native] = in_turns(bed, ROUNDS, |bed| {
        let (_, native) = bed.native(ONE_CORE, &bed.program("loop"), &[STEPS.to_owned()])?;
        Ok([times(&measure(bed, ONE_HOST, 1, ["loop", STEPS])?, "loop")?, times(&native, "loop")?])
    })?;
    let detail = format!("{STEPS} steps in a guest: {ours}; native: {native}");
    let [ours, native] = [&ours, &native].map(|times| seconds(times.median()));
    Ok(vec![Figure::new("compute loop of a guest (s)", ours, native, Bar::AtMost(LOOP_MOST), detail)])
}

/// A processor of a guest leaves it for a fault, which the executor's thread does not. Both hosts share a core, or have one each.
fn remote_read(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_one_core(bed)?;
    let one = read_beside_executor(bed, "one core")?;
    on_two_cores(bed)?;
    Ok(vec![one, read_beside_executor(bed, "a core each")?])
}

fn read_beside_executor(bed: &mut Bed, cores: &str) -> Result<Figure> {
    let pages = PAGES.to_string();
    let count = part(bed).to_string();
    let [ours, executor, exits] = in_turns(bed, ROUNDS, |bed| {
        let ours = times(&measure(bed, TWO_HOSTS, 2, ["read", &pages])?, "latency")?;
        let exits = times(&measure(bed, ONE_HOST, 1, ["exits", &count])?, "exit")?;
        Ok([ours, latencies(bed, "read")?, exits])
    })?;
    let floor = microseconds(executor.median() + exits.median());
    let detail = format!("{ours}; the executor's: {executor}; leaving a guest and coming back: {exits}");
    let name = format!("remote read fault of a guest p50, {cores} (us)");
    Ok(Figure::new(&name, microseconds(ours.median()), floor, Bar::AtMost(ABOVE), detail))
}

/// There and back: each way a processor writes the command and another one is interrupted.
fn interrupt(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_two_cores(bed)?;
    let count = part(bed).to_string();
    let [ours, udp, exits] = in_turns(bed, ROUNDS, |bed| {
        let ours = times(&measure(bed, TWO_HOSTS, 2, ["ipi", &count])?, "latency")?;
        let exits = times(&measure(bed, ONE_HOST, 1, ["exits", &count])?, "exit")?;
        Ok([ours, udp_round_trip(bed)?, exits])
    })?;
    let floor = microseconds(2 * udp.median() + 4 * exits.median());
    let detail = format!("{ours}; floor: 2 UDP round trips of {udp}, 4 exits of {exits}");
    let measured = microseconds(ours.median());
    Ok(vec![Figure::new("interrupt to another host and back p50 (us)", measured, floor, Bar::AtMost(ABOVE), detail)])
}

/// From `begin`, when the points are there, to the result.
fn k_means(bed: &mut Bed) -> Result<Vec<Figure>> {
    let mut bed = disa::hosts(bed)?;
    let points = bed.program("points");
    data::write_points(&points)?;
    let checked = |timed: Timed| {
        ensure!(timed.last == CENTROIDS, "`{}` instead of {CENTROIDS}", timed.last);
        Ok(Samples::of(timed.work))
    };
    let [native_one, one, native_two, two] = in_turns(&mut bed, GAIN_ROUNDS, |bed| {
        let native = |list: &str, threads: &str| {
            let mut command = Command::new("taskset");
            command.args(["-c", list]).arg(bed.program("omp")).arg("kmeans").arg(&points).env("OMP_NUM_THREADS", threads);
            checked(timed(&mut command)?)
        };
        let ours = |hosts: &str, cpus| checked(timed(&mut guest(bed, hosts, cpus, ONE_CORE, &["kmeans"])?)?);
        Ok([native(ONE_CORE, "1")?, ours(ONE_HOST, 1)?, native(BOTH_CORES, "2")?, ours(TWO_HOSTS, 2)?])
    })?;
    let detail =
        format!("a guest on one host: {one}; on two hosts of one core: {two}; C on one core: {native_one}; on two: {native_two}");
    let gain = |one: &Samples, two: &Samples| seconds(one.median()) / seconds(two.median());
    let (ours, native) = (gain(&one, &two), gain(&native_one, &native_two));
    Ok(vec![Figure::new("what a second host brings k-means (times)", ours, native, Bar::AtLeast(GAIN_LEAST), detail)])
}

/// Remote faults of both hosts, and frames of the page layer between them, those of the kernel's programs with them.
fn exchanged(told: &str) -> [u64; 2] {
    [counted(told, "faults_remote"), counted(told, "frames_out") + counted(told, "frames_in_kernel")]
}

/// The same guest on one host of two processors and on two hosts. One operation at a time, so that what is counted is of that alone;
/// what the same guest takes without operations, to start and to end, is taken off.
fn table(bed: &mut Bed) -> Result<Vec<Figure>> {
    const NAMES: [&str; 4] = ["read-only", "local-write", "global-write", "mutex"];
    on_two_cores(bed)?;
    NAMES.iter().map(|name| operation(bed, name)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of seconds, and counts")]
fn operation(bed: &Bed, name: &str) -> Result<Figure> {
    let operations = TABLE_OPERATIONS.parse::<f64>()?;
    let [mut one, mut two] = [Samples::default(), Samples::default()];
    let [mut with, mut without] = [[0; 2]; 2];
    let add = |sum: &mut [u64; 2], told: &str| sum.iter_mut().zip(exchanged(told)).for_each(|(sum, count)| *sum += count);
    for _ in 0..LONG_ROUNDS {
        let words = ["measure", name, TABLE_OPERATIONS];
        let [alone, _] = said(guest(bed, ONE_HOST, 2, BOTH_CORES, &words)?)?;
        let [apart, told] = said(guest(bed, TWO_HOSTS, 2, ONE_CORE, &words)?)?;
        let [_, idle] = said(guest(bed, TWO_HOSTS, 2, ONE_CORE, &["measure", name, "0"])?)?;
        one.merge(times(&alone, name)?);
        two.merge(times(&apart, name)?);
        add(&mut with, &told);
        add(&mut without, &idle);
    }
    let all = 2.0 * operations * LONG_ROUNDS as f64;
    let [faults, frames] = [0, 1].map(|index| (with[index] as f64 - without[index] as f64) / all);
    let detail = format!(
        "{TABLE_OPERATIONS} operations of each processor on two hosts: {two}; on one: {one}; an operation on two hosts takes {faults:.6} \
         remote faults and {frames:.6} frames ({with:?} in all, {without:?} without operations)",
    );
    let [one, two] = [one, two].map(|times| times.median() as f64 / operations);
    Ok(Figure::new(&format!("{name} of a guest's two processors (ns)"), two, one, Bar::None, detail))
}

#[cfg(test)]
mod tests {
    use super::{counted, exchanged};

    #[test]
    fn counters_of_all_hosts_are_added() {
        let told = "cpu 0 exits 5\nhost a faults_remote 7 frames_out 2\nhost b frames_out 3 frames_in_kernel 4\n";
        assert_eq!(["faults_remote", "frames_out", "exits"].map(|name| counted(told, name)), [7, 5, 0]);
        assert_eq!(exchanged(told), [7, 9]);
    }
}

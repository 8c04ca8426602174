//! DISA programs over two hosts of one core each, beside other systems and C with as many workers.
//!
//! Owns what is compared and the bars. Must not know how peers are installed or what they call their tasks.
//!
//! What is not measured, on any side: start of processes, hosts and workers, load, and compilation of what peers run. Everybody
//! prints `begin` when that is over, and the time runs from there to the next line, as [`timed`] reads both.
//!
//! * Ours: `main` of the shipped program becomes a runner that a new `main` makes in the commit that releases `begin`. So
//!   making the runners and translating them count, and what the second host is late. Files are on each host when a run begins.
//!   The next line is the result; empty runners have none, and end with the run.
//! * Peers have done a little of the same work before, so that workers are there, data is read and kernels are compiled. The
//!   next line says that the result is there; the check value comes behind it.
//! * C has its data in memory and its threads. The next line is the result.

use crate::bed::{self, Bed, processors};
use crate::calls::tcp_round_trip;
use crate::data;
use crate::figure::{Bar, Figure, Samples, microseconds, seconds};
use crate::list::{Bench, LONG_ROUNDS, ONE_CORE, in_turns, last_core, on_two_cores, p50};
use crate::peers::{Peer, Peers};
use crate::timed::{Timed, timed};
use anyhow::{Context, Result, ensure};
use dvm_hosts::{User, output_within};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// All of them.
pub const BENCHES: [Bench; 9] = [
    Bench { name: "disa-tasks", run: |bed| beside(bed, tasks, TASKS_RIVALS) },
    Bench { name: "disa-treesum", run: |bed| beside(bed, tree_sum, TREE_SUM_RIVALS) },
    Bench { name: "disa-kmeans", run: |bed| beside(bed, k_means, K_MEANS_RIVALS) },
    Bench { name: "disa-kmeans-jvm", run: |bed| beside(bed, k_means, K_MEANS_JVM_RIVALS) },
    Bench { name: "disa-wordcount", run: |bed| beside(bed, word_count, WORD_COUNT_RIVALS) },
    Bench { name: "disa-wordcount-jvm", run: |bed| beside(bed, word_count, WORD_COUNT_JVM_RIVALS) },
    Bench { name: "disa-commit", run: commit },
    Bench { name: "disa-threads", run: threads },
    Bench { name: "disa-primes-gain", run: primes_gain },
];

const TASKS_RIVALS: &[(Rival, Bar)] =
    &[(Rival::Peer(Peer::Ray), Bar::AtLeast(10.0)), (Rival::Peer(Peer::Dask), Bar::AtLeast(10.0)), (Rival::OneHost, Bar::None)];
const TREE_SUM_RIVALS: &[(Rival, Bar)] =
    &[(Rival::Peer(Peer::Ray), Bar::AtLeast(10.0)), (Rival::Peer(Peer::Dask), Bar::AtLeast(10.0))];
const K_MEANS_RIVALS: &[(Rival, Bar)] =
    &[(Rival::C, Bar::AtMost(2.0)), (Rival::Peer(Peer::Ray), Bar::AtLeast(1.0)), (Rival::Peer(Peer::Dask), Bar::AtLeast(1.0))];
const K_MEANS_JVM_RIVALS: &[(Rival, Bar)] =
    &[(Rival::Peer(Peer::PySpark), Bar::AtLeast(10.0)), (Rival::Peer(Peer::Hadoop), Bar::AtLeast(10.0))];
const WORD_COUNT_RIVALS: &[(Rival, Bar)] =
    &[(Rival::C, Bar::AtMost(2.5)), (Rival::Peer(Peer::Ray), Bar::AtLeast(3.0)), (Rival::Peer(Peer::Dask), Bar::AtLeast(3.0))];
const WORD_COUNT_JVM_RIVALS: &[(Rival, Bar)] = &[(Rival::Peer(Peer::Hadoop), Bar::AtLeast(3.0))];
/// Of two round trips over the network.
const COMMIT_MAX: f64 = 1.2;
const PRIMES_GAIN_MIN: f64 = 0.93;

const TASKS: u32 = 10_240;
const PRIMES_BELOW: &str = "20000000";
const WORKERS: usize = 2;
const TWO_HOSTS: &str = "h0,h1";
const ONE_HOST: &str = "h0";
const BOTH_CORES: &str = "0,1";
const FUEL: &str = "1000000000000";
const MAIN: &str = "runner main() {";
const C_SOURCE: &str = include_str!("../programs/omp.c");
const PROCESSES_SOURCE: &str = include_str!("../programs/processes.c");
const COMPILE_LATEST: Duration = Duration::from_secs(60);

/// Whom we are measured beside.
#[derive(Debug, Clone, Copy)]
enum Rival {
    /// C with OpenMP.
    C,
    /// Another system.
    Peer(Peer),
    /// Ourselves with one worker.
    OneHost,
}

impl Rival {
    fn name(self) -> String {
        match self {
            Self::C => format!("C, OpenMP, gcc -O2, {WORKERS} threads"),
            Self::Peer(peer) => format!("{}, {WORKERS} workers", peer.name()),
            Self::OneHost => "one host".into(),
        }
    }
}

/// How it is seen that all was done.
#[derive(Debug, Clone, Copy)]
enum Check {
    /// The last line of everybody.
    Line(&'static str),
    /// So many tasks: the last line of peers; of ours, two more runners have committed.
    Tasks(u32),
}

/// A program of ours, and what it does.
struct Work {
    /// Its name, which peers know, too.
    name: &'static str,
    /// Text of the shipped program.
    source: &'static str,
    /// What of shared memory its `main` uses.
    uses: &'static str,
    /// Other values of its constants.
    defines: &'static [&'static str],
    /// The file it works on.
    data: Option<PathBuf>,
    /// What must come out.
    check: Check,
    /// Most conflicts for each commit, if that is promised.
    retries_max: Option<f64>,
}

/// A run of ours.
struct Run {
    times: Samples,
    /// What `--stat` says.
    statistics: String,
}

fn tasks(_: &Bed) -> Result<Work> {
    let source = include_str!("../programs/tasks.dc");
    Ok(Work { name: "tasks", source, uses: "", defines: &[], data: None, check: Check::Tasks(TASKS), retries_max: None })
}

fn tree_sum(_: &Bed) -> Result<Work> {
    let source = include_str!("../../dvm-exec/disa/programs/treesum.dc");
    let check = Check::Line("209725440");
    Ok(Work { name: "treesum", source, uses: " using ints", defines: &[], data: None, check, retries_max: Some(0.0) })
}

fn k_means(bed: &Bed) -> Result<Work> {
    let data = bed.program("points");
    data::write_points(&data)?;
    Ok(Work {
        name: "kmeans",
        source: include_str!("../../dvm-exec/disa/programs/kmeans.dc"),
        uses: " using means",
        defines: &["PARTS=16", "POINTS=62500"],
        data: Some(data),
        check: Check::Line("50bad9aa63f0251f"),
        retries_max: None,
    })
}

fn word_count(bed: &Bed) -> Result<Work> {
    let data = bed.program("text");
    data::write_text(&data)?;
    Ok(Work {
        name: "wordcount",
        source: include_str!("../../dvm-exec/disa/programs/wordcount.dc"),
        uses: "",
        defines: &["PARTS=2"],
        data: Some(data),
        check: Check::Line("7e89e30bd31fc2e9/13094800/50000"),
        retries_max: None,
    })
}

fn primes(_: &Bed) -> Result<Work> {
    let source = include_str!("../../dvm-exec/disa/programs/primes.dc");
    Ok(Work { name: "primes", source, uses: "", defines: &[], data: None, check: Check::Line("1270607"), retries_max: None })
}

fn links(_: &Bed) -> Result<Work> {
    let source = include_str!("../programs/commit.dc");
    let check = Check::Line("4000");
    Ok(Work { name: "commit", source, uses: " using cells", defines: &[], data: None, check, retries_max: None })
}

impl Work {
    /// The program, which says when its work begins.
    fn announced(&self) -> Result<String> {
        let Self { name, source, uses, .. } = self;
        ensure!(source.matches(MAIN).count() == 1, "{name}: `{MAIN}` is not once in the program");
        let work = source.replace(MAIN, "runner work() {");
        Ok(format!("{work}\nrunner main() {{\n    print(\"begin\\n\");\n    runner work(){uses};\n}}\n"))
    }

    /// Runs it over these hosts, the root on the first core.
    fn run(&self, bed: &Bed, hosts: &str) -> Result<Run> {
        let source = bed.program(&format!("{}.dc", self.name));
        fs::write(&source, self.announced()?)?;
        let mut command = bed.hosts.command(0, User::Root, Path::new("taskset"))?;
        command.args(["-c", ONE_CORE]).arg(&bed.hosts.binaries().exec).args(["disa", "run", "--stat", "--tier", "1"]);
        command.args(["--fuel", FUEL, "--hosts", hosts, "--socket"]).arg(&bed.hosts.host(0)?.socket);
        command.args(self.defines.iter().flat_map(|define| ["-D", define]));
        if let Some(file) = &self.data {
            command.arg("--file").arg(file);
        }
        let timed = timed(command.arg(&source).args(&self.data)).with_context(|| format!("{} over {hosts}", self.name))?;
        let ends = timed.stderr.lines().filter(|line| line.starts_with("ended on ")).count();
        // A chain has one runner at a time, which stays where it is.
        let is_spread = ends == hosts.split(',').count() || self.name == "commit";
        ensure!(is_spread, "{} over {hosts}: runners ended on {ends} hosts only", self.name);
        match self.check {
            Check::Line(line) => self.expect(line, &timed, hosts)?,
            Check::Tasks(count) => {
                let told = format!(" committed {} ", count + 2);
                ensure!(timed.stderr.contains(&told), "{} over {hosts}: not `{told}`: {}", self.name, timed.stderr);
            }
        }
        Ok(Run { times: Samples::of(timed.work), statistics: timed.stderr })
    }

    /// Runs a command that does the same.
    fn run_rival(&self, mut command: Command, name: &str) -> Result<Samples> {
        let timed = timed(&mut command).with_context(|| format!("{} by {name}", self.name))?;
        match self.check {
            Check::Line(line) => self.expect(line, &timed, name)?,
            Check::Tasks(count) => self.expect(&count.to_string(), &timed, name)?,
        }
        Ok(Samples::of(timed.work))
    }

    fn expect(&self, line: &str, timed: &Timed, who: &str) -> Result<()> {
        ensure!(timed.last == line, "{} by {who} printed `{}`, not `{line}`", self.name, timed.last);
        Ok(())
    }

    /// The same in C, with so many threads.
    fn in_c(&self, bed: &Bed, list: &str, argument: &Path, threads: usize) -> Result<Samples> {
        let mut command = Command::new("taskset");
        command.args(["-c", list]).arg(bed.program("omp")).arg(self.name).arg(argument);
        command.env("OMP_NUM_THREADS", threads.to_string());
        self.run_rival(command, "C")
    }

    /// What an amount of time means, and its unit.
    fn rate(&self, times: &Samples) -> (f64, &'static str) {
        let runs = 1.0 / seconds(times.median());
        match self.check {
            Check::Line(_) => (runs, "runs/s"),
            Check::Tasks(count) => (f64::from(count) * runs, "tasks/s"),
        }
    }

    fn figure(&self, rival: Rival, bar: Bar, [ours, theirs]: [&Samples; 2]) -> Figure {
        let name = rival.name();
        let detail = format!("from `begin` to the result on two hosts of one core: {ours}; {name}: {theirs}");
        if let Bar::AtMost(_) = bar {
            let [ours, theirs] = [ours, theirs].map(|times| seconds(times.median()));
            return Figure::new(&format!("{} against {name} (s)", self.name), ours, theirs, bar, detail);
        }
        let ((ours, unit), (theirs, _)) = (self.rate(ours), self.rate(theirs));
        Figure::new(&format!("{} against {name} ({unit})", self.name), ours, theirs, bar, detail)
    }
}

/// Two hosts of one core, and the C program.
pub fn hosts(bed: &Bed) -> Result<Bed> {
    ensure!(processors() >= 2, "needs two processors");
    let bed = bed.of_one_processor()?;
    on_two_cores(&bed)?;
    compile(&bed, "omp", C_SOURCE, &["-fopenmp"])?;
    Ok(bed)
}

/// Has gcc compile a program.
fn compile(bed: &Bed, name: &str, text: &str, options: &[&str]) -> Result<()> {
    let source = bed.program(&format!("{name}.c"));
    fs::write(&source, text)?;
    let mut gcc = Command::new("gcc");
    let output = output_within(gcc.arg("-O2").args(options).arg("-o").args([&bed.program(name), &source]), COMPILE_LATEST);
    let output = output.context("cannot run gcc")?;
    ensure!(output.status.success(), "gcc {name}.c: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// A work over two hosts and by all rivals that are there, in turns.
fn beside(bed: &mut Bed, work: impl Fn(&Bed) -> Result<Work>, rivals: &[(Rival, Bar)]) -> Result<Vec<Figure>> {
    let peers = Peers::prepare()?;
    let is_there = |rival: &Rival| !matches!(rival, Rival::Peer(peer) if peers.lack(*peer).is_some());
    for (rival, _) in rivals {
        if let Rival::Peer(peer) = rival {
            peers.lack(*peer).into_iter().for_each(|reason| bed.skip(peer.name(), reason));
        }
    }
    let bed = hosts(bed)?;
    let work = work(&bed)?;
    let run = |rival: Rival| match rival {
        Rival::OneHost => Ok(work.run(&bed, ONE_HOST)?.times),
        Rival::C => work.in_c(&bed, BOTH_CORES, work.data.as_deref().context("no data for C")?, WORKERS),
        Rival::Peer(peer) => {
            work.run_rival(peers.command(peer, BOTH_CORES, work.name, WORKERS, work.data.as_deref())?, peer.name())
        }
    };
    let (mut ours, mut retries) = (Samples::default(), Vec::new());
    let mut theirs: Vec<_> = rivals.iter().filter(|(rival, _)| is_there(rival)).map(|pair| (pair, Samples::default())).collect();
    for _ in 0..LONG_ROUNDS {
        let Run { times, statistics } = work.run(&bed, TWO_HOSTS)?;
        ours.merge(times);
        retries.push((counted(&statistics, "conflicts")?, counted(&statistics, "committed")?));
        for ((rival, _), samples) in &mut theirs {
            samples.merge(run(*rival)?);
        }
    }
    let mut figures: Vec<Figure> =
        theirs.iter().map(|((rival, bar), samples)| work.figure(*rival, *bar, [&ours, samples])).collect();
    figures.extend(work.retries_max.map(|most| retried(work.name, most, &retries)));
    Ok(figures)
}

/// A count that `--stat` shows.
fn counted(statistics: &str, name: &str) -> Result<f64> {
    let mut words = statistics.lines().filter(|line| line.starts_with("starts ")).flat_map(str::split_whitespace);
    let count = words.by_ref().find(|word| *word == name).and_then(|_| words.next());
    count.and_then(|count| count.parse().ok()).with_context(|| format!("`{name}` is not told: {statistics}"))
}

/// Conflicts for each commit, all rounds together.
fn retried(name: &str, most: f64, rounds: &[(f64, f64)]) -> Figure {
    let (conflicts, commits) = rounds.iter().fold((0.0, 0.0), |sum, round| (sum.0 + round.0, sum.1 + round.1));
    let detail = format!("{conflicts} conflicts, {commits} commits in {} runs", rounds.len());
    Figure::new(&format!("{name}: retries for each commit"), conflicts / commits, 1.0, Bar::AtMost(most), detail)
}

/// How long a commit takes whose page another host is the home of, beside two round trips over the network.
fn commit(bed: &mut Bed) -> Result<Vec<Figure>> {
    let mut bed = hosts(bed)?;
    let work = links(&bed)?;
    let mut told = Vec::new();
    let [ours, tcp] = in_turns(&mut bed, LONG_ROUNDS, |bed| {
        let statistics = work.run(bed, TWO_HOSTS)?.statistics;
        let line = statistics.lines().find(|line| line.starts_with("commits of ")).context("no commit asked another host")?;
        let p50 = line.split_whitespace().skip_while(|word| *word != "p50").nth(1).and_then(|word| word.parse().ok());
        let p50 = p50.with_context(|| format!("no median in `{line}`"))?;
        told.push(line.to_owned());
        Ok([Samples::of(Duration::from_micros(p50)), tcp_round_trip(bed, &last_core())?])
    })?;
    let floor = 2.0 * microseconds(tcp.median());
    let detail = format!("{}; TCP round trip: {tcp}", told.join("; "));
    Ok(vec![Figure::new("commit of a page at another host p50 (us)", p50(&ours), floor, Bar::AtMost(COMMIT_MAX), detail)])
}

/// What a runner takes as a thread of the husk, all of it, beside the least it would take as a process.
fn threads(bed: &mut Bed) -> Result<Vec<Figure>> {
    let mut bed = hosts(bed)?;
    compile(&bed, "processes", PROCESSES_SOURCE, &[])?;
    let work = tree_sum(&bed)?;
    let [ours, processes] = in_turns(&mut bed, LONG_ROUNDS, |bed| {
        let Run { times, statistics } = work.run(bed, ONE_HOST)?;
        let starts = counted(&statistics, "starts")?;
        let each = Samples::of(Duration::from_secs_f64(seconds(times.median()) / starts));
        let (_, output) = bed.native(ONE_CORE, &bed.program("processes"), &[TASKS.to_string()])?;
        Ok([each, bed::times(&output, "runner")?])
    })?;
    let detail =
        format!("treesum on one host of one core, for each runner started: {ours}; two pages mapped, one compared: {processes}");
    let (ours, floor) = (microseconds(ours.median()), microseconds(processes.median()));
    Ok(vec![Figure::new(
        "a runner, all of it, against what a process takes for it at least (us)",
        ours,
        floor,
        Bar::None,
        detail,
    )])
}

/// What a second host brings, beside what a second core brings the same loop in C.
fn primes_gain(bed: &mut Bed) -> Result<Vec<Figure>> {
    let mut bed = hosts(bed)?;
    let work = primes(&bed)?;
    let [one, two, one_native, two_native] = in_turns(&mut bed, LONG_ROUNDS, |bed| {
        let native = |list, threads| work.in_c(bed, list, Path::new(PRIMES_BELOW), threads);
        Ok([work.run(bed, ONE_HOST)?.times, work.run(bed, TWO_HOSTS)?.times, native(ONE_CORE, 1)?, native(BOTH_CORES, 2)?])
    })?;
    let gain = |one: &Samples, two: &Samples| seconds(one.median()) / seconds(two.median());
    let detail = format!("one host of one core: {one}; two: {two}; C on one core: {one_native}; on two: {two_native}");
    let (ours, native) = (gain(&one, &two), gain(&one_native, &two_native));
    Ok(vec![Figure::new("primes: gain from a second host", ours, native, Bar::AtLeast(PRIMES_GAIN_MIN), detail)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_begins_with_a_runner_of_its_own() {
        let work = |source| Work {
            name: "x",
            source,
            uses: " using a",
            defines: &[],
            data: None,
            check: Check::Tasks(1),
            retries_max: None,
        };
        let text = work("long a;\nrunner main() {\n    a = 1;\n}\n").announced().unwrap();
        assert!(text.contains("runner work() {\n    a = 1;\n}\n"), "{text}");
        assert!(text.ends_with("runner main() {\n    print(\"begin\\n\");\n    runner work() using a;\n}\n"), "{text}");
        assert!(work("runner other() {}").announced().is_err());
    }

    #[test]
    fn counts_are_found() {
        let told = "x\nstarts 7 instructions 9 conflicts 2 lost 0\nended on h0 3";
        assert_eq!(counted(told, "conflicts").unwrap().to_string(), "2");
        assert!(counted(told, "ended").is_err());
        assert!(!retried("x", 0.0, &[(0.0, 5.0), (1.0, 5.0)]).holds());
        assert!(retried("x", 0.0, &[(0.0, 5.0)]).holds());
    }
}

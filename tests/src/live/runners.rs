//! DISA programs over hosts: they print what the machine of one host prints, and at full size what is known of them.
//!
//! Owns which programs. Must not know what they compute.

use super::bed::{Bed, shortened};
use super::case::Case;
use super::failures::{HOST_LOST, husks};
use super::words;
use anyhow::{Context, Result, ensure};
use dvm_hosts::{User, kill_process};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A run that takes longer hangs.
const RUN_SECONDS: &str = "90";
/// Exit code when a host of a job cannot do its part from the start, as `docs/operating.md` has it.
const MEMBER_REFUSED: i32 = 83;
/// The host that is lost.
const VICTIM: usize = 1;
const STARTS_LATEST: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(5);

const PROGRAMS: [(&str, &str); 6] = [
    ("treesum", include_str!("../../../dvm-exec/disa/programs/treesum.disa")),
    ("bank", include_str!("../../../dvm-exec/disa/programs/bank.disa")),
    ("storm", include_str!("../../../dvm-exec/disa/programs/storm.disa")),
    ("kmeans", include_str!("../../../dvm-exec/disa/programs/kmeans.disa")),
    ("primes", include_str!("../../../dvm-exec/disa/programs/primes.disa")),
    ("write-skew", include_str!("../../../dvm-exec/disa/programs/write-skew.disa")),
];

/// Name, text, and what it prints at the size it is shipped with.
const FULL: [(&str, &str, &str); 7] = [
    ("treesum", include_str!("../../../dvm-exec/disa/programs/treesum.dc"), "209725440"),
    ("primes", include_str!("../../../dvm-exec/disa/programs/primes.dc"), "1270607"),
    ("kmeans", LONG, "50bad9aa63f0251f"),
    // Of these two numpy knows the same.
    ("matmul", include_str!("../../../dvm-exec/disa/programs/matmul.dc"), "3586837754459228"),
    ("sort", include_str!("../../../dvm-exec/disa/programs/sort.dc"), "-8492870652190057193"),
    ("bank", include_str!("../../../dvm-exec/disa/programs/bank.dc"), "64000"),
    ("storm", include_str!("../../../dvm-exec/disa/programs/storm.dc"), "10240"),
];
const FULL_HOSTS: usize = 3;
const FULL_LATEST: Duration = Duration::from_secs(200);
const WORD_COUNT: &str = include_str!("../../../dvm-exec/disa/programs/wordcount.dc");
const TEXT_BYTES: usize = 100_000_000;

/// A program of some seconds, of which every host has pages.
const LONG: &str = include_str!("../../../dvm-exec/disa/programs/kmeans.dc");

/// The cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for hosts in [2, 3] {
        for (name, source) in PROGRAMS {
            let mut case = Case::new(format!("disa-{name}-{hosts}"), hosts, move |bed| same_as_local(bed, name, source));
            case.deadline = Duration::from_secs(200);
            cases.push(case);
        }
    }
    for (name, source, prints) in FULL {
        let mut case =
            Case::new(format!("disa-full-{name}-{FULL_HOSTS}"), FULL_HOSTS, move |bed| full(bed, name, source, prints));
        case.deadline = FULL_LATEST;
        cases.push(case);
    }
    let mut case = Case::new(format!("disa-full-wordcount-{FULL_HOSTS}"), FULL_HOSTS, full_word_count);
    case.deadline = FULL_LATEST;
    cases.push(case);
    cases.push(Case::new("disa-traps-2", 2, traps));
    for (name, blow) in [("husk", Blow::Husk), ("agent", Blow::Agent)] {
        let mut case = Case::new(format!("disa-lost-{name}-3"), 3, move |bed| lose(bed, blow));
        case.deadline = Duration::from_secs(300);
        cases.push(if blow == Blow::Agent { case.harmful() } else { case });
    }
    cases
}

/// What dies on a host of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    /// The husk.
    Husk,
    /// The agent, and with it the husk.
    Agent,
}

/// A member is lost at several moments of a run: what comes out is what would have come out.
fn lose(bed: &mut Bed<'_>, blow: Blow) -> Result<String> {
    let path = written(bed, "kmeans.dc", LONG)?;
    let expected = run(bed, &["--local"], &path)?;
    let mut told = 0;
    // An agent can be killed once: the hosts are made anew afterwards.
    let blows: &[u64] = if blow == Blow::Agent { &[900] } else { &[0, 400, 1500] };
    for after_ms in blows {
        let running = over_hosts_command(bed, &path)?.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let latest = Instant::now() + STARTS_LATEST;
        let husk = loop {
            match husks(bed, VICTIM)?.first() {
                Some(husk) => break *husk,
                None => ensure!(Instant::now() < latest, "no husk on host {VICTIM} after {} s", STARTS_LATEST.as_secs()),
            }
            sleep(POLL);
        };
        sleep(Duration::from_millis(*after_ms));
        match blow {
            Blow::Husk => kill_process(husk),
            Blow::Agent => kill_process(bed.hosts.agent(VICTIM)?.context("no agent to kill")?.pid),
        }
        let found = running.wait_with_output()?;
        let said = String::from_utf8_lossy(&found.stderr);
        // Before the run has begun, who asked for the host is told.
        let is_refused = matches!(found.status.code(), Some(MEMBER_REFUSED | HOST_LOST)) && said.contains("host h1");
        ensure!(
            is_refused && *after_ms == 0 || (found.status.code(), &found.stdout) == (expected.status.code(), &expected.stdout),
            "after {after_ms} ms: {:?} with {:?}; stderr: {}",
            found.status.code(),
            String::from_utf8_lossy(&found.stdout),
            shortened(&said)
        );
        told += usize::from(said.contains("its runners run again on others"));
    }
    ensure!(told > 0, "no run was still under way when its host was lost");
    Ok(format!("{told} of {} runs went on without a host", blows.len()))
}

/// What differs from the shipped program: sizes that an interpreter does in seconds, and a rule that leaves one result.
fn source_of(name: &str, source: &str) -> Result<String> {
    let (from, to) = match name {
        "primes" => (".equ CHUNK, 100000", ".equ CHUNK, 1000"),
        "write-skew" => (".entry main", ".serializable\n.entry main"),
        _ => return Ok(source.to_owned()),
    };
    ensure!(source.contains(from), "{name}: `{from}` is not in the program");
    Ok(source.replace(from, to))
}

fn written(bed: &Bed<'_>, name: &str, source: &str) -> Result<PathBuf> {
    let directory = bed.workshop.job_directory();
    std::fs::create_dir_all(&directory)?;
    let path = directory.join(name);
    std::fs::write(&path, source).with_context(|| path.display().to_string())?;
    Ok(path)
}

fn run(bed: &Bed<'_>, options: &[&str], path: &Path) -> Result<Output> {
    command(bed, options, path)?.output().context("cannot start dvm-exec")
}

fn command(bed: &Bed<'_>, options: &[&str], path: &Path) -> Result<Command> {
    let mut command = bed.hosts.command(0, User::Root, Path::new("timeout"))?;
    command.arg(RUN_SECONDS).arg(&bed.hosts.binaries().exec).args(["disa", "run", "--stat"]).args(options).arg(path);
    Ok(command)
}

fn over_hosts(bed: &Bed<'_>, path: &Path) -> Result<Output> {
    over_hosts_command(bed, path)?.output().context("cannot start dvm-exec")
}

fn over_hosts_command(bed: &Bed<'_>, path: &Path) -> Result<Command> {
    let socket = bed.hosts.host(0)?.socket.display().to_string();
    command(bed, &["--socket", &socket], path)
}

fn same_as_local(bed: &mut Bed<'_>, name: &str, source: &str) -> Result<String> {
    let path = written(bed, &format!("{name}.disa"), &source_of(name, source)?)?;
    let expected = run(bed, &["--local"], &path)?;
    let found = over_hosts(bed, &path)?;
    let told = String::from_utf8_lossy(&found.stderr);
    ensure!(
        (found.status.code(), &found.stdout) == (expected.status.code(), &expected.stdout),
        "{:?} with {:?} instead of {:?} with {:?}; stderr: {}",
        found.status.code(),
        String::from_utf8_lossy(&found.stdout),
        expected.status.code(),
        String::from_utf8_lossy(&expected.stdout),
        shortened(&told)
    );
    let ends: Vec<&str> = told.lines().filter_map(|line| line.strip_prefix("ended on ")).collect();
    // Write skew has few runners, which one host may have taken.
    let is_spread = ends.len() == bed.hosts.hosts().len() || name == "write-skew";
    ensure!(is_spread, "not every host ran a runner: {}", shortened(&told));
    Ok(ends.join(", "))
}

fn full(bed: &mut Bed<'_>, name: &str, source: &str, prints: &str) -> Result<String> {
    let path = written(bed, &format!("{name}.dc"), source)?;
    // Transfers are over before every host has taken one.
    let least = if name == "bank" { 1 } else { FULL_HOSTS };
    prints_exactly(over_hosts_command(bed, &path)?, prints, least)
}

/// Of 100 MB.
fn full_word_count(bed: &mut Bed<'_>) -> Result<String> {
    let text = words::text(TEXT_BYTES);
    let (expected, path) = (words::counted(&text), written(bed, "wordcount.dc", WORD_COUNT)?);
    let file = path.with_file_name("text");
    std::fs::write(&file, text)?;
    let socket = bed.hosts.host(0)?.socket.display().to_string();
    let given = file.display().to_string();
    let mut command = command(bed, &["--socket", &socket, "--file", &given], &path)?;
    command.arg(&given);
    prints_exactly(command, &expected, FULL_HOSTS)
}

/// `least`: hosts that must have run a runner.
fn prints_exactly(mut command: Command, expected: &str, least: usize) -> Result<String> {
    let started = Instant::now();
    let found = command.output().context("cannot start dvm-exec")?;
    let (said, told) = (String::from_utf8_lossy(&found.stdout), String::from_utf8_lossy(&found.stderr));
    ensure!(
        found.status.success() && said.trim_end() == expected,
        "{:?} with {said:?} instead of {expected:?}; stderr: {}",
        found.status.code(),
        shortened(&told)
    );
    let hosts = told.lines().filter(|line| line.starts_with("ended on ")).count();
    ensure!(hosts >= least, "{hosts} of {FULL_HOSTS} hosts ran a runner: {}", shortened(&told));
    Ok(format!("{:.1} s", started.elapsed().as_secs_f64()))
}

/// Runners that die on other hosts: each is told, others go on, the status is 1.
fn traps(bed: &mut Bed<'_>) -> Result<String> {
    let source = "main: newr $d, $n, $n, $f\nnewr $d, $n, $n, $g\nnewr $d, $n, $n, $h\nexit:c\nbad: div w0, w1, w2\nexit:c\n\
                  far: mov $1, SR\nexit:c\ngood: sys $1, $7\nexit:c\n.entry main\n.rodata\nd: .quad 0, 0\nn: .quad 0\nf: .quad bad\ng: .quad far\nh: .quad good\n";
    let path = written(bed, "traps.disa", source)?;
    let found = over_hosts(bed, &path)?;
    let told = String::from_utf8_lossy(&found.stderr);
    ensure!(
        found.status.code() == Some(1) && found.stdout == b"7\n" && told.contains("DIV0") && told.contains("RANGE"),
        "{:?}: {:?}; {}",
        found.status.code(),
        String::from_utf8_lossy(&found.stdout),
        shortened(&told)
    );
    Ok("two traps told, the third runner printed".to_owned())
}

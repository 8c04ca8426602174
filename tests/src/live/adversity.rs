//! Jobs in bad circumstances: a full disk, closed descriptors, no memory, crowds of threads and processes, a host that stands still.
//!
//! Owns the circumstances and what must follow, natively the same or as `docs/operating.md` has it. Must not know how anything is
//! noticed.

use super::bed::{Bed, left_behind, same_bytes, shortened};
use super::case::{Case, Need};
use super::failures::{END_LATEST, HOST_LOST, husks, wait_for_start};
use anyhow::{Context, Result, ensure};
use dvm_hosts::{User, wait_within};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::{Duration, Instant};

const HOSTS: usize = 3;
/// A program's second thread and every third after it run here.
const MEMBER: usize = 1;
const ROOT: usize = 0;
/// `memory` of hosts with little of it.
const LITTLE: &str = "64M";
/// An address space in which no job finds room, in KiB.
const NARROW: &str = "4000000";
/// Exit code where a host cannot do it.
const UNSUPPORTED: i32 = 74;
/// An ordinary user with no other process, and the most processes of that user.
const CROWDED: u32 = 64_103;
const PROCESSES: &str = "60";
/// Standard output where all or most of what is written finds no room.
const NO_ROOM: [&str; 2] =
    ["exec \"$@\" > /dev/full", "mount -t tmpfs -o size=256k none \"$PWD\" && cd \"$PWD\" && exec \"$@\" > out"];
const CLOSED: [&str; 5] = ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"];
const RUN_LATEST: Duration = Duration::from_secs(20);
/// Between "running" and the stop, so that pages are on their way.
const SETTLE: Duration = Duration::from_millis(400);
const POLL: Duration = Duration::from_millis(20);

/// All of them.
#[must_use]
pub fn cases() -> Vec<Case> {
    let case = |name: &str, run: fn(&mut Bed<'_>) -> Result<String>| {
        Case::new(format!("adversity/{name}"), HOSTS, run).needs(&[Need::Program("gcc")])
    };
    vec![
        case("full-disk", full_disk).needs(&["pigz", "unshare", "mount"].map(Need::Program)),
        case("closed-descriptors", closed_descriptors),
        case("no-memory", no_memory).with_memory(LITTLE),
        case("no-addresses", no_addresses),
        case("threads-2000", threads),
        case("fork-bomb", fork_bomb).needs(&["prlimit"].map(Need::Program)),
        case("pause", pause),
        case("stopped-member", stopped_member),
        case("stopped-root", stopped_root),
    ]
}

/// How a command ended: exit code and standard error.
#[derive(Debug, PartialEq, Eq)]
struct Ending {
    code: Option<i32>,
    stderr: String,
}

/// Runs words by a shell's script, in mounts of its own; over the hosts if not natively.
fn ending(bed: &mut Bed<'_>, script: &str, words: &[&Path], is_native: bool) -> Result<Ending> {
    let directory = bed.workshop.job_directory();
    fs::create_dir_all(&directory)?;
    let mut command = bed.hosts.command(ROOT, User::Root, Path::new("unshare"))?;
    command.args(["--mount", "sh", "-c", script, "sh"]);
    if !is_native {
        command.arg(&bed.hosts.binaries().exec).arg("--socket").arg(&bed.hosts.host(ROOT)?.socket).args(["--place", "rr", "--"]);
    }
    // Beside the directory, on which the script may mount another one.
    let errors = directory.with_extension("stderr");
    command.args(words).current_dir(&directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&errors)?);
    let status = wait_within(&mut command.spawn()?, RUN_LATEST).with_context(|| format!("{script}: {words:?}"))?;
    Ok(Ending { code: status.code(), stderr: fs::read_to_string(&errors)? })
}

/// Demands that words end over the hosts as they do natively; says how.
fn as_natively(bed: &mut Bed<'_>, script: &str, words: &[&Path]) -> Result<Ending> {
    let expected = ending(bed, script, words, true)?;
    let found = ending(bed, script, words, false)?;
    ensure!(found == expected, "{script}: {found:?} instead of {expected:?}");
    Ok(found)
}

/// Writers on all hosts are told, and so is a program that writes from one thread.
fn full_disk(bed: &mut Bed<'_>) -> Result<String> {
    let (program, pigz, sample) = (bed.workshop.program("adversity")?, bed.workshop.program("pigz")?, bed.workshop.sample(2)?);
    let mut said = Vec::new();
    for script in NO_ROOM {
        for words in [&[&program, Path::new("output")][..], &[&pigz, Path::new("-p6"), Path::new("-c"), &sample]] {
            let ending = as_natively(bed, script, words)?;
            ensure!(ending.code.is_some_and(|code| code != 0), "{script}: {ending:?}");
            said.push(format!("{} {}", ending.code.unwrap_or_default(), ending.stderr.trim()));
        }
    }
    Ok(said.join("; "))
}

/// What was closed is closed for threads on all hosts, and is given to what is opened next.
fn closed_descriptors(bed: &mut Bed<'_>) -> Result<String> {
    let program = bed.workshop.program("adversity")?;
    let mut codes = Vec::new();
    for redirections in CLOSED {
        let ending = as_natively(bed, &format!("exec \"$@\" {redirections}"), &[&program, Path::new("closed")])?;
        codes.push(ending.code.context("killed")?);
    }
    Ok(format!("exit codes {codes:?}"))
}

/// Where no host has room any more, the job ends and says so; the agents go on.
fn no_memory(bed: &mut Bed<'_>) -> Result<String> {
    let agents = agents(bed)?;
    let job = bed.job("adversity", &["exhaust", "6"])?.options(["--place", "rr"]);
    let finished = job.run(bed.hosts, Instant::now() + RUN_LATEST)?;
    let said = shortened(&finished.stderr);
    ensure!(finished.code() == Some(HOST_LOST), "exit code {:?} instead of {HOST_LOST}; stderr: {said}", finished.code());
    ensure!(said.contains("memory limit of 64 MiB reached") && said.contains("host h"), "no limit or host in: {said}");
    again(bed, &agents)?;
    Ok(format!("over after {:.1} s: {said}", finished.elapsed.as_secs_f64()))
}

/// A program that limits its address space is refused more, as natively; a job in one that is too small says what to do.
fn no_addresses(bed: &mut Bed<'_>) -> Result<String> {
    let program = bed.workshop.program("adversity")?;
    let words = ["exhaust", "6", "200"];
    let job = bed.job("adversity", &words)?.options(["--place", "rr"]);
    let finished = job.run(bed.hosts, Instant::now() + RUN_LATEST)?;
    let (code, output) = (finished.code(), finished.output());
    ensure!(code == Some(4) && output == "ENOMEM\n", "{code:?} {output}; stderr: {}", shortened(&finished.stderr));
    let script = format!("ulimit -v {NARROW} && exec \"$@\"");
    let narrow = ending(bed, &script, &[&program, Path::new("crowd"), Path::new("6")], false)?;
    ensure!(narrow.code == Some(UNSUPPORTED) && narrow.stderr.contains("(ulimit -v)"), "{narrow:?}");
    Ok(format!("{:.1} s; {}", finished.elapsed.as_secs_f64(), narrow.stderr.trim()))
}

fn threads(bed: &mut Bed<'_>) -> Result<String> {
    let job = bed.job("adversity", &["crowd", "2000"])?.options(["--place", "rr"]);
    let expected = bed.workshop.native("crowd", &job)?;
    let finished = bed.succeed(&job)?;
    same_bytes(&expected, &finished.stdout)?;
    let statistics = finished.statistics.as_ref().context("no statistics")?;
    let threads: Vec<_> = statistics.hosts.iter().map(|host| host.threads).collect();
    ensure!(threads.len() == HOSTS && threads.iter().all(|count| *count >= 600), "threads by host: {threads:?}");
    Ok(format!("{:.1} s, threads by host: {threads:?}", finished.elapsed.as_secs_f64()))
}

/// A child that is a program of its own may fork, as far as its user may: the job ends with it, and nothing is left.
fn fork_bomb(bed: &mut Bed<'_>) -> Result<String> {
    let program = bed.workshop.program("adversity")?.display().to_string();
    let script = format!("prlimit --nproc={PROCESSES} {program} bomb; echo $?");
    let mut job = bed.job("sh", &["-c", &script])?.options(["--place", "rr"]);
    job.user = User::Ordinary(CROWDED);
    let finished = bed.succeed(&job)?;
    let said = shortened(&finished.stderr);
    ensure!(finished.output() == "1\n", "{}; stderr: {said}", finished.output());
    ensure!(said.is_empty(), "{said}");
    Ok(format!("{:.1} s", finished.elapsed.as_secs_f64()))
}

/// A host that stands still for less than a lease delays the job, nothing else.
fn pause(bed: &mut Bed<'_>) -> Result<String> {
    let mut said = Vec::new();
    for host in [MEMBER, ROOT] {
        let running = bed.job("endless", &["6", "3"])?.options(["--place", "rr"]).start(bed.hosts)?;
        let running = wait_for_start(running)?;
        sleep(SETTLE);
        let stopped = Stopped::new(bed, host)?;
        sleep(Duration::from_millis(1500));
        drop(stopped);
        let finished = running.wait(bed.deadline, &AtomicBool::new(false))?;
        ensure!(finished.code() == Some(0), "exit code {:?}; stderr: {}", finished.code(), shortened(&finished.stderr));
        said.push(format!("{:.1} s", finished.elapsed.as_secs_f64()));
    }
    Ok(said.join(", "))
}

/// The job ends while the host still stands; when it goes on it cleans up by itself and takes part in the next job.
fn stopped_member(bed: &mut Bed<'_>) -> Result<String> {
    let agents = agents(bed)?;
    let running = wait_for_start(bed.job("endless", &["6", "60"])?.options(["--place", "rr"]).start(bed.hosts)?)?;
    sleep(SETTLE);
    let (stopped, since) = (Stopped::new(bed, MEMBER)?, Instant::now());
    let finished = running.wait(since + END_LATEST, &AtomicBool::new(false))?;
    let ended = since.elapsed();
    demand_lost(bed, finished.code(), &finished.stderr, MEMBER)?;
    sleep(Duration::from_secs(10).saturating_sub(since.elapsed()));
    drop(stopped);
    again(bed, &agents)?;
    Ok(format!("over after {:.1} s: {}", ended.as_secs_f64(), shortened(&finished.stderr)))
}

/// The members give it up meanwhile; the root says why when it goes on.
fn stopped_root(bed: &mut Bed<'_>) -> Result<String> {
    let agents = agents(bed)?;
    let running = wait_for_start(bed.job("endless", &["6", "60"])?.options(["--place", "rr"]).start(bed.hosts)?)?;
    sleep(SETTLE);
    let (stopped, since) = (Stopped::new(bed, ROOT)?, Instant::now());
    for member in 1..HOSTS {
        while !husks(bed, member)?.is_empty() {
            ensure!(since.elapsed() < END_LATEST, "host {member} still runs its part after {:?}", since.elapsed());
            sleep(POLL);
        }
    }
    let given_up = since.elapsed();
    sleep(Duration::from_secs(4).saturating_sub(given_up));
    drop(stopped);
    let finished = running.wait(Instant::now() + END_LATEST, &AtomicBool::new(false))?;
    demand_lost(bed, finished.code(), &finished.stderr, ROOT)?;
    again(bed, &agents)?;
    Ok(format!("given up after {:.1} s: {}", given_up.as_secs_f64(), shortened(&finished.stderr)))
}

/// Demands the end of a job that lost a host, and that it names the host that stood still.
fn demand_lost(bed: &Bed<'_>, code: Option<i32>, stderr: &str, host: usize) -> Result<()> {
    let name = &bed.hosts.host(host)?.name;
    let said = shortened(stderr);
    ensure!(code == Some(HOST_LOST), "exit code {code:?} instead of {HOST_LOST}; stderr: {said}");
    ensure!(said.contains(name.as_str()), "the message does not name {name}: {said}");
    Ok(())
}

/// Demands that nothing of a job is left soon, that the agents are the same ones, and that they run another job.
fn again(bed: &mut Bed<'_>, before: &[i32]) -> Result<()> {
    let since = Instant::now();
    loop {
        let left = left_behind(bed.hosts)?;
        if left.is_empty() {
            break;
        }
        ensure!(since.elapsed() < END_LATEST, "left: {}", left.join(", "));
        sleep(POLL);
    }
    let now = agents(bed)?;
    ensure!(now == before, "the agents were {before:?} and are {now:?}");
    let job = bed.job("adversity", &["crowd", "6"])?.options(["--place", "rr"]);
    let finished = bed.succeed(&job).context("the next job")?;
    let hosts = finished.statistics.iter().flat_map(|statistics| &statistics.hosts);
    ensure!(hosts.filter(|host| host.threads > 0).count() == HOSTS, "the next job did not run on all hosts");
    Ok(())
}

fn agents(bed: &Bed<'_>) -> Result<Vec<i32>> {
    (0..HOSTS).map(|index| Ok(bed.hosts.agent(index)?.context("no agent")?.pid)).collect()
}

/// A host of which every process is stopped, until this is dropped.
struct Stopped(Vec<i32>);

impl Stopped {
    fn new(bed: &Bed<'_>, host: usize) -> Result<Self> {
        let stopped = Self(bed.hosts.processes(host)?.iter().map(|process| process.pid).collect());
        ensure!(stopped.0.len() >= 2, "not an agent and a husk on host {host}: {:?}", stopped.0);
        stopped.send(Signal::SIGSTOP);
        Ok(stopped)
    }

    fn send(&self, signal: Signal) {
        for pid in &self.0 {
            // One that has ended meanwhile needs no signal.
            let _gone = kill(Pid::from_raw(*pid), signal);
        }
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.send(Signal::SIGCONT);
    }
}

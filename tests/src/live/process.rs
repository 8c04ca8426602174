//! The conformance suite: one behaviour of a process each, the same natively and over three hosts.
//!
//! Owns which sources of `tests/live/process` there are, which refusals count as right, and the comparison of output and exit
//! status. What does not agree yet stands in `open.txt` and is skipped with its reason, until it agrees: then the case fails
//! until the line is gone. Must not know what a behaviour does.

use super::bed::{Bed, Source, shortened};
use super::case::{Case, Lacking, Need};
use anyhow::{Context, Result, bail, ensure};
use dvm_hosts::{Job, User, wait_within};
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// As `check.h` has it.
const HOSTS: usize = 3;
/// A behaviour ends itself after ten seconds.
const BEHAVIOUR_LATEST: Duration = Duration::from_secs(13);
/// One that is known not to agree is not waited for that long.
const OPEN_LATEST: Duration = Duration::from_secs(6);
const CASE_SECONDS: u64 = 40;
/// Sources whose behaviours look at the whole machine or measure time: they run one after another.
const ALONE: [&str; 3] = ["process-view", "process-clocks", "process-timers"];
/// The one behaviour that is to end by SIGALRM.
const ALARM_KILLS: &str = "alarm_kills";
const HEADER: &str = include_str!("../../live/process/check.h");
const OPEN: &str = include_str!("../../live/process/open.txt");
/// Before the reason of an open behaviour whose outcome differs from run to run.
const SOMETIMES: &str = "sometimes: ";

macro_rules! sources {
    ($($name:literal)+) => {
        [$(Source {
            name: concat!("process-", $name),
            file: concat!($name, ".c"),
            text: include_str!(concat!("../../live/process/", $name, ".c")),
            compiler: &["gcc", "-O2", "-pthread", "-Wno-deprecated-declarations", "-Werror=trampolines"],
        }),+]
    };
}

const SOURCES: [Source; 20] = sources![
    "threads"
    "signals"
    "interrupts"
    "faults"
    "timers"
    "clocks"
    "futex"
    "sync"
    "memory"
    "mmap_files"
    "files"
    "pipes"
    "sockets"
    "poll"
    "identity"
    "view"
    "children"
    "forks"
    "refused"
    "endings"
];
const RUST: Source = Source {
    name: "process-runtime",
    file: "runtime.rs",
    text: include_str!("../../live/process/runtime.rs"),
    compiler: &["rustc", "--edition=2024", "-O"],
};

/// A behaviour that may be refused instead: `call` is then named on stderr, and fails with `errno`.
struct Refusal {
    behaviour: &'static str,
    call: &'static str,
    errno: &'static str,
}

const fn refusal(behaviour: &'static str, call: &'static str, errno: &'static str) -> Refusal {
    Refusal { behaviour, call, errno }
}

#[rustfmt::skip]
const REFUSALS: [Refusal; 37] = [
    refusal("mmap_files/shared_writable", "mmap", "ENODEV"),
    refusal("mmap_files/shared_memory_object", "mmap", "ENODEV"),
    refusal("mmap_files/memory_file_shared", "mmap", "ENODEV"),
    refusal("sync/named_semaphore", "mmap", "ENODEV"),
    refusal("memory/residency_of_touched_pages", "mincore", "ENOSYS"),
    refusal("pipes/vmsplice_gives_pages", "vmsplice", "ENOSYS"),
    refusal("futex/inheriting_mutex_excludes", "futex", "EOPNOTSUPP"),
    refusal("futex/inheriting_mutex_contended", "futex", "EOPNOTSUPP"),
    refusal("futex/inheriting_robust_owner_dies", "futex", "EOPNOTSUPP"),
    refusal("futex/trylock_pi_of_word", "futex", "ENOSYS"),
    refusal("futex/membarrier_query_and_use", "membarrier", "ENOSYS"),
    refusal("view/own_memory_file", "/proc/self/mem", "EACCES"),
    refusal("refused/io_uring_setup", "io_uring_setup", "ENOSYS"),
    refusal("refused/io_uring_enter", "io_uring_enter", "ENOSYS"),
    refusal("refused/io_setup", "io_setup", "ENOSYS"),
    refusal("refused/ptrace", "ptrace", "EPERM"),
    refusal("refused/process_vm_readv", "process_vm_readv", "ENOSYS"),
    refusal("refused/process_vm_writev", "process_vm_writev", "ENOSYS"),
    refusal("refused/userfaultfd", "userfaultfd", "ENOSYS"),
    refusal("refused/seccomp", "seccomp", "ENOSYS"),
    refusal("refused/bpf", "bpf", "EPERM"),
    refusal("refused/perf_event_open", "perf_event_open", "EPERM"),
    refusal("refused/modify_ldt", "modify_ldt", "ENOSYS"),
    refusal("refused/set_gs", "arch_prctl", "EINVAL"),
    refusal("refused/personality_change", "personality", "EPERM"),
    refusal("refused/unshare_namespace", "unshare", "EPERM"),
    refusal("refused/memfd_secret", "memfd_secret", "ENOSYS"),
    refusal("refused/pkey_alloc", "pkey_alloc", "ENOSYS"),
    refusal("refused/shmget", "shmget", "ENOSYS"),
    refusal("refused/kcmp", "kcmp", "ENOSYS"),
    refusal("refused/process_madvise", "process_madvise", "ENOSYS"),
    refusal("refused/remap_file_pages", "remap_file_pages", "ENOSYS"),
    refusal("refused/move_pages", "move_pages", "ENOSYS"),
    refusal("refused/iopl", "iopl", "EPERM"),
    refusal("refused/dispatch_by_user", "prctl", "EINVAL"),
    refusal("refused/seccomp_by_prctl", "prctl", "EINVAL"),
    refusal("refused/robust_list_of_thread", "get_robust_list", "ENOSYS"),
];

/// How a run ended.
#[derive(Debug, PartialEq, Eq)]
struct Ending {
    /// As a shell shows it; none if it had to be killed.
    code: Option<i32>,
    output: String,
}

/// One case per behaviour.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for source in SOURCES.into_iter().chain([RUST]) {
        for behaviour in behaviours(&source) {
            let need = Need::Program(if source.file == RUST.file { "cc" } else { "gcc" });
            let name = format!("process/{}", path(&source, behaviour));
            let case = Case::new(name, HOSTS, move |bed| run(bed, &source, behaviour));
            let case = case.needs(&[need]).within_seconds(CASE_SECONDS);
            let is_alone = open_reason(&path(&source, behaviour)).is_some() || ALONE.contains(&source.name);
            cases.push(if is_alone { case } else { case.sociable() });
        }
    }
    cases
}

/// How `open.txt` and the refusals call a behaviour.
fn path(source: &Source, behaviour: &str) -> String {
    format!("{}/{behaviour}", source.file.split('.').next().unwrap_or_default())
}

/// The behaviours that a source defines, each by a macro at the beginning of a line: `BEHAVIOUR(name)`.
fn behaviours(source: &Source) -> Vec<&'static str> {
    let named = |line: &'static str| {
        let (word, rest) = line.split_once('(')?;
        let name = rest.split([',', ')', ' ']).next()?;
        let is_macro = word == "behaviour!" || !word.is_empty() && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        (is_macro && name.starts_with(|first: char| first.is_ascii_lowercase())).then_some(name)
    };
    source.text.lines().filter_map(named).collect()
}

/// Why a behaviour is known not to agree.
fn open_reason(path: &str) -> Option<&'static str> {
    OPEN.lines().find_map(|line| line.strip_prefix(path)?.strip_prefix(": "))
}

fn run(bed: &mut Bed<'_>, source: &Source, behaviour: &str) -> Result<String> {
    let path = path(source, behaviour);
    bed.workshop.header("check.h", HEADER)?;
    let program = bed.workshop.compiled(source)?;
    let expected = native(bed, &program, behaviour)?;
    let open = open_reason(&path);
    let mut job = Job::new(&program, bed.workshop.job_directory()).arguments([behaviour]).options(["--place", "rr"]);
    job.is_watched = false;
    let latest = if open.is_some() { OPEN_LATEST } else { BEHAVIOUR_LATEST };
    let finished = job.run(bed.hosts, bed.deadline.min(Instant::now() + latest))?;
    let found = Ending { code: finished.code(), output: finished.output() };
    let judged = judge(&path, &expected, &found, &finished.stderr);
    match (judged, open) {
        (Ok(said), None) => Ok(said),
        (Ok(_), Some(reason)) if !reason.starts_with(SOMETIMES) => bail!("agrees: remove it from tests/live/process/open.txt"),
        (Ok(_) | Err(_), Some(reason)) => Err(Lacking(format!("open: {reason}")).into()),
        (Err(error), None) => Err(error.context(format!("stderr: {}", shortened(&finished.stderr)))),
    }
}

/// Runs a behaviour on the first host without `dvm-exec`.
fn native(bed: &mut Bed<'_>, program: &Path, behaviour: &str) -> Result<Ending> {
    let directory = bed.workshop.job_directory();
    fs::create_dir_all(&directory)?;
    let (output, errors) = (directory.join("stdout"), directory.join("stderr"));
    let mut command = bed.hosts.command(0, User::Root, program)?;
    command.arg(behaviour).env("HOME", &directory).env("LC_ALL", "C").current_dir(&directory).stdin(Stdio::null());
    let mut child = command.stdout(fs::File::create(&output)?).stderr(fs::File::create(&errors)?).spawn()?;
    let status = wait_within(&mut child, BEHAVIOUR_LATEST).context("the native run")?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    ensure!(code != Some(128 + Signal::SIGALRM as i32) || behaviour == ALARM_KILLS, "the native run does not end by itself");
    Ok(Ending { code, output: String::from_utf8_lossy(&fs::read(&output)?).into_owned() })
}

fn judge(path: &str, expected: &Ending, found: &Ending, stderr: &str) -> Result<String> {
    if expected == found {
        let lines = found.output.lines().count();
        return Ok(format!("{lines} lines, exit code {}", found.code.unwrap_or_default()));
    }
    if let Some(refusal) = REFUSALS.iter().find(|refusal| refusal.behaviour == path) {
        let is_named = stderr.lines().any(|line| line.starts_with("dvm-exec: ") && line.contains(refusal.call));
        if is_named && found.code == Some(0) && found.output.lines().all(|line| line.ends_with(refusal.errno)) {
            return Ok(format!("refused: {} {}", refusal.call, refusal.errno));
        }
    }
    let (expected_line, found_line) = first_difference(&expected.output, &found.output);
    match found.code {
        None => bail!("hangs; native `{expected_line}`, here `{found_line}`"),
        code => bail!("native `{expected_line}` and exit code {:?}, here `{found_line}` and {code:?}", expected.code),
    }
}

/// The first lines that differ.
fn first_difference<'a>(expected: &'a str, found: &'a str) -> (&'a str, &'a str) {
    let (mut expected, mut found) = (expected.lines(), found.lines());
    loop {
        match (expected.next(), found.next()) {
            (Some(left), Some(right)) if left == right => {}
            (left, right) => return (left.unwrap_or_default(), right.unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn all() -> BTreeSet<String> {
        let sources = SOURCES.into_iter().chain([RUST]);
        sources.flat_map(|source| behaviours(&source).into_iter().map(move |behaviour| path(&source, behaviour))).collect()
    }

    #[test]
    fn there_are_enough_and_lists_name_only_them() {
        let all = all();
        assert!(all.len() >= 250, "only {} behaviours", all.len());
        for line in OPEN.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let (path, reason) = line.split_once(": ").unwrap_or((line, ""));
            assert!(all.contains(path) && !reason.is_empty(), "open.txt: {line}");
        }
        for refusal in REFUSALS {
            assert!(all.contains(refusal.behaviour), "{}", refusal.behaviour);
        }
    }

    #[test]
    fn differences_are_seen() {
        let ending = |code, output: &str| Ending { code, output: output.to_owned() };
        let native = ending(Some(0), "a: ok\nb: ok\n");
        assert!(judge("x/y", &native, &ending(Some(0), "a: ok\nb: ok\n"), "").is_ok());
        for other in [ending(Some(1), "a: ok\nb: ok\n"), ending(None, "a: ok\nb: ok\n"), ending(Some(0), "a: ok\n")] {
            assert!(judge("x/y", &native, &other, "").is_err(), "{other:?}");
        }
    }

    #[test]
    fn refusals_must_be_named() {
        let native = Ending { code: Some(0), output: "bpf: ok\n".into() };
        let refusal = &REFUSALS[0];
        let refused = Ending { code: Some(0), output: format!("{}: {}\n", refusal.call, refusal.errno) };
        let line = format!("dvm-exec: {} is not supported: because\n", refusal.call);
        assert!(judge(refusal.behaviour, &native, &refused, &line).is_ok());
        assert!(judge(refusal.behaviour, &native, &refused, "").is_err());
        assert!(judge("x/y", &native, &refused, &line).is_err());
    }
}

//! `--check`: what a program asked for that is refused over several hosts, or done otherwise than on one.
//!
//! Owns the record of kinds and their table. Must not decide what is refused.

use super::calls::{self, Class};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Kinds that are remembered.
const KINDS_MAX: usize = 512;

static IS_ON: AtomicBool = AtomicBool::new(false);
static KINDS: Mutex<BTreeMap<Kind, u64>> = Mutex::new(BTreeMap::new());

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    verdict: Verdict,
    name: String,
    reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Refused,
    Differs,
}

/// Starts recording.
pub fn start() {
    IS_ON.store(true, Ordering::Relaxed);
}

/// Whether kinds are recorded.
pub fn is_on() -> bool {
    IS_ON.load(Ordering::Relaxed)
}

/// Records nothing until the guard is dropped, so that a forked child finds the record whole.
pub fn freeze() -> impl Drop {
    KINDS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Records a call that was refused.
pub fn refused(name: &str, reason: &str) {
    record(Verdict::Refused, name, reason);
}

/// Records what call `number` of this class does otherwise than a kernel, if anything.
pub fn note(number: i64, arguments: &[u64; 6], class: &Class) {
    let name = calls::name(number as u64);
    match class {
        Class::Answer(value) => record(Verdict::Differs, name, &format!("answered {value}, nothing is done")),
        Class::Refuse(refusal) if refusal.quiet => record(Verdict::Differs, name, &format!("not there: {}", refusal.reason)),
        _ => {}
    }
    if calls::without_pinning(number as u64, *arguments) != *arguments {
        record(Verdict::Differs, name, "O_DIRECT and MSG_ZEROCOPY are taken away: they pin pages");
    }
    let [_, _, protection, flags, _, _] = *arguments;
    let is_shared = flags & libc::MAP_TYPE as u64 != libc::MAP_PRIVATE as u64 && flags & libc::MAP_ANONYMOUS as u64 == 0;
    if number == libc::SYS_mmap && is_shared && protection & libc::PROT_WRITE as u64 == 0 {
        record(Verdict::Differs, "mmap MAP_SHARED of a file", "a snapshot: later changes of the file are not seen");
    }
    if number == libc::SYS_sched_setaffinity {
        record(Verdict::Differs, name, "a wish: it places the threads started afterwards, and moves none");
    }
}

fn record(verdict: Verdict, name: &str, reason: &str) {
    if !is_on() {
        return;
    }
    let kind = Kind { verdict, name: name.to_owned(), reason: reason.to_owned() };
    let mut kinds = KINDS.lock().unwrap_or_else(PoisonError::into_inner);
    if kinds.len() < KINDS_MAX || kinds.contains_key(&kind) {
        *kinds.entry(kind).or_default() += 1;
    }
}

/// The table of what was recorded, for program `name`.
pub fn table(name: &str) -> String {
    text(name, &KINDS.lock().unwrap_or_else(PoisonError::into_inner))
}

fn text(name: &str, kinds: &BTreeMap<Kind, u64>) -> String {
    let refused = kinds.keys().filter(|kind| kind.verdict == Verdict::Refused).count();
    let mut text = format!("-- dvm-exec --check {name}: {refused} kinds of calls refused, {} differ\n", kinds.len() - refused);
    for (kind, count) in kinds {
        let verdict = match kind.verdict {
            Verdict::Refused => "refused",
            Verdict::Differs => "differs",
        };
        writeln!(text, "{verdict}  {:<28} {count:>8}  {}", kind.name, kind.reason).expect("writing to a String does not fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_come_first() {
        start();
        let pinned = [0, 0, libc::O_DIRECT as u64, 0, 0, 0];
        note(libc::SYS_openat, &pinned, &calls::classify(libc::SYS_openat as u64, &pinned));
        note(libc::SYS_rseq, &[0; 6], &calls::classify(libc::SYS_rseq as u64, &[0; 6]));
        note(libc::SYS_read, &[0; 6], &calls::classify(libc::SYS_read as u64, &[0; 6]));
        refused("io_uring_setup", "io_uring pins pages");
        refused("io_uring_setup", "io_uring pins pages");
        let table = table("prog");
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "-- dvm-exec --check prog: 1 kinds of calls refused, 2 differ");
        assert_eq!(lines[1], "refused  io_uring_setup                      2  io_uring pins pages");
        assert!(lines[2].starts_with("differs  openat") && lines[3].starts_with("differs  rseq"), "{table}");
        assert_eq!(lines.len(), 4);
    }
}

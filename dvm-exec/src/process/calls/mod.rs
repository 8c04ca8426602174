//! Every x86-64 system call: what becomes of it, and which buffers it carries.
//!
//! Owns the classes, the table and the shapes of arguments. Must not run a call or touch the program's memory itself.

mod arity;
pub mod marshal;
mod refine;
pub mod shape;
mod table;
#[cfg(test)]
mod tests;

pub use arity::arity;
pub use marshal::Prepared;
pub use shape::Shape;

/// What becomes of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Answered on the thread's own host: clocks, sleeps, ids, affinity, FS base.
    Local,
    /// This is the answer, everywhere; nothing is done.
    Answer(i64),
    /// Run by the shadow with raw arguments; its pointers reach through the space.
    Delegate,
    /// Run by the shadow; its buffers travel in the message.
    Marshal(&'static Shape),
    /// The root's map of the address space.
    Memory,
    /// Threads and processes: clone, fork, exit, robust lists, tid addresses, execve.
    Thread,
    /// Signals: actions, masks, stacks, returns.
    Signal,
    /// Not done.
    Refuse(Refusal),
}

/// Why a call is not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the program gets, positive.
    pub errno: i32,
    /// For the line on stderr.
    pub reason: &'static str,
    /// Programs live with it and every one asks (rseq): no line.
    pub quiet: bool,
}

/// What becomes of this call with these arguments.
#[must_use]
pub fn classify(number: u64, arguments: &[u64; 6]) -> Class {
    const UNKNOWN: Class = Class::Refuse(Refusal { errno: libc::ENOSYS, reason: "unknown call", quiet: false });
    let Some((_, class)) = entry(number) else { return UNKNOWN };
    refine::refine(number as i64, arguments).unwrap_or(*class)
}

/// Its name, or `unknown`.
#[must_use]
pub fn name(number: u64) -> &'static str {
    entry(number).map_or("unknown", |(name, _)| name)
}

fn entry(number: u64) -> Option<&'static (&'static str, Class)> {
    let at = |table: &'static [(&'static str, Class)], index: u64| table.get(usize::try_from(index).ok()?);
    match number.checked_sub(table::HIGH_FIRST) {
        Some(index) => at(&table::HIGH, index),
        None => at(&table::LOW, number),
    }
}

/// Where a call's path stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NamedPath {
    /// Index of the directory descriptor, if the call has one.
    pub directory: Option<u8>,
    /// Index of the path.
    pub path: u8,
    /// What is done with it.
    pub action: PathUse,
}

/// What a call does with its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathUse {
    /// Opens it.
    Open,
    /// Reads it as a link into the two arguments behind it.
    ReadLink,
    /// Asks for its attributes.
    Look,
}

/// The path that a call opens, reads as a link or looks at.
#[must_use]
pub fn named_path(number: u64) -> Option<NamedPath> {
    let (directory, path, action) = match number as i64 {
        libc::SYS_open => (None, 0, PathUse::Open),
        libc::SYS_openat | libc::SYS_openat2 => (Some(0), 1, PathUse::Open),
        libc::SYS_readlink => (None, 0, PathUse::ReadLink),
        libc::SYS_readlinkat => (Some(0), 1, PathUse::ReadLink),
        libc::SYS_stat | libc::SYS_lstat | libc::SYS_access => (None, 0, PathUse::Look),
        libc::SYS_newfstatat | libc::SYS_statx | libc::SYS_faccessat | libc::SYS_faccessat2 => (Some(0), 1, PathUse::Look),
        _ => return None,
    };
    Some(NamedPath { directory, path, action })
}

/// Takes away what would pin pages: O_DIRECT of open, openat and fcntl, MSG_ZEROCOPY of sends.
#[must_use]
pub fn without_pinning(number: u64, mut arguments: [u64; 6]) -> [u64; 6] {
    let (index, flag) = match number as i64 {
        libc::SYS_open => (1, libc::O_DIRECT),
        libc::SYS_openat => (2, libc::O_DIRECT),
        libc::SYS_fcntl if arguments[1] == libc::F_SETFL as u64 => (2, libc::O_DIRECT),
        libc::SYS_sendmsg => (2, libc::MSG_ZEROCOPY),
        libc::SYS_sendto | libc::SYS_sendmmsg => (3, libc::MSG_ZEROCOPY),
        _ => return arguments,
    };
    arguments[index] &= !(flag as u64);
    arguments
}

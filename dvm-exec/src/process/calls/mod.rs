//! Every x86-64 system call: what becomes of it, and which buffers it carries.
//!
//! Owns the classes, the table and the shapes of arguments. Must not run a call or touch the program's memory itself.

pub mod marshal;
pub mod shape;
mod table;

pub use marshal::{Memory, Prepared};
pub use shape::{Argument, Fill, Length, Shape};

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
    /// Threads: clone, exit, robust lists, tid addresses.
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
pub fn classify(_number: u64, _arguments: &[u64; 6]) -> Class {
    todo!()
}

/// Its name, or `unknown`.
#[must_use]
pub fn name(_number: u64) -> &'static str {
    todo!()
}

/// Whether a call that came back with EINTR is repeated under SA_RESTART.
#[must_use]
pub fn is_restartable(_number: u64) -> bool {
    todo!()
}

/// The argument that is a path to be opened or read as a link, with the directory argument before it if there is one.
#[must_use]
pub fn opened_path(_number: u64) -> Option<OpenedPath> {
    todo!()
}

/// Where a call's path stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenedPath {
    /// Index of the directory descriptor, if the call has one.
    pub directory: Option<u8>,
    /// Index of the path.
    pub path: u8,
    /// Whether it opens (else: reads the link).
    pub opens: bool,
}

/// Takes away what would pin pages: O_DIRECT of open, openat and fcntl, MSG_ZEROCOPY of sends.
#[must_use]
pub fn without_pinning(_number: u64, _arguments: [u64; 6]) -> [u64; 6] {
    todo!()
}

//! Why the pager could not do what it was asked.
//!
//! Owns the error and its text. Must not decide what the caller does about it.

use dsm_wire::{PageNumber, PageRange};
use nix::errno::Errno;

/// Why a pager operation failed. Only [`PagerError::Busy`] is worth repeating.
#[derive(Debug, thiserror::Error)]
pub enum PagerError {
    /// The kernel is changing the mapping; `done` pages of the range are complete, the rest must be asked again later.
    #[error("page {page} is busy in the kernel after {done} pages: repeat the rest after a short pause")]
    Busy {
        /// First page that is not done.
        page: PageNumber,
        /// Pages of the range that are done and must not be asked again.
        done: u64,
    },
    /// The process behind the view has died.
    #[error("the process behind the view is gone: detach the view and end the job on this host")]
    ViewGone,
    /// A second view was offered.
    #[error("a view is already attached: detach it first")]
    ViewAttached,
    /// The range leaves the space, or is empty.
    #[error("{count} pages from {first} are not inside the space: refuse the request")]
    OutsideSpace {
        /// First page of the range.
        first: PageNumber,
        /// Pages of the range.
        count: u64,
    },
    /// More pages than one call takes.
    #[error("{count} pages in one install, the maximum is {max}: split it")]
    TooManyPages {
        /// Pages asked for.
        count: usize,
        /// Pages allowed.
        max: usize,
    },
    /// The host has no memory for the page.
    #[error("no memory for page {page} ({errno}): lower the memory limit or evict pages")]
    OutOfMemory {
        /// The page.
        page: PageNumber,
        /// What the kernel said.
        #[source]
        errno: Errno,
    },
    /// The page kept being filled by something else while it was replaced.
    #[error("page {page} was filled again {times} times while it was replaced: something besides this pager writes the memfd")]
    Contended {
        /// The page.
        page: PageNumber,
        /// Attempts made.
        times: u32,
    },
    /// The kernel cannot poison a page.
    #[error("this kernel cannot poison page {page}: use linux 6.6 or newer, or stop the executor")]
    PoisonUnsupported {
        /// The page.
        page: PageNumber,
    },
    /// The descriptor handed over is not a userfaultfd.
    #[error("the descriptor handed over is not a userfaultfd but {found}: refuse the executor")]
    NotUserfaultfd {
        /// What it is.
        found: String,
    },
    /// What was offered as the source of pages is none.
    #[error("pages cannot come from {found}: read it instead")]
    NoSource {
        /// What it is.
        found: String,
    },
    /// The file behind a page cannot be read.
    #[error("reading the file behind page {page} at {offset} failed ({errno}): check the disk or the server it is on")]
    SourceRead {
        /// The page.
        page: PageNumber,
        /// Where in the file.
        offset: u64,
        /// What the kernel said.
        #[source]
        errno: Errno,
    },
    /// Any other refusal of the kernel.
    #[error("{operation} of page {page} was refused by the kernel ({errno})")]
    Refused {
        /// The operation, by its kernel name.
        operation: &'static str,
        /// The page.
        page: PageNumber,
        /// What the kernel said.
        #[source]
        errno: Errno,
    },
    /// The memfd could not be made or is not usable.
    #[error("memfd of the space: {operation} failed ({errno})")]
    Backing {
        /// The operation.
        operation: &'static str,
        /// What the kernel said.
        #[source]
        errno: Errno,
    },
    /// The memfd handed over does not have the size of a space.
    #[error("memfd of the space has {bytes} bytes, not {expected}: it was made by another version")]
    BackingSize {
        /// Its size.
        bytes: u64,
        /// The size of a space.
        expected: u64,
    },
}

impl PagerError {
    /// The error for `errno` of `operation` on `page`.
    pub(crate) fn of(operation: &'static str, page: PageNumber, errno: Errno) -> Self {
        match errno {
            Errno::ESRCH => Self::ViewGone,
            Errno::ENOMEM | Errno::ENOSPC => Self::OutOfMemory { page, errno },
            _ => Self::Refused { operation, page, errno },
        }
    }

    pub(crate) fn outside(range: PageRange) -> Self {
        Self::OutsideSpace { first: range.first, count: range.count }
    }
}

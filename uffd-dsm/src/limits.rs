//! Every maximum of the pager, and how they relate.
//!
//! Owns numbers only.

/// Messages taken by one `read` of a userfaultfd.
pub const MESSAGES_PER_READ_MAX: usize = 32;

/// Faults handed up by one `drain_faults`; what is left is reported as `Drained::More`.
pub const FAULTS_PER_DRAIN_MAX: usize = 1024;

/// Pages with bytes that one `install` takes.
pub const INSTALL_PAGES_MAX: usize = 64;

/// Pages one ranged ioctl covers: one extent, so that one call stays under half a millisecond.
pub const IOCTL_PAGES_MAX: u64 = 512;

/// Times one ioctl that made no progress (EAGAIN) is repeated before the operation is handed back as busy.
pub const BUSY_RETRIES_MAX: u32 = 64;

/// Times a page is emptied and filled again because something else filled it in between.
pub const REPLACE_RETRIES_MAX: u32 = 8;

/// Operations waiting in one `Deferred` list.
pub const DEFERRED_MAX: usize = 4096;

/// Poisoned pages that can be healed by a later install or drop. Pages poisoned above it stay poisoned.
pub const POISONED_PAGES_MAX: usize = 65_536;

/// Pages of a source read at once at first; a sequential reader comes to [`INSTALL_PAGES_MAX`].
pub const SOURCE_PAGES_MIN: usize = 16;

/// Different files that are sources of one space.
pub const SOURCE_FILES_MAX: usize = 512;

/// Buffers of a pool are allocated in chunks of this many.
pub const POOL_CHUNK_PAGES: usize = 64;

const _: () = assert!(FAULTS_PER_DRAIN_MAX.is_multiple_of(MESSAGES_PER_READ_MAX));
const _: () = assert!(INSTALL_PAGES_MAX as u64 <= IOCTL_PAGES_MAX);
const _: () = assert!(SOURCE_PAGES_MIN <= INSTALL_PAGES_MAX);
const _: () = assert!(IOCTL_PAGES_MAX == dsm_wire::PAGES_PER_EXTENT);
const _: () = assert!(DEFERRED_MAX >= FAULTS_PER_DRAIN_MAX, "a whole drain can be deferred");

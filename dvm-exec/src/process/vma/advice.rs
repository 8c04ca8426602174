//! What madvise's numbers mean here.
//!
//! Owns their sorting. Must not know areas.

use super::Protection;

/// What an advice asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advice {
    /// Contents of private anonymous pages become zero.
    DontNeed,
    /// Contents of shared anonymous pages become zero.
    Remove,
    /// Contents of private anonymous pages may become zero, and stay here.
    Free,
    /// Pages are to be there for reading, or writing; they need not be.
    Populate(Protection),
    /// May be ignored.
    Hint,
    /// Not for this program.
    NotPermitted,
    /// Unknown, or one whose refusal programs live with.
    Unknown,
}

pub(super) fn sort(advice: u64) -> Advice {
    match advice as i32 {
        libc::MADV_DONTNEED | 24 => Advice::DontNeed, // 24: MADV_DONTNEED_LOCKED
        libc::MADV_REMOVE => Advice::Remove,
        libc::MADV_NORMAL..=libc::MADV_WILLNEED
        | libc::MADV_DONTFORK..=libc::MADV_DOFORK
        | libc::MADV_MERGEABLE..=libc::MADV_KEEPONFORK
        | 20..=21 => Advice::Hint, // COLD, PAGEOUT
        libc::MADV_FREE => Advice::Free,
        libc::MADV_POPULATE_READ => Advice::Populate(Protection::READ),
        libc::MADV_POPULATE_WRITE => Advice::Populate(Protection::WRITE),
        libc::MADV_HWPOISON | libc::MADV_SOFT_OFFLINE => Advice::NotPermitted,
        // MADV_COLLAPSE, MADV_GUARD_INSTALL and newer: callers fall back.
        _ => Advice::Unknown,
    }
}

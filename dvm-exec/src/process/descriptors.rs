//! The husk's own file descriptors: moved out of the program's way and hidden from it.
//!
//! Owns which numbers are hidden and how calls on descriptors are kept off them. Must not know what they are for.

use crate::sys::{call, mapping};
use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{PoisonError, RwLock};

/// The husk's descriptors start here.
pub const FLOOR: u64 = 1000;
/// Descriptors the husk may have.
pub const COUNT_MAX: u64 = 3000;

static HIDDEN: RwLock<BTreeSet<RawFd>> = RwLock::new(BTreeSet::new());

/// Moves `descriptor` up and hides it for the rest of the process's life.
///
/// # Errors
/// The kernel's error.
pub fn hide(descriptor: OwnedFd) -> Result<OwnedFd, std::io::Error> {
    let moved = mapping::move_up(descriptor, FLOOR)?;
    HIDDEN.write().unwrap_or_else(PoisonError::into_inner).insert(moved.as_raw_fd());
    Ok(moved)
}

/// A hidden duplicate of `raw`, if it is open.
pub fn duplicate_hidden(raw: RawFd) -> Option<OwnedFd> {
    let arguments = [raw as u64, libc::F_DUPFD_CLOEXEC as u64, FLOOR, 0, 0, 0];
    let copy = call::checked(libc::SYS_fcntl, &arguments).ok()?;
    let copy = mapping::adopt(copy as RawFd).ok()?;
    HIDDEN.write().unwrap_or_else(PoisonError::into_inner).insert(copy.as_raw_fd());
    Some(copy)
}

/// Whether the program must not see descriptor `raw`.
pub fn is_hidden(raw: u64) -> bool {
    i32::try_from(raw as u32).is_ok_and(|raw| HIDDEN.read().unwrap_or_else(PoisonError::into_inner).contains(&raw))
}

/// Keeps the set as it is until the guard is dropped, so that a forked child finds it whole.
pub fn freeze() -> impl Drop {
    HIDDEN.write().unwrap_or_else(PoisonError::into_inner)
}

/// Forgets a hidden descriptor that is about to be closed.
pub fn reveal(descriptor: &impl AsRawFd) {
    HIDDEN.write().unwrap_or_else(PoisonError::into_inner).remove(&descriptor.as_raw_fd());
}

/// In a forked child that lives on: closes all hidden descriptors but `kept`. Their owners never use them again.
pub fn close_hidden_but(kept: Option<RawFd>) {
    let mut hidden = HIDDEN.write().unwrap_or_else(PoisonError::into_inner);
    hidden.iter().filter(|raw| kept != Some(**raw)).for_each(|raw| mapping::close_raw(*raw));
    hidden.retain(|raw| kept == Some(*raw));
}

/// close_range of the program, around the hidden descriptors.
pub fn close_range(first: u64, last: u64, flags: u64) -> i64 {
    let (first, last) = (first & 0xffff_ffff, last & 0xffff_ffff);
    if first > last {
        return -i64::from(libc::EINVAL);
    }
    let hidden: Vec<u64> = HIDDEN.read().unwrap_or_else(PoisonError::into_inner).iter().map(|raw| *raw as u64).collect();
    let mut from = first;
    for fence in hidden.into_iter().filter(|raw| (first..=last).contains(raw)) {
        if fence > from {
            let result = call::raw(libc::SYS_close_range, &[from, fence - 1, flags, 0, 0, 0]);
            if result < 0 {
                return result;
            }
        }
        from = fence + 1;
    }
    if from > last {
        return 0;
    }
    call::raw(libc::SYS_close_range, &[from, last, flags, 0, 0, 0])
}

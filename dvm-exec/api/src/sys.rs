//! The one unsafe step of this crate: taking over descriptors the kernel has just made for us.
#![expect(unsafe_code, reason = "adopting a received descriptor is a promise about its number")]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Owns descriptor `raw`, which recvmsg has just installed in this process.
pub(crate) fn adopt(raw: RawFd) -> OwnedFd {
    // SAFETY: `raw` comes out of an SCM_RIGHTS message of the recvmsg that returned it; the kernel opened it for
    // this process at that moment and nothing else has seen the number yet.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

//! The one unsafe step of this crate: taking over descriptors the kernel has just made for us.
#![expect(unsafe_code, reason = "adopting a received descriptor is a promise about its number")]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Owns descriptor `raw`, which recvmsg has just installed in this process, or which this process was started with.
pub(crate) fn adopt(raw: RawFd) -> OwnedFd {
    // SAFETY: `raw` comes out of an SCM_RIGHTS message of the recvmsg that returned it, so that the kernel opened it at
    // that moment and nothing else has seen the number yet; or it is the control socket a husk is started with, which
    // belongs to the husk by agreement and is asked for once (the caller has a flag for that).
    unsafe { OwnedFd::from_raw_fd(raw) }
}

//! The one unsafe step of the lone agent: taking over an accepted connection.
#![expect(unsafe_code, reason = "accept4 of nix returns a bare number")]

use std::os::fd::{FromRawFd, OwnedFd};

/// Owns descriptor `raw`, which accept4 has just made.
pub fn adopt(raw: i32) -> OwnedFd {
    // SAFETY: accept4 has just made this descriptor for us and nobody else has seen its number.
    unsafe { OwnedFd::from_raw_fd(raw) }
}

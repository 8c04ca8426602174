//! Scheduling priority of the shard thread.
//!
//! Owns the one call nix does not offer. Must not know what the thread does.
#![expect(unsafe_code, reason = "setpriority(2) has no safe wrapper among our crates")]

use nix::errno::Errno;

/// Nice value of a shard: a fault waits for it, so it goes before every ordinary thread.
const SHARD_NICE: i32 = -20;

/// Gives the calling thread the shard's priority.
///
/// # Errors
/// EACCES or EPERM without CAP_SYS_NICE; the shard then runs at the caller's priority.
pub(super) fn raise_priority() -> Result<(), Errno> {
    let this_thread = 0;
    // SAFETY: setpriority takes three integers and touches no memory; on Linux PRIO_PROCESS with 0 means the
    // calling thread, which exists.
    let status = unsafe { libc::setpriority(libc::PRIO_PROCESS, this_thread, SHARD_NICE) };
    Errno::result(status).map(drop)
}

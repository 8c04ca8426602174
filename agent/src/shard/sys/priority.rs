//! Scheduling priority of the shard thread.
//!
//! Owns the one call nix does not offer. Must not know what the thread does.
#![expect(unsafe_code, reason = "setpriority(2) and sched_setscheduler(2) have no safe wrapper among our crates")]

use nix::errno::Errno;

/// Real-time priority of a shard: the lowest there is goes before every ordinary thread.
const SHARD_REALTIME: libc::c_int = 1;
/// Nice value of a shard where real time is refused.
const SHARD_NICE: libc::c_int = -20;

/// Lets the calling thread go before every ordinary one: a fault waits for it, and it seldom has more to do than a few
/// microseconds. A nice value alone is not enough: it counts only among threads of the same session or cgroup (beside busy
/// threads of a program a page operation took 342 us p99, with real time 28: docs/measurements.md).
///
/// # Errors
/// EACCES or EPERM without CAP_SYS_NICE; the shard then runs at the caller's priority.
pub(in crate::shard) fn raise_priority() -> Result<(), Errno> {
    let this_thread = 0;
    let parameter = libc::sched_param { sched_priority: SHARD_REALTIME };
    // SAFETY: the pointer is to a live sched_param, which the kernel reads; 0 means the calling thread, which exists.
    let status =
        unsafe { libc::sched_setscheduler(this_thread, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const parameter) };
    if status == 0 {
        return Ok(());
    }
    // SAFETY: setpriority takes three integers and touches no memory; on Linux PRIO_PROCESS with 0 means the
    // calling thread, which exists.
    let status = unsafe { libc::setpriority(libc::PRIO_PROCESS, this_thread as libc::id_t, SHARD_NICE) };
    Errno::result(status).map(drop)
}

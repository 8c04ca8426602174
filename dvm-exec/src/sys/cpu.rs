//! What this processor and this kernel offer, and small facts about the calling process and what it may run.
//!
//! Owns the auxiliary vector, limits and process identity. Must not decide what a lack means.

use super::call;
use std::ffi::CString;
use std::io::Error;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const HWCAP2_FSGSBASE: u64 = 2;

/// Value of an entry of the auxiliary vector, 0 if absent.
#[must_use]
pub fn auxiliary(kind: u64) -> u64 {
    // SAFETY: getauxval only reads the auxiliary vector.
    unsafe { libc::getauxval(kind) }
}

/// Whether FS may be switched by instruction.
#[must_use]
pub fn has_fsgsbase() -> bool {
    auxiliary(libc::AT_HWCAP2) & HWCAP2_FSGSBASE != 0
}

/// Number of the calling thread.
#[must_use]
pub fn thread_id() -> i32 {
    call::raw(libc::SYS_gettid, &[0; 6]) as i32
}

/// A resource limit: soft and hard.
///
/// # Errors
/// The kernel's error.
pub fn limit(resource: u32) -> Result<(u64, u64), Error> {
    let mut both = [0_u64; 2];
    call::checked(libc::SYS_prlimit64, &[0, u64::from(resource), 0, both.as_mut_ptr() as u64, 0, 0])?;
    Ok((both[0], both[1]))
}

/// Sets a resource limit.
///
/// # Errors
/// The kernel's error.
pub fn set_limit(resource: u32, soft: u64, hard: u64) -> Result<(), Error> {
    let both = [soft, hard];
    call::checked(libc::SYS_prlimit64, &[0, u64::from(resource), both.as_ptr() as u64, 0, 0, 0]).map(drop)
}

/// Whether this process may execute the file at `path`.
#[must_use]
pub fn may_execute(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let at = [libc::AT_FDCWD as u64, path.as_ptr() as u64, libc::X_OK as u64, libc::AT_EACCESS as u64, 0, 0];
    call::raw(libc::SYS_faccessat2, &at) == 0
}

/// Whether the file at `path` gives capabilities to who executes it.
#[must_use]
pub fn has_capabilities(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    call::raw(libc::SYS_getxattr, &[path.as_ptr() as u64, c"security.capability".as_ptr() as u64, 0, 0, 0, 0]) > 0
}

/// Ends the process with all its threads.
pub fn exit(status: i32) -> ! {
    loop {
        call::raw(libc::SYS_exit_group, &[status as u64, 0, 0, 0, 0, 0]);
    }
}

/// CPU time of the whole process: user and system, in nanoseconds.
#[must_use]
pub fn process_times_ns() -> (u64, u64) {
    // struct rusage starts with two timevals; the rest is not looked at.
    let mut usage = [0_u64; 18];
    call::raw(libc::SYS_getrusage, &[libc::RUSAGE_SELF as u64, usage.as_mut_ptr() as u64, 0, 0, 0, 0]);
    let time = |at: usize| usage[at] * 1_000_000_000 + usage[at + 1] * 1_000;
    (time(0), time(2))
}

const _: () = assert!(size_of::<libc::rusage>() == 18 * 8);

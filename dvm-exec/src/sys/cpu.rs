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

/// Makes the CPUID instruction trap in the calling thread and those it starts, or run again. A processor that cannot
/// leaves it as it is: who calls has asked before.
pub fn trap_cpuid(traps: bool) {
    const ARCH_SET_CPUID: u64 = 0x1012;
    call::raw(libc::SYS_arch_prctl, &[ARCH_SET_CPUID, u64::from(!traps), 0, 0, 0, 0]);
}

/// What the CPUID instruction says: EAX, EBX, ECX, EDX.
#[must_use]
pub fn ask(leaf: u32, subleaf: u32) -> [u32; 4] {
    let said = std::arch::x86_64::__cpuid_count(leaf, subleaf);
    [said.eax, said.ebx, said.ecx, said.edx]
}

/// How the kernel schedules a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// SCHED_*, with SCHED_RESET_ON_FORK if set.
    pub policy: i32,
    /// Of the real-time policies.
    pub priority: i32,
    /// Of the others.
    pub nice: i32,
}

impl Scheduling {
    /// That of thread `tid`.
    #[must_use]
    pub fn of(tid: i32) -> Self {
        let mut priority = 0_i32;
        let tid = tid as u64;
        let policy = call::raw(libc::SYS_sched_getscheduler, &[tid, 0, 0, 0, 0, 0]).max(0) as i32;
        call::raw(libc::SYS_sched_getparam, &[tid, &raw mut priority as u64, 0, 0, 0, 0]);
        // The call says 20 less the nice value.
        let said = call::raw(libc::SYS_getpriority, &[u64::from(libc::PRIO_PROCESS), tid, 0, 0, 0, 0]);
        Self { policy, priority, nice: if said > 0 { 20 - said as i32 } else { 0 } }
    }

    /// Has thread `tid` scheduled so; 0 or a negative error.
    #[must_use]
    pub fn apply(&self, tid: i32) -> i64 {
        let who = tid as u64;
        let priority = &raw const self.priority as u64;
        let scheduled = call::raw(libc::SYS_sched_setscheduler, &[who, self.policy as u64, priority, 0, 0, 0]);
        let nice = || call::raw(libc::SYS_setpriority, &[u64::from(libc::PRIO_PROCESS), who, self.nice as u64, 0, 0, 0]);
        if scheduled < 0 { scheduled } else { nice() }
    }
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

/// Whether this process may raise hard limits.
#[must_use]
pub fn may_raise_limits() -> bool {
    const VERSION_3: u32 = 0x2008_0522;
    const CAP_SYS_RESOURCE: u32 = 24;
    let header = [VERSION_3, 0];
    // Effective, permitted, inheritable: of the first 32 capabilities, then of the others.
    let mut sets = [0_u32; 6];
    let result = call::raw(libc::SYS_capget, &[header.as_ptr() as u64, sets.as_mut_ptr() as u64, 0, 0, 0, 0]);
    result == 0 && sets[0] >> CAP_SYS_RESOURCE & 1 == 1
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

/// CPU time of the whole process, in nanoseconds.
#[must_use]
pub fn process_time_ns() -> u64 {
    clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID)
}

/// CPU time of the calling thread, in nanoseconds.
#[must_use]
pub fn thread_time_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// CPU time of thread `tid` of this process, in nanoseconds; 0 if it is gone.
#[must_use]
pub fn time_of_thread_ns(tid: i32) -> u64 {
    // The kernel's clock of one thread: its number inverted, then 4 for a thread and 2 for the time it ran.
    clock_ns(!tid << 3 | 4 | 2)
}

fn clock_ns(clock: i32) -> u64 {
    let mut time = [0_u64; 2];
    let result = call::raw(libc::SYS_clock_gettime, &[clock as u64, time.as_mut_ptr() as u64, 0, 0, 0, 0]);
    if result == 0 { time[0] * 1_000_000_000 + time[1] } else { 0 }
}

const _: () = assert!(size_of::<libc::rusage>() == 18 * 8);

//! The unsafe steps of this crate: taking over descriptors the kernel has just made for us, and what a processor is asked.
//!
//! Owns those steps. Must not know packets, nor who compares features.
#![expect(
    unsafe_code,
    reason = "adopting a received descriptor is a promise about its number; XGETBV and arch_prctl have no safe wrapper"
)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// Owns descriptor `raw`, which recvmsg has just installed in this process, or which this process was started with.
pub(crate) fn adopt(raw: RawFd) -> OwnedFd {
    // SAFETY: `raw` comes out of an SCM_RIGHTS message of the recvmsg that returned it, so that the kernel opened it at
    // that moment and nothing else has seen the number yet; or it is the control socket a husk is started with, which
    // belongs to the husk by agreement and is asked for once (the caller has a flag for that).
    unsafe { OwnedFd::from_raw_fd(raw) }
}

/// Makes the CPUID instruction trap in the calling thread and those it starts, or run again.
///
/// # Errors
/// ENODEV where the processor cannot, EINVAL before linux 4.12.
pub(crate) fn trap_cpuid(traps: bool) -> Result<(), std::io::Error> {
    const ARCH_SET_CPUID: u64 = 0x1012;
    // SAFETY: this changes one flag of the calling thread and touches no memory.
    let result = unsafe { nix::libc::syscall(nix::libc::SYS_arch_prctl, ARCH_SET_CPUID, u64::from(!traps)) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// XCR0: the register state the kernel has switched on. Only where CPUID shows OSXSAVE.
pub(crate) fn xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller has seen OSXSAVE, so XGETBV exists; it only reads XCR0.
    unsafe { std::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack)) };
    u64::from(low) | u64::from(high) << 32
}

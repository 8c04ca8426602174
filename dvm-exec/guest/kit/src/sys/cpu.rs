//! Instructions.
//!
//! Owns each as a function.

use core::arch::{asm, x86_64};

/// The time-stamp counter, after all that came before.
#[must_use]
pub fn timestamp() -> u64 {
    // SAFETY: every processor has both instructions.
    unsafe {
        x86_64::_mm_lfence();
        x86_64::_rdtsc()
    }
}

/// Reads a model-specific register that there is.
#[must_use]
pub fn read_register(index: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading those that the kit names changes nothing.
    unsafe { asm!("rdmsr", in("ecx") index, out("eax") low, out("edx") high, options(nostack, preserves_flags)) }
    u64::from(high) << 32 | u64::from(low)
}

/// Writes one.
pub fn write_register(index: u32, value: u64) {
    // SAFETY: those that the kit names are of the APIC, or give the processor a page of private memory that nothing else uses.
    unsafe {
        asm!("wrmsr", in("ecx") index, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack, preserves_flags));
    }
}

/// Interrupts on, by the flag of the processor.
pub fn set_flag() {
    // SAFETY: handlers keep all registers.
    unsafe { asm!("sti", options(nostack)) }
}

/// Interrupts off.
pub fn clear_flag() {
    // SAFETY: no memory is involved.
    unsafe { asm!("cli", options(nostack)) }
}

/// Whether the flag is set.
#[must_use]
pub fn flag() -> bool {
    const FLAG: u64 = 1 << 9;
    let flags: u64;
    // SAFETY: what is pushed is popped.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags, options(preserves_flags)) }
    flags & FLAG != 0
}

/// Halts, with the flag as it is.
pub fn halt() {
    // SAFETY: an interrupt goes on behind it.
    unsafe { asm!("hlt", options(nostack)) }
}

/// Interrupts on and halt: an interrupt that comes between ends the halt.
pub fn set_flag_and_halt() {
    // SAFETY: as above.
    unsafe { asm!("sti", "hlt", options(nostack)) }
}

/// The stack pointer.
#[must_use]
pub fn stack() -> u64 {
    let pointer;
    // SAFETY: no memory is involved.
    unsafe { asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags)) }
    pointer
}

//! Memory by its address: private memory, device registers, memory from [`crate::alloc`].
//!
//! Owns the accesses, none of which the compiler may leave out or join.

fn at<T>(address: u64) -> *mut T {
    core::ptr::with_exposed_provenance_mut(address as usize)
}

/// The word at `address`.
#[must_use]
pub fn read(address: u64) -> u64 {
    // SAFETY: callers name private memory, device registers or memory that was given out; no reference covers it.
    unsafe { at::<u64>(address).read_volatile() }
}

/// Writes it.
pub fn write(address: u64, value: u64) {
    // SAFETY: as in `read`.
    unsafe { at::<u64>(address).write_volatile(value) }
}

/// The half word at `address`.
#[must_use]
pub fn read_half(address: u64) -> u32 {
    // SAFETY: as in `read`.
    unsafe { at::<u32>(address).read_volatile() }
}

/// Writes it.
pub fn write_half(address: u64, value: u32) {
    // SAFETY: as in `read`.
    unsafe { at::<u32>(address).write_volatile(value) }
}

/// The quarter word at `address`.
#[must_use]
pub fn read_quarter(address: u64) -> u16 {
    // SAFETY: as in `read`.
    unsafe { at::<u16>(address).read_volatile() }
}

/// Writes it.
pub fn write_quarter(address: u64, value: u16) {
    // SAFETY: as in `read`.
    unsafe { at::<u16>(address).write_volatile(value) }
}

/// Clears the lowest bit of the half word at `address`; whether it was set. The machine may change it before or after, not between.
pub fn take_bit(address: u64) -> bool {
    let was_set: u8;
    // SAFETY: as in `read`; one instruction of this processor, which alone uses the word with the machine that runs it.
    unsafe { core::arch::asm!("btr dword ptr [{}], 0", "setc {}", in(reg) address, out(reg_byte) was_set, options(nostack)) }
    was_set != 0
}

/// The byte at `address`.
#[must_use]
pub fn read_byte(address: u64) -> u8 {
    // SAFETY: as in `read`.
    unsafe { at::<u8>(address).read_volatile() }
}

/// Writes it.
pub fn write_byte(address: u64, value: u8) {
    // SAFETY: as in `read`.
    unsafe { at::<u8>(address).write_volatile(value) }
}

/// Fills `to` from `address` on.
pub fn load(address: u64, to: &mut [u8]) {
    (0..).zip(to).for_each(|(offset, byte)| *byte = read_byte(address + offset));
}

/// Writes `from` to `address` and behind it.
pub fn store(address: u64, from: &[u8]) {
    (0..).zip(from).for_each(|(offset, byte)| write_byte(address + offset, *byte));
}

/// Text that nobody changes; empty if it is none.
#[must_use]
pub fn text(address: u64, bytes: usize) -> &'static str {
    // SAFETY: the machine has written it before the first instruction, and nobody writes there.
    let bytes = unsafe { core::slice::from_raw_parts(at::<u8>(address), bytes) };
    core::str::from_utf8(bytes).unwrap_or("")
}

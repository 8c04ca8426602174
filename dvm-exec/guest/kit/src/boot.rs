//! What the machine tells a guest at its start.
//!
//! Owns the words at the beginning of private memory (docs/kvm.md). Must not keep copies: each host has its own.

use crate::sys::memory::{read, read_byte};

/// `DVMBOOT1`.
pub const MAGIC: u64 = u64::from_le_bytes(*b"DVMBOOT1");
/// Where the words are, on every host.
pub const ADDRESS: u64 = 0xd000_0000;

fn word(index: u64) -> u64 {
    read(ADDRESS + index * 8)
}

/// Processors of the guest.
#[must_use]
pub fn cpus() -> usize {
    word(1) as usize
}

/// Bytes of memory.
#[must_use]
pub fn memory() -> u64 {
    word(2)
}

/// Rate of the time-stamp counter.
#[must_use]
pub fn tsc_khz() -> u64 {
    word(3)
}

/// The private block of processor `cpu`, and its size.
#[must_use]
pub fn block(cpu: usize) -> u64 {
    word(5) + word(6) * cpu as u64
}

/// The page tables, to be loaded into control register 3.
#[must_use]
pub fn tables() -> u64 {
    word(7)
}

/// The command line.
#[must_use]
pub fn command_line() -> &'static str {
    crate::sys::memory::text(word(8), word(9) as usize)
}

/// Hosts.
#[must_use]
pub fn hosts() -> usize {
    word(10) as usize
}

/// This host.
#[must_use]
pub fn here() -> usize {
    word(11) as usize
}

/// The host of processor `cpu`.
#[must_use]
pub fn host_of(cpu: usize) -> usize {
    usize::from(read_byte(ADDRESS + 0x800 + cpu as u64))
}

/// Whether the end of an interrupt can be noted in a word of memory.
#[must_use]
pub fn has_ends() -> bool {
    word(15) & 1 != 0
}

/// Free memory behind the image: first byte and the one behind the last.
#[must_use]
pub fn free() -> (u64, u64) {
    (word(14), word(12))
}

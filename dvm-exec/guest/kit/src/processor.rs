//! The processor that runs this.
//!
//! Owns its number, what is private to it, and how it is run.

use crate::sys::cpu;
use crate::sys::entry::{self, WORDS};
use crate::sys::memory::{read, write};
use crate::{Page, boot};

const BLOCKS: u64 = 0xd080_0000;
const BLOCK_BYTES: u64 = 1 << 16;
/// Registers of a software KVM that runs kernels in user mode: its signature, and the page of the interrupt flag.
const SIGNATURE: u32 = 0x4b56_4d11;
const FLAG_PAGE: u32 = 0x4b56_4d10;
const IS_NATIVE: u64 = 0;

/// Number of this processor: every stack lies in the block of its processor.
#[must_use]
pub fn number() -> usize {
    ((cpu::stack() - 1 - BLOCKS) / BLOCK_BYTES) as usize
}

/// Address of its block.
#[must_use]
pub fn block() -> u64 {
    BLOCKS + number() as u64 * BLOCK_BYTES
}

/// How many there are.
#[must_use]
pub fn count() -> usize {
    boot::cpus()
}

/// A value for each of up to `N` processors, on a page of its own.
pub struct Each<T, const N: usize>([Page<T>; N]);

impl<T, const N: usize> Each<T, N> {
    /// These.
    pub const fn new(values: [Page<T>; N]) -> Self {
        Self(values)
    }

    /// This processor's.
    ///
    /// # Panics
    /// It is none of the first `N`.
    pub fn own(&self) -> &T {
        &self.0[number()]
    }

    /// All of them, that of processor 0 first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|value| &value.0)
    }
}

/// Whether the machine is a software KVM that runs this program in user mode. The interrupt flag is a byte in memory then.
#[must_use]
pub fn is_native() -> bool {
    read(block() + WORDS + IS_NATIVE) != 0
}

/// Asks whether there is such a machine, and goes over to its native mode. An ordinary one has no such register.
pub(crate) fn go_native() {
    const PVM: u64 = 0x4d_5650;
    let has = entry::probe(SIGNATURE) == PVM;
    if has {
        write(block(), 0);
        write(block() + 8, 0);
        cpu::write_register(FLAG_PAGE, block());
    }
    write(block() + WORDS + IS_NATIVE, u64::from(has));
}

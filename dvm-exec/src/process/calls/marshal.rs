//! Takes a call's buffers out of the program's memory, lays them out for the shadow, and puts the results back.
//!
//! Owns the three steps `pack` (member), [`Prepared`] (root) and `unpack` (member). Must not touch memory but through [`Memory`].

use super::Shape;
use super::super::wire::{Call, Return};

/// The program's memory as the member sees it. False: a page there cannot be accessed.
pub trait Memory {
    /// Copies from the program.
    fn read(&mut self, address: u64, out: &mut [u8]) -> bool;
    /// Copies to the program.
    fn write(&mut self, address: u64, bytes: &[u8]) -> bool;
}

/// Packs a call with its buffers; `None` if it must run on raw arguments (too long, or memory that cannot be read, on
/// which the kernel itself shall fail).
pub fn pack(_number: u32, _arguments: [u64; 6], _shape: &Shape, _memory: &mut dyn Memory) -> Option<Call> {
    todo!()
}

/// Writes a call's results to the program. False: some of it cannot be written; the program gets EFAULT.
#[must_use]
pub fn unpack(_arguments: [u64; 6], _shape: &Shape, _answer: &Return, _memory: &mut dyn Memory) -> bool {
    todo!()
}

/// A call at the root, its buffers in the husk's own memory.
#[derive(Debug)]
pub struct Prepared {
    arguments: [u64; 6],
}

impl Prepared {
    /// Lays out a call that came with buffers; `None` if they do not suit the shape (a forged or confused peer).
    #[must_use]
    pub fn new(_call: &Call, _shape: &Shape) -> Option<Self> {
        todo!()
    }

    /// Arguments for the kernel, pointing into this value's buffers. They hold until [`Prepared::finish`].
    #[must_use]
    pub fn arguments(&mut self) -> [u64; 6] {
        self.arguments
    }

    /// What comes back after the call returned `value`.
    #[must_use]
    pub fn finish(self, _value: i64) -> Return {
        todo!()
    }
}

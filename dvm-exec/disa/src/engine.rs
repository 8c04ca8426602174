//! Engines: what carries a runner from its first instruction to its end.
//!
//! Owns what an engine needs of the processor it works for. Must not know how it is made faster.

use crate::interpreter::Outcome;
use crate::map::{Range, WINDOW_SLOTS};
use crate::memory::{Access, Region};
use crate::trap::TrapKind;
use crate::types::ExitMode;
use std::fmt::Debug;

/// How far a runner has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The address of the next instruction.
    pub pc: u64,
    /// The address of the instruction executed last.
    pub last: u64,
    /// Instructions used, bulk ones by the length of their work.
    pub fuel_used: u64,
}

/// A runner's processor, as an engine sees it: the interpreter, whatever its memory.
pub trait Processor {
    /// How far it has come.
    fn position(&self) -> Position;

    /// Goes on elsewhere: an engine has executed what lies between.
    fn move_to(&mut self, position: Position);

    /// Most instructions it may execute.
    fn fuel_max(&self) -> u64;

    /// The register window.
    fn window(&mut self) -> &mut [u64; WINDOW_SLOTS];

    /// Executes one instruction; the mode if it was `exit`.
    ///
    /// # Errors
    /// The trap; program counter, window and memory are as before the instruction, but for bulk stores that ran out of pages.
    fn step(&mut self) -> Result<Option<ExitMode>, TrapKind>;

    /// Interprets until it has jumped backwards, or further than an instruction is long, to an address that is `wanted`; `None`
    /// then.
    fn interpret(&mut self, wanted: &mut dyn FnMut(u64) -> bool) -> Option<Outcome>;

    /// Memory around `range` that may be accessed directly, never any of the window.
    fn region(&mut self, range: Range, access: Access) -> Option<Region>;

    /// Another number when regions that were shown before are not to be used any more.
    fn generation(&self) -> u64;
}

/// Runs runners to their end. All engines come to the same end, at the same instruction, with the same fuel, window and memory.
pub trait Engine: Debug {
    /// Runs to the end.
    fn run(&self, processor: &mut dyn Processor) -> Outcome;
}

/// The engine that interprets everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interpreted;

impl Engine for Interpreted {
    fn run(&self, processor: &mut dyn Processor) -> Outcome {
        loop {
            if let Some(outcome) = processor.interpret(&mut |_| false) {
                return outcome;
            }
        }
    }
}

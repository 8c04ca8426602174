//! The interpreter as the processor that other engines work for.
//!
//! Owns when they may take over. Must not know what they do.

use super::{Interpreter, Outcome};
use crate::code::is_far;
use crate::engine::{Position, Processor};
use crate::map::{Range, WINDOW, WINDOW_SLOTS};
use crate::memory::{Access, Effects, Memory, Region};
use crate::trap::{Trap, TrapKind};
use crate::types::ExitMode;

impl<M: Memory, E: Effects> Processor for Interpreter<'_, M, E> {
    fn position(&self) -> Position {
        Position { pc: self.pc, last: self.last, fuel_used: self.fuel_used }
    }

    fn move_to(&mut self, Position { pc, last, fuel_used }: Position) {
        (self.pc, self.last, self.fuel_used) = (pc, last, fuel_used);
        self.index = self.code.index(pc);
    }

    fn fuel_max(&self) -> u64 {
        self.fuel_max
    }

    fn window(&mut self) -> &mut [u64; WINDOW_SLOTS] {
        &mut self.window
    }

    fn step(&mut self) -> Result<Option<ExitMode>, TrapKind> {
        Self::step(self)
    }

    fn interpret(&mut self, wanted: &mut dyn FnMut(u64) -> bool) -> Option<Outcome> {
        loop {
            if self.hurry(wanted) {
                return None;
            }
            let before = self.pc;
            match Self::step(self) {
                Ok(None) => {}
                Ok(Some(mode)) => return Some(Outcome::Exit(mode, self.pc)),
                Err(kind) => return Some(Outcome::Trap(Trap { kind, pc: self.pc })),
            }
            if is_far(before, self.pc) && wanted(self.pc) {
                return None;
            }
        }
    }

    fn generation(&self) -> u64 {
        self.memory.generation()
    }

    fn region(&mut self, range: Range, access: Access) -> Option<Region> {
        if WINDOW.overlaps(range) {
            return None;
        }
        let region = self.memory.region(range, access)?;
        if !WINDOW.overlaps(region.range) {
            return Some(region);
        }
        let end = WINDOW.base + WINDOW.bytes;
        if range.base < WINDOW.base {
            return Some(Region { range: Range::new(region.range.base, WINDOW.base - region.range.base), ..region });
        }
        let skipped = end - region.range.base;
        let rest = Range::new(end, region.range.bytes - skipped);
        Some(Region { range: rest, host: region.host.wrapping_add(skipped as usize) })
    }
}

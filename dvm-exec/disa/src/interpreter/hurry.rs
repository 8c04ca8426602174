//! The same instructions, sooner: what has a quick form, and needs nothing to be found out.
//!
//! Owns the loop over quick forms. Must not trap: an instruction that would, or that asks memory for more than it knows, changes nothing
//! here and is executed from its beginning by `step`.

use super::access::overlaps_window;
use super::{Interpreter, integer};
use crate::code::is_far;
use crate::isa::Op;
use crate::memory::{Effects, Memory};
use crate::quick::{Cell, Jump, Quick, Source};
use crate::types::Type;

impl<M: Memory, E: Effects> Interpreter<'_, M, E> {
    /// Executes instructions up to one that is for `step`, or up to a jump, backwards or far, to an address that is `wanted`: whether it
    /// came to one.
    pub(super) fn hurry(&mut self, wanted: &mut dyn FnMut(u64) -> bool) -> bool {
        let code = self.code;
        let fuel = self.fuel_max.saturating_sub(self.fuel_used);
        let (mut left, mut at, mut last) = (fuel, self.index, self.index);
        let is_wanted = loop {
            if left == 0 {
                break false;
            }
            let Some(jump) = self.execute_quick(code.quick(at), at) else { break false };
            left -= 1;
            last = at;
            at = jump.map_or(at + 1, |jump| jump.target);
            if let Some(Jump { is_far: true, target }) = jump
                && code.step(target).is_some_and(|step| wanted(step.pc))
            {
                break true;
            }
        };
        if left < fuel
            && let Some(before) = code.step(last)
        {
            self.fuel_used += fuel - left;
            (self.index, self.last) = (at, before.pc);
            self.pc = code.step(at).map_or(before.next_pc, |step| step.pc);
        }
        is_wanted
    }

    /// The jump it was, if it was one; `None`: nothing was done.
    #[inline(always)]
    fn execute_quick(&mut self, quick: &Quick, at: u32) -> Option<Option<Jump>> {
        match *quick {
            Quick::No => return None,
            Quick::Binary { op, left, right, to } => {
                let (left, right) = (self.known(left, Type::Q)?, self.known(right, Type::Q)?);
                self.window[usize::from(to)] = integer::binary(op, Type::Q, left, right).ok()?;
            }
            Quick::BinaryInto { op, left, right, to } => {
                let (left, right) = (self.known(left, Type::Q)?, self.known(right, Type::Q)?);
                self.store_known(to, Type::Q, quad(op, left, right)?)?;
            }
            Quick::Move { ty, from, to } => {
                let value = self.known(from, ty)?;
                let slot = &mut self.window[usize::from(to)];
                *slot = *slot & !ty.mask() | value;
            }
            Quick::MoveInto { ty, from, to } => {
                let value = self.known(from, ty)?;
                self.store_known(to, ty, value)?;
            }
            Quick::Branch { condition, ty, left, right, jump } => {
                let (left, right) = (self.known(left, ty)?, self.known(right, ty)?);
                return Some(integer::compare(condition, ty, left, right).then_some(jump));
            }
            Quick::Jump(jump) => return Some(Some(jump)),
            Quick::Call { link, back, jump } => {
                self.window[usize::from(link)] = back;
                return Some(Some(jump));
            }
            Quick::Return(slot) => {
                let target = self.code.index(self.window[usize::from(slot)]);
                let (from, to) = (self.code.step(at)?, self.code.step(target)?);
                return Some(Some(Jump { target, is_far: is_far(from.pc, to.pc) }));
            }
        }
        Some(None)
    }

    /// What a source holds, zero-extended; `None`: it has to be found out.
    #[inline(always)]
    fn known(&self, source: Source, ty: Type) -> Option<u64> {
        match source {
            Source::Slot(slot) => Some(self.window[usize::from(slot)] & ty.mask()),
            Source::Constant(value) => Some(value),
            Source::Memory(cell) => self.memory.load_known(self.address(cell, ty)?, ty.bytes()),
        }
    }

    /// Stores the low bytes of a value; `None`: nothing was done.
    #[inline(always)]
    fn store_known(&mut self, to: Cell, ty: Type, value: u64) -> Option<()> {
        let address = self.address(to, ty)?;
        self.memory.store_known(address, ty.bytes(), value).then_some(())
    }

    /// The address of a cell, if all of it is outside the window.
    #[inline(always)]
    fn address(&self, Cell { slot, displacement }: Cell, ty: Type) -> Option<u64> {
        let address = self.window[usize::from(slot)].wrapping_add_signed(i64::from(displacement));
        (!overlaps_window(address, ty.bytes())).then_some(address)
    }
}

/// The same as for slots, which are far more frequent: not another copy of it in the loop.
#[inline(never)]
fn quad(op: Op, left: u64, right: u64) -> Option<u64> {
    integer::binary(op, Type::Q, left, right).ok()
}

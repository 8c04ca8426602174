//! The same instructions, sooner: what has a quick form and needs nothing to be found out.
//!
//! Owns the loop over quick forms. Must not trap: an instruction that would, or that asks memory for more than it knows, changes nothing
//! here and is executed from its beginning by `step`.

use super::access::overlaps_window;
use super::{Interpreter, integer};
use crate::memory::{Effects, Memory};
use crate::quick::{Jump, Pointer, Quick, Source};
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
            let jump = match *code.quick(at) {
                Quick::No => break false,
                Quick::Binary { op, left, right, to } => {
                    let (Some(left), Some(right)) = (self.known(left, Type::Q), self.known(right, Type::Q)) else { break false };
                    let Ok(result) = integer::binary(op, Type::Q, left, right) else { break false };
                    self.window[usize::from(to)] = result;
                    None
                }
                Quick::Move { ty, from, to } => {
                    let Some(value) = self.known(from, ty) else { break false };
                    let slot = &mut self.window[usize::from(to)];
                    *slot = *slot & !ty.mask() | value & ty.mask();
                    None
                }
                Quick::Store { ty, from, to } => {
                    let Some(value) = self.known(from, ty) else { break false };
                    let Some(address) = self.pointed(to, ty) else { break false };
                    if !self.memory.store_known(address, ty.bytes(), value) {
                        break false;
                    }
                    None
                }
                Quick::Branch { condition, ty, left, right, jump } => {
                    let (Some(left), Some(right)) = (self.known(left, ty), self.known(right, ty)) else { break false };
                    integer::compare(condition, ty, left, right).then_some(jump)
                }
                Quick::Jump(jump) => Some(jump),
            };
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

    /// What a source holds, zero-extended; `None`: it has to be found out.
    #[inline(always)]
    fn known(&self, source: Source, ty: Type) -> Option<u64> {
        match source {
            Source::Slot(slot) => Some(self.window[usize::from(slot)] & ty.mask()),
            Source::Constant(value) => Some(value),
            Source::Pointed(pointer) => self.memory.load_known(self.pointed(pointer, ty)?, ty.bytes()),
        }
    }

    /// An address outside the window.
    #[inline(always)]
    fn pointed(&self, Pointer { slot, displacement }: Pointer, ty: Type) -> Option<u64> {
        let address = self.window[usize::from(slot)].wrapping_add_signed(i64::from(displacement));
        (!overlaps_window(address, ty.bytes())).then_some(address)
    }
}

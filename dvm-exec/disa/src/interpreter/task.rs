//! `newr` and `neww`: descriptors into runners.
//!
//! Owns the layout of descriptors and the cells they answer in. Must not know who starts runners.

use super::{Interpreter, operand};
use crate::instruction::Instruction;
use crate::isa::Op;
use crate::limits::RANGES_MAX;
use crate::map::{self, Range, cell};
use crate::memory::{Access, Effects, Memory, Spawn};
use crate::trap::TrapKind;
use crate::types::Type;

impl<M: Memory, E: Effects> Interpreter<'_, M, E> {
    pub(super) fn spawn(&mut self, instruction: &Instruction) -> Result<(), TrapKind> {
        let mut descriptors = [0; 4];
        for (index, descriptor) in descriptors.iter_mut().enumerate() {
            *descriptor = self.value(operand(instruction, index), Type::Q)?;
        }
        let [stack, heap, watched, first] = descriptors;
        let stack = Range::new(self.quad(stack)?, self.quad(stack.wrapping_add(8))?);
        let watched = self.ranges(watched)?;
        let is_persistent = instruction.op() == Op::Neww;
        if is_persistent && watched.is_empty() {
            return Err(TrapKind::NRanges(0));
        }
        let heap = self.ranges(heap)?;
        let is_given = stack.base != 0;
        let given = is_given.then_some(stack);
        for range in heap.iter().chain(&watched).chain(&given) {
            if !map::SR.encloses(*range) {
                return Err(TrapKind::RangeList { base: range.base, bytes: range.bytes });
            }
        }
        let is_small = stack.bytes < map::ARGUMENT_BYTES;
        if is_given && is_small || !is_given && stack.bytes > map::STACK_BYTES {
            return Err(TrapKind::RangeList { base: stack.base, bytes: stack.bytes });
        }
        let first = self.quad(first)?;
        let born = self.effects.spawn(Spawn { stack: given, heap, watched, first, is_persistent })?;
        self.memory.grant(born.stack);
        let arguments = born.stack.base + born.stack.bytes - map::ARGUMENT_BYTES;
        self.memory.store(cell::NEW_STACK, 8, born.stack.base)?;
        self.memory.store(cell::NEW_STACK_SIZE, 8, born.stack.bytes)?;
        self.memory.store(cell::NEW_ID, 8, born.id)?;
        self.memory.store(cell::NEW_ARGUMENTS, 8, arguments)
    }

    /// A quad that a pointer leads to.
    pub(super) fn quad(&mut self, address: u64) -> Result<u64, TrapKind> {
        self.admit(Range::new(address, 8), Access::Load)?;
        self.memory.load(address, 8)
    }

    fn ranges(&mut self, list: u64) -> Result<Vec<Range>, TrapKind> {
        let count = self.quad(list)?;
        if count > RANGES_MAX {
            return Err(TrapKind::NRanges(count));
        }
        let mut ranges = Vec::with_capacity(count as usize);
        for index in 0..count {
            let at = list.wrapping_add(8 + 16 * index);
            ranges.push(Range::new(self.quad(at)?, self.quad(at.wrapping_add(8))?));
        }
        Ok(ranges)
    }
}

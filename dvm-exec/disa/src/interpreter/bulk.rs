//! Instructions over many bytes.
//!
//! Owns their order of checks: fuel, then loads, then stores, then the work. Must not know pages.

use super::access::outside_window;
use super::{Interpreter, fnv1a, operand};
use crate::instruction::Instruction;
use crate::isa::Op;
use crate::limits::{BULK_BYTES_PER_FUEL, BULK_CHUNK_BYTES};
use crate::map::Range;
use crate::memory::{Access, Effects, Memory};
use crate::trap::TrapKind;
use crate::types::Type;

/// Words and lines: what is as short needs no buffer that takes longer to clear than to use.
const SHORT_BYTES: usize = 64;

impl<M: Memory, E: Effects> Interpreter<'_, M, E> {
    pub(super) fn bulk(&mut self, instruction: &Instruction) -> Result<(), TrapKind> {
        let first_type = if matches!(instruction.op(), Op::Fill | Op::Find) { Type::B } else { Type::Q };
        let first = self.value(operand(instruction, 0), first_type)?;
        let second = self.value(operand(instruction, 1), Type::Q)?;
        if instruction.op() == Op::Touch {
            self.effects.touch(Range::new(first, second));
            return Ok(());
        }
        if instruction.op() == Op::Hash {
            let hash = self.hash(Range::new(first, second))?;
            return self.put(operand(instruction, 2), Type::Q, hash);
        }
        let third = self.value(operand(instruction, 2), Type::Q)?;
        match instruction.op() {
            Op::Copy => self.copy(first, Range::new(third, second)),
            Op::Fill => self.fill(first as u8, Range::new(third, second)),
            Op::Cmpb => {
                let index = self.compare(first, Range::new(second, third))?;
                self.put(operand(instruction, 3), Type::Q, index)
            }
            _ => {
                let index = self.find(first as u8, Range::new(second, third))?;
                self.put(operand(instruction, 3), Type::Q, index)
            }
        }
    }

    /// Pays for the work and checks its range.
    pub(super) fn admit(&mut self, range: Range, access: Access) -> Result<(), TrapKind> {
        if range.bytes == 0 {
            return Ok(());
        }
        outside_window(range)?;
        self.memory.check(range, access)
    }

    fn pay(&mut self, bytes: u64) -> Result<(), TrapKind> {
        self.burn(bytes.div_ceil(BULK_BYTES_PER_FUEL))
    }

    fn copy(&mut self, from: u64, to: Range) -> Result<(), TrapKind> {
        self.pay(to.bytes)?;
        self.admit(Range::new(from, to.bytes), Access::Load)?;
        self.admit(to, Access::Store)?;
        if to.bytes <= SHORT_BYTES as u64 {
            return self.copy_by(from, to, &mut [0; SHORT_BYTES]);
        }
        self.copy_by(from, to, &mut [0; BULK_CHUNK_BYTES])
    }

    fn copy_by(&mut self, from: u64, to: Range, buffer: &mut [u8]) -> Result<(), TrapKind> {
        let is_backwards = to.base > from;
        let mut done = 0;
        while done < to.bytes {
            let count = (to.bytes - done).min(buffer.len() as u64);
            let offset = if is_backwards { to.bytes - done - count } else { done };
            let chunk = &mut buffer[..count as usize];
            self.memory.read(from + offset, chunk)?;
            self.memory.write(to.base + offset, chunk)?;
            done += count;
        }
        Ok(())
    }

    fn fill(&mut self, byte: u8, to: Range) -> Result<(), TrapKind> {
        self.pay(to.bytes)?;
        self.admit(to, Access::Store)?;
        let buffer = [byte; BULK_CHUNK_BYTES];
        let mut done = 0;
        while done < to.bytes {
            let count = (to.bytes - done).min(BULK_CHUNK_BYTES as u64);
            self.memory.write(to.base + done, &buffer[..count as usize])?;
            done += count;
        }
        Ok(())
    }

    fn hash(&mut self, range: Range) -> Result<u64, TrapKind> {
        self.pay(range.bytes)?;
        self.admit(range, Access::Load)?;
        let mut hash = fnv1a::OFFSET;
        self.scan(range, |chunk| {
            hash = fnv1a::add(hash, chunk);
            None
        })?;
        Ok(hash)
    }

    fn find(&mut self, byte: u8, range: Range) -> Result<u64, TrapKind> {
        self.pay(range.bytes)?;
        self.admit(range, Access::Load)?;
        let found = self.scan(range, |chunk| chunk.iter().position(|other| *other == byte))?;
        Ok(found.unwrap_or(range.bytes))
    }

    fn compare(&mut self, left: u64, right: Range) -> Result<u64, TrapKind> {
        self.pay(right.bytes)?;
        self.admit(Range::new(left, right.bytes), Access::Load)?;
        self.admit(right, Access::Load)?;
        if right.bytes <= SHORT_BYTES as u64 {
            return self.compare_by(left, right, [&mut [0; SHORT_BYTES], &mut [0; SHORT_BYTES]]);
        }
        self.compare_by(left, right, [&mut [0; BULK_CHUNK_BYTES], &mut [0; BULK_CHUNK_BYTES]])
    }

    fn compare_by(&mut self, left: u64, right: Range, [a, b]: [&mut [u8]; 2]) -> Result<u64, TrapKind> {
        let mut done = 0;
        while done < right.bytes {
            let count = (right.bytes - done).min(a.len() as u64) as usize;
            self.memory.read(left + done, &mut a[..count])?;
            self.memory.read(right.base + done, &mut b[..count])?;
            if let Some(index) = a[..count].iter().zip(&b[..count]).position(|(a, b)| a != b) {
                return Ok(done + index as u64);
            }
            done += count as u64;
        }
        Ok(right.bytes)
    }

    fn scan(&mut self, range: Range, look: impl FnMut(&[u8]) -> Option<usize>) -> Result<Option<u64>, TrapKind> {
        if range.bytes <= SHORT_BYTES as u64 {
            return self.scan_by(range, look, &mut [0; SHORT_BYTES]);
        }
        self.scan_by(range, look, &mut [0; BULK_CHUNK_BYTES])
    }

    fn scan_by(
        &mut self,
        range: Range,
        mut look: impl FnMut(&[u8]) -> Option<usize>,
        buffer: &mut [u8],
    ) -> Result<Option<u64>, TrapKind> {
        let mut done = 0;
        while done < range.bytes {
            let count = (range.bytes - done).min(buffer.len() as u64);
            let chunk = &mut buffer[..count as usize];
            self.memory.read(range.base + done, chunk)?;
            if let Some(index) = look(chunk) {
                return Ok(Some(done + index as u64));
            }
            done += count;
        }
        Ok(None)
    }
}

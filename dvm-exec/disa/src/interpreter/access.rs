//! Operands: what they hold, and storing into them.
//!
//! Owns the register window and its rule: direct addressing only. Must not know instructions.

use super::Interpreter;
use crate::instruction::Operand;
use crate::map::{self, Range};
use crate::memory::{Effects, Memory};
use crate::trap::TrapKind;
use crate::types::Type;

impl<M: Memory, E: Effects> Interpreter<'_, M, E> {
    /// What an operand holds, zero-extended.
    #[inline]
    pub(super) fn value(&mut self, operand: Operand, ty: Type) -> Result<u64, TrapKind> {
        match operand {
            Operand::Immediate(value) => Ok(value as u64 & ty.mask()),
            Operand::Code(address) => Ok(address & ty.mask()),
            Operand::Window(slot) => Ok(self.window[usize::from(slot)] & ty.mask()),
            Operand::WindowIndirect { .. } | Operand::Indirect { .. } => {
                let address = self.pointer(operand, ty)?;
                self.memory.load(address, ty.bytes())
            }
            Operand::Direct(address) => self.load_direct(address, ty.bytes()),
        }
    }

    /// Stores the low bytes of `value`; other bytes of the cell stay.
    #[inline]
    pub(super) fn put(&mut self, operand: Operand, ty: Type, value: u64) -> Result<(), TrapKind> {
        match operand {
            Operand::Immediate(_) | Operand::Code(_) => Err(TrapKind::Store),
            Operand::Window(slot) => {
                let cell = &mut self.window[usize::from(slot)];
                *cell = *cell & !ty.mask() | value & ty.mask();
                Ok(())
            }
            Operand::WindowIndirect { .. } | Operand::Indirect { .. } => {
                let address = self.pointer(operand, ty)?;
                self.memory.store(address, ty.bytes(), value)
            }
            Operand::Direct(address) => self.store_direct(address, ty.bytes(), value),
        }
    }

    #[inline]
    fn pointer(&mut self, operand: Operand, ty: Type) -> Result<u64, TrapKind> {
        let (base, displacement) = match operand {
            Operand::WindowIndirect { slot, displacement } => (self.window[usize::from(slot)], displacement),
            Operand::Indirect { cell, displacement } => (self.load_direct(cell, 8)?, displacement),
            _ => (0, 0),
        };
        let address = base.wrapping_add_signed(i64::from(displacement));
        outside_window(Range::new(address, ty.bytes() as u64))?;
        Ok(address)
    }

    fn load_direct(&mut self, address: u64, bytes: usize) -> Result<u64, TrapKind> {
        if !overlaps_window(address, bytes) {
            return self.memory.load(address, bytes);
        }
        let mut value = 0;
        for offset in 0..bytes {
            let at = address.wrapping_add(offset as u64);
            let byte = match window_byte(at) {
                Some((slot, shift)) => self.window[slot] >> shift & 0xff,
                None => self.memory.load(at, 1)?,
            };
            value |= byte << (8 * offset);
        }
        Ok(value)
    }

    fn store_direct(&mut self, address: u64, bytes: usize, value: u64) -> Result<(), TrapKind> {
        if !overlaps_window(address, bytes) {
            return self.memory.store(address, bytes, value);
        }
        for offset in 0..bytes {
            let at = address.wrapping_add(offset as u64);
            let byte = value >> (8 * offset) & 0xff;
            match window_byte(at) {
                Some((slot, shift)) => self.window[slot] = self.window[slot] & !(0xff << shift) | byte << shift,
                None => self.memory.store(at, 1, byte)?,
            }
        }
        Ok(())
    }
}

/// Slot and bit where the byte at an address is.
fn window_byte(address: u64) -> Option<(usize, u64)> {
    let offset = address.wrapping_sub(map::WINDOW.base);
    (offset < map::WINDOW.bytes).then_some(((offset / 8) as usize, offset % 8 * 8))
}

#[inline]
pub(super) fn overlaps_window(address: u64, bytes: usize) -> bool {
    map::WINDOW.overlaps(Range::new(address, bytes as u64))
}

/// Refuses what a pointer may not reach.
#[inline]
pub(super) fn outside_window(range: Range) -> Result<(), TrapKind> {
    if map::WINDOW.overlaps(range) { Err(TrapKind::Window(range.base)) } else { Ok(()) }
}

//! `sys`: the calls and their argument blocks.
//!
//! Owns numbers and layouts. Must not do what is asked: [`Effects`] does.

use super::{Interpreter, operand};
use crate::instruction::{Instruction, Operand};
use crate::limits::SYSTEM_BYTES_MAX;
use crate::map::Range;
use crate::memory::{Access, Effects, Memory};
use crate::trap::TrapKind;
use crate::types::Type;

mod call {
    pub const PRINT: u64 = 1;
    pub const WRITE: u64 = 2;
    pub const READ: u64 = 3;
    pub const OPEN: u64 = 4;
    pub const ALLOCATE: u64 = 5;
    pub const TIME: u64 = 6;
    pub const RANDOM: u64 = 7;
    pub const ARGUMENT: u64 = 8;
    pub const LOG: u64 = 9;
}

/// What a block says when there is nothing to say.
const NONE: u64 = u64::MAX;

impl<M: Memory, E: Effects> Interpreter<'_, M, E> {
    pub(super) fn system(&mut self, instruction: &Instruction) -> Result<(), TrapKind> {
        let number = self.value(operand(instruction, 0), Type::Q)?;
        let argument = operand(instruction, 1);
        match number {
            call::PRINT => {
                let value = self.value(argument, Type::Q)? as i64;
                self.effects.print(format!("{value}\n").as_bytes())
            }
            call::TIME => {
                let time = self.effects.time();
                self.put(argument, Type::Q, time)
            }
            call::RANDOM => {
                let random = self.effects.random();
                self.put(argument, Type::Q, random)
            }
            call::WRITE | call::LOG => {
                let text = self.text(argument)?;
                if number == call::LOG { self.effects.log(&text) } else { self.effects.print(&text) }
            }
            call::READ => self.read_input(argument),
            call::OPEN => self.open(argument),
            call::ALLOCATE => self.allocate(argument),
            call::ARGUMENT => self.program_argument(argument),
            _ => Err(TrapKind::Sys(number)),
        }
    }

    /// The bytes of a block {length, address}.
    fn text(&mut self, argument: Operand) -> Result<Vec<u8>, TrapKind> {
        let block = self.value(argument, Type::Q)?;
        let length = self.quad(block)?.min(SYSTEM_BYTES_MAX);
        let address = self.quad(block.wrapping_add(8))?;
        self.admit(Range::new(address, length), Access::Load)?;
        let mut bytes = vec![0; length as usize];
        self.memory.read(address, &mut bytes)?;
        Ok(bytes)
    }

    /// {room, address, offset}: the first becomes the count.
    fn read_input(&mut self, argument: Operand) -> Result<(), TrapKind> {
        let block = self.value(argument, Type::Q)?;
        let room = self.quad(block)?.min(SYSTEM_BYTES_MAX);
        let (address, offset) = (self.quad(block.wrapping_add(8))?, self.quad(block.wrapping_add(16))?);
        self.admit(Range::new(block, 8), Access::Store)?;
        self.admit(Range::new(address, room), Access::Store)?;
        let mut bytes = vec![0; room as usize];
        let count = self.effects.input(offset, &mut bytes);
        self.memory.write(address, &bytes[..count])?;
        self.memory.store(block, 8, count as u64)
    }

    /// {length, address of the name}: becomes {base, bytes}, or {0, 0} if there is no such file.
    fn open(&mut self, argument: Operand) -> Result<(), TrapKind> {
        let name = self.text(argument)?;
        let block = self.value(argument, Type::Q)?;
        self.admit(Range::new(block, 16), Access::Store)?;
        let range = self.effects.open(&name).unwrap_or(Range::new(0, 0));
        self.memory.grant(range);
        self.memory.store(block, 8, range.base)?;
        self.memory.store(block.wrapping_add(8), 8, range.bytes)
    }

    /// {bytes, 0}: the second becomes the address, or 0. {0, address}: given back.
    fn allocate(&mut self, argument: Operand) -> Result<(), TrapKind> {
        let block = self.value(argument, Type::Q)?;
        let (bytes, base) = (self.quad(block)?, self.quad(block.wrapping_add(8))?);
        if bytes == 0 {
            return if self.effects.free(base) { Ok(()) } else { Err(TrapKind::Sys(call::ALLOCATE)) };
        }
        self.admit(Range::new(block, 16), Access::Store)?;
        let range = self.effects.allocate(bytes).unwrap_or(Range::new(0, 0));
        self.memory.grant(range);
        self.memory.store(block.wrapping_add(8), 8, range.base)
    }

    /// {index, address, room}: the first becomes the length, or all ones if there is no such argument.
    fn program_argument(&mut self, argument: Operand) -> Result<(), TrapKind> {
        let block = self.value(argument, Type::Q)?;
        let (index, address) = (self.quad(block)?, self.quad(block.wrapping_add(8))?);
        let room = self.quad(block.wrapping_add(16))?;
        self.admit(Range::new(block, 8), Access::Store)?;
        let text = self.effects.argument(index).map(<[u8]>::to_vec);
        let Some(text) = text else { return self.memory.store(block, 8, NONE) };
        let count = room.min(text.len() as u64);
        self.admit(Range::new(address, count), Access::Store)?;
        self.memory.write(address, &text[..count as usize])?;
        self.memory.store(block, 8, text.len() as u64)
    }
}

//! The interpreter: what instructions do. It is the reference for every other engine.
//!
//! Owns program counter, register window and fuel. Must not know pages, snapshots or other runners.

mod access;
mod bulk;
mod float;
pub mod fnv1a;
mod hurry;
mod integer;
mod processor;
mod system;
mod task;

use crate::code::{Code, Step};
use crate::instruction::{Instruction, Operand};
use crate::isa::Op;
use crate::map;
use crate::memory::{Effects, Memory};
use crate::trap::{Trap, TrapKind};
use crate::types::{Attribute, Condition, ExitMode, Type};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With `exit`, at this address.
    Exit(ExitMode, u64),
    /// With a trap.
    Trap(Trap),
}

/// One runner's processor.
#[derive(Debug)]
pub struct Interpreter<'a, M, E> {
    code: &'a Code,
    /// Its memory.
    pub memory: M,
    /// What it does beside computing.
    pub effects: E,
    window: [u64; map::WINDOW_SLOTS],
    index: u32,
    pc: u64,
    last: u64,
    fuel_used: u64,
    fuel_max: u64,
}

impl<'a, M: Memory, E: Effects> Interpreter<'a, M, E> {
    /// A processor before the instruction at `first`; it may execute `fuel_max` instructions.
    pub fn new(code: &'a Code, first: u64, fuel_max: u64, memory: M, effects: E) -> Self {
        let index = code.index(first);
        Self { code, memory, effects, window: [0; map::WINDOW_SLOTS], index, pc: first, last: first, fuel_used: 0, fuel_max }
    }

    /// The address of the next instruction; after the end, of the last.
    pub const fn pc(&self) -> u64 {
        self.pc
    }

    /// The address of the instruction executed last, or that there was no fuel for.
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// Instructions used so far, bulk ones by the length of their work.
    pub const fn fuel_used(&self) -> u64 {
        self.fuel_used
    }

    /// The register window.
    pub const fn window(&self) -> &[u64; map::WINDOW_SLOTS] {
        &self.window
    }

    /// Executes one instruction; the mode if it was `exit`.
    ///
    /// # Errors
    /// The trap; program counter and memory are as before the instruction, but for bulk stores that ran out of pages.
    pub fn step(&mut self) -> Result<Option<ExitMode>, TrapKind> {
        let code = self.code;
        let step = code.step(self.index);
        self.last = step.map_or(self.last, |step| step.pc);
        self.burn(1)?;
        let step = step.ok_or(TrapKind::Pc(self.pc))?;
        let instruction = step.instruction.as_ref().ok_or(TrapKind::Illegal)?;
        match self.execute(step, instruction)? {
            Flow::Next => {
                self.index += 1;
                self.pc = step.next_pc;
            }
            Flow::Constant => {
                self.index = step.target;
                self.pc = instruction.target().and_then(Operand::value).unwrap_or(self.pc);
            }
            Flow::Jump(address) => {
                self.index = code.index(address);
                self.pc = address;
            }
            Flow::Exit(mode) => return Ok(Some(mode)),
        }
        Ok(None)
    }

    fn burn(&mut self, instructions: u64) -> Result<(), TrapKind> {
        self.fuel_used = self.fuel_used.saturating_add(instructions);
        if self.fuel_used > self.fuel_max { Err(TrapKind::Fuel) } else { Ok(()) }
    }

    #[inline]
    fn execute(&mut self, step: &Step, instruction: &Instruction) -> Result<Flow, TrapKind> {
        let ty = instruction.ty();
        match instruction.op() {
            Op::Nop => {}
            Op::Mov => {
                let value = self.value(operand(instruction, 0), ty)?;
                self.put(operand(instruction, 1), ty, value)?;
            }
            Op::Br => return self.branch(step, instruction),
            Op::Add | Op::Sub | Op::Mul | Op::Div if ty.is_float() => self.float(instruction)?,
            Op::Add
            | Op::Sub
            | Op::Mul
            | Op::Div
            | Op::And
            | Op::Or
            | Op::Xor
            | Op::Rem
            | Op::Divs
            | Op::Rems
            | Op::Shl
            | Op::Shr
            | Op::Sar
            | Op::Mulh
            | Op::Mulhs => {
                let left = self.value(operand(instruction, 0), ty)?;
                let right = self.value(operand(instruction, 1), ty)?;
                let result = integer::binary(instruction.op(), ty, left, right)?;
                self.put(operand(instruction, 2), ty, result)?;
            }
            Op::Popcnt | Op::Clz | Op::Ctz => {
                let value = self.value(operand(instruction, 0), ty)?;
                self.put(operand(instruction, 1), ty, integer::count(instruction.op(), ty, value))?;
            }
            Op::Movs => {
                let value = self.value(operand(instruction, 0), ty)?;
                self.put(operand(instruction, 1), Type::Q, ty.sign_extend(value) as u64)?;
            }
            Op::Set => {
                let holds = self.holds(instruction)?;
                self.put(operand(instruction, 2), Type::Q, u64::from(holds))?;
            }
            Op::Sqrt | Op::Fma => self.float(instruction)?,
            Op::Cvt => self.convert(instruction)?,
            Op::Bl => {
                let target = self.value(operand(instruction, 0), Type::Q)?;
                self.put(operand(instruction, 1), Type::Q, step.next_pc)?;
                return Ok(Flow::Jump(target));
            }
            Op::Exit => match instruction.attribute() {
                Attribute::Exit(mode) => return Ok(Flow::Exit(mode)),
                _ => return Err(TrapKind::Illegal),
            },
            Op::Trap => return Err(TrapKind::User(self.value(operand(instruction, 0), Type::Q)?)),
            Op::Brk => self.effects.breakpoint(step.pc),
            Op::Sys => self.system(instruction)?,
            Op::Newr | Op::Neww => self.spawn(instruction)?,
            Op::Copy | Op::Fill | Op::Cmpb | Op::Find | Op::Hash | Op::Touch => self.bulk(instruction)?,
        }
        Ok(Flow::Next)
    }

    #[inline]
    fn branch(&mut self, step: &Step, instruction: &Instruction) -> Result<Flow, TrapKind> {
        if !self.holds(instruction)? {
            return Ok(Flow::Next);
        }
        let target = instruction.target().unwrap_or(Operand::Immediate(0));
        match target {
            Operand::Code(_) if self.code.step(step.target).is_some() => Ok(Flow::Constant),
            _ => Ok(Flow::Jump(self.value(target, Type::Q)?)),
        }
    }

    /// Whether the condition holds for the first operands.
    #[inline]
    fn holds(&mut self, instruction: &Instruction) -> Result<bool, TrapKind> {
        let Attribute::Condition(condition) = instruction.attribute() else { return Err(TrapKind::Illegal) };
        let ty = instruction.ty();
        if condition == Condition::Always {
            return Ok(true);
        }
        let left = self.value(operand(instruction, 0), ty)?;
        let right = if condition.operands() == 2 { self.value(operand(instruction, 1), ty)? } else { 0 };
        Ok(if ty.is_float() { float::compare(condition, ty, left, right) } else { integer::compare(condition, ty, left, right) })
    }
}

/// Where the next instruction is.
enum Flow {
    Next,
    /// At the constant target.
    Constant,
    Jump(u64),
    Exit(ExitMode),
}

#[inline]
fn operand(instruction: &Instruction, index: usize) -> Operand {
    instruction.operand(index)
}

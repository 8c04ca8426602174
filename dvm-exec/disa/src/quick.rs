//! Instructions in the form in which most of them are executed.
//!
//! Owns which instructions have such a form: integers in slots, constants and what slots point to, and jumps to constant targets. Must
//! not know what they do.

use crate::instruction::{Instruction, Operand};
use crate::isa::{Op, Place};
use crate::types::{Attribute, Condition, Type};

/// Where a value comes from, without anything that has to be worked out.
#[derive(Clone, Copy, Debug)]
pub enum Source {
    /// A slot.
    Slot(u8),
    /// A constant.
    Constant(u64),
    /// The cell behind the address in a slot.
    Pointed(Pointer),
}

/// An address: a slot's value and a distance.
#[derive(Clone, Copy, Debug)]
pub struct Pointer {
    /// The slot.
    pub slot: u8,
    /// The distance.
    pub displacement: i32,
}

/// An instruction.
#[derive(Clone, Copy, Debug)]
pub enum Quick {
    /// It has no such form.
    No,
    /// Two quads into a slot.
    Binary {
        /// How.
        op: Op,
        /// The first.
        left: Source,
        /// The second.
        right: Source,
        /// The slot.
        to: u8,
    },
    /// An integer into a slot.
    Move {
        /// Of which type.
        ty: Type,
        /// The integer.
        from: Source,
        /// The slot.
        to: u8,
    },
    /// An integer into memory.
    Store {
        /// Of which type.
        ty: Type,
        /// The integer.
        from: Source,
        /// Where.
        to: Pointer,
    },
    /// A jump if integers compare so.
    Branch {
        /// How.
        condition: Condition,
        /// Of which type they are.
        ty: Type,
        /// The first.
        left: Source,
        /// The second.
        right: Source,
        /// Where to.
        jump: Jump,
    },
    /// A jump.
    Jump(Jump),
}

/// A jump to an instruction.
#[derive(Clone, Copy, Debug)]
pub struct Jump {
    /// Its index.
    pub target: u32,
    /// Whether it is backwards, or further than an instruction is long.
    pub is_far: bool,
}

impl Quick {
    /// The form of an instruction; its constant target, if that is an instruction.
    pub fn new(instruction: &Instruction, jump: Option<Jump>) -> Self {
        Self::of(instruction, jump).unwrap_or(Self::No)
    }

    fn of(instruction: &Instruction, jump: Option<Jump>) -> Option<Self> {
        let (op, ty) = (instruction.op(), instruction.ty());
        if ty.is_float() {
            return None;
        }
        let is_binary = matches!(instruction.places(), [Place::In, Place::In, Place::Out]);
        let source = |index| source(instruction.operand(index), ty);
        match (op, instruction.attribute()) {
            (Op::Mov, _) => {
                let from = source(0)?;
                match instruction.operand(1) {
                    Operand::Window(to) => Some(Self::Move { ty, from, to }),
                    Operand::WindowIndirect { slot, displacement } => {
                        Some(Self::Store { ty, from, to: Pointer { slot, displacement } })
                    }
                    _ => None,
                }
            }
            (Op::Br, Attribute::Condition(Condition::Always)) => Some(Self::Jump(jump?)),
            (Op::Br, Attribute::Condition(condition)) => {
                let right = if condition.operands() == 2 { source(1)? } else { Source::Constant(0) };
                Some(Self::Branch { condition, ty, left: source(0)?, right, jump: jump? })
            }
            _ if is_binary && ty == Type::Q => match instruction.operand(2) {
                Operand::Window(to) => Some(Self::Binary { op, left: source(0)?, right: source(1)?, to }),
                _ => None,
            },
            _ => None,
        }
    }
}

fn source(operand: Operand, ty: Type) -> Option<Source> {
    match operand {
        Operand::Immediate(_) | Operand::Code(_) => Some(Source::Constant(operand.value()? & ty.mask())),
        Operand::Window(slot) => Some(Source::Slot(slot)),
        Operand::WindowIndirect { slot, displacement } => Some(Source::Pointed(Pointer { slot, displacement })),
        Operand::Direct(_) | Operand::Indirect { .. } => None,
    }
}

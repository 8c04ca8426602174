//! Instructions in the form in which most of them are executed.
//!
//! Owns which instructions have such a form: moves and comparisons of integers, arithmetic on quads, jumps to constant targets, calls and
//! returns. Must not know what they do.

use crate::code::Step;
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
    /// A cell.
    Memory(Cell),
}

/// The cell behind the address in a slot, if that leads out of the window.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// The slot.
    pub slot: u8,
    /// How far behind it.
    pub displacement: i32,
}

/// A jump to an instruction.
#[derive(Clone, Copy, Debug)]
pub struct Jump {
    /// Its index.
    pub target: u32,
    /// Whether it is backwards, or further than an instruction is long.
    pub is_far: bool,
}

/// An instruction.
#[derive(Clone, Copy, Debug)]
pub enum Quick {
    /// It has no such form.
    No,
    /// One quad of two, into a slot.
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
    /// One quad of two, into memory.
    BinaryInto {
        /// How.
        op: Op,
        /// The first.
        left: Source,
        /// The second.
        right: Source,
        /// The cell.
        to: Cell,
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
    MoveInto {
        /// Of which type.
        ty: Type,
        /// The integer.
        from: Source,
        /// The cell.
        to: Cell,
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
    /// A jump that leaves the address behind it in a slot.
    Call {
        /// The slot.
        link: u8,
        /// The address.
        back: u64,
        /// Where to.
        jump: Jump,
    },
    /// A jump to the address in a slot.
    Return(u8),
}

impl Quick {
    /// The form of an instruction, with the jump to its constant target if that is an instruction.
    pub fn new(step: &Step, jump: Option<Jump>) -> Self {
        step.instruction.and_then(|instruction| Self::of(&instruction, step.next_pc, jump)).unwrap_or(Self::No)
    }

    fn of(instruction: &Instruction, back: u64, jump: Option<Jump>) -> Option<Self> {
        let (op, ty) = (instruction.op(), instruction.ty());
        if ty.is_float() {
            return None;
        }
        let makes_one_of_two = matches!(instruction.places(), [Place::In, Place::In, Place::Out]);
        let source = |index| source(instruction.operand(index), ty);
        match (op, instruction.attribute(), jump) {
            (Op::Mov, ..) => {
                let from = source(0)?;
                match instruction.operand(1) {
                    Operand::Window(to) => Some(Self::Move { ty, from, to }),
                    to => Some(Self::MoveInto { ty, from, to: cell(to)? }),
                }
            }
            (Op::Br, Attribute::Condition(Condition::Always), Some(jump)) => Some(Self::Jump(jump)),
            (Op::Br, Attribute::Condition(Condition::Always), None) => {
                let Operand::Window(slot) = instruction.operand(0) else { return None };
                Some(Self::Return(slot))
            }
            (Op::Br, Attribute::Condition(condition), Some(jump)) => {
                let right = if condition.operands() == 2 { source(1)? } else { Source::Constant(0) };
                Some(Self::Branch { condition, ty, left: source(0)?, right, jump })
            }
            (Op::Bl, _, Some(jump)) => {
                let Operand::Window(link) = instruction.operand(1) else { return None };
                Some(Self::Call { link, back, jump })
            }
            _ if makes_one_of_two && ty == Type::Q => {
                let (left, right) = (source(0)?, source(1)?);
                match instruction.operand(2) {
                    Operand::Window(to) => Some(Self::Binary { op, left, right, to }),
                    to => Some(Self::BinaryInto { op, left, right, to: cell(to)? }),
                }
            }
            _ => None,
        }
    }
}

fn source(operand: Operand, ty: Type) -> Option<Source> {
    match operand {
        Operand::Immediate(_) | Operand::Code(_) => Some(Source::Constant(operand.value()? & ty.mask())),
        Operand::Window(slot) => Some(Source::Slot(slot)),
        Operand::Direct(_) | Operand::Indirect { .. } | Operand::WindowIndirect { .. } => cell(operand).map(Source::Memory),
    }
}

fn cell(operand: Operand) -> Option<Cell> {
    let Operand::WindowIndirect { slot, displacement } = operand else { return None };
    Some(Cell { slot, displacement })
}

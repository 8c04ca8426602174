//! Instructions over variables, before they have slots.
//!
//! Owns operands and what an instruction reads and writes. Must not know the source.

use dvm_disa::isa::{Op, Place};
use dvm_disa::types::{Attribute, Condition, Type};

/// Where the frame of the running function begins.
pub const FRAME_SLOT: u8 = 9;
/// Where a call leaves its return address.
pub const RETURN_SLOT: u8 = 8;
/// What a function returns; the arguments are in this slot and those behind it.
pub const RESULT_SLOT: u8 = 0;

/// An address that the assembler computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symbolic {
    /// A name; `None`: the number is all.
    pub name: Option<String>,
    /// Bytes behind it.
    pub offset: i64,
}

/// What a pointer is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// A variable.
    Variable(u32),
    /// A slot.
    Slot(u8),
}

/// An operand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A constant.
    Integer(i64),
    /// The bits of a double.
    Real(u64),
    /// An address as a constant.
    Address(Symbolic),
    /// The cell at an address.
    Cell(Symbolic),
    /// The cell behind the address that is in a cell.
    CellPointer(Symbolic, i32),
    /// A variable.
    Variable(u32),
    /// A slot.
    Slot(u8),
    /// The cell behind the address that is in a variable.
    Memory(Base, i32),
    /// A label of the function.
    Label(u32),
    /// The bytes of the function's frame, which are known at the end.
    FrameBytes,
}

/// A line of a function.
#[derive(Clone, Debug, PartialEq)]
pub enum Line {
    /// An instruction.
    Instruction(Instruction),
    /// A label.
    Label(u32),
    /// The source's line.
    Source(u32),
    /// The beginning: saves what must be saved.
    Enter,
    /// The end: restores it, and returns.
    Leave,
}

/// An instruction.
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    /// What it does.
    pub op: Op,
    /// On what.
    pub ty: Type,
    /// Condition, mode or other type.
    pub attribute: Attribute,
    /// Its operands.
    pub operands: Vec<Operand>,
}

impl Instruction {
    /// Whether what follows it is reached from elsewhere only.
    #[must_use]
    pub const fn ends_block(&self) -> bool {
        matches!((self.op, self.attribute), (Op::Exit, _) | (Op::Br, Attribute::Condition(Condition::Always)) | (Op::Trap, _))
    }

    /// Whether it calls a function.
    #[must_use]
    pub const fn is_call(&self) -> bool {
        matches!(self.op, Op::Bl)
    }

    /// The label it may jump to.
    #[must_use]
    pub fn label(&self) -> Option<u32> {
        match (self.op, self.operands.last()) {
            (Op::Br, Some(Operand::Label(label))) => Some(*label),
            _ => None,
        }
    }

    /// The variables it reads.
    pub fn reads(&self) -> impl Iterator<Item = u32> + '_ {
        let places = self.op.places(self.attribute);
        self.operands.iter().zip(places).filter_map(|(operand, place)| match (operand, place) {
            (Operand::Memory(Base::Variable(variable), _), _) => Some(*variable),
            (Operand::Variable(variable), Place::In | Place::InQ | Place::InB | Place::InOut) => Some(*variable),
            _ => None,
        })
    }

    /// The variables it writes.
    pub fn writes(&self) -> impl Iterator<Item = u32> + '_ {
        let places = self.op.places(self.attribute);
        self.operands.iter().zip(places).filter_map(|(operand, place)| match (operand, place) {
            (Operand::Variable(variable), Place::Out | Place::OutQ | Place::OutTo | Place::InOut) => Some(*variable),
            _ => None,
        })
    }
}

/// A function, as instructions.
#[derive(Clone, Debug)]
pub struct Code {
    /// Its name.
    pub name: String,
    /// Whether other sources see it.
    pub is_global: bool,
    /// Whether it is a runner.
    pub is_runner: bool,
    /// Its lines.
    pub lines: Vec<Line>,
    /// How many variables it has.
    pub variables: u32,
    /// Variables whose slot is given.
    pub given: Vec<(u32, u8)>,
    /// Bytes of its frame so far.
    pub frame_bytes: u64,
    /// Whether it calls functions.
    pub makes_calls: bool,
    /// Slots that it must give back as they were, and where in the frame they are kept.
    pub saved: Vec<(u8, u64)>,
}

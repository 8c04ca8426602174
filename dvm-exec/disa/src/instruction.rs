//! An instruction as a value, in its one canonical form.
//!
//! Owns operands and their canonical form. Must not know bytes or text.

use crate::isa::{Op, Place};
use crate::map;
use crate::types::{Attribute, Type};

/// Most operands of an instruction.
pub const OPERANDS_MAX: usize = 4;

/// Where a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// A constant, sign-extended from its type.
    Immediate(i64),
    /// The cell at an address.
    Direct(u64),
    /// The cell at `displacement` behind the address that is in a cell.
    Indirect {
        /// The cell with the address.
        cell: u64,
        /// How far behind it.
        displacement: i32,
    },
    /// A slot of the register window.
    Window(u8),
    /// The cell at `displacement` behind the address that is in a slot.
    WindowIndirect {
        /// The slot with the address.
        slot: u8,
        /// How far behind it.
        displacement: i32,
    },
    /// A constant: the address of an instruction.
    Code(u64),
}

impl Operand {
    /// The constant `value` as an operand of type `ty`.
    #[must_use]
    pub fn constant(value: u64, ty: Type) -> Self {
        if ty == Type::Q && map::TEXT.contains(value) { Self::Code(value) } else { Self::Immediate(ty.sign_extend(value)) }
    }

    /// The cell at `address`.
    #[must_use]
    pub fn cell(address: u64) -> Self {
        map::window_slot(address).map_or(Self::Direct(address), Self::Window)
    }

    /// The cell at `displacement` behind the address in the cell at `cell`.
    #[must_use]
    pub fn pointed(cell: u64, displacement: i32) -> Self {
        match map::window_slot(cell) {
            Some(slot) => Self::WindowIndirect { slot, displacement },
            None => Self::Indirect { cell, displacement },
        }
    }

    /// The constant it is, if it is one.
    #[must_use]
    pub const fn value(self) -> Option<u64> {
        match self {
            Self::Immediate(value) => Some(value as u64),
            Self::Code(address) => Some(address),
            Self::Direct(_) | Self::Indirect { .. } | Self::Window(_) | Self::WindowIndirect { .. } => None,
        }
    }

    fn canonical(self, ty: Type) -> Self {
        match self {
            Self::Immediate(value) => Self::constant(value as u64, ty),
            Self::Code(address) => Self::constant(address, ty),
            Self::Direct(address) => Self::cell(address),
            Self::Indirect { cell, displacement } => Self::pointed(cell, displacement),
            Self::Window(_) | Self::WindowIndirect { .. } => self,
        }
    }
}

/// One instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Instruction {
    op: Op,
    ty: Type,
    attribute: Attribute,
    operands: [Operand; OPERANDS_MAX],
}

impl Instruction {
    /// The instruction in its canonical form; `None` if there is none with this type, this attribute or so many operands.
    #[must_use]
    pub fn new(op: Op, ty: Type, attribute: Attribute, operands: &[Operand]) -> Option<Self> {
        let places = op.places(attribute);
        if !op.fits(ty, attribute) || places.len() != operands.len() {
            return None;
        }
        let mut all = [Operand::Immediate(0); OPERANDS_MAX];
        for ((slot, operand), place) in all.iter_mut().zip(operands).zip(places) {
            *slot = operand.canonical(place.ty(ty, attribute));
        }
        Some(Self { op, ty, attribute, operands: all })
    }

    /// What it does.
    #[must_use]
    pub const fn op(&self) -> Op {
        self.op
    }

    /// Of which type its operands are.
    #[must_use]
    pub const fn ty(&self) -> Type {
        self.ty
    }

    /// Condition, mode or other type.
    #[must_use]
    pub const fn attribute(&self) -> Attribute {
        self.attribute
    }

    /// What its operands are for.
    #[must_use]
    pub fn places(&self) -> &'static [Place] {
        self.op.places(self.attribute)
    }

    /// Its operands.
    #[must_use]
    pub fn operands(&self) -> &[Operand] {
        &self.operands[..self.places().len()]
    }

    /// One operand; a constant 0 if there are fewer.
    #[inline]
    #[must_use]
    pub fn operand(&self, index: usize) -> Operand {
        self.operands.get(index).copied().unwrap_or(Operand::Immediate(0))
    }

    /// The operand that says where it may jump to.
    #[must_use]
    pub fn target(&self) -> Option<Operand> {
        match self.op {
            Op::Br => self.operands().last().copied(),
            Op::Bl => self.operands().first().copied(),
            _ => None,
        }
    }
}

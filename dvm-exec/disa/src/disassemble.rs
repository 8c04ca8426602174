//! Instructions as text that assembles to the same bytes.
//!
//! Owns how operands are written. Must not know files or sections.

use crate::instruction::{Instruction, Operand};
use crate::isa::{Attributes, Types};
use crate::types::{Attribute, Type};
use std::fmt;

impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.op().name())?;
        match self.attribute() {
            Attribute::None => {}
            Attribute::Condition(condition) => write!(f, ":{}", condition.name())?,
            Attribute::Exit(mode) => write!(f, ":{}", mode.name())?,
            Attribute::Convert(conversion) => {
                let sign = |ty: Type| if conversion.is_signed && !ty.is_float() { "s" } else { "" };
                let (from, to) = (self.ty(), conversion.to);
                write!(f, ":{}{}:{}{}", sign(from), from.name(), sign(to), to.name())?;
            }
        }
        let has_type = self.op().types() != Types::Untyped && self.op().attributes() != Attributes::Convert;
        if has_type && self.ty() != Type::Q {
            write!(f, ":{}", self.ty().name())?;
        }
        for (index, (operand, place)) in self.operands().iter().zip(self.places()).enumerate() {
            f.write_str(if index == 0 { " " } else { ", " })?;
            write_operand(f, *operand, place.ty(self.ty(), self.attribute()))?;
        }
        Ok(())
    }
}

fn write_operand(f: &mut fmt::Formatter<'_>, operand: Operand, ty: Type) -> fmt::Result {
    match operand {
        Operand::Immediate(value) if ty.is_float() => write_float(f, value as u64 & ty.mask(), ty),
        Operand::Immediate(value) => write!(f, "${value}"),
        Operand::Code(address) => write!(f, "$0x{address:x}"),
        Operand::Direct(address) => write!(f, "0x{address:x}"),
        Operand::Indirect { cell, displacement: 0 } => write!(f, "(0x{cell:x})"),
        Operand::Indirect { cell, displacement } => write!(f, "{displacement}(0x{cell:x})"),
        Operand::Window(slot) => write!(f, "w{slot}"),
        Operand::WindowIndirect { slot, displacement: 0 } => write!(f, "(w{slot})"),
        Operand::WindowIndirect { slot, displacement } => write!(f, "{displacement}(w{slot})"),
    }
}

/// A number if it reads back as the same bits, else the bits.
fn write_float(f: &mut fmt::Formatter<'_>, bits: u64, ty: Type) -> fmt::Result {
    let is_finite = match ty {
        Type::F => f32::from_bits(bits as u32).is_finite(),
        _ => f64::from_bits(bits).is_finite(),
    };
    match ty {
        Type::F if is_finite => write!(f, "${:?}", f32::from_bits(bits as u32)),
        _ if is_finite => write!(f, "${:?}", f64::from_bits(bits)),
        _ => write!(f, "$bits(0x{bits:x})"),
    }
}

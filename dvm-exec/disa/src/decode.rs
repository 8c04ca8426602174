//! Bytes into instructions; anything but the canonical form is refused.
//!
//! Owns why bytes are no instruction. Must not know what follows an instruction.

use crate::encode::{encode, mode};
use crate::instruction::{Instruction, OPERANDS_MAX, Operand};
use crate::isa::Op;
use crate::limits::INSTRUCTION_BYTES_MAX;
use crate::map;
use crate::types::Type;

/// Why bytes are no instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No operation has this number.
    #[error("unknown operation 0x{0:02x}")]
    UnknownOp(u8),
    /// The operation does not exist so.
    #[error("{} does not exist with attribute byte 0x{attribute:02x}", op.name())]
    BadAttribute {
        /// The operation.
        op: Op,
        /// Type and condition, or what should be.
        attribute: u8,
    },
    /// The first byte of an operand means nothing.
    #[error("bad operand byte 0x{0:02x}")]
    BadOperand(u8),
    /// The bytes end within the instruction.
    #[error("truncated instruction")]
    Truncated,
    /// The same instruction can be written shorter, or otherwise.
    #[error("non-canonical encoding: assemble it again")]
    NonCanonical,
}

/// The instruction at the start of `bytes`, which lie at `pc`, and its length.
///
/// # Errors
/// The bytes are not the canonical encoding of an instruction.
pub fn decode(bytes: &[u8], pc: u64) -> Result<(Instruction, usize), Refusal> {
    let mut input = Input { bytes, at: 0 };
    let code = input.byte()?;
    let op = Op::from_code(code).ok_or(Refusal::UnknownOp(code))?;
    let attribute_byte = input.byte()?;
    let bad = Refusal::BadAttribute { op, attribute: attribute_byte };
    let ty = Type::from_code(attribute_byte & 7).ok_or(bad)?;
    if attribute_byte & 0x80 != 0 {
        return Err(bad);
    }
    let attribute = op.attribute(ty, attribute_byte >> 3).ok_or(bad)?;
    let mut operands = [Operand::Immediate(0); OPERANDS_MAX];
    let count = op.places(attribute).len();
    for operand in &mut operands[..count] {
        *operand = input.operand(pc)?;
    }
    let instruction = Instruction::new(op, ty, attribute, &operands[..count]).ok_or(bad)?;
    let mut canonical = Vec::with_capacity(INSTRUCTION_BYTES_MAX);
    encode(&instruction, pc, &mut canonical);
    if bytes.get(..input.at) != Some(canonical.as_slice()) {
        return Err(Refusal::NonCanonical);
    }
    Ok((instruction, input.at))
}

struct Input<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Input<'_> {
    fn byte(&mut self) -> Result<u8, Refusal> {
        let byte = *self.bytes.get(self.at).ok_or(Refusal::Truncated)?;
        self.at += 1;
        Ok(byte)
    }

    fn unsigned(&mut self, length: usize) -> Result<u64, Refusal> {
        let bytes = self.bytes.get(self.at..self.at + length).ok_or(Refusal::Truncated)?;
        self.at += length;
        let mut all = [0; 8];
        all[..length].copy_from_slice(bytes);
        Ok(u64::from_le_bytes(all))
    }

    fn signed(&mut self, length: usize) -> Result<i64, Refusal> {
        let unused = 64 - 8 * length as u32;
        Ok(((self.unsigned(length)? << unused) as i64) >> unused)
    }

    fn displacement(&mut self, spec: u8) -> Result<i32, Refusal> {
        match spec & 7 {
            0 => Ok(0),
            length @ (1 | 2 | 4) => {
                let displacement = self.signed(usize::from(length))?;
                Ok(i32::try_from(displacement).expect("at most four bytes were read"))
            }
            _ => Err(Refusal::BadOperand(spec)),
        }
    }

    fn operand(&mut self, pc: u64) -> Result<Operand, Refusal> {
        let spec = self.byte()?;
        let length = 1 << (spec >> 3 & 3);
        let is_bare = spec & 7 == 0;
        match spec >> 5 {
            mode::IMMEDIATE if is_bare => Ok(Operand::Immediate(self.signed(length)?)),
            mode::DIRECT if is_bare => Ok(Operand::Direct(self.unsigned(length)?)),
            mode::INDIRECT => {
                let cell = self.unsigned(length)?;
                Ok(Operand::Indirect { cell, displacement: self.displacement(spec)? })
            }
            mode::WINDOW if is_bare && length == 1 => Ok(Operand::Window(self.byte()?)),
            mode::WINDOW_INDIRECT if length == 1 => {
                let slot = self.byte()?;
                Ok(Operand::WindowIndirect { slot, displacement: self.displacement(spec)? })
            }
            mode::CODE if is_bare => {
                let address = pc.wrapping_add(self.signed(length)? as u64);
                if map::TEXT.contains(address) { Ok(Operand::Code(address)) } else { Err(Refusal::NonCanonical) }
            }
            _ => Err(Refusal::BadOperand(spec)),
        }
    }
}

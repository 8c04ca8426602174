//! Floating-point arithmetic and conversions: IEEE, to nearest, never a trap, one NaN.
//!
//! Owns how bits become numbers and back. Must not know memory.

use super::{Interpreter, operand};
use crate::instruction::Instruction;
use crate::isa::Op;
use crate::memory::{Effects, Memory};
use crate::trap::TrapKind;
use crate::types::{Attribute, Condition, Conversion, Type};

const NAN_SINGLE: u64 = 0x7fc0_0000;
const NAN_DOUBLE: u64 = 0x7ff8_0000_0000_0000;

impl<M: Memory, E: Effects> Interpreter<'_, M, E> {
    pub(super) fn float(&mut self, instruction: &Instruction) -> Result<(), TrapKind> {
        let (op, ty) = (instruction.op(), instruction.ty());
        let left = self.value(operand(instruction, 0), ty)?;
        if op == Op::Sqrt {
            return self.put(operand(instruction, 1), ty, arithmetic(op, ty, [left, 0, 0]));
        }
        let right = self.value(operand(instruction, 1), ty)?;
        let sum = if op == Op::Fma { self.value(operand(instruction, 2), ty)? } else { 0 };
        self.put(operand(instruction, 2), ty, arithmetic(op, ty, [left, right, sum]))
    }

    pub(super) fn convert(&mut self, instruction: &Instruction) -> Result<(), TrapKind> {
        let Attribute::Convert(conversion) = instruction.attribute() else { return Err(TrapKind::Illegal) };
        let value = self.value(operand(instruction, 0), instruction.ty())?;
        self.put(operand(instruction, 1), conversion.to, convert(value, instruction.ty(), conversion))
    }
}

fn arithmetic(op: Op, ty: Type, operands: [u64; 3]) -> u64 {
    if ty == Type::F {
        let [left, right, sum] = operands.map(|bits| f32::from_bits(bits as u32));
        single(match op {
            Op::Add => left + right,
            Op::Sub => left - right,
            Op::Mul => left * right,
            Op::Div => left / right,
            Op::Sqrt => left.sqrt(),
            _ => left.mul_add(right, sum),
        })
    } else {
        let [left, right, sum] = operands.map(f64::from_bits);
        double(match op {
            Op::Add => left + right,
            Op::Sub => left - right,
            Op::Mul => left * right,
            Op::Div => left / right,
            Op::Sqrt => left.sqrt(),
            _ => left.mul_add(right, sum),
        })
    }
}

fn single(value: f32) -> u64 {
    if value.is_nan() { NAN_SINGLE } else { u64::from(value.to_bits()) }
}

fn double(value: f64) -> u64 {
    if value.is_nan() { NAN_DOUBLE } else { value.to_bits() }
}

/// Whether a condition holds; with a NaN only `ne` and `nz` do.
pub(super) fn compare(condition: Condition, ty: Type, left: u64, right: u64) -> bool {
    let number = |bits| if ty == Type::F { f64::from(f32::from_bits(bits as u32)) } else { f64::from_bits(bits) };
    let (left, right) = (number(left), number(right));
    match condition {
        Condition::Always => true,
        Condition::Zero => left == 0.0,
        Condition::NotZero => left != 0.0,
        Condition::Equal => left == right,
        Condition::NotEqual => left != right,
        Condition::Less | Condition::LessSigned => left < right,
        Condition::LessEqual | Condition::LessEqualSigned => left <= right,
        Condition::Greater | Condition::GreaterSigned => left > right,
        Condition::GreaterEqual | Condition::GreaterEqualSigned => left >= right,
    }
}

fn convert(value: u64, from: Type, Conversion { to, is_signed }: Conversion) -> u64 {
    match (from, to) {
        (Type::F, Type::F) => single(f32::from_bits(value as u32)),
        (Type::F, Type::D) => double(f64::from(f32::from_bits(value as u32))),
        (Type::D, Type::F) => single(f64::from_bits(value) as f32),
        (Type::D, Type::D) => double(f64::from_bits(value)),
        (Type::F, _) => to_integer(f64::from(f32::from_bits(value as u32)), to, is_signed),
        (Type::D, _) => to_integer(f64::from_bits(value), to, is_signed),
        (_, Type::F) if is_signed => single(from.sign_extend(value) as f32),
        (_, Type::F) => single(value as f32),
        (_, Type::D) if is_signed => double(from.sign_extend(value) as f64),
        (_, Type::D) => double(value as f64),
        _ if is_signed => from.sign_extend(value) as u64,
        _ => value,
    }
}

/// Towards zero; what does not fit becomes the nearest that does, NaN becomes 0.
fn to_integer(value: f64, to: Type, is_signed: bool) -> u64 {
    match (to, is_signed) {
        (Type::B, true) => value as i8 as u64,
        (Type::W, true) => value as i16 as u64,
        (Type::L, true) => value as i32 as u64,
        (_, true) => value as i64 as u64,
        (Type::B, false) => u64::from(value as u8),
        (Type::W, false) => u64::from(value as u16),
        (Type::L, false) => u64::from(value as u32),
        (_, false) => value as u64,
    }
}

//! Integers of every width, and conditions.
//!
//! Owns which operation becomes what. Must not know where operands are.

use super::Lower;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};
use dvm_disa::code::Step;
use dvm_disa::instruction::{Instruction, Operand};
use dvm_disa::isa::Op;
use dvm_disa::types::{Attribute, Condition, Type};

impl Lower<'_, '_> {
    /// An instruction that is all machine code.
    pub fn plain(&mut self, step: &Step, instruction: &Instruction) {
        let (op, ty, pc) = (instruction.op(), instruction.ty(), step.pc);
        let [first, second, third] = [0, 1, 2].map(|index| instruction.operand(index));
        match (op, instruction.attribute()) {
            (Op::Nop, _) => {}
            (Op::Mov, _) => {
                let value = self.value(first, ty, pc);
                self.put(second, ty, value, pc);
            }
            (Op::Movs, _) => {
                let value = self.value(first, ty, pc);
                let value = self.sign_extend(value, ty);
                self.put(second, Type::Q, value, pc);
            }
            (Op::Popcnt | Op::Clz | Op::Ctz, _) => {
                let value = self.value(first, ty, pc);
                let value = self.count(op, ty, value);
                self.put(second, ty, value, pc);
            }
            (Op::Set, Attribute::Condition(condition)) => {
                let holds = self.holds(instruction, condition, pc);
                let value = self.builder.ins().uextend(types::I64, holds);
                self.put(third, Type::Q, value, pc);
            }
            (Op::Cvt, Attribute::Convert(conversion)) => {
                let value = self.value(first, ty, pc);
                let value = self.convert(value, ty, conversion);
                self.put(second, conversion.to, value, pc);
            }
            (Op::Sqrt | Op::Fma, _) => self.float(instruction, pc),
            (Op::Add | Op::Sub | Op::Mul | Op::Div, _) if ty.is_float() => self.float(instruction, pc),
            _ => {
                let left = self.value(first, ty, pc);
                let right = self.value(second, ty, pc);
                if matches!(op, Op::Div | Op::Rem | Op::Divs | Op::Rems) {
                    self.guard_division(instruction, left, right, pc);
                }
                let value = self.binary(op, ty, left, right);
                self.put(third, ty, value, pc);
            }
        }
    }

    /// Bits above the width may be set.
    fn binary(&mut self, op: Op, ty: Type, left: Value, right: Value) -> Value {
        let bits = self.constant(u64::from(ty.bits()));
        let is_quad = ty == Type::Q;
        match op {
            Op::Add => self.builder.ins().iadd(left, right),
            Op::Sub => self.builder.ins().isub(left, right),
            Op::Mul => self.builder.ins().imul(left, right),
            Op::And => self.builder.ins().band(left, right),
            Op::Or => self.builder.ins().bor(left, right),
            Op::Xor => self.builder.ins().bxor(left, right),
            Op::Div => self.builder.ins().udiv(left, right),
            Op::Rem => self.builder.ins().urem(left, right),
            Op::Divs | Op::Rems => {
                let [left, right] = [left, right].map(|value| self.sign_extend(value, ty));
                if op == Op::Divs { self.builder.ins().sdiv(left, right) } else { self.builder.ins().srem(left, right) }
            }
            Op::Shl | Op::Shr | Op::Sar => {
                let mask = self.constant(u64::from(ty.bits() - 1));
                let count = self.builder.ins().band(right, mask);
                match op {
                    Op::Shl => self.builder.ins().ishl(left, count),
                    Op::Shr => self.builder.ins().ushr(left, count),
                    _ => {
                        let left = self.sign_extend(left, ty);
                        self.builder.ins().sshr(left, count)
                    }
                }
            }
            Op::Mulh if is_quad => self.builder.ins().umulhi(left, right),
            Op::Mulh => {
                let product = self.builder.ins().imul(left, right);
                self.builder.ins().ushr(product, bits)
            }
            Op::Mulhs if is_quad => self.builder.ins().smulhi(left, right),
            Op::Mulhs => {
                let [left, right] = [left, right].map(|value| self.sign_extend(value, ty));
                let product = self.builder.ins().imul(left, right);
                self.builder.ins().sshr(product, bits)
            }
            _ => unreachable!("{op:?} has not two operands and a result"),
        }
    }

    /// Nothing that traps is divided.
    fn guard_division(&mut self, instruction: &Instruction, left: Value, right: Value, pc: u64) {
        let ty = instruction.ty();
        let divisor = match instruction.operand(1) {
            Operand::Immediate(value) => Some(value as u64 & ty.mask()),
            Operand::Code(address) => Some(address),
            _ => None,
        };
        if divisor.is_none_or(|divisor| divisor == 0) {
            let zero = self.constant(0);
            let is_some = self.builder.ins().icmp(IntCC::NotEqual, right, zero);
            self.guard(is_some, pc);
        }
        let is_signed = matches!(instruction.op(), Op::Divs | Op::Rems);
        if is_signed && divisor.is_none_or(|divisor| divisor == ty.mask()) {
            let [all, least] = [ty.mask(), 1 << (ty.bits() - 1)].map(|value| self.constant(value));
            let right = self.builder.ins().bxor(right, all);
            let left = self.builder.ins().bxor(left, least);
            let either = self.builder.ins().bor(left, right);
            let zero = self.constant(0);
            let fits = self.builder.ins().icmp(IntCC::NotEqual, either, zero);
            self.guard(fits, pc);
        }
    }

    fn count(&mut self, op: Op, ty: Type, value: Value) -> Value {
        let bits = u64::from(ty.bits());
        match op {
            Op::Clz => {
                let zeros = self.builder.ins().clz(value);
                let above = self.constant(64 - bits);
                self.builder.ins().isub(zeros, above)
            }
            Op::Ctz => {
                // A one behind the width stops the count there.
                let stop = if bits < 64 { self.constant(1 << bits) } else { self.constant(0) };
                let value = self.builder.ins().bor(value, stop);
                self.builder.ins().ctz(value)
            }
            _ => self.builder.ins().popcnt(value),
        }
    }

    /// Whether a condition holds for the first operands.
    pub fn holds(&mut self, instruction: &Instruction, condition: Condition, pc: u64) -> Value {
        let ty = instruction.ty();
        let left = self.value(instruction.operand(0), ty, pc);
        let right = if condition.operands() == 2 { self.value(instruction.operand(1), ty, pc) } else { self.constant(0) };
        if ty.is_float() {
            return self.compare_floats(condition, ty, left, right);
        }
        let [left, right] = [left, right].map(|value| if condition.is_signed() { self.sign_extend(value, ty) } else { value });
        let code = match condition {
            Condition::Zero | Condition::Equal | Condition::Always => IntCC::Equal,
            Condition::NotZero | Condition::NotEqual => IntCC::NotEqual,
            Condition::Less => IntCC::UnsignedLessThan,
            Condition::LessEqual => IntCC::UnsignedLessThanOrEqual,
            Condition::Greater => IntCC::UnsignedGreaterThan,
            Condition::GreaterEqual => IntCC::UnsignedGreaterThanOrEqual,
            Condition::LessSigned => IntCC::SignedLessThan,
            Condition::LessEqualSigned => IntCC::SignedLessThanOrEqual,
            Condition::GreaterSigned => IntCC::SignedGreaterThan,
            Condition::GreaterEqualSigned => IntCC::SignedGreaterThanOrEqual,
        };
        self.builder.ins().icmp(code, left, right)
    }
}

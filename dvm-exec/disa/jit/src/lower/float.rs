//! Floating point: the same bits as the interpreter's.
//!
//! Owns the one NaN, and conversions. Must not know where operands are.

use super::Lower;
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types};
use dvm_disa::instruction::Instruction;
use dvm_disa::isa::Op;
use dvm_disa::types::{Condition, Conversion, Type};

const NAN_SINGLE: u64 = 0x7fc0_0000;
const NAN_DOUBLE: u64 = 0x7ff8_0000_0000_0000;

impl Lower<'_, '_> {
    /// An operation on floating-point numbers.
    pub fn float(&mut self, instruction: &Instruction, pc: u64) {
        let (op, ty) = (instruction.op(), instruction.ty());
        let left = self.number(instruction, 0, pc);
        if op == Op::Sqrt {
            let root = self.builder.ins().sqrt(left);
            let bits = self.bits(root, ty);
            return self.put(instruction.operand(1), ty, bits, pc);
        }
        let right = self.number(instruction, 1, pc);
        let result = match op {
            Op::Add => self.builder.ins().fadd(left, right),
            Op::Sub => self.builder.ins().fsub(left, right),
            Op::Mul => self.builder.ins().fmul(left, right),
            Op::Div => self.builder.ins().fdiv(left, right),
            _ => {
                let sum = self.number(instruction, 2, pc);
                self.builder.ins().fma(left, right, sum)
            }
        };
        let bits = self.bits(result, ty);
        self.put(instruction.operand(2), ty, bits, pc);
    }

    fn number(&mut self, instruction: &Instruction, index: usize, pc: u64) -> Value {
        let bits = self.value(instruction.operand(index), instruction.ty(), pc);
        self.bits_as(bits, instruction.ty())
    }

    fn bits_as(&mut self, bits: Value, ty: Type) -> Value {
        if ty == Type::F {
            let bits = self.builder.ins().ireduce(types::I32, bits);
            self.builder.ins().bitcast(types::F32, MemFlagsData::new(), bits)
        } else {
            self.builder.ins().bitcast(types::F64, MemFlagsData::new(), bits)
        }
    }

    /// The bits of a result; those of the one NaN for all NaNs.
    fn bits(&mut self, number: Value, ty: Type) -> Value {
        let is_nan = self.builder.ins().fcmp(FloatCC::Unordered, number, number);
        let (bits, nan) = if ty == Type::F {
            let bits = self.builder.ins().bitcast(types::I32, MemFlagsData::new(), number);
            (self.builder.ins().uextend(types::I64, bits), self.constant(NAN_SINGLE))
        } else {
            (self.builder.ins().bitcast(types::I64, MemFlagsData::new(), number), self.constant(NAN_DOUBLE))
        };
        self.builder.ins().select(is_nan, nan, bits)
    }

    /// With a NaN only `ne` and `nz` hold.
    pub fn compare_floats(&mut self, condition: Condition, ty: Type, left: Value, right: Value) -> Value {
        let [left, right] = [left, right].map(|bits| self.bits_as(bits, ty));
        let code = match condition {
            Condition::Zero | Condition::Equal | Condition::Always => FloatCC::Equal,
            Condition::NotZero | Condition::NotEqual => FloatCC::NotEqual,
            Condition::Less | Condition::LessSigned => FloatCC::LessThan,
            Condition::LessEqual | Condition::LessEqualSigned => FloatCC::LessThanOrEqual,
            Condition::Greater | Condition::GreaterSigned => FloatCC::GreaterThan,
            Condition::GreaterEqual | Condition::GreaterEqualSigned => FloatCC::GreaterThanOrEqual,
        };
        self.builder.ins().fcmp(code, left, right)
    }

    /// A value in another type.
    pub fn convert(&mut self, value: Value, from: Type, Conversion { to, is_signed }: Conversion) -> Value {
        match (from.is_float(), to.is_float()) {
            (false, false) if is_signed => self.sign_extend(value, from),
            (false, false) => value,
            (false, true) => {
                let ty = if to == Type::F { types::F32 } else { types::F64 };
                let number = if is_signed {
                    let value = self.sign_extend(value, from);
                    self.builder.ins().fcvt_from_sint(ty, value)
                } else {
                    self.builder.ins().fcvt_from_uint(ty, value)
                };
                self.bits(number, to)
            }
            (true, true) => {
                let number = self.bits_as(value, from);
                let number = match (from, to) {
                    (Type::F, Type::D) => self.builder.ins().fpromote(types::F64, number),
                    (Type::D, Type::F) => self.builder.ins().fdemote(types::F32, number),
                    _ => number,
                };
                self.bits(number, to)
            }
            (true, false) => {
                let number = self.bits_as(value, from);
                self.convert_to_integer(number, to, is_signed)
            }
        }
    }

    /// Towards zero; what does not fit becomes the nearest that does, NaN becomes 0.
    fn convert_to_integer(&mut self, number: Value, to: Type, is_signed: bool) -> Value {
        if !is_signed {
            let value = self.builder.ins().fcvt_to_uint_sat(types::I64, number);
            return if to == Type::Q { value } else { self.limit(value, to.mask(), IntCC::UnsignedGreaterThan) };
        }
        let value = self.builder.ins().fcvt_to_sint_sat(types::I64, number);
        if to == Type::Q {
            return value;
        }
        let most = to.mask() >> 1;
        let value = self.limit(value, most, IntCC::SignedGreaterThan);
        self.limit(value, !most, IntCC::SignedLessThan)
    }

    /// `limit` in place of a value that lies beyond it.
    fn limit(&mut self, value: Value, limit: u64, beyond: IntCC) -> Value {
        let limit = self.constant(limit);
        let is_beyond = self.builder.ins().icmp(beyond, value, limit);
        self.builder.ins().select(is_beyond, limit, value)
    }
}

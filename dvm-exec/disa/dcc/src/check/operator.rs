//! Operators with two operands.
//!
//! Owns which instruction an operator is for which types. Must not know syntax.

use super::expression::{common, moved, promoted};
use super::{Checked, Checker, fail};
use crate::diagnostic::{Position, Reason};
use crate::typed::Value;
use crate::types::{Scalar, Type};
use dvm_disa::isa::Op;
use dvm_disa::types::Condition;

type Typed = (Value, Type);

impl Checker<'_> {
    pub(super) fn binary(&self, at: Position, operator: &str, left: Typed, right: Typed) -> Checked<Typed> {
        if let Some((signed, unsigned)) = comparison(operator) {
            return self.comparison(at, operator, (signed, unsigned), left, right);
        }
        match (&left.1, &right.1) {
            (Type::Pointer(of), index) if index.is_integer() && matches!(operator, "+" | "-") => {
                let bytes = self.bytes(at, of)?;
                Ok((moved(left.0, right.0, bytes, operator == "-"), left.1))
            }
            (index, Type::Pointer(of)) if index.is_integer() && operator == "+" => {
                let bytes = self.bytes(at, of)?;
                Ok((moved(right.0, left.0, bytes, false), right.1))
            }
            (Type::Pointer(a), Type::Pointer(b)) if a == b && operator == "-" => {
                let bytes = self.bytes(at, a)?;
                let difference = Value::binary(Op::Sub, left.0, right.0);
                let count = if bytes.is_power_of_two() {
                    Value::binary(Op::Sar, difference, Value::integer(i64::from(bytes.trailing_zeros())))
                } else {
                    Value::binary(Op::Divs, difference, Value::integer(bytes as i64))
                };
                Ok((count, Type::LONG))
            }
            (Type::Scalar(_), Type::Scalar(_)) => self.arithmetic(at, operator, left, right),
            _ => {
                let wrong = if matches!(left.1, Type::Scalar(_)) { &right.1 } else { &left.1 };
                self.type_error(at, &format!("`{operator}`"), "numbers, or a pointer and an integer", wrong)
            }
        }
    }

    fn arithmetic(&self, at: Position, operator: &str, left: Typed, right: Typed) -> Checked<Typed> {
        let is_shift = matches!(operator, "<<" | ">>");
        let ty = if is_shift { promoted(&left.1) } else { common(&left.1, &right.1) };
        let is_unsigned = ty == Type::Scalar(Scalar::UnsignedLong);
        let op = match operator {
            "+" => Op::Add,
            "-" => Op::Sub,
            "*" => Op::Mul,
            "/" if is_unsigned || ty == Type::DOUBLE => Op::Div,
            "/" => Op::Divs,
            "%" if is_unsigned => Op::Rem,
            "%" => Op::Rems,
            "&" => Op::And,
            "|" => Op::Or,
            "^" => Op::Xor,
            "<<" => Op::Shl,
            _ if is_unsigned => Op::Shr,
            _ => Op::Sar,
        };
        let needs_integers = !matches!(operator, "+" | "-" | "*" | "/");
        for ty in [&left.1, &right.1] {
            if needs_integers && ty.is_real() {
                return self.type_error(at, &format!("`{operator}`"), "integers", ty);
            }
        }
        let right_value = if is_shift { right.0 } else { self.convert(at, right.0, &right.1, &ty)? };
        if matches!(op, Op::Div | Op::Divs | Op::Rem | Op::Rems) && right_value.constant() == Some(0) {
            return fail(at, Reason::DivisionByZero);
        }
        let left_value = self.convert(at, left.0, &left.1, &ty)?;
        Ok((Value::binary(op, left_value, right_value), ty))
    }

    fn comparison(
        &self,
        at: Position,
        operator: &str,
        conditions: (Condition, Condition),
        left: Typed,
        right: Typed,
    ) -> Checked<Typed> {
        let (signed, unsigned) = conditions;
        let ty = match (&left.1, &right.1) {
            (Type::Scalar(_), Type::Scalar(_)) => common(&left.1, &right.1),
            (Type::Pointer(_), _) => left.1.clone(),
            (_, Type::Pointer(_)) => right.1.clone(),
            _ => return self.type_error(at, &format!("`{operator}`"), "numbers or pointers", &left.1),
        };
        let left_value = self.convert(at, left.0, &left.1, &ty)?;
        let right_value = self.convert(at, right.0, &right.1, &ty)?;
        let condition = if ty == Type::LONG { signed } else { unsigned };
        Ok((Value::compare(condition, left_value, right_value), Type::LONG))
    }
}

/// The condition of a comparison for signed integers, and for all else.
fn comparison(operator: &str) -> Option<(Condition, Condition)> {
    Some(match operator {
        "==" => (Condition::Equal, Condition::Equal),
        "!=" => (Condition::NotEqual, Condition::NotEqual),
        "<" => (Condition::LessSigned, Condition::Less),
        "<=" => (Condition::LessEqualSigned, Condition::LessEqual),
        ">" => (Condition::GreaterSigned, Condition::Greater),
        ">=" => (Condition::GreaterEqualSigned, Condition::GreaterEqual),
        _ => return None,
    })
}

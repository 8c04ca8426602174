//! Integer arithmetic of every width.
//!
//! Owns wrap-around, shift counts and the traps of division. Must not know operands.

use crate::isa::Op;
use crate::trap::TrapKind;
use crate::types::{Condition, Type};

/// The result of an operation on two zero-extended values; bits above the width may be set.
#[inline(always)]
pub(super) fn binary(op: Op, ty: Type, left: u64, right: u64) -> Result<u64, TrapKind> {
    let bits = ty.bits();
    let count = (right & u64::from(bits - 1)) as u32;
    Ok(match op {
        Op::Add => left.wrapping_add(right),
        Op::Sub => left.wrapping_sub(right),
        Op::Mul => left.wrapping_mul(right),
        Op::And => left & right,
        Op::Or => left | right,
        Op::Xor => left ^ right,
        Op::Div => left.checked_div(right).ok_or(TrapKind::Div0)?,
        Op::Rem => left.checked_rem(right).ok_or(TrapKind::Div0)?,
        Op::Divs | Op::Rems => signed_division(op, ty, left, right)?,
        Op::Shl => left << count,
        Op::Shr => left >> count,
        Op::Sar => (ty.sign_extend(left) >> count) as u64,
        Op::Mulh => ((u128::from(left) * u128::from(right)) >> bits) as u64,
        Op::Mulhs => ((i128::from(ty.sign_extend(left)) * i128::from(ty.sign_extend(right))) >> bits) as u64,
        _ => return Err(TrapKind::Illegal),
    })
}

fn signed_division(op: Op, ty: Type, left: u64, right: u64) -> Result<u64, TrapKind> {
    let (left, right) = (ty.sign_extend(left), ty.sign_extend(right));
    if right == 0 {
        return Err(TrapKind::Div0);
    }
    if right == -1 && left == i64::MIN >> (64 - ty.bits()) {
        return Err(TrapKind::DivOvf);
    }
    Ok(if op == Op::Divs { left / right } else { left % right } as u64)
}

/// Ones, or zeros at an end.
pub(super) fn count(op: Op, ty: Type, value: u64) -> u64 {
    let bits = ty.bits();
    u64::from(match op {
        Op::Clz => value.leading_zeros() - (64 - bits),
        Op::Ctz => value.trailing_zeros().min(bits),
        _ => value.count_ones(),
    })
}

/// Whether a condition holds for zero-extended values.
#[inline(always)]
pub(super) fn compare(condition: Condition, ty: Type, left: u64, right: u64) -> bool {
    let signed = || (ty.sign_extend(left), ty.sign_extend(right));
    match condition {
        Condition::Always => true,
        Condition::Zero => left == 0,
        Condition::NotZero => left != 0,
        Condition::Equal => left == right,
        Condition::NotEqual => left != right,
        Condition::Less => left < right,
        Condition::LessEqual => left <= right,
        Condition::Greater => left > right,
        Condition::GreaterEqual => left >= right,
        Condition::LessSigned => signed().0 < signed().1,
        Condition::LessEqualSigned => signed().0 <= signed().1,
        Condition::GreaterSigned => signed().0 > signed().1,
        Condition::GreaterEqualSigned => signed().0 >= signed().1,
    }
}

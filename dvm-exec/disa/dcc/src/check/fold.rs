//! Values, folded while they are made.
//!
//! Owns arithmetic on constants: it is the machine's. Must not know types of the source.

use crate::typed::{Kind, Place, Value};
use crate::types::Scalar;
use dvm_disa::isa::Op;
use dvm_disa::types::Condition;

impl Place {
    /// Whether to find it changes nothing.
    pub fn is_pure(&self) -> bool {
        match self {
            Self::Local(..) | Self::Global(..) => true,
            Self::Memory(base, _) => base.is_pure,
        }
    }

    /// What lies so many bytes behind it.
    pub fn behind(self, bytes: i64) -> Self {
        match self {
            Self::Local(local, offset) => Self::Local(local, offset.wrapping_add(bytes)),
            Self::Global(name, offset) => Self::Global(name, offset.wrapping_add(bytes)),
            Self::Memory(base, offset) => Self::Memory(base, offset.wrapping_add(bytes)),
        }
    }

    /// The place at an address.
    pub fn at(address: Value) -> Self {
        match address.kind {
            Kind::Address(place) => place,
            Kind::Binary(Op::Add, base, offset) if matches!(offset.kind, Kind::Integer(_)) => {
                let Kind::Integer(offset) = offset.kind else { return Self::Memory(base, 0) };
                Self::at(*base).behind(offset)
            }
            kind => Self::Memory(Box::new(Value { kind, ..address }), 0),
        }
    }
}

impl Value {
    /// A constant.
    pub const fn integer(value: i64) -> Self {
        Self { is_real: false, is_pure: true, kind: Kind::Integer(value) }
    }

    /// A constant.
    pub const fn real(value: f64) -> Self {
        Self { is_real: true, is_pure: true, kind: Kind::Real(value) }
    }

    /// The integer it is, if it is one.
    pub const fn constant(&self) -> Option<i64> {
        match self.kind {
            Kind::Integer(value) => Some(value),
            _ => None,
        }
    }

    /// The address of a place.
    pub fn address(place: Place) -> Self {
        match place {
            Place::Memory(base, 0) => *base,
            place => Self { is_real: false, is_pure: place.is_pure(), kind: Kind::Address(place) },
        }
    }

    /// What a place holds.
    pub fn load(scalar: Scalar, place: Place) -> Self {
        Self { is_real: scalar.is_real(), is_pure: place.is_pure(), kind: Kind::Load(scalar, place) }
    }

    /// Something that changes something.
    pub const fn effect(is_real: bool, kind: Kind) -> Self {
        Self { is_real, is_pure: false, kind }
    }

    /// An instruction over two values of one kind.
    pub fn binary(op: Op, left: Self, right: Self) -> Self {
        match (&left.kind, &right.kind) {
            (Kind::Integer(a), Kind::Integer(b)) => {
                if let Some(value) = integers(op, *a, *b) {
                    return Self::integer(value);
                }
            }
            (Kind::Real(a), Kind::Real(b)) => {
                if let Some(value) = reals(op, *a, *b) {
                    return Self::real(value);
                }
            }
            _ => {}
        }
        simpler(op, left, right)
    }

    /// A comparison of two values of one kind.
    pub fn compare(condition: Condition, left: Self, right: Self) -> Self {
        let known = match (&left.kind, &right.kind) {
            (Kind::Integer(a), Kind::Integer(b)) => Some(holds(condition, a.cmp(b), (*a as u64).cmp(&(*b as u64)))),
            (Kind::Real(a), Kind::Real(b)) => a.partial_cmp(b).map(|order| holds(condition, order, order)),
            _ => None,
        };
        if let Some(holds) = known {
            return Self::integer(i64::from(holds));
        }
        let is_pure = left.is_pure && right.is_pure;
        // A constant stands on the right.
        let (condition, left, right) = match (&left.kind, mirrored(condition)) {
            (Kind::Integer(_) | Kind::Real(_), condition) => (condition, right, left),
            _ => (condition, left, right),
        };
        Self { is_real: false, is_pure, kind: Kind::Compare(condition, Box::new(left), Box::new(right)) }
    }

    /// Another type.
    pub fn wrap(self, scalar: Scalar) -> Self {
        match &self.kind {
            Kind::Integer(value) if !scalar.is_real() => return Self::integer(scalar.wrap(*value)),
            Kind::Real(value) if scalar == Scalar::Float => return Self::real(f64::from(*value as f32)),
            Kind::Load(from, _) if *from == scalar => return self,
            Kind::Compare(..) | Kind::And(..) | Kind::Or(..) | Kind::Not(_) if !scalar.is_real() => return self,
            _ if scalar.is_whole() => return self,
            _ => {}
        }
        Self { is_real: self.is_real, is_pure: self.is_pure, kind: Kind::Wrap(scalar, Box::new(self)) }
    }

    /// An integer as a double.
    pub fn into_real(self, is_signed: bool) -> Self {
        match self.kind {
            Kind::Integer(value) if is_signed => Self::real(value as f64),
            Kind::Integer(value) => Self::real(value as u64 as f64),
            _ => Self { is_real: true, is_pure: self.is_pure, kind: Kind::ToReal(is_signed, Box::new(self)) },
        }
    }

    /// A double as an integer, towards zero.
    pub fn into_integer(self, is_signed: bool) -> Self {
        match self.kind {
            Kind::Real(value) if is_signed => Self::integer(value as i64),
            Kind::Real(value) => Self::integer(value as u64 as i64),
            _ => Self { is_real: false, is_pure: self.is_pure, kind: Kind::ToInteger(is_signed, Box::new(self)) },
        }
    }

    /// Whether it is not zero, as a constant; `None`: it is none.
    pub fn truth(&self) -> Option<bool> {
        match self.kind {
            Kind::Integer(value) => Some(value != 0),
            Kind::Real(value) => Some(value != 0.0),
            _ => None,
        }
    }
}

fn holds(condition: Condition, signed: std::cmp::Ordering, unsigned: std::cmp::Ordering) -> bool {
    match condition {
        Condition::Always => true,
        Condition::Equal | Condition::Zero => signed.is_eq(),
        Condition::NotEqual | Condition::NotZero => signed.is_ne(),
        Condition::Less => unsigned.is_lt(),
        Condition::LessEqual => unsigned.is_le(),
        Condition::Greater => unsigned.is_gt(),
        Condition::GreaterEqual => unsigned.is_ge(),
        Condition::LessSigned => signed.is_lt(),
        Condition::LessEqualSigned => signed.is_le(),
        Condition::GreaterSigned => signed.is_gt(),
        Condition::GreaterEqualSigned => signed.is_ge(),
    }
}

/// The condition with its operands exchanged.
const fn mirrored(condition: Condition) -> Condition {
    match condition {
        Condition::Less => Condition::Greater,
        Condition::LessEqual => Condition::GreaterEqual,
        Condition::Greater => Condition::Less,
        Condition::GreaterEqual => Condition::LessEqual,
        Condition::LessSigned => Condition::GreaterSigned,
        Condition::LessEqualSigned => Condition::GreaterEqualSigned,
        Condition::GreaterSigned => Condition::LessSigned,
        Condition::GreaterEqualSigned => Condition::LessEqualSigned,
        Condition::Always | Condition::Zero | Condition::NotZero | Condition::Equal | Condition::NotEqual => condition,
    }
}

/// `None`: it traps, or is not known.
fn integers(op: Op, a: i64, b: i64) -> Option<i64> {
    let (ua, ub) = (a as u64, b as u64);
    Some(match op {
        Op::Add => a.wrapping_add(b),
        Op::Sub => a.wrapping_sub(b),
        Op::Mul => a.wrapping_mul(b),
        Op::Divs => a.checked_div(b)?,
        Op::Rems => a.checked_rem(b)?,
        Op::Div => ua.checked_div(ub)? as i64,
        Op::Rem => ua.checked_rem(ub)? as i64,
        Op::And => a & b,
        Op::Or => a | b,
        Op::Xor => a ^ b,
        Op::Shl => a.wrapping_shl(b as u32),
        Op::Shr => ua.wrapping_shr(b as u32) as i64,
        Op::Sar => a.wrapping_shr(b as u32),
        _ => return None,
    })
}

fn reals(op: Op, a: f64, b: f64) -> Option<f64> {
    let value = match op {
        Op::Add => a + b,
        Op::Sub => a - b,
        Op::Mul => a * b,
        Op::Div => a / b,
        _ => return None,
    };
    Some(value).filter(|value| !value.is_nan())
}

/// The instruction as it is.
fn plain(op: Op, left: Value, right: Value) -> Value {
    let (is_real, is_pure) = (left.is_real, left.is_pure && right.is_pure);
    Value { is_real, is_pure, kind: Kind::Binary(op, Box::new(left), Box::new(right)) }
}

/// The same with fewer or cheaper instructions, if there are such.
fn simpler(op: Op, left: Value, right: Value) -> Value {
    let is_commutative = matches!(op, Op::Add | Op::Mul | Op::And | Op::Or | Op::Xor);
    if is_commutative && left.constant().is_some() && right.constant().is_none() {
        return simpler(op, right, left);
    }
    let Some(constant) = right.constant() else { return plain(op, left, right) };
    let power = (constant as u64).is_power_of_two().then(|| Value::integer(i64::from(constant.trailing_zeros())));
    match (op, constant, power) {
        (Op::Add | Op::Sub | Op::Or | Op::Xor | Op::Shl | Op::Shr | Op::Sar, 0, _) | (Op::Mul | Op::Div | Op::Divs, 1, _) => left,
        (Op::Mul | Op::And, 0, _) if left.is_pure => Value::integer(0),
        (Op::Sub, ..) if constant != i64::MIN => Value::binary(Op::Add, left, Value::integer(-constant)),
        (Op::Add, ..) => sum(left, constant),
        (Op::Mul, _, Some(shift)) => Value::binary(Op::Shl, left, shift),
        (Op::Div, _, Some(shift)) => Value::binary(Op::Shr, left, shift),
        (Op::Rem, _, Some(_)) => Value::binary(Op::And, left, Value::integer(constant.wrapping_sub(1))),
        _ => plain(op, left, right),
    }
}

/// A value and a constant: constants that were there before are joined.
fn sum(left: Value, constant: i64) -> Value {
    let is_pure = left.is_pure;
    let made = |left: Box<Value>, constant: i64| {
        let kind = Kind::Binary(Op::Add, left, Box::new(Value::integer(constant)));
        Value { is_real: false, is_pure, kind }
    };
    match left.kind {
        Kind::Address(place) => Value::address(place.behind(constant)),
        Kind::Binary(Op::Add, inner, before) if before.constant().is_some() => {
            match before.constant().unwrap_or(0).wrapping_add(constant) {
                0 => *inner,
                joined => made(inner, joined),
            }
        }
        kind => made(Box::new(Value { is_real: false, is_pure, kind }), constant),
    }
}

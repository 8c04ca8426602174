//! Expressions: their values and types.
//!
//! Owns conversions. Must not know statements.

use super::place::offset;
use super::{Checked, Checker, Meaning, fail};
use crate::diagnostic::{Position, Reason};
use crate::syntax::{Expression, ExpressionKind};
use crate::typed::{Kind, Place, Value};
use crate::types::{Scalar, Type};
use dvm_disa::isa::Op;
use dvm_disa::types::Condition;

impl Checker<'_> {
    /// A value and its type; arrays are pointers to their first element.
    pub(super) fn value(&mut self, expression: &Expression) -> Checked<(Value, Type)> {
        let (value, ty) = self.any_value(expression)?;
        if ty == Type::Void {
            return self.type_error(expression.at, "an expression", "a value", &ty);
        }
        Ok((value, ty))
    }

    /// A value that may be none.
    fn any_value(&mut self, expression: &Expression) -> Checked<(Value, Type)> {
        let at = expression.at;
        match &expression.kind {
            ExpressionKind::Integer(value) => {
                let scalar = if *value > i64::MAX as u64 { Scalar::UnsignedLong } else { Scalar::Long };
                Ok((Value::integer(*value as i64), Type::Scalar(scalar)))
            }
            ExpressionKind::Real(value) => Ok((Value::real(*value), Type::DOUBLE)),
            ExpressionKind::Name(name) if self.is_constant(name) => match self.meanings.get(name) {
                Some(Meaning::Constant(value, ty)) => Ok((value.clone(), ty.clone())),
                _ => fail(at, Reason::WrongKind(format!("`{name}` is a function: call it as {name}(...)"))),
            },
            ExpressionKind::Text(_) | ExpressionKind::Name(_) | ExpressionKind::Index(..) | ExpressionKind::Member(..) => {
                let (place, ty) = self.needs_place(expression, "an expression")?;
                self.loaded(at, place, ty)
            }
            ExpressionKind::Unary("*", _) => {
                let (place, ty) = self.needs_place(expression, "`*`")?;
                self.loaded(at, place, ty)
            }
            ExpressionKind::Unary(operator, inner) => self.unary(at, operator, inner),
            ExpressionKind::Binary(operator @ ("&&" | "||"), left, right) => self.logical(operator, left, right),
            ExpressionKind::Binary(operator, left, right) => {
                let (left_value, left_type) = self.value(left)?;
                let (right_value, right_type) = self.value(right)?;
                self.binary(at, operator, (left_value, left_type), (right_value, right_type))
            }
            ExpressionKind::Assign(operator, place, value) => self.assign(at, *operator, place, value),
            ExpressionKind::Step(by, is_before, inner) => self.step(*by, *is_before, inner),
            ExpressionKind::Conditional(condition, yes, no) => self.conditional(at, condition, yes, no),
            ExpressionKind::Call(name, arguments) => self.call(at, name, arguments),
            ExpressionKind::Cast(ty, inner) => {
                let to = self.resolve(at, ty)?;
                let (value, from) = self.any_value(inner)?;
                if to == Type::Void {
                    return Ok((value, to));
                }
                Ok((self.cast(at, value, &from, &to)?, to))
            }
            ExpressionKind::SizeOfType(ty) => {
                let ty = self.resolve(at, ty)?;
                Ok((Value::integer(self.bytes(at, &ty)? as i64), Type::LONG))
            }
            ExpressionKind::SizeOf(inner) => {
                let ty = match self.place(inner)? {
                    Some((_, ty)) => ty,
                    None => self.value(inner)?.1,
                };
                Ok((Value::integer(self.bytes(at, &ty)? as i64), Type::LONG))
            }
            ExpressionKind::Runner(runner) => self.runner(at, runner),
        }
    }

    /// Whether a name is a constant or a function: no place.
    fn is_constant(&self, name: &str) -> bool {
        let is_local = self.scopes.iter().any(|scope| scope.contains_key(name));
        !is_local && matches!(self.meanings.get(name), Some(Meaning::Constant(..) | Meaning::Function(_)))
    }

    fn loaded(&mut self, at: Position, place: Place, ty: Type) -> Checked<(Value, Type)> {
        match ty {
            Type::Array(of, _) => {
                let whole = Type::Void;
                Ok((self.address_of(at, place, &whole)?, of.pointer()))
            }
            Type::Struct(_) => fail(at, Reason::BadType("a struct is no value: assign it whole, or use its members or address")),
            Type::Void => fail(at, Reason::BadType("void * points to nothing known: cast the pointer")),
            Type::Scalar(_) | Type::Pointer(_) => {
                let scalar = ty.scalar().unwrap_or(Scalar::Long);
                Ok((Value::load(scalar, place), ty))
            }
        }
    }

    /// A value that nobody uses.
    pub(super) fn discarded(&mut self, expression: &Expression) -> Checked<Value> {
        // Structures are assigned as statements only.
        if let ExpressionKind::Assign(None, to, from) = &expression.kind
            && let Some((to_place, Type::Struct(index))) = self.place(to)?
        {
            let (from_place, from_type) = self.needs_place(from, "the assignment of a struct")?;
            if from_type != Type::Struct(index) {
                let needs = self.structures.name(&Type::Struct(index));
                return self.type_error(from.at, "the assignment", &needs, &from_type);
            }
            let bytes = self.structures.0[index].bytes;
            return Ok(Value::effect(false, Kind::Copy(to_place, from_place, bytes)));
        }
        Ok(self.any_value(expression)?.0)
    }

    /// Something that is zero or not.
    pub(super) fn condition(&mut self, expression: &Expression) -> Checked<Value> {
        let (value, _) = self.value(expression)?;
        Ok(value)
    }

    /// A constant integer.
    pub(super) fn constant(&mut self, expression: &Expression, what: &'static str) -> Checked<i64> {
        let (value, ty) = self.value(expression)?;
        match value.constant() {
            Some(value) if ty.is_integer() => Ok(value),
            _ => fail(expression.at, Reason::NotConstant(what)),
        }
    }

    /// A value as another type, as assignments do it.
    pub(super) fn convert(&self, at: Position, value: Value, from: &Type, to: &Type) -> Checked<Value> {
        let is_null = value.constant() == Some(0) && from.is_integer();
        match (from, to) {
            (Type::Pointer(a), Type::Pointer(b)) if a == b || **a == Type::Void || **b == Type::Void => Ok(value),
            (Type::Scalar(_), Type::Pointer(_)) if is_null => Ok(value),
            (Type::Scalar(_), Type::Scalar(_)) => self.cast(at, value, from, to),
            _ => {
                let needs = format!("{} (or a cast)", self.structures.name(to));
                self.type_error(at, "this place", &needs, from)
            }
        }
    }

    /// A value as another type, as a cast does it.
    fn cast(&self, at: Position, value: Value, from: &Type, to: &Type) -> Checked<Value> {
        let (Some(source), Some(target)) = (from.scalar(), to.scalar()) else {
            return self.type_error(at, "a conversion", &self.structures.name(to), from);
        };
        let is_pointer = matches!(from, Type::Pointer(_)) || matches!(to, Type::Pointer(_));
        if is_pointer && (source.is_real() || target.is_real()) {
            return self.type_error(at, "a conversion", &self.structures.name(to), from);
        }
        let is_signed = |scalar: Scalar| scalar != Scalar::UnsignedLong;
        Ok(match (source.is_real(), target.is_real()) {
            (false, true) => value.into_real(is_signed(source)).wrap(target),
            (true, false) => value.into_integer(is_signed(target)).wrap(target),
            _ => value.wrap(target),
        })
    }

    fn unary(&mut self, at: Position, operator: &str, inner: &Expression) -> Checked<(Value, Type)> {
        if operator == "&" {
            let (place, ty) = self.needs_place(inner, "`&`")?;
            let value = self.address_of(at, place, &ty)?;
            return Ok((value, ty.pointer()));
        }
        let (value, ty) = self.value(inner)?;
        match operator {
            "!" => Ok((not(value), Type::LONG)),
            "-" if ty.is_real() => {
                let is_pure = value.is_pure;
                if let Kind::Real(value) = value.kind {
                    return Ok((Value::real(-value), Type::DOUBLE));
                }
                let kind = Kind::Binary(Op::Sub, Box::new(Value::real(-0.0)), Box::new(value));
                Ok((Value { is_real: true, is_pure, kind }, Type::DOUBLE))
            }
            "-" if ty.is_integer() => Ok((Value::binary(Op::Sub, Value::integer(0), value), promoted(&ty))),
            "~" if ty.is_integer() => Ok((Value::binary(Op::Xor, value, Value::integer(-1)), promoted(&ty))),
            _ => self.type_error(at, &format!("`{operator}`"), "a number", &ty),
        }
    }

    fn logical(&mut self, operator: &str, left: &Expression, right: &Expression) -> Checked<(Value, Type)> {
        let (left, right) = (self.condition(left)?, self.condition(right)?);
        let is_and = operator == "&&";
        let value = match left.truth() {
            Some(truth) if truth != is_and => Value::integer(i64::from(truth)),
            Some(_) => not(not(right)),
            None => {
                let is_pure = left.is_pure && right.is_pure;
                let (left, right) = (Box::new(left), Box::new(right));
                let kind = if is_and { Kind::And(left, right) } else { Kind::Or(left, right) };
                Value { is_real: false, is_pure, kind }
            }
        };
        Ok((value, Type::LONG))
    }

    fn conditional(&mut self, at: Position, condition: &Expression, yes: &Expression, no: &Expression) -> Checked<(Value, Type)> {
        let condition = self.condition(condition)?;
        let (yes_value, yes_type) = self.value(yes)?;
        let (no_value, no_type) = self.value(no)?;
        let ty = match (&yes_type, &no_type) {
            (Type::Scalar(_), Type::Scalar(_)) => common(&yes_type, &no_type),
            (Type::Pointer(_), _) => yes_type.clone(),
            _ => no_type.clone(),
        };
        let yes_value = self.convert(yes.at, yes_value, &yes_type, &ty)?;
        let no_value = self.convert(no.at, no_value, &no_type, &ty)?;
        if let Some(truth) = condition.truth() {
            return Ok((if truth { yes_value } else { no_value }, ty));
        }
        if ty.scalar().is_none() {
            return self.type_error(at, "`?`", "numbers or pointers", &ty);
        }
        let (is_real, is_pure) = (ty.is_real(), condition.is_pure && yes_value.is_pure && no_value.is_pure);
        let kind = Kind::Conditional(Box::new(condition), Box::new(yes_value), Box::new(no_value));
        Ok((Value { is_real, is_pure, kind }, ty))
    }

    fn assign(
        &mut self,
        at: Position,
        operator: Option<&'static str>,
        to: &Expression,
        from: &Expression,
    ) -> Checked<(Value, Type)> {
        let (place, ty) = self.needs_place(to, "an assignment")?;
        let Some(scalar) = ty.scalar() else {
            return fail(at, Reason::BadType("an array is not assigned, and a struct only as a statement of its own"));
        };
        let (value, from_type) = self.value(from)?;
        let is_real = scalar.is_real();
        let Some(operator) = operator else {
            let value = self.convert(from.at, value, &from_type, &ty)?;
            return Ok((Value::effect(is_real, Kind::Assign(scalar, place, Box::new(value))), ty));
        };
        let current = Value::load(scalar, place.clone());
        let (combined, result_type) = self.binary(at, operator, (current, ty.clone()), (value, from_type))?;
        let combined = self.convert(at, combined, &result_type, &ty)?;
        // Where the place is the first operand of one instruction, it is found once.
        if let Kind::Binary(op, left, right) = &combined.kind
            && matches!(&left.kind, Kind::Load(..))
            && scalar.is_whole()
        {
            return Ok((Value::effect(is_real, Kind::Compound(scalar, *op, place, right.clone())), ty));
        }
        if let Kind::Wrap(_, inner) = &combined.kind
            && let Kind::Binary(op, left, right) = &inner.kind
            && matches!(&left.kind, Kind::Load(..))
        {
            return Ok((Value::effect(is_real, Kind::Compound(scalar, *op, place, right.clone())), ty));
        }
        if !place.is_pure() {
            let text = "the place would be computed twice: take its address first, or write a = a + b";
            return fail(at, Reason::WrongPlace(text));
        }
        Ok((Value::effect(is_real, Kind::Assign(scalar, place, Box::new(combined))), ty))
    }

    fn step(&mut self, by: i64, is_before: bool, inner: &Expression) -> Checked<(Value, Type)> {
        let (place, ty) = self.needs_place(inner, "`++` and `--`")?;
        let by = match &ty {
            Type::Pointer(of) => by.wrapping_mul(self.bytes(inner.at, of)? as i64),
            _ => by,
        };
        let Some(scalar) = ty.scalar() else {
            return self.type_error(inner.at, "`++` and `--`", "a number or a pointer", &ty);
        };
        Ok((Value::effect(scalar.is_real(), Kind::Step { scalar, place, by, is_before }), ty))
    }
}

/// The type that arithmetic on one value has.
pub(super) fn promoted(ty: &Type) -> Type {
    match ty {
        Type::Scalar(Scalar::UnsignedLong) => ty.clone(),
        Type::Scalar(scalar) if scalar.is_real() => Type::DOUBLE,
        Type::Scalar(_) => Type::LONG,
        other => other.clone(),
    }
}

/// The type that arithmetic on two numbers has.
pub(super) fn common(left: &Type, right: &Type) -> Type {
    let (left, right) = (promoted(left), promoted(right));
    if left == Type::DOUBLE || right == Type::DOUBLE {
        Type::DOUBLE
    } else if left == Type::LONG {
        right
    } else {
        left
    }
}

/// Whether a value is zero.
pub(super) fn not(value: Value) -> Value {
    if let Some(truth) = value.truth() {
        return Value::integer(i64::from(!truth));
    }
    let is_pure = value.is_pure;
    let inverted = |condition: Condition| match condition {
        Condition::Equal => Some(Condition::NotEqual),
        Condition::NotEqual => Some(Condition::Equal),
        _ => None,
    };
    match value.kind {
        Kind::Compare(condition, left, right) if inverted(condition).is_some() => {
            let condition = inverted(condition).unwrap_or(condition);
            Value { is_real: false, is_pure, kind: Kind::Compare(condition, left, right) }
        }
        kind => Value { is_real: false, is_pure, kind: Kind::Not(Box::new(Value { kind, ..value })) },
    }
}

/// A pointer so many elements further, or back.
pub(super) fn moved(pointer: Value, index: Value, bytes: u64, is_back: bool) -> Value {
    let index = if is_back { Value::binary(Op::Sub, Value::integer(0), index) } else { index };
    offset(pointer, index, bytes)
}

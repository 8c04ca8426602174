//! Calls: functions, what only looks like one, and runners.
//!
//! Owns arguments and ranges. Must not know how they are passed.

use super::builtin::{Sort, TABLE};
use super::{Checked, Checker, Meaning, Signature, fail};
use crate::diagnostic::{Position, Reason};
use crate::limits::RANGES_MAX;
use crate::syntax::{Expression, ExpressionKind, RangeSyntax, RunnerSyntax};
use crate::typed::{Builtin, Kind, Place, Runner, Value};
use crate::types::{Scalar, Type};
use dvm_disa::isa::Op;

impl Checker<'_> {
    fn signature(&self, at: Position, name: &str) -> Checked<Signature> {
        match self.meanings.get(name) {
            Some(Meaning::Function(signature)) => Ok(signature.clone()),
            Some(_) => fail(at, Reason::WrongKind(format!("`{name}` is no function"))),
            None => fail(at, Reason::Undeclared(name.into())),
        }
    }

    fn arguments(&mut self, at: Position, name: &str, takes: &[Type], given: &[Expression]) -> Checked<Vec<Value>> {
        if takes.len() != given.len() {
            return fail(at, Reason::ArgumentCount { name: name.into(), takes: takes.len(), found: given.len() });
        }
        let mut values = Vec::with_capacity(given.len());
        for (ty, expression) in takes.iter().zip(given) {
            let (value, from) = self.value(expression)?;
            values.push(self.convert(expression.at, value, &from, ty)?);
        }
        Ok(values)
    }

    pub(super) fn call(&mut self, at: Position, name: &str, given: &[Expression]) -> Checked<(Value, Type)> {
        if !self.meanings.contains_key(name)
            && let Some(found) = self.builtin(at, name, given)?
        {
            return Ok(found);
        }
        let signature = self.signature(at, name)?;
        if signature.is_runner {
            let text = format!("`{name}` is a runner: write `runner {name}(...) using ...;`");
            return fail(at, Reason::WrongKind(text));
        }
        let arguments = self.arguments(at, name, &signature.parameters, given)?;
        self.makes_calls = true;
        let is_real = signature.result.is_real();
        Ok((Value::effect(is_real, Kind::Call(name.into(), arguments)), signature.result))
    }

    fn builtin(&mut self, at: Position, name: &str, given: &[Expression]) -> Checked<Option<(Value, Type)>> {
        // A string is printed as it is.
        if let ("print" | "log", [Expression { kind: ExpressionKind::Text(text), .. }]) = (name, given) {
            let length = Value::integer(text.len() as i64);
            let address = Value::address(Place::Global(self.string(text.clone()), 0));
            let number = if name == "log" { 9 } else { 2 };
            let kind = Kind::Builtin(Builtin::Block(number, None), vec![address, length]);
            return Ok(Some((Value::effect(false, kind), Type::Void)));
        }
        let Some(entry) = TABLE.iter().find(|entry| entry.name == name) else { return Ok(None) };
        let takes: Vec<Type> = entry.takes.iter().map(|sort| ty(*sort)).collect();
        let arguments = self.arguments(at, name, &takes, given)?;
        let gives = ty(entry.gives);
        let is_pure = entry.is_pure && arguments.iter().all(|argument| argument.is_pure);
        let kind = Kind::Builtin(entry.builtin, arguments);
        let is_nothing = entry.gives == Sort::Nothing;
        Ok(Some((Value { is_real: gives.is_real(), is_pure, kind }, if is_nothing { Type::Void } else { gives })))
    }

    pub(super) fn runner(&mut self, at: Position, syntax: &RunnerSyntax) -> Checked<(Value, Type)> {
        let RunnerSyntax { name, arguments, using, watching, is_persistent } = syntax;
        let signature = self.signature(at, name)?;
        if !signature.is_runner {
            return fail(at, Reason::WrongKind(format!("`{name}` is a function: declare it as `runner {name}(...)`")));
        }
        if *is_persistent && watching.is_empty() {
            return fail(at, Reason::WrongPlace("a persistent runner waits for something: add `watching`"));
        }
        let arguments = self.arguments(at, name, &signature.parameters, arguments)?;
        let using = self.ranges(at, using)?;
        let watching = self.ranges(at, watching)?;
        let runner = Runner { name: name.clone(), arguments, using, watching, is_persistent: *is_persistent };
        Ok((Value::effect(false, Kind::Runner(Box::new(runner))), Type::LONG))
    }

    fn ranges(&mut self, at: Position, written: &[RangeSyntax]) -> Checked<Vec<(Value, Value)>> {
        if written.len() > RANGES_MAX {
            return fail(at, Reason::TooMany { what: "ranges", max: RANGES_MAX as u64 });
        }
        written.iter().map(|range| self.range(range)).collect()
    }

    /// Base and bytes.
    fn range(&mut self, RangeSyntax { place, bounds }: &RangeSyntax) -> Checked<(Value, Value)> {
        let at = place.at;
        let Some((first, end)) = bounds else {
            let (found, ty) = self.needs_place(place, "a range")?;
            if let Some(what) = self.is_private(&found) {
                return fail(at, Reason::PrivateRange(what));
            }
            let bytes = self.bytes(at, &ty)?;
            return Ok((Value::address(found), Value::integer(bytes as i64)));
        };
        let (base, ty) = self.value(place)?;
        let Type::Pointer(of) = ty else { return self.type_error(at, "`[i,,j]`", "an array or a pointer", &ty) };
        if let Kind::Address(found) = &base.kind
            && let Some(what) = self.is_private(found)
        {
            return fail(at, Reason::PrivateRange(what));
        }
        let bytes = self.bytes(at, &of)?;
        let mut bound = |expression: &Expression| -> Checked<Value> {
            let (value, ty) = self.value(expression)?;
            if !value.is_pure {
                return fail(expression.at, Reason::WrongPlace("a bound of a range changes nothing: compute it before"));
            }
            self.convert(expression.at, value, &ty, &Type::LONG)
        };
        let (first, end) = (bound(first)?, bound(end)?);
        let count = difference(end, &first);
        let base = super::place::offset(base, first, bytes);
        Ok((base, Value::binary(Op::Mul, count, Value::integer(bytes as i64))))
    }
}

/// How far one value is behind another: `i + n` and `i` are n apart.
fn difference(end: Value, first: &Value) -> Value {
    if let Kind::Binary(Op::Add, left, right) = &end.kind {
        for (same, other) in [(left, right), (right, left)] {
            if is_same(same, first) {
                return (**other).clone();
            }
        }
    }
    Value::binary(Op::Sub, end, first.clone())
}

fn is_same(a: &Value, b: &Value) -> bool {
    match (&a.kind, &b.kind) {
        (Kind::Load(x, Place::Local(a, 0)), Kind::Load(y, Place::Local(b, 0))) => x == y && a == b,
        (Kind::Integer(a), Kind::Integer(b)) => a == b,
        _ => false,
    }
}

fn ty(sort: Sort) -> Type {
    match sort {
        Sort::Integer => Type::LONG,
        Sort::Unsigned => Type::Scalar(Scalar::UnsignedLong),
        Sort::Real => Type::DOUBLE,
        Sort::Pointer => Type::Void.pointer(),
        Sort::Longs => Type::LONG.pointer(),
        Sort::Nothing => Type::Void,
    }
}

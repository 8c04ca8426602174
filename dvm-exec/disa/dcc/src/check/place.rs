//! Places: variables, elements, members, what pointers point to.
//!
//! Owns addresses as far as they are known. Must not know instructions.

use super::{Checked, Checker, Meaning, Named, fail};
use crate::diagnostic::{Position, Reason};
use crate::syntax::{Expression, ExpressionKind};
use crate::typed::{Place, Value};
use crate::types::{Scalar, Type};
use dvm_disa::isa::Op;

impl Checker<'_> {
    fn find_local(&self, name: &str) -> Option<Named> {
        self.scopes.iter().rev().find_map(|scope| scope.get(name)).cloned()
    }

    /// A place; `None`: the expression is none.
    pub(super) fn place(&mut self, expression: &Expression) -> Checked<Option<(Place, Type)>> {
        let at = expression.at;
        Ok(Some(match &expression.kind {
            ExpressionKind::Name(name) => {
                if let Some(Named { local, ty }) = self.find_local(name) {
                    return Ok(Some((Place::Local(local, 0), ty)));
                }
                match self.meanings.get(name) {
                    Some(Meaning::Variable { ty, .. }) => (Place::Global(name.clone(), 0), ty.clone()),
                    Some(Meaning::Constant(..) | Meaning::Function(_)) => return Ok(None),
                    None => return fail(at, Reason::Undeclared(name.clone())),
                }
            }
            ExpressionKind::Text(text) => {
                let name = self.string(text.clone());
                (Place::Global(name, 0), Type::Array(Box::new(Type::Scalar(Scalar::Char)), text.len() as u64 + 1))
            }
            ExpressionKind::Unary("*", inner) => {
                let (value, ty) = self.value(inner)?;
                match ty {
                    Type::Pointer(of) => (Place::at(value), *of),
                    other => return self.type_error(inner.at, "`*`", "a pointer", &other),
                }
            }
            ExpressionKind::Index(base, index) => {
                let (base_value, base_type) = self.value(base)?;
                let Type::Pointer(of) = base_type else {
                    return self.type_error(base.at, "`[]`", "an array or a pointer", &base_type);
                };
                let (index_value, index_type) = self.value(index)?;
                if !index_type.is_integer() {
                    return self.type_error(index.at, "an index", "an integer", &index_type);
                }
                let bytes = self.bytes(at, &of)?;
                (Place::at(offset(base_value, index_value, bytes)), *of)
            }
            ExpressionKind::Member(base, is_arrow, member) => return self.member(base, *is_arrow, member, at).map(Some),
            _ => return Ok(None),
        }))
    }

    fn member(&mut self, base: &Expression, is_arrow: bool, member: &str, at: Position) -> Checked<(Place, Type)> {
        let (place, ty) = if is_arrow {
            match self.value(base)? {
                (value, Type::Pointer(of)) => (Place::at(value), *of),
                (_, other) => return self.type_error(base.at, "`->`", "a pointer to a struct", &other),
            }
        } else {
            match self.place(base)? {
                Some(found) => found,
                None => return fail(base.at, Reason::NotAPlace("`.`")),
            }
        };
        let Type::Struct(index) = ty else {
            return self.type_error(base.at, if is_arrow { "`->`" } else { "`.`" }, "a struct", &ty);
        };
        let structure = &self.structures.0[index];
        match structure.members.iter().find(|known| known.name == member) {
            Some(known) => Ok((place.behind(known.offset as i64), known.ty.clone())),
            None => fail(at, Reason::NoMember { of: structure.name.clone(), member: member.into() }),
        }
    }

    /// A place, for what needs one.
    pub(super) fn needs_place(&mut self, expression: &Expression, what: &'static str) -> Checked<(Place, Type)> {
        match self.place(expression)? {
            Some(found) => Ok(found),
            None => fail(expression.at, Reason::NotAPlace(what)),
        }
    }

    /// The address of a place: a variable that has none gets one.
    pub(super) fn address_of(&mut self, at: Position, place: Place, ty: &Type) -> Checked<Value> {
        if let Place::Local(local, _) = place
            && self.locals[local].frame.is_none()
        {
            self.locals[local].frame = Some(self.reserve(at, ty)?);
        }
        Ok(Value::address(place))
    }

    /// The name of a string with the text.
    pub(super) fn string(&mut self, mut text: Vec<u8>) -> String {
        text.push(0);
        let known = self.unit.strings.iter().position(|string| *string == text);
        let index = known.unwrap_or_else(|| {
            self.unit.strings.push(text);
            self.unit.strings.len() - 1
        });
        format!("text.{index}")
    }

    /// Whether a place is certainly not shared.
    pub(super) fn is_private(&self, place: &Place) -> Option<String> {
        match place {
            Place::Local(..) => Some("a variable of the function".into()),
            Place::Global(name, _) => match self.meanings.get(name) {
                Some(Meaning::Variable { is_private: true, .. }) => Some(format!("`{name}`")),
                Some(_) => None,
                None => Some("a string".into()),
            },
            Place::Memory(..) => None,
        }
    }
}

/// A pointer so many elements further.
pub(super) fn offset(base: Value, index: Value, bytes: u64) -> Value {
    let scaled = Value::binary(Op::Mul, index, Value::integer(bytes as i64));
    Value::binary(Op::Add, base, scaled)
}

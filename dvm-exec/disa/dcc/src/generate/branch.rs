//! Conditions.
//!
//! Owns how truth becomes a branch or a number. Must not know statements.

use super::Generator;
use crate::code::Operand;
use crate::typed::{Kind, Place, Value};
use crate::types::Scalar;
use dvm_disa::isa::Op;
use dvm_disa::types::{Attribute, Condition, Type};

impl Generator<'_> {
    /// Jumps to the label if the value is not zero and `when` is true, or zero and it is false.
    pub(super) fn branch(&mut self, value: &Value, label: u32, when: bool) {
        match &value.kind {
            Kind::Integer(_) | Kind::Real(_) => {
                if value.truth() == Some(when) {
                    self.jump(label);
                }
            }
            Kind::Not(inner) => self.branch(inner, label, !when),
            Kind::And(left, right) | Kind::Or(left, right) => {
                let is_and = matches!(value.kind, Kind::And(..));
                if is_and == when {
                    let skip = self.label();
                    self.branch(left, skip, !when);
                    self.branch(right, label, when);
                    self.place_label(skip);
                } else {
                    self.branch(left, label, when);
                    self.branch(right, label, when);
                }
            }
            Kind::Compare(condition, left, right) => self.compare(*condition, left, right, label, when),
            _ => {
                let operand = self.value(value);
                let ty = if value.is_real { Type::D } else { Type::Q };
                let condition = if when { Condition::NotZero } else { Condition::Zero };
                self.emit(Op::Br, ty, Attribute::Condition(condition), vec![operand, Operand::Label(label)]);
            }
        }
    }

    fn compare(&mut self, condition: Condition, left: &Value, right: &Value, label: u32, when: bool) {
        let chosen = if when { Some(condition) } else { negated(condition, left.is_real) };
        let Some(condition) = chosen else {
            // With a NaN neither holds: what does not hold is jumped around.
            let skip = self.label();
            self.compare(condition, left, right, skip, true);
            self.jump(label);
            self.place_label(skip);
            return;
        };
        if let Some((left, right)) = self.bytes(left, right) {
            let attribute = Attribute::Condition(unsigned(condition));
            self.emit(Op::Br, Type::B, attribute, vec![left, right, Operand::Label(label)]);
            return;
        }
        let ty = if left.is_real { Type::D } else { Type::Q };
        let left_operand = self.kept(left, right.is_pure);
        let is_zero = right.constant() == Some(0);
        match condition {
            Condition::Equal | Condition::NotEqual if is_zero => {
                let condition = if condition == Condition::Equal { Condition::Zero } else { Condition::NotZero };
                self.emit(Op::Br, ty, Attribute::Condition(condition), vec![left_operand, Operand::Label(label)]);
            }
            _ => {
                let right_operand = self.value(right);
                let operands = vec![left_operand, right_operand, Operand::Label(label)];
                self.emit(Op::Br, ty, Attribute::Condition(condition), operands);
            }
        }
    }

    /// Two bytes of memory, or one and a constant, are compared where they are.
    fn bytes(&mut self, left: &Value, right: &Value) -> Option<(Operand, Operand)> {
        let is_byte = |value: &Value| matches!(&value.kind, Kind::Load(Scalar::Char, Place::Memory(..) | Place::Global(..)));
        let constant = right.constant().filter(|value| (0..256).contains(value));
        let both_pure = left.is_pure && right.is_pure;
        if !is_byte(left) || !both_pure || !(is_byte(right) || constant.is_some()) {
            return None;
        }
        let mut operand = |value: &Value| match &value.kind {
            Kind::Load(_, place) => self.place(place),
            _ => Operand::Integer(constant.unwrap_or(0)),
        };
        Some((operand(left), operand(right)))
    }

    /// 1 or 0; `to` is written last.
    pub(super) fn truth_into(&mut self, value: &Value, to: Operand) {
        let (yes, end) = (self.label(), self.label());
        self.branch(value, yes, true);
        self.mov(Operand::Integer(0), to.clone());
        self.jump(end);
        self.place_label(yes);
        self.mov(Operand::Integer(1), to);
        self.place_label(end);
    }

    pub(super) fn conditional(&mut self, condition: &Value, yes: &Value, no: &Value, to: &Operand) {
        let (otherwise, end) = (self.label(), self.label());
        self.branch(condition, otherwise, false);
        self.into(yes, to.clone());
        self.jump(end);
        self.place_label(otherwise);
        self.into(no, to.clone());
        self.place_label(end);
    }
}

/// What holds if the condition does not; `None`: with a NaN, nothing says so.
const fn negated(condition: Condition, is_real: bool) -> Option<Condition> {
    Some(match condition {
        Condition::Equal => Condition::NotEqual,
        Condition::NotEqual => Condition::Equal,
        _ if is_real => return None,
        Condition::Less => Condition::GreaterEqual,
        Condition::LessEqual => Condition::Greater,
        Condition::Greater => Condition::LessEqual,
        Condition::GreaterEqual => Condition::Less,
        Condition::LessSigned => Condition::GreaterEqualSigned,
        Condition::LessEqualSigned => Condition::GreaterSigned,
        Condition::GreaterSigned => Condition::LessEqualSigned,
        Condition::GreaterEqualSigned => Condition::LessSigned,
        Condition::Always | Condition::Zero | Condition::NotZero => return None,
    })
}

/// Bytes are never negative.
const fn unsigned(condition: Condition) -> Condition {
    match condition {
        Condition::LessSigned => Condition::Less,
        Condition::LessEqualSigned => Condition::LessEqual,
        Condition::GreaterSigned => Condition::Greater,
        Condition::GreaterEqualSigned => Condition::GreaterEqual,
        other => other,
    }
}

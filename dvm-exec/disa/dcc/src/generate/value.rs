//! Values and stores.
//!
//! Owns which values are operands and which need an instruction. Must not know control flow, but that conditions have it.

use super::{Generator, number};
use crate::code::{Base, FRAME_SLOT, Operand, Symbolic};
use crate::typed::{Builtin, Kind, Place, Value};
use crate::types::Scalar;
use dvm_disa::isa::Op;
use dvm_disa::types::{Attribute, Conversion, Type};

/// The type of an instruction over values.
const fn kind(is_real: bool) -> Type {
    if is_real { Type::D } else { Type::Q }
}

impl Generator<'_> {
    /// A value as an operand of a quad or a double. It may be memory: take it before anything changes that.
    pub(super) fn value(&mut self, value: &Value) -> Operand {
        match &value.kind {
            Kind::Integer(value) => Operand::Integer(*value),
            Kind::Real(value) => Operand::Real(value.to_bits()),
            Kind::Load(scalar, place) => {
                if let Some(loaded) = self.load_and_step(*scalar, place) {
                    return loaded;
                }
                let operand = self.place(place);
                self.loaded(*scalar, operand)
            }
            Kind::Address(place) => self.address(place),
            Kind::Builtin(Builtin::Cell(address), _) => Operand::Cell(number(*address)),
            Kind::Assign(scalar, place, inner) => {
                let result = self.assign(*scalar, place, inner);
                if matches!(result, Operand::Memory(..)) { self.settled(result) } else { result }
            }
            _ => {
                let to = self.fresh();
                self.into(value, to.clone());
                to
            }
        }
    }

    /// `*p++`: the load needs no copy of p.
    fn load_and_step(&mut self, scalar: Scalar, place: &Place) -> Option<Operand> {
        let Place::Memory(base, offset) = place else { return None };
        let Kind::Step { scalar: Scalar::UnsignedLong, place: Place::Local(local, 0), by, is_before: true } = &base.kind else {
            return None;
        };
        let pointer @ Operand::Variable(variable) = self.local(*local, 0) else { return None };
        let operand = Operand::Memory(Base::Variable(variable), i32::try_from(*offset).ok()?);
        let loaded = self.loaded(scalar, operand);
        let to = self.settled(loaded);
        self.plain(Op::Add, vec![pointer.clone(), Operand::Integer(*by), pointer]);
        Some(to)
    }

    /// What a place of this type holds, as a quad or a double.
    fn loaded(&mut self, scalar: Scalar, operand: Operand) -> Operand {
        if scalar.is_whole() || matches!(operand, Operand::Variable(_)) {
            return operand;
        }
        let to = self.fresh();
        self.widen(scalar, operand, to.clone());
        to
    }

    fn widen(&mut self, scalar: Scalar, from: Operand, to: Operand) {
        if scalar.is_signed() {
            return self.emit(Op::Movs, scalar.ty(), Attribute::None, vec![from, to]);
        }
        let conversion = Conversion { to: kind(scalar.is_real()), is_signed: false };
        self.emit(Op::Cvt, scalar.ty(), Attribute::Convert(conversion), vec![from, to]);
    }

    /// The operand as one that nothing changes: constants and what was computed last are.
    pub(super) fn settled(&mut self, operand: Operand) -> Operand {
        if matches!(operand, Operand::Variable(variable) if variable as usize >= self.function.locals.len()) {
            return operand;
        }
        let to = self.fresh();
        self.mov(operand, to.clone());
        to
    }

    /// A value that survives what is computed next.
    pub(super) fn kept(&mut self, value: &Value, rest_is_pure: bool) -> Operand {
        let operand = self.value(value);
        let is_constant = matches!(operand, Operand::Integer(_) | Operand::Real(_) | Operand::Address(_));
        if rest_is_pure || is_constant { operand } else { self.settled(operand) }
    }

    fn pair(&mut self, left: &Value, right: &Value) -> [Operand; 2] {
        let left = self.kept(left, right.is_pure);
        [left, self.value(right)]
    }

    /// The operand of a place.
    pub(super) fn place(&mut self, place: &Place) -> Operand {
        match place {
            Place::Local(local, offset) => self.local(*local, *offset),
            Place::Global(name, offset) => Operand::Cell(Symbolic { name: Some(name.clone()), offset: *offset }),
            Place::Memory(base, offset) => {
                let base = self.value(base);
                let Ok(displacement) = i32::try_from(*offset) else {
                    let far = self.fresh();
                    self.plain(Op::Add, vec![base, Operand::Integer(*offset), far.clone()]);
                    return self.pointed(far, 0);
                };
                self.pointed(base, displacement)
            }
        }
    }

    fn pointed(&mut self, base: Operand, displacement: i32) -> Operand {
        match base {
            Operand::Variable(variable) => Operand::Memory(Base::Variable(variable), displacement),
            Operand::Slot(slot) => Operand::Memory(Base::Slot(slot), displacement),
            Operand::Cell(cell) => Operand::CellPointer(cell, displacement),
            Operand::Address(mut address) => {
                address.offset = address.offset.wrapping_add(i64::from(displacement));
                Operand::Cell(address)
            }
            Operand::Integer(address) => {
                Operand::Cell(Symbolic { name: None, offset: address.wrapping_add(displacement.into()) })
            }
            other => {
                let base = self.settled(other);
                self.pointed(base, displacement)
            }
        }
    }

    fn address(&mut self, place: &Place) -> Operand {
        match place {
            Place::Global(name, offset) => Operand::Address(Symbolic { name: Some(name.clone()), offset: *offset }),
            Place::Local(..) | Place::Memory(..) => {
                let to = self.fresh();
                self.address_into(place, to.clone());
                to
            }
        }
    }

    fn address_into(&mut self, place: &Place, to: Operand) {
        match place {
            Place::Global(..) => {
                let address = self.address(place);
                self.mov(address, to);
            }
            Place::Local(..) => match self.place(place) {
                Operand::Memory(Base::Slot(slot), offset) => {
                    debug_assert_eq!(slot, FRAME_SLOT);
                    self.plain(Op::Add, vec![Operand::Slot(slot), Operand::Integer(offset.into()), to]);
                }
                other => self.mov(other, to),
            },
            Place::Memory(base, offset) => {
                let base = self.value(base);
                self.plain(Op::Add, vec![base, Operand::Integer(*offset), to]);
            }
        }
    }

    /// Computes a value; `to` is written by the last instruction only.
    pub(super) fn into(&mut self, value: &Value, to: Operand) {
        match &value.kind {
            Kind::Load(scalar, place) if !scalar.is_whole() => {
                let operand = self.place(place);
                match operand {
                    Operand::Variable(_) => self.mov(operand, to),
                    _ => self.widen(*scalar, operand, to),
                }
            }
            Kind::Integer(_) | Kind::Real(_) | Kind::Load(..) | Kind::Assign(..) => {
                let operand = self.value(value);
                self.mov(operand, to);
            }
            Kind::Address(place) => self.address_into(place, to),
            Kind::Binary(op, left, right) => {
                let [left_operand, right_operand] = self.pair(left, right);
                self.emit(*op, kind(value.is_real), Attribute::None, vec![left_operand, right_operand, to]);
            }
            Kind::Compare(condition, left, right) => {
                let [left_operand, right_operand] = self.pair(left, right);
                let ty = kind(left.is_real);
                self.emit(Op::Set, ty, Attribute::Condition(*condition), vec![left_operand, right_operand, to]);
            }
            Kind::And(..) | Kind::Or(..) | Kind::Not(_) => self.truth_into(value, to),
            Kind::Conditional(condition, yes, no) => self.conditional(condition, yes, no, &to),
            Kind::Compound(scalar, op, place, right) => self.compound(*scalar, *op, place, right, Some(to)),
            Kind::Step { scalar, place, by, is_before } => self.step(*scalar, place, *by, *is_before, Some(to)),
            Kind::Copy(..) => self.effect(value),
            Kind::ToReal(is_signed, inner) => {
                let from = self.value(inner);
                let conversion = Conversion { to: Type::D, is_signed: *is_signed };
                self.emit(Op::Cvt, Type::Q, Attribute::Convert(conversion), vec![from, to]);
            }
            Kind::ToInteger(is_signed, inner) => {
                let from = self.value(inner);
                let conversion = Conversion { to: Type::Q, is_signed: *is_signed };
                self.emit(Op::Cvt, Type::D, Attribute::Convert(conversion), vec![from, to]);
            }
            Kind::Wrap(scalar, inner) => {
                let from = self.value(inner);
                self.wrap(*scalar, from, to);
            }
            Kind::Call(name, arguments) => self.call(name, arguments, Some(to)),
            Kind::Builtin(builtin, arguments) => self.builtin(*builtin, arguments, value.is_real, Some(to)),
            Kind::Runner(runner) => self.runner(runner, Some(to)),
        }
    }

    /// A quad or double as a narrower type keeps it.
    fn wrap(&mut self, scalar: Scalar, from: Operand, to: Operand) {
        match scalar {
            Scalar::Float => {
                let single = Conversion { to: Type::F, is_signed: false };
                let narrow = self.fresh();
                // The upper half of the slot is not looked at.
                self.emit(Op::Cvt, Type::D, Attribute::Convert(single), vec![from, narrow.clone()]);
                self.widen(scalar, narrow, to);
            }
            Scalar::Short | Scalar::Int => {
                let operand = self.in_window(from);
                self.emit(Op::Movs, scalar.ty(), Attribute::None, vec![operand, to]);
            }
            Scalar::Char | Scalar::UnsignedShort | Scalar::UnsignedInt => {
                self.plain(Op::And, vec![from, Operand::Integer(scalar.ty().mask() as i64), to]);
            }
            Scalar::Long | Scalar::UnsignedLong | Scalar::Double => self.mov(from, to),
        }
    }

    /// Constants are checked against the type of their operand: a quad goes through a variable.
    fn in_window(&mut self, operand: Operand) -> Operand {
        match operand {
            Operand::Integer(_) | Operand::Real(_) | Operand::Address(_) => self.settled(operand),
            other => other,
        }
    }

    /// Stores; what was stored as an operand.
    fn assign(&mut self, scalar: Scalar, place: &Place, value: &Value) -> Operand {
        // Where the place is a variable, the value is computed right into it.
        if let Place::Local(local, 0) = place
            && let to @ Operand::Variable(_) = self.local(*local, 0)
        {
            self.into(value, to.clone());
            return to;
        }
        // What memory cuts off need not be cut off before.
        let value = match &value.kind {
            Kind::Wrap(to, inner) if *to == scalar && !scalar.is_real() => inner,
            _ => value,
        };
        if scalar.is_whole() {
            let to = if value.is_pure || place.is_pure() && !matches!(place, Place::Memory(..)) {
                self.place(place)
            } else {
                let value = self.value(value);
                let settled = self.settled(value);
                let to = self.place(place);
                self.mov(settled.clone(), to);
                return settled;
            };
            self.into(value, to.clone());
            return to;
        }
        let from = self.kept(value, place.is_pure());
        let from = if let Operand::Memory(..) = from { self.settled(from) } else { from };
        let to = self.place(place);
        self.store(scalar, from.clone(), to);
        from
    }

    /// Stores a quad or a double as a type that is not whole.
    fn store(&mut self, scalar: Scalar, from: Operand, to: Operand) {
        match (scalar, from) {
            (scalar, from) if scalar.is_whole() => self.mov(from, to),
            (Scalar::Float, from) => {
                let conversion = Conversion { to: Type::F, is_signed: false };
                self.emit(Op::Cvt, Type::D, Attribute::Convert(conversion), vec![from, to]);
            }
            (scalar, Operand::Integer(value)) => {
                let value = scalar.ty().sign_extend(value as u64);
                self.emit(Op::Mov, scalar.ty(), Attribute::None, vec![Operand::Integer(value), to]);
            }
            (scalar, from) => {
                let from = self.in_window(from);
                self.emit(Op::Mov, scalar.ty(), Attribute::None, vec![from, to]);
            }
        }
    }

    fn compound(&mut self, scalar: Scalar, op: Op, place: &Place, right: &Value, result: Option<Operand>) {
        let right = self.kept(right, place.is_pure());
        let operand = self.place(place);
        let ty = kind(scalar.is_real());
        let new = if scalar.is_whole() {
            self.emit(op, ty, Attribute::None, vec![operand.clone(), right, operand.clone()]);
            operand
        } else {
            let before = self.loaded(scalar, operand.clone());
            let new = self.fresh();
            self.emit(op, ty, Attribute::None, vec![before, right, new.clone()]);
            self.narrow(scalar, new, operand)
        };
        if let Some(result) = result {
            self.mov(new, result);
        }
    }

    /// Puts a computed value into a place of a narrower type; what is there then.
    fn narrow(&mut self, scalar: Scalar, new: Operand, operand: Operand) -> Operand {
        if matches!(operand, Operand::Variable(_)) {
            self.wrap(scalar, new, operand.clone());
            return operand;
        }
        self.store(scalar, new.clone(), operand);
        new
    }

    fn step(&mut self, scalar: Scalar, place: &Place, by: i64, is_before: bool, result: Option<Operand>) {
        let operand = self.place(place);
        let ty = kind(scalar.is_real());
        let amount = if scalar.is_real() { Operand::Real((by as f64).to_bits()) } else { Operand::Integer(by) };
        if scalar.is_whole() {
            // The result may be where the pointer to the place is: it comes last.
            let before = result.as_ref().filter(|_| is_before).map(|_| self.settled(operand.clone()));
            self.emit(Op::Add, ty, Attribute::None, vec![operand.clone(), amount, operand.clone()]);
            if let Some(result) = result {
                self.mov(before.unwrap_or(operand), result);
            }
            return;
        }
        let loaded = self.loaded(scalar, operand.clone());
        let before = self.settled(loaded);
        let new = self.fresh();
        self.emit(Op::Add, ty, Attribute::None, vec![before.clone(), amount, new.clone()]);
        let after = self.narrow(scalar, new, operand);
        if let Some(result) = result {
            self.mov(if is_before { before } else { after }, result);
        }
    }

    /// Computes a value for what it changes.
    pub(super) fn effect(&mut self, value: &Value) {
        match &value.kind {
            Kind::Assign(scalar, place, inner) => {
                self.assign(*scalar, place, inner);
            }
            Kind::Compound(scalar, op, place, right) => self.compound(*scalar, *op, place, right, None),
            Kind::Step { scalar, place, by, .. } => self.step(*scalar, place, *by, true, None),
            Kind::Copy(to, from, bytes) => {
                let from = self.address(from);
                let to = self.address(to);
                self.plain(Op::Copy, vec![from, Operand::Integer(*bytes as i64), to]);
            }
            Kind::Call(name, arguments) => self.call(name, arguments, None),
            Kind::Builtin(builtin, arguments) => self.builtin(*builtin, arguments, value.is_real, None),
            Kind::Runner(runner) => self.runner(runner, None),
            _ if value.is_pure => {}
            _ => {
                self.value(value);
            }
        }
    }
}

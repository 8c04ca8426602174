//! Instructions: the name with its attributes, and the operands.
//!
//! Owns which attributes may be written how. Must not know addresses.

use super::diagnostic::{Diagnostic, Position, Reason};
use super::parse::Cursor;
use super::syntax::{OperandSyntax, Statement};
use crate::isa::{Attributes, Op};
use crate::types::{Attribute, Condition, Conversion, ExitMode, Type};

/// Reads the rest of an instruction whose name was read.
///
/// # Errors
/// There is no such instruction.
pub fn parse(name: &str, at: Position, cursor: &mut Cursor<'_>) -> Result<Statement, Diagnostic> {
    let op = Op::from_name(name).ok_or_else(|| Diagnostic { at, reason: Reason::UnknownOp(name.into()) })?;
    let mut written = Written { op, types: Vec::new(), condition: None, mode: None, is_signed: None };
    while cursor.take(':') {
        let (text, place) = cursor.name("a size or an attribute")?;
        written.take(&text).map_err(|reason| Diagnostic { at: place, reason })?;
    }
    let operands = operands(cursor, &mut written)?;
    cursor.finish()?;
    let (ty, attribute) = written.finish().map_err(|reason| Diagnostic { at, reason })?;
    let takes = op.places(attribute).len();
    if takes != operands.len() {
        return Err(Diagnostic { at, reason: Reason::OperandCount { op: name.into(), takes, found: operands.len() } });
    }
    Ok(Statement::Instruction { op, ty, attribute, operands })
}

fn operands(cursor: &mut Cursor<'_>, written: &mut Written) -> Result<Vec<(OperandSyntax, Position)>, Diagnostic> {
    let mut operands = Vec::new();
    if cursor.peek().is_none() {
        return Ok(operands);
    }
    loop {
        let at = cursor.position();
        operands.push((cursor.operand()?, at));
        if operands.len() == 1 && cursor.take(':') {
            let (text, place) = cursor.name("a size")?;
            let ty = Type::from_name(&text).ok_or_else(|| written.bad(&text));
            ty.and_then(|ty| written.take_type(ty)).map_err(|reason| Diagnostic { at: place, reason })?;
        }
        if !cursor.take(',') {
            return Ok(operands);
        }
    }
}

/// What was written behind the name.
struct Written {
    op: Op,
    types: Vec<Type>,
    condition: Option<Condition>,
    mode: Option<ExitMode>,
    is_signed: Option<bool>,
}

impl Written {
    fn bad(&self, attribute: &str) -> Reason {
        Reason::BadAttribute { op: self.op.name().into(), attribute: attribute.into() }
    }

    fn take_type(&mut self, ty: Type) -> Result<(), Reason> {
        let most = if self.op.attributes() == Attributes::Convert { 2 } else { 1 };
        if self.types.len() == most {
            return Err(Reason::SizeTwice);
        }
        self.types.push(ty);
        Ok(())
    }

    fn take(&mut self, text: &str) -> Result<(), Reason> {
        match self.op.attributes() {
            Attributes::Convert => return self.take_converted(text),
            Attributes::Branch | Attributes::Set => {
                if let (Some(condition), None) = (Condition::from_name(text), self.condition) {
                    self.condition = Some(condition);
                    return Ok(());
                }
            }
            Attributes::Exit => {
                if let (Some(mode), None) = (ExitMode::from_name(text), self.mode) {
                    self.mode = Some(mode);
                    return Ok(());
                }
            }
            Attributes::Plain => {}
        }
        let ty = Type::from_name(text).filter(|ty| self.op.types().allow(*ty)).ok_or_else(|| self.bad(text))?;
        self.take_type(ty)
    }

    fn take_converted(&mut self, text: &str) -> Result<(), Reason> {
        let signed = text.strip_prefix('s').and_then(Type::from_name).filter(|ty| !ty.is_float());
        let ty = signed.or_else(|| Type::from_name(text)).ok_or_else(|| self.bad(text))?;
        if !ty.is_float() && self.is_signed.replace(signed.is_some()).is_some_and(|before| before != signed.is_some()) {
            return Err(Reason::BadCombination(self.op.name().into()));
        }
        self.take_type(ty)
    }

    fn finish(self) -> Result<(Type, Attribute), Reason> {
        let op = self.op;
        let missing = |needs| Reason::MissingAttribute { op: op.name(), needs };
        let ty = self.types.first().copied().unwrap_or(Type::Q);
        let attribute = match op.attributes() {
            Attributes::Plain => Attribute::None,
            Attributes::Branch | Attributes::Set => {
                Attribute::Condition(self.condition.ok_or_else(|| missing("a condition, as in br:lt"))?)
            }
            Attributes::Exit => Attribute::Exit(self.mode.unwrap_or(ExitMode::Commit)),
            Attributes::Convert => match self.types.as_slice() {
                [_, to] => Attribute::Convert(Conversion { to: *to, is_signed: self.is_signed == Some(true) }),
                _ => return Err(missing("two types, as in cvt:sq:d")),
            },
        };
        if op.types().allow(ty) && op.fits(ty, attribute) {
            Ok((ty, attribute))
        } else if self.types.is_empty() && !op.types().allow(ty) {
            Err(missing("a size"))
        } else {
            Err(Reason::BadCombination(op.name().into()))
        }
    }
}

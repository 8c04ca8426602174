//! Statements into an object: rounds of laying out until every address has settled.
//!
//! Owns symbols and the order of rounds. Must not know how a line is read or where data may lie.

use super::diagnostic::{Diagnostic, Position, Reason};
use super::literal;
use super::section::Sections;
use super::syntax::{Base, Expression, Literal, Located, OperandSyntax, SectionName, Statement};
use crate::encode::encode;
use crate::instruction::{Instruction, Operand};
use crate::isa::Op;
use crate::limits::{DIAGNOSTICS_MAX, LAYOUT_ROUNDS_MAX};
use crate::map::{self, Range};
use crate::object::{Line, Object, Rules, Symbol};
use crate::types::{Attribute, Type};
use crate::verify::{self, VerifyError};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Value {
    number: i128,
    is_address: bool,
}

type Names = BTreeMap<String, Value>;

/// The object that the statements of one or more sources, with their names, describe.
///
/// # Errors
/// All that is wrong with them.
pub fn layout(units: &[(&str, Vec<Located>)]) -> Result<Object, Vec<(usize, Diagnostic)>> {
    let mut names = Names::new();
    let shared: Vec<BTreeSet<&str>> = units.iter().map(|(_, statements)| shared(statements)).collect();
    for _ in 0..LAYOUT_ROUNDS_MAX {
        let mut round = Round::new(names, &shared);
        for (unit, (file, statements)) in units.iter().enumerate() {
            round.begin(unit, file);
            for located in statements {
                round.statement(located);
            }
        }
        if round.names == round.before {
            return round.finish();
        }
        names = round.names;
    }
    Err(vec![(0, Diagnostic { at: Position { line: 1, column: 1 }, reason: Reason::Unsettled })])
}

/// The names that a source has in common with others.
fn shared(statements: &[Located]) -> BTreeSet<&str> {
    let names = statements.iter().filter_map(|located| match &located.statement {
        Statement::Global(name) | Statement::Extern(name) => Some(name.as_str()),
        _ => None,
    });
    names.collect()
}

/// Between a name and the source it belongs to, where there are several.
const OF_SOURCE: char = '\0';

struct Round<'a> {
    shared: &'a [BTreeSet<&'a str>],
    unit: usize,
    before: Names,
    names: Names,
    sections: Sections,
    diagnostics: Vec<(usize, Diagnostic)>,
    globals: BTreeSet<String>,
    instructions: Vec<(u64, usize, Position)>,
    files: Vec<String>,
    lines: Vec<Line>,
    loc: Option<Position>,
    private: u64,
    entry: Option<(u64, usize, Position)>,
    rules: Rules,
}

impl<'a> Round<'a> {
    fn new(before: Names, shared: &'a [BTreeSet<&'a str>]) -> Self {
        Self {
            shared,
            unit: 0,
            before,
            names: Names::new(),
            sections: Sections::new(),
            diagnostics: Vec::new(),
            globals: BTreeSet::new(),
            instructions: Vec::new(),
            files: Vec::new(),
            lines: Vec::new(),
            loc: None,
            private: map::PRIVATE_DATA.base,
            entry: None,
            rules: Rules::default(),
        }
    }

    /// Goes on with the statements of a source.
    fn begin(&mut self, unit: usize, file: &str) {
        (self.unit, self.loc) = (unit, None);
        self.sections.current = SectionName::Text;
        self.begin_file(file);
    }

    fn begin_file(&mut self, file: &str) {
        if self.files.last().is_none_or(|last| last != file) {
            self.files.push(file.into());
        }
    }

    /// A name, with its source if only that knows it.
    fn key(&self, name: &str) -> String {
        let is_shared = self.shared.len() == 1 || self.shared[self.unit].contains(name);
        if is_shared { name.into() } else { format!("{name}{OF_SOURCE}{}", self.unit) }
    }

    fn complain(&mut self, at: Position, reason: Reason) {
        if self.diagnostics.len() < DIAGNOSTICS_MAX {
            self.diagnostics.push((self.unit, Diagnostic { at, reason }));
        }
    }

    /// As [`Self::complain`], about a name: where the compiler found it, if one wrote this source.
    fn complain_of_name(&mut self, at: Position, reason: Reason) {
        self.complain(self.loc.unwrap_or(at), reason);
    }

    fn note(&mut self, at: Position, result: Result<(), Reason>) {
        if let Err(reason) = result {
            self.complain(at, reason);
        }
    }

    fn statement(&mut self, Located { at, statement }: &Located) {
        let at = *at;
        match statement {
            Statement::Label(name) => {
                let number = i128::from(self.sections.here());
                self.define(name, Value { number, is_address: true }, at);
            }
            Statement::Equ(name, expression) => {
                if let Some(number) = self.evaluate(expression, at) {
                    self.define(name, Value { number, is_address: false }, at);
                }
            }
            Statement::Instruction { op, ty, attribute, operands } => self.instruction(*op, *ty, *attribute, operands, at),
            Statement::Section(name, address) => {
                self.sections.current = *name;
                if let Some(address) = address.as_ref().and_then(|address| self.number(address, Type::Q, at)) {
                    let moved = self.sections.move_to(address);
                    self.note(at, moved);
                }
            }
            Statement::Page => {
                let aligned = self.sections.align(map::PAGE_BYTES);
                self.note(at, aligned);
            }
            Statement::Standalone(name, bytes) => self.standalone(name, bytes, at),
            Statement::Private(name, bytes) => self.private(name, bytes, at),
            Statement::Space(bytes) => {
                let bytes = self.number(bytes, Type::Q, at).unwrap_or(0);
                let skipped = self.sections.skip(bytes, at);
                self.note(at, skipped);
            }
            Statement::Integers(ty, all) => {
                for (expression, at) in all {
                    let value = self.number(expression, *ty, *at).unwrap_or(0);
                    self.append(&value.to_le_bytes()[..ty.bytes()], *at);
                }
            }
            Statement::Reals(ty, all) => {
                for (literal, at) in all {
                    let value = self.literal(literal, *ty, *at).unwrap_or(0);
                    self.append(&value.to_le_bytes()[..ty.bytes()], *at);
                }
            }
            Statement::Text(bytes) => {
                self.append(bytes, at);
                let aligned = self.sections.align(map::WORD_BYTES);
                self.note(at, aligned);
            }
            Statement::Global(_) | Statement::Extern(_) | Statement::Entry(_) => self.linkage(statement, at),
            Statement::File(name) => self.begin_file(name),
            Statement::Loc(position) => self.loc = Some(*position),
            Statement::Grain(is_page) => self.rules.is_page_grain = *is_page,
            Statement::Serializable => self.rules.is_serializable = true,
        }
    }

    fn linkage(&mut self, statement: &Statement, at: Position) {
        match statement {
            Statement::Global(name) => {
                if self.lookup(name).is_none() {
                    self.complain_of_name(at, Reason::Undefined(name.clone()));
                }
                self.globals.insert(name.clone());
            }
            Statement::Extern(name) if self.lookup(name).is_none() => {
                self.complain_of_name(at, Reason::Undefined(name.clone()));
            }
            Statement::Entry(address) => {
                if let Some(address) = self.number(address, Type::Q, at) {
                    self.entry = Some((address, self.unit, at));
                }
            }
            _ => {}
        }
    }

    fn standalone(&mut self, name: &str, bytes: &Expression, at: Position) {
        let bytes = self.number(bytes, Type::Q, at).unwrap_or(0);
        match self.sections.standalone(bytes, at) {
            Ok(address) => self.define(name, Value { number: i128::from(address), is_address: true }, at),
            Err(reason) => self.complain(at, reason),
        }
    }

    fn private(&mut self, name: &str, bytes: &Expression, at: Position) {
        let bytes = self.number(bytes, Type::Q, at).unwrap_or(0);
        let address = self.private;
        if !map::PRIVATE_DATA.encloses(Range::new(address, bytes)) {
            let place = "2 GiB of private memory";
            return self.complain(at, Reason::BadAddress { address, bytes, place });
        }
        self.private = (address + bytes).next_multiple_of(map::WORD_BYTES);
        self.define(name, Value { number: i128::from(address), is_address: false }, at);
    }

    fn append(&mut self, bytes: &[u8], at: Position) {
        let appended = self.sections.append(bytes, at);
        self.note(at, appended);
    }

    fn define(&mut self, name: &str, value: Value, at: Position) {
        if self.names.insert(self.key(name), value).is_some() {
            self.complain_of_name(at, Reason::Duplicate(name.into()));
        }
    }

    fn lookup(&self, name: &str) -> Option<i128> {
        let key = self.key(name);
        let own = self.names.get(&key).or_else(|| self.before.get(&key)).map(|value| value.number);
        own.or_else(|| map::SYMBOLS.iter().find(|(symbol, _)| *symbol == name).map(|(_, value)| i128::from(*value)))
    }

    fn evaluate(&mut self, expression: &Expression, at: Position) -> Option<i128> {
        match expression {
            Expression::Number(value) => Some(*value),
            Expression::Symbol(name, place) => {
                let value = self.lookup(name);
                // A name in common with others was complained of where it was said to be that.
                if value.is_none() && !self.shared[self.unit].contains(name.as_str()) {
                    self.complain(*place, Reason::Undefined(name.clone()));
                }
                value
            }
            Expression::Negative(inner) => self.evaluate(inner, at).map(|value| value.wrapping_neg()),
            Expression::Binary(left, operator, right) => {
                let (left, right) = (self.evaluate(left, at), self.evaluate(right, at));
                let (left, right) = (left?, right?);
                let value = match operator {
                    '+' => left.checked_add(right),
                    '-' => left.checked_sub(right),
                    _ => left.checked_mul(right),
                };
                let value = value.filter(|value| value.unsigned_abs() < 1 << 100);
                if value.is_none() {
                    self.complain(at, Reason::TooLarge { value: format!("{left} {operator} {right}"), place: "a number" });
                }
                value
            }
        }
    }

    fn number(&mut self, expression: &Expression, ty: Type, at: Position) -> Option<u64> {
        let value = self.evaluate(expression, at)?;
        literal::integer(value, ty).map_err(|reason| self.complain(at, reason)).ok()
    }

    fn literal(&mut self, literal: &Literal, ty: Type, at: Position) -> Option<u64> {
        let bits = match literal {
            Literal::Integer(expression) => {
                let value = self.evaluate(expression, at)?;
                if ty.is_float() { literal::integer_as_real(value, ty) } else { literal::integer(value, ty) }
            }
            Literal::Real(text) => literal::real(text, ty),
            Literal::Bits(expression) => literal::integer(self.evaluate(expression, at)?, ty),
        };
        bits.map_err(|reason| self.complain(at, reason)).ok()
    }

    fn address(&mut self, expression: &Expression, at: Position) -> Option<u64> {
        let value = self.evaluate(expression, at)?;
        let too_large = |_| Reason::TooLarge { value: value.to_string(), place: "an address" };
        u64::try_from(value).map_err(too_large).map_err(|reason| self.complain(at, reason)).ok()
    }

    fn operand(&mut self, operand: &OperandSyntax, ty: Type, at: Position) -> Option<Operand> {
        Some(match operand {
            OperandSyntax::Immediate(literal) => Operand::constant(self.literal(literal, ty, at)?, ty),
            OperandSyntax::Cell(expression) => Operand::cell(self.address(expression, at)?),
            OperandSyntax::Slot(slot) => Operand::Window(*slot),
            OperandSyntax::Pointed(displacement, base) => {
                let displacement = match displacement {
                    Some(expression) => {
                        let value = self.evaluate(expression, at)?;
                        let too_large = |_| Reason::TooLarge { value: value.to_string(), place: "a displacement of 32 bits" };
                        i32::try_from(value).map_err(too_large).map_err(|reason| self.complain(at, reason)).ok()?
                    }
                    None => 0,
                };
                match base {
                    Base::Slot(slot) => Operand::WindowIndirect { slot: *slot, displacement },
                    Base::Cell(expression) => Operand::pointed(self.address(expression, at)?, displacement),
                }
            }
        })
    }

    fn instruction(&mut self, op: Op, ty: Type, attribute: Attribute, written: &[(OperandSyntax, Position)], at: Position) {
        if self.sections.current != SectionName::Text {
            self.complain(at, Reason::WrongSection(op.name().into()));
            return;
        }
        let mut operands = Vec::with_capacity(written.len());
        for ((operand, at), place) in written.iter().zip(op.places(attribute)) {
            // What is not known yet, or wrong, is as short as can be.
            operands.push(self.operand(operand, place.ty(ty, attribute), *at).unwrap_or(Operand::Immediate(0)));
        }
        let Some(instruction) = Instruction::new(op, ty, attribute, &operands) else {
            self.complain(at, Reason::BadCombination(op.name().into()));
            return;
        };
        let offset = self.sections.text.len() as u64;
        self.instructions.push((offset, self.unit, at));
        let file = self.files.len() as u32 - 1;
        let line = Line { offset, file, line: self.loc.unwrap_or(at).line };
        if self.lines.last().is_none_or(|last| (last.file, last.line) != (line.file, line.line)) {
            self.lines.push(line);
        }
        encode(&instruction, map::TX.base + offset, &mut self.sections.text);
    }

    fn finish(mut self) -> Result<Object, Vec<(usize, Diagnostic)>> {
        let (data, bss, overlaps) = self.sections.finish();
        for (at, reason) in overlaps {
            self.complain(at, reason);
        }
        let entry = self.entry.map_or(map::TX.base, |(entry, ..)| entry);
        if self.diagnostics.is_empty() {
            self.verify(entry);
        }
        if !self.diagnostics.is_empty() {
            self.diagnostics.sort_by_key(|(unit, diagnostic)| (*unit, diagnostic.at));
            return Err(self.diagnostics);
        }
        let globals = self.globals;
        let mut symbols: Vec<Symbol> = self
            .names
            .into_iter()
            .filter_map(|(name, Value { number, is_address })| {
                let value = literal::integer(number, Type::Q).ok()?;
                let is_global = globals.contains(&name);
                let name = name.split(OF_SOURCE).next().unwrap_or_default().to_owned();
                Some(Symbol { value, is_global, is_address, name })
            })
            .collect();
        symbols.sort();
        let Sections { text, rodata, .. } = self.sections;
        Ok(Object { text, rodata, data, bss, symbols, files: self.files, lines: self.lines, entry, rules: self.rules })
    }

    fn verify(&mut self, entry: u64) {
        let start = Position { line: 1, column: 1 };
        let error = match verify::verify(&self.sections.text) {
            Ok(placed) if verify::find(&placed, entry).is_none() => VerifyError::Entry(entry),
            Ok(_) => return,
            Err(error) => error,
        };
        let (unit, at) = match &error {
            VerifyError::Refused { offset, .. } | VerifyError::Branch { offset, .. } => {
                self.instructions.iter().find(|(place, ..)| place == offset).map_or((0, start), |(_, unit, at)| (*unit, *at))
            }
            VerifyError::Entry(_) => self.entry.map_or((0, start), |(_, unit, at)| (unit, at)),
            VerifyError::TooLong(_) => (0, start),
        };
        self.unit = unit;
        self.complain(at, Reason::Verify(error.to_string()));
    }
}

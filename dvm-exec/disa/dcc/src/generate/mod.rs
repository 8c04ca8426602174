//! A typed function into instructions over variables.
//!
//! Owns statements and the order of evaluation. Must not know which slot a variable gets.
//!
//! What memory holds is an operand until an instruction takes it, so `a[i] + b[i]` is one instruction when both pointers are
//! there. Where something to the right could change it, it is loaded first.

mod branch;
mod call;
mod value;

use crate::code::{Base, Code, FRAME_SLOT, Instruction, Line, Operand, RESULT_SLOT, Symbolic};
use crate::typed::{Function, Statement, StatementKind};
use dvm_disa::isa::Op;
use dvm_disa::map::cell;
use dvm_disa::types::{Attribute, Condition, ExitMode, Type};

/// The instructions of a function.
#[must_use]
pub fn generate(function: &Function) -> Code {
    let variables = function.locals.len() as u32;
    let code = Code {
        name: function.name.clone(),
        is_global: !function.is_static,
        is_runner: function.is_runner,
        lines: vec![Line::Source(function.at.line), Line::Enter],
        variables,
        given: Vec::new(),
        frame_bytes: function.frame_bytes,
        makes_calls: function.makes_calls,
        saved: Vec::new(),
    };
    let mut generator = Generator { function, code, labels: 0, loops: Vec::new(), return_address: None };
    generator.parameters();
    for statement in &function.body {
        generator.statement(statement);
    }
    if function.is_runner {
        generator.emit(Op::Exit, Type::Q, Attribute::Exit(ExitMode::Commit), Vec::new());
    } else if generator.code.lines.last() != Some(&Line::Leave) {
        generator.leave(None);
    }
    generator.code
}

struct Generator<'a> {
    function: &'a Function,
    code: Code,
    labels: u32,
    /// Where `continue` and `break` lead.
    loops: Vec<(u32, u32)>,
    /// Where a function that calls others keeps its return address.
    return_address: Option<u32>,
}

/// A number as an address.
const fn number(address: u64) -> Symbolic {
    Symbolic { name: None, offset: address as i64 }
}

impl Generator<'_> {
    fn emit(&mut self, op: Op, ty: Type, attribute: Attribute, operands: Vec<Operand>) {
        self.code.lines.push(Line::Instruction(Instruction { op, ty, attribute, operands }));
    }

    fn plain(&mut self, op: Op, operands: Vec<Operand>) {
        self.emit(op, Type::Q, Attribute::None, operands);
    }

    fn mov(&mut self, from: Operand, to: Operand) {
        if from != to {
            self.plain(Op::Mov, vec![from, to]);
        }
    }

    fn fresh(&mut self) -> Operand {
        self.code.variables += 1;
        Operand::Variable(self.code.variables - 1)
    }

    fn label(&mut self) -> u32 {
        self.labels += 1;
        self.labels
    }

    fn place_label(&mut self, label: u32) {
        self.code.lines.push(Line::Label(label));
    }

    fn jump(&mut self, label: u32) {
        let always = Attribute::Condition(Condition::Always);
        self.emit(Op::Br, Type::Q, always, vec![Operand::Label(label)]);
    }

    /// A variable's operand.
    fn local(&self, local: usize, offset: i64) -> Operand {
        match self.function.locals[local].frame {
            Some(frame) => Operand::Memory(Base::Slot(FRAME_SLOT), (frame as i64).wrapping_add(offset) as i32),
            None => Operand::Variable(local as u32),
        }
    }

    /// Parameters arrive in slots, those of a runner on its stack.
    fn parameters(&mut self) {
        if self.function.makes_calls && !self.function.is_runner {
            let Operand::Variable(kept) = self.fresh() else { return };
            self.return_address = Some(kept);
            self.mov(Operand::Slot(crate::code::RETURN_SLOT), Operand::Variable(kept));
        }
        for index in 0..self.function.parameters {
            let place = self.local(index, 0);
            let slot = RESULT_SLOT + index as u8;
            if self.function.is_runner {
                self.mov(Operand::CellPointer(number(cell::ARGUMENTS), 8 * index as i32), place);
            } else if let (Operand::Variable(variable), false) = (&place, self.function.makes_calls) {
                self.code.given.push((*variable, slot));
            } else {
                self.mov(Operand::Slot(slot), place);
            }
        }
    }

    fn leave(&mut self, value: Option<&crate::typed::Value>) {
        if let Some(value) = value {
            self.into(value, Operand::Slot(RESULT_SLOT));
        }
        if let Some(kept) = self.return_address {
            self.mov(Operand::Variable(kept), Operand::Slot(crate::code::RETURN_SLOT));
        }
        self.code.lines.push(Line::Leave);
    }

    fn statement(&mut self, statement: &Statement) {
        if !matches!(statement.kind, StatementKind::Block(_)) {
            self.code.lines.push(Line::Source(statement.line));
        }
        match &statement.kind {
            StatementKind::Value(value) => self.effect(value),
            StatementKind::Block(all) => all.iter().for_each(|statement| self.statement(statement)),
            StatementKind::If(condition, yes, no) => {
                let (otherwise, end) = (self.label(), self.label());
                self.branch(condition, otherwise, false);
                self.statement(yes);
                if let Some(no) = no {
                    self.jump(end);
                    self.place_label(otherwise);
                    self.statement(no);
                    self.place_label(end);
                } else {
                    self.place_label(otherwise);
                }
            }
            StatementKind::Loop { condition, is_body_first, body, step } => {
                let (top, next, test, end) = (self.label(), self.label(), self.label(), self.label());
                let is_endless = condition.as_ref().is_none_or(|condition| condition.truth() == Some(true));
                if !is_body_first && !is_endless {
                    self.jump(test);
                }
                self.place_label(top);
                self.loops.push((next, end));
                self.statement(body);
                self.loops.pop();
                self.place_label(next);
                if let Some(step) = step {
                    self.effect(step);
                }
                self.place_label(test);
                match condition {
                    Some(condition) if !is_endless => {
                        self.code.lines.push(Line::Source(statement.line));
                        self.branch(condition, top, true);
                    }
                    _ => self.jump(top),
                }
                self.place_label(end);
            }
            StatementKind::Break | StatementKind::Continue => {
                let is_break = matches!(statement.kind, StatementKind::Break);
                if let Some((next, end)) = self.loops.last().copied() {
                    self.jump(if is_break { end } else { next });
                }
            }
            StatementKind::Return(value) => self.leave(value.as_ref()),
            StatementKind::Exit(mode) => self.emit(Op::Exit, Type::Q, Attribute::Exit(*mode), Vec::new()),
        }
    }
}

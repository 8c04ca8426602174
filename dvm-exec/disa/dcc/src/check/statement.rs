//! Functions and their statements.
//!
//! Owns scopes and variables. Must not know how values are computed.

use super::{Checked, Checker, Meaning, Named, fail};
use crate::diagnostic::{Position, Reason};
use crate::limits::FRAME_BYTES_MAX;
use crate::syntax::{self, Declared, Expression};
use crate::typed::{self, Kind, Local, Place, Statement, StatementKind, Value};
use crate::types::Type;

impl Checker<'_> {
    pub(super) fn function(&mut self, function: syntax::Function) {
        let syntax::Function { declared: Declared { at, name, .. }, is_runner, is_static, parameters, body } = function;
        let Some(Meaning::Function(signature)) = self.meanings.get(&name).cloned() else { return };
        self.scopes = vec![std::collections::BTreeMap::new()];
        self.locals.clear();
        (self.frame_bytes, self.makes_calls, self.loops) = (0, false, 0);
        (self.result, self.is_runner) = (signature.result, is_runner);
        for (parameter, ty) in parameters.iter().zip(signature.parameters) {
            let declared = self.declare_local(parameter.at, &parameter.name, ty);
            self.note(declared.map(|_| ()));
        }
        let parameters = self.locals.len();
        let body = self.block(body.unwrap_or_default());
        let locals = std::mem::take(&mut self.locals);
        let (makes_calls, frame_bytes) = (self.makes_calls, self.frame_bytes);
        let function = typed::Function { at, name, is_runner, is_static, makes_calls, locals, parameters, frame_bytes, body };
        self.unit.functions.push(function);
    }

    fn declare_local(&mut self, at: Position, name: &str, ty: Type) -> Checked<usize> {
        let local = self.locals.len();
        let frame = if ty.scalar().is_some() { None } else { Some(self.reserve(at, &ty)?) };
        self.locals.push(Local { frame });
        let named = Named { local, ty };
        match self.scopes.last_mut().and_then(|scope| scope.insert(name.into(), named)) {
            Some(_) => fail(at, Reason::Duplicate(name.into())),
            None => Ok(local),
        }
    }

    /// Room in the frame.
    pub(super) fn reserve(&mut self, at: Position, ty: &Type) -> Checked<u64> {
        let bytes = self.bytes(at, ty)?;
        let offset = self.frame_bytes;
        self.frame_bytes = offset.saturating_add(bytes.next_multiple_of(8));
        if self.frame_bytes > FRAME_BYTES_MAX {
            return fail(at, Reason::TooMany { what: "bytes of a function's variables", max: FRAME_BYTES_MAX });
        }
        Ok(offset)
    }

    fn block(&mut self, statements: Vec<syntax::Statement>) -> Vec<Statement> {
        self.scopes.push(std::collections::BTreeMap::new());
        let mut all = Vec::with_capacity(statements.len());
        for statement in statements {
            match self.statement(statement) {
                Ok(statement) => all.push(statement),
                Err(diagnostic) => self.diagnostics.push(diagnostic),
            }
        }
        self.scopes.pop();
        all
    }

    fn boxed(&mut self, statement: syntax::Statement) -> Box<Statement> {
        let line = statement.at.line;
        Box::new(Statement { line, kind: StatementKind::Block(self.block(vec![statement])) })
    }

    fn body(&mut self, statement: syntax::Statement) -> Box<Statement> {
        self.loops += 1;
        let body = self.boxed(statement);
        self.loops -= 1;
        body
    }

    fn statement(&mut self, syntax::Statement { at, kind }: syntax::Statement) -> Checked<Statement> {
        let kind = match kind {
            syntax::StatementKind::Expression(expression) => StatementKind::Value(self.discarded(&expression)?),
            syntax::StatementKind::Declaration(all) => StatementKind::Block(self.declaration(all)?),
            syntax::StatementKind::Block(all) => StatementKind::Block(self.block(all)),
            syntax::StatementKind::If(condition, yes, no) => {
                let condition = self.condition(&condition)?;
                let yes = self.boxed(*yes);
                StatementKind::If(condition, yes, no.map(|no| self.boxed(*no)))
            }
            syntax::StatementKind::While(condition, body) => {
                let condition = Some(self.condition(&condition)?);
                StatementKind::Loop { condition, is_body_first: false, body: self.body(*body), step: None }
            }
            syntax::StatementKind::DoWhile(body, condition) => {
                let body = self.body(*body);
                let condition = Some(self.condition(&condition)?);
                StatementKind::Loop { condition, is_body_first: true, body, step: None }
            }
            syntax::StatementKind::For(first, condition, step, body) => self.for_loop(*first, condition, step, *body)?,
            syntax::StatementKind::Break | syntax::StatementKind::Continue if self.loops == 0 => {
                return fail(at, Reason::WrongPlace("`break` and `continue` stand in a loop"));
            }
            syntax::StatementKind::Break => StatementKind::Break,
            syntax::StatementKind::Continue => StatementKind::Continue,
            syntax::StatementKind::Return(value) => self.return_statement(at, value)?,
            syntax::StatementKind::Exit(mode) => StatementKind::Exit(mode),
        };
        Ok(Statement { line: at.line, kind })
    }

    fn for_loop(
        &mut self,
        first: syntax::Statement,
        condition: Option<Expression>,
        step: Option<Expression>,
        body: syntax::Statement,
    ) -> Checked<StatementKind> {
        self.scopes.push(std::collections::BTreeMap::new());
        let line = first.at.line;
        let parts = (|| {
            let first = self.statement(first)?;
            let condition = condition.map(|condition| self.condition(&condition)).transpose()?;
            let step = step.map(|step| self.discarded(&step)).transpose()?;
            Ok((first, condition, step))
        })();
        let body = self.body(body);
        self.scopes.pop();
        let (first, condition, step) = parts?;
        let kind = StatementKind::Loop { condition, is_body_first: false, body, step };
        Ok(StatementKind::Block(vec![first, Statement { line, kind }]))
    }

    fn declaration(&mut self, all: Vec<(Declared, Option<Expression>)>) -> Checked<Vec<Statement>> {
        let mut statements = Vec::new();
        for (Declared { at, name, ty }, value) in all {
            let ty = self.resolve_object(at, &ty)?;
            // The initialiser does not see the name.
            let value = match (&value, ty.scalar()) {
                (Some(value), Some(_)) => {
                    let (found, from) = self.value(value)?;
                    Some(self.convert(value.at, found, &from, &ty)?)
                }
                (Some(value), None) => {
                    return fail(value.at, Reason::WrongPlace("an array or struct of a function is assigned, not initialised"));
                }
                (None, _) => None,
            };
            let local = self.declare_local(at, &name, ty.clone())?;
            if let (Some(value), Some(scalar)) = (value, ty.scalar()) {
                let kind = Kind::Assign(scalar, Place::Local(local, 0), Box::new(value));
                statements.push(Statement { line: at.line, kind: StatementKind::Value(Value::effect(scalar.is_real(), kind)) });
            }
        }
        Ok(statements)
    }

    fn return_statement(&mut self, at: Position, value: Option<Expression>) -> Checked<StatementKind> {
        if self.is_runner {
            return fail(at, Reason::WrongPlace("a runner does not return: it ends with `commit;` or `abort;`"));
        }
        let result = self.result.clone();
        match (value, result == Type::Void) {
            (None, true) => Ok(StatementKind::Return(None)),
            (Some(_), true) => fail(at, Reason::WrongPlace("a void function returns nothing: write `return;`")),
            (None, false) => fail(at, Reason::WrongPlace("the function returns a value: write `return value;`")),
            (Some(value), false) => {
                let (found, from) = self.value(&value)?;
                Ok(StatementKind::Return(Some(self.convert(value.at, found, &from, &result)?)))
            }
        }
    }
}

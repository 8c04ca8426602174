//! Statements.
//!
//! Owns their grammar. Must not know what they do.

use super::{Parsed, Parser};
use crate::diagnostic::Position;
use crate::lex::Kind;
use crate::syntax::{ExitMode, Statement, StatementKind};

const EXITS: &[(&str, ExitMode)] = &[
    ("commit", ExitMode::Commit),
    ("abort", ExitMode::Abort),
    ("commitd", ExitMode::CommitDelete),
    ("abortd", ExitMode::AbortDelete),
    ("commit1", ExitMode::CommitOnce),
];

impl Parser {
    /// `{ ... }`
    pub(super) fn block(&mut self) -> Parsed<Vec<Statement>> {
        self.mark("{")?;
        let mut statements = Vec::new();
        while !self.is_mark("}") {
            if self.peek() == &Kind::End {
                return self.expected("`}`");
            }
            statements.push(self.statement()?);
        }
        self.mark("}")?;
        Ok(statements)
    }

    fn statement(&mut self) -> Parsed<Statement> {
        self.nested(|parser| {
            let at = parser.position();
            let kind = parser.statement_kind(at)?;
            Ok(Statement { at, kind })
        })
    }

    fn statement_kind(&mut self, at: Position) -> Parsed<StatementKind> {
        if self.is_mark("{") {
            return Ok(StatementKind::Block(self.block()?));
        }
        if self.take(";") {
            return Ok(StatementKind::Block(Vec::new()));
        }
        if self.is_type(0) {
            let declaration = self.local()?;
            self.mark(";")?;
            return Ok(declaration);
        }
        let Kind::Name(word) = self.peek().clone() else { return self.simple() };
        if let Some((_, mode)) = EXITS.iter().find(|(name, _)| *name == word) {
            self.advance();
            self.mark(";")?;
            return Ok(StatementKind::Exit(*mode));
        }
        match word.as_str() {
            "if" => self.condition(),
            "while" => {
                self.advance();
                let condition = self.parenthesised()?;
                Ok(StatementKind::While(condition, Box::new(self.statement()?)))
            }
            "do" => {
                self.advance();
                let body = Box::new(self.statement()?);
                self.word("while")?;
                let condition = self.parenthesised()?;
                self.mark(";")?;
                Ok(StatementKind::DoWhile(body, condition))
            }
            "for" => self.for_loop(at),
            "break" | "continue" => {
                self.advance();
                self.mark(";")?;
                Ok(if word == "break" { StatementKind::Break } else { StatementKind::Continue })
            }
            "return" => {
                self.advance();
                let value = if self.is_mark(";") { None } else { Some(self.expression()?) };
                self.mark(";")?;
                Ok(StatementKind::Return(value))
            }
            _ => self.simple(),
        }
    }

    fn simple(&mut self) -> Parsed<StatementKind> {
        let value = self.expression()?;
        self.mark(";")?;
        Ok(StatementKind::Expression(value))
    }

    fn parenthesised(&mut self) -> Parsed<crate::syntax::Expression> {
        self.mark("(")?;
        let value = self.expression()?;
        self.mark(")")?;
        Ok(value)
    }

    fn condition(&mut self) -> Parsed<StatementKind> {
        self.advance();
        let condition = self.parenthesised()?;
        let yes = Box::new(self.statement()?);
        let no = if self.take_word("else") { Some(Box::new(self.statement()?)) } else { None };
        Ok(StatementKind::If(condition, yes, no))
    }

    fn for_loop(&mut self, at: Position) -> Parsed<StatementKind> {
        self.advance();
        self.mark("(")?;
        let kind = if self.is_mark(";") {
            StatementKind::Block(Vec::new())
        } else if self.is_type(0) {
            self.local()?
        } else {
            StatementKind::Expression(self.expression()?)
        };
        self.mark(";")?;
        let condition = if self.is_mark(";") { None } else { Some(self.expression()?) };
        self.mark(";")?;
        let step = if self.is_mark(")") { None } else { Some(self.expression()?) };
        self.mark(")")?;
        let body = Box::new(self.statement()?);
        Ok(StatementKind::For(Box::new(Statement { at, kind }), condition, step, body))
    }

    /// Variables of a block, without the semicolon.
    fn local(&mut self) -> Parsed<StatementKind> {
        let base = self.base_type()?;
        let mut all = Vec::new();
        loop {
            let declared = self.declarator(&base)?;
            let value = if self.take("=") { Some(self.expression()?) } else { None };
            all.push((declared, value));
            if !self.take(",") {
                return Ok(StatementKind::Declaration(all));
            }
        }
    }
}

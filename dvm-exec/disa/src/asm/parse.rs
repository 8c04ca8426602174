//! Tokens into statements.
//!
//! Owns the grammar of lines, expressions and operands. Must not know addresses or bytes; directives and mnemonics are read
//! by [`super::directive`] and [`super::mnemonic`].

use super::diagnostic::{Diagnostic, Position, Reason};
use super::lex::{self, Kind, Token};
use super::syntax::{Base, Expression, Literal, Located, OperandSyntax, Statement};
use super::{directive, mnemonic};
use crate::limits::DIAGNOSTICS_MAX;
use crate::map;

/// All statements of a source; lines with errors are left out and told.
#[must_use]
pub fn parse(source: &str) -> (Vec<Located>, Vec<Diagnostic>) {
    let (mut statements, mut diagnostics) = (Vec::new(), Vec::new());
    for (index, line) in source.lines().enumerate() {
        let number = u32::try_from(index + 1).unwrap_or(u32::MAX);
        let result = lex::tokens(line, number).and_then(|tokens| parse_line(&tokens, line, number, &mut statements));
        if let Err(diagnostic) = result {
            diagnostics.push(diagnostic);
            if diagnostics.len() == DIAGNOSTICS_MAX {
                break;
            }
        }
    }
    (statements, diagnostics)
}

fn parse_line(tokens: &[Token], line: &str, number: u32, statements: &mut Vec<Located>) -> Result<(), Diagnostic> {
    let end = Position { line: number, column: line.chars().count() as u32 + 1 };
    let mut cursor = Cursor { tokens, at: 0, end };
    while let Some((name, at)) = cursor.take_label() {
        check_name(&name, at)?;
        statements.push(Located { at, statement: Statement::Label(name) });
    }
    if cursor.peek().is_none() {
        return Ok(());
    }
    let (name, at) = cursor.name("an instruction or a directive")?;
    let statement =
        if name.starts_with('.') { directive::parse(&name, at, &mut cursor)? } else { mnemonic::parse(&name, at, &mut cursor)? };
    cursor.finish()?;
    statements.push(Located { at, statement });
    Ok(())
}

/// Refuses names that the language keeps for itself.
///
/// # Errors
/// It does.
pub fn check_name(name: &str, at: Position) -> Result<(), Diagnostic> {
    let is_reserved = slot_digits(name).is_some() || map::SYMBOLS.iter().any(|(symbol, _)| *symbol == name);
    if is_reserved { Err(Diagnostic { at, reason: Reason::Reserved(name.into()) }) } else { Ok(()) }
}

fn slot_digits(name: &str) -> Option<&str> {
    name.strip_prefix('w').filter(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What is left of a line.
pub struct Cursor<'a> {
    tokens: &'a [Token],
    at: usize,
    end: Position,
}

impl Cursor<'_> {
    /// The next token.
    #[must_use]
    pub fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    /// Where the next token is.
    #[must_use]
    pub fn position(&self) -> Position {
        self.peek().map_or(self.end, |token| token.at)
    }

    /// An error that says what should be here.
    #[must_use]
    pub fn expected(&self, expected: &'static str) -> Diagnostic {
        let found = self.peek().map_or_else(|| "the end of the line".into(), Token::describe);
        Diagnostic { at: self.position(), reason: Reason::Expected { expected, found } }
    }

    /// Takes the mark if it is next.
    pub fn take(&mut self, mark: char) -> bool {
        let is_next = self.peek().is_some_and(|token| token.kind == Kind::Mark(mark));
        self.at += usize::from(is_next);
        is_next
    }

    /// Takes the mark.
    ///
    /// # Errors
    /// Something else is next.
    pub fn mark(&mut self, mark: char, expected: &'static str) -> Result<(), Diagnostic> {
        if self.take(mark) { Ok(()) } else { Err(self.expected(expected)) }
    }

    /// Takes a name.
    ///
    /// # Errors
    /// Something else is next.
    pub fn name(&mut self, expected: &'static str) -> Result<(String, Position), Diagnostic> {
        match self.peek() {
            Some(Token { kind: Kind::Name(name), at, .. }) => {
                let found = (name.clone(), *at);
                self.at += 1;
                Ok(found)
            }
            _ => Err(self.expected(expected)),
        }
    }

    /// Takes a string.
    ///
    /// # Errors
    /// Something else is next.
    pub fn text(&mut self) -> Result<Vec<u8>, Diagnostic> {
        match self.peek() {
            Some(Token { kind: Kind::Text(text), .. }) => {
                let text = text.clone();
                self.at += 1;
                Ok(text)
            }
            _ => Err(self.expected("a string")),
        }
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// Something is.
    pub fn finish(&self) -> Result<(), Diagnostic> {
        if self.peek().is_none() { Ok(()) } else { Err(self.expected("the end of the line")) }
    }

    fn take_label(&mut self) -> Option<(String, Position)> {
        let (Token { kind: Kind::Name(name), at, .. }, colon) = (self.tokens.get(self.at)?, self.tokens.get(self.at + 1)?) else {
            return None;
        };
        if colon.kind != Kind::Mark(':') || !colon.ends_word {
            return None;
        }
        self.at += 2;
        Some((name.clone(), *at))
    }

    /// Sums of products of numbers and symbols.
    ///
    /// # Errors
    /// There is none.
    pub fn expression(&mut self) -> Result<Expression, Diagnostic> {
        let mut sum = self.product()?;
        loop {
            let sign = match self.peek().map(|token| &token.kind) {
                Some(Kind::Mark(sign @ ('+' | '-'))) => *sign,
                _ => return Ok(sum),
            };
            self.at += 1;
            sum = Expression::Binary(Box::new(sum), sign, Box::new(self.product()?));
        }
    }

    fn product(&mut self) -> Result<Expression, Diagnostic> {
        let mut product = self.factor()?;
        while self.take('*') {
            product = Expression::Binary(Box::new(product), '*', Box::new(self.factor()?));
        }
        Ok(product)
    }

    fn factor(&mut self) -> Result<Expression, Diagnostic> {
        let mut is_negative = false;
        loop {
            if self.take('-') {
                is_negative = !is_negative;
            } else if !self.take('+') {
                break;
            }
        }
        let factor = match self.peek() {
            Some(Token { kind: Kind::Integer(value), .. }) => Expression::Number(*value),
            Some(Token { kind: Kind::Name(name), at, .. }) => match slot_digits(name) {
                Some(_) => return Err(self.slot_error(name)),
                None => Expression::Symbol(name.clone(), *at),
            },
            _ => return Err(self.expected("a number or a symbol")),
        };
        self.at += 1;
        Ok(if is_negative { Expression::Negative(Box::new(factor)) } else { factor })
    }

    fn slot_error(&self, name: &str) -> Diagnostic {
        let is_slot = slot_digits(name).is_some_and(|digits| digits.parse::<u8>().is_ok());
        if is_slot {
            self.expected("a number or a symbol")
        } else {
            Diagnostic { at: self.position(), reason: Reason::WindowSlot(name.into()) }
        }
    }

    /// An operand.
    ///
    /// # Errors
    /// There is none.
    pub fn operand(&mut self) -> Result<OperandSyntax, Diagnostic> {
        if self.take('$') {
            return Ok(OperandSyntax::Immediate(self.literal()?));
        }
        if let Some(slot) = self.take_slot() {
            return Ok(OperandSyntax::Slot(slot));
        }
        let displacement = match self.peek().map(|token| &token.kind) {
            Some(Kind::Mark('(')) => None,
            _ => Some(self.expression()?),
        };
        if !self.take('(') {
            return displacement.map(OperandSyntax::Cell).ok_or_else(|| self.expected("an operand"));
        }
        let base = match self.take_slot() {
            Some(slot) => Base::Slot(slot),
            None => Base::Cell(self.expression()?),
        };
        self.mark(')', "`)`")?;
        Ok(OperandSyntax::Pointed(displacement, base))
    }

    fn take_slot(&mut self) -> Option<u8> {
        let Some(Token { kind: Kind::Name(name), .. }) = self.peek() else { return None };
        let slot = slot_digits(name)?.parse().ok()?;
        self.at += 1;
        Some(slot)
    }

    /// What may follow a `$`.
    ///
    /// # Errors
    /// Something else is there.
    pub fn literal(&mut self) -> Result<Literal, Diagnostic> {
        let start = self.at;
        let is_negative = self.take('-');
        if let Some(Token { kind: Kind::Real(text), .. }) = self.peek() {
            let text = if is_negative { format!("-{text}") } else { text.clone() };
            self.at += 1;
            return Ok(Literal::Real(text));
        }
        self.at = start;
        let is_bits = matches!(self.peek(), Some(Token { kind: Kind::Name(name), .. }) if name == "bits")
            && matches!(self.tokens.get(self.at + 1), Some(Token { kind: Kind::Mark('('), .. }));
        if !is_bits {
            return Ok(Literal::Integer(self.expression()?));
        }
        self.at += 2;
        let bits = self.expression()?;
        self.mark(')', "`)`")?;
        Ok(Literal::Bits(bits))
    }
}

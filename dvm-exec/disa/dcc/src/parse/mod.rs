//! Tokens into a syntax tree, by recursive descent.
//!
//! Owns the cursor and its limit of depth. Must not know what names mean; expressions, statements and declarations have files of
//! their own.

mod declaration;
mod expression;
mod statement;

use crate::diagnostic::{Diagnostic, Position, Reason};
use crate::lex::{Kind, Token};
use crate::limits::DEPTH_MAX;
use crate::syntax::Item;

/// Words that no variable can be called.
const KEYWORDS: &[&str] = &[
    "abort",
    "abortd",
    "break",
    "char",
    "commit",
    "commit1",
    "commitd",
    "const",
    "continue",
    "do",
    "double",
    "else",
    "enum",
    "extern",
    "float",
    "for",
    "grain",
    "if",
    "int",
    "long",
    "persistent",
    "private",
    "return",
    "runner",
    "serializable",
    "short",
    "signed",
    "sizeof",
    "standalone",
    "static",
    "struct",
    "unsigned",
    "using",
    "void",
    "watching",
    "while",
];

/// All of a source.
///
/// # Errors
/// The first thing that does not fit the grammar.
pub fn parse(tokens: Vec<Token>) -> Result<Vec<Item>, Diagnostic> {
    let mut parser = Parser { tokens, at: 0, depth: 0 };
    let mut items = Vec::new();
    while parser.peek() != &Kind::End {
        parser.item(&mut items)?;
    }
    Ok(items)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: u32,
}

type Parsed<T> = Result<T, Diagnostic>;

impl Parser {
    /// The token at an offset; the last one is always an end.
    fn token(&self, offset: usize) -> &Token {
        let last = self.tokens.len() - 1;
        &self.tokens[(self.at + offset).min(last)]
    }

    fn peek(&self) -> &Kind {
        &self.token(0).kind
    }

    fn position(&self) -> Position {
        self.token(0).at
    }

    fn advance(&mut self) {
        self.at = (self.at + 1).min(self.tokens.len() - 1);
    }

    fn expected<T>(&self, expected: &str) -> Parsed<T> {
        let reason = Reason::Expected { expected: expected.into(), found: self.token(0).describe() };
        Err(Diagnostic { at: self.position(), reason })
    }

    fn is_mark(&self, mark: &str) -> bool {
        matches!(self.peek(), Kind::Mark(found) if *found == mark)
    }

    fn take(&mut self, mark: &str) -> bool {
        let is_next = self.is_mark(mark);
        if is_next {
            self.advance();
        }
        is_next
    }

    fn mark(&mut self, mark: &str) -> Parsed<()> {
        if self.take(mark) { Ok(()) } else { self.expected(&format!("`{mark}`")) }
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.peek(), Kind::Name(found) if found == word)
    }

    fn take_word(&mut self, word: &str) -> bool {
        let is_next = self.is_word(word);
        if is_next {
            self.advance();
        }
        is_next
    }

    fn word(&mut self, word: &str) -> Parsed<()> {
        if self.take_word(word) { Ok(()) } else { self.expected(&format!("`{word}`")) }
    }

    /// A name that is no keyword.
    fn name(&mut self) -> Parsed<(Position, String)> {
        match self.peek() {
            Kind::Name(name) if !KEYWORDS.contains(&name.as_str()) => {
                let found = (self.position(), name.clone());
                self.advance();
                Ok(found)
            }
            _ => self.expected("a name"),
        }
    }

    /// One level deeper, if that is not too deep.
    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Parsed<T>) -> Parsed<T> {
        if self.depth >= DEPTH_MAX {
            return Err(Diagnostic { at: self.position(), reason: Reason::TooDeep });
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }
}

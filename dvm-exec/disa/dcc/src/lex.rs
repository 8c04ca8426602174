//! A source into tokens.
//!
//! Owns characters: names, numbers, strings, comments. Must not know the grammar.

use crate::diagnostic::{Diagnostic, Position, Reason};
use crate::limits::SOURCE_BYTES_MAX;

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A name or a keyword.
    Name(String),
    /// An integer, also of a character; whether it is too large to be signed.
    Integer(u64),
    /// A number with a fraction or an exponent.
    Real(f64),
    /// A string, without the zero at its end.
    Text(Vec<u8>),
    /// An operator or a bracket.
    Mark(&'static str),
    /// Nothing follows.
    End,
}

/// A token and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Where it begins.
    pub at: Position,
}

impl Token {
    /// The token as a person would name it.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Name(name) => format!("`{name}`"),
            Kind::Integer(value) => format!("`{value}`"),
            Kind::Real(value) => format!("`{value}`"),
            Kind::Text(_) => "a string".into(),
            Kind::Mark(mark) => format!("`{mark}`"),
            Kind::End => "the end of the source".into(),
        }
    }
}

/// Longer ones first.
const MARKS: &[&str] = &[
    "<<=", ">>=", ",,", "++", "--", "->", "<<", ">>", "<=", ">=", "==", "!=", "&&", "||", "+=", "-=", "*=", "/=", "%=", "&=",
    "|=", "^=", "+", "-", "*", "/", "%", "&", "|", "^", "~", "!", "<", ">", "=", "?", ":", ";", ",", ".", "(", ")", "[", "]",
    "{", "}",
];

/// All tokens, and an end.
///
/// # Errors
/// A character, number, string or comment that is none.
pub fn tokens(source: &str) -> Result<Vec<Token>, Diagnostic> {
    let start = Position { line: 1, column: 1 };
    if source.len() > SOURCE_BYTES_MAX {
        return Err(Diagnostic { at: start, reason: Reason::SourceTooLong(source.len()) });
    }
    let mut lexer = Lexer { rest: source, at: start };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blanks()?;
        let at = lexer.at;
        let kind = lexer.next_kind().map_err(|reason| Diagnostic { at, reason })?;
        let is_end = kind == Kind::End;
        tokens.push(Token { kind, at });
        if is_end {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    rest: &'a str,
    at: Position,
}

impl<'a> Lexer<'a> {
    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let first = self.peek()?;
        self.rest = &self.rest[first.len_utf8()..];
        if first == '\n' {
            self.at = Position { line: self.at.line + 1, column: 1 };
        } else {
            self.at.column += 1;
        }
        Some(first)
    }

    fn skip_blanks(&mut self) -> Result<(), Diagnostic> {
        loop {
            if self.peek().is_some_and(char::is_whitespace) {
                self.bump();
            } else if self.rest.starts_with("//") {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.bump();
                }
            } else if self.rest.starts_with("/*") {
                let at = self.at;
                while !self.rest.starts_with("*/") {
                    let unclosed = Reason::BadText("comment without its end: write */");
                    self.bump().ok_or(Diagnostic { at, reason: unclosed })?;
                }
                self.bump();
                self.bump();
            } else {
                return Ok(());
            }
        }
    }

    fn next_kind(&mut self) -> Result<Kind, Reason> {
        let Some(first) = self.peek() else { return Ok(Kind::End) };
        match first {
            'A'..='Z' | 'a'..='z' | '_' => Ok(Kind::Name(self.word(|_| false).into())),
            '0'..='9' => self.number(),
            '"' => Ok(Kind::Text(self.quoted('"')?)),
            '\'' => match self.quoted('\'')?[..] {
                [byte] => Ok(Kind::Integer(u64::from(byte))),
                _ => Err(Reason::BadText("a character is one byte between single quotes")),
            },
            other => {
                let mark = MARKS.iter().find(|mark| self.rest.starts_with(**mark)).ok_or(Reason::Unexpected(other))?;
                for _ in 0..mark.len() {
                    self.bump();
                }
                Ok(Kind::Mark(mark))
            }
        }
    }

    fn word(&mut self, also: fn(&str) -> bool) -> &'a str {
        let whole = self.rest;
        while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_') || also(self.rest) {
            self.bump();
        }
        &whole[..whole.len() - self.rest.len()]
    }

    fn number(&mut self) -> Result<Kind, Reason> {
        let is_hexadecimal = self.rest.starts_with("0x") || self.rest.starts_with("0X");
        let whole = self.rest;
        let mut text = self.word(|rest| rest.starts_with('.')).to_owned();
        if !is_hexadecimal && text.ends_with(['e', 'E']) && matches!(self.peek(), Some('+' | '-')) {
            self.bump();
            self.word(|_| false);
            whole[..whole.len() - self.rest.len()].clone_into(&mut text);
        }
        let plain = text.replace('_', "");
        let parsed = if is_hexadecimal { u64::from_str_radix(&plain[2..], 16).ok() } else { plain.parse().ok() };
        if let Some(value) = parsed {
            return Ok(Kind::Integer(value));
        }
        let real = plain.parse::<f64>().ok().filter(|value| !is_hexadecimal && value.is_finite());
        real.map(Kind::Real).ok_or(Reason::BadNumber(text))
    }

    fn quoted(&mut self, quote: char) -> Result<Vec<u8>, Reason> {
        const UNCLOSED: Reason = Reason::BadText("no closing quote on this line");
        self.bump();
        let mut bytes = Vec::new();
        loop {
            match self.bump().filter(|c| *c != '\n').ok_or(UNCLOSED)? {
                c if c == quote => return Ok(bytes),
                '\\' => bytes.push(self.escape()?),
                other => bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
    }

    fn escape(&mut self) -> Result<u8, Reason> {
        const UNKNOWN: Reason = Reason::BadText("the escapes are \\n \\t \\r \\0 \\\\ \\\" \\' \\xHH");
        Ok(match self.bump().ok_or(UNKNOWN)? {
            'n' => b'\n',
            't' => b'\t',
            'r' => b'\r',
            '0' => 0,
            '\\' => b'\\',
            '"' => b'"',
            '\'' => b'\'',
            'x' => {
                let digits = [self.bump(), self.bump()].map(|digit| digit.and_then(|digit| digit.to_digit(16)));
                match digits {
                    [Some(high), Some(low)] => (high * 16 + low) as u8,
                    _ => return Err(UNKNOWN),
                }
            }
            _ => return Err(UNKNOWN),
        })
    }
}

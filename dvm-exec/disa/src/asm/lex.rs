//! A line of source into tokens.
//!
//! Owns characters: names, numbers, strings, comments. Must not know what a line means.

use super::diagnostic::{Diagnostic, Position, Reason};

/// What a token is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A name, or a directive with its dot.
    Name(String),
    /// An integer.
    Integer(i128),
    /// A number with a fraction or an exponent, as written.
    Real(String),
    /// A string.
    Text(Vec<u8>),
    /// One of `$ ( ) , : + - *`.
    Mark(char),
}

/// A token and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Where it begins.
    pub at: Position,
    /// Whether a space or the end of the line follows.
    pub ends_word: bool,
}

impl Token {
    /// The token as a person would name it.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Name(name) => format!("`{name}`"),
            Kind::Integer(value) => format!("`{value}`"),
            Kind::Real(text) => format!("`{text}`"),
            Kind::Text(_) => "a string".into(),
            Kind::Mark(mark) => format!("`{mark}`"),
        }
    }
}

/// The tokens of one line.
///
/// # Errors
/// A character, number or string that is none.
pub fn tokens(line: &str, number: u32) -> Result<Vec<Token>, Diagnostic> {
    let characters: Vec<char> = line.chars().collect();
    let mut lexer = Lexer { characters: &characters, at: 0, line: number };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.next_token()? {
        tokens.push(token);
    }
    Ok(tokens)
}

struct Lexer<'a> {
    characters: &'a [char],
    at: usize,
    line: u32,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<char> {
        self.characters.get(self.at).copied()
    }

    fn error(&self, start: usize, reason: Reason) -> Diagnostic {
        Diagnostic { at: Position { line: self.line, column: start as u32 + 1 }, reason }
    }

    fn next_token(&mut self) -> Result<Option<Token>, Diagnostic> {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
        let start = self.at;
        let Some(first) = self.peek().filter(|c| !matches!(c, '#' | ';')) else { return Ok(None) };
        let kind = match first {
            'A'..='Z' | 'a'..='z' | '_' | '.' => Kind::Name(self.word()),
            '0'..='9' => self.number().map_err(|reason| self.error(start, reason))?,
            '"' => Kind::Text(self.text().map_err(|reason| self.error(start, Reason::BadText(reason)))?),
            '\'' => Kind::Integer(self.character().map_err(|reason| self.error(start, Reason::BadText(reason)))?),
            '$' | '(' | ')' | ',' | ':' | '+' | '-' | '*' => {
                self.at += 1;
                Kind::Mark(first)
            }
            _ => return Err(self.error(start, Reason::Unexpected(first.into()))),
        };
        let ends_word = self.peek().is_none_or(|c| c.is_whitespace() || matches!(c, '#' | ';'));
        Ok(Some(Token { kind, at: Position { line: self.line, column: start as u32 + 1 }, ends_word }))
    }

    fn word(&mut self) -> String {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.')) {
            self.at += 1;
        }
        self.characters[start..self.at].iter().collect()
    }

    fn number(&mut self) -> Result<Kind, Reason> {
        let mut text = self.word();
        let is_prefixed = text.starts_with("0x") || text.starts_with("0X") || text.starts_with("0b");
        if !is_prefixed && text.ends_with(['e', 'E']) && matches!(self.peek(), Some('+' | '-')) {
            text.push(self.peek().unwrap_or('-'));
            self.at += 1;
            text.push_str(&self.word());
        }
        let plain = text.replace('_', "");
        let parsed = match plain.get(..2) {
            Some("0x" | "0X") => i128::from_str_radix(&plain[2..], 16).ok(),
            Some("0b") => i128::from_str_radix(&plain[2..], 2).ok(),
            _ => plain.parse().ok(),
        };
        if let Some(value) = parsed {
            return Ok(Kind::Integer(value));
        }
        if !is_prefixed && plain.parse::<f64>().is_ok() {
            return Ok(Kind::Real(plain));
        }
        Err(Reason::BadNumber(text))
    }

    fn text(&mut self) -> Result<Vec<u8>, &'static str> {
        self.at += 1;
        let mut bytes = Vec::new();
        loop {
            match self.peek().ok_or("no closing quote")? {
                '"' => {
                    self.at += 1;
                    return Ok(bytes);
                }
                '\\' => bytes.push(self.escape()?),
                other => {
                    self.at += 1;
                    bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
    }

    fn character(&mut self) -> Result<i128, &'static str> {
        self.at += 1;
        let value = match self.peek().ok_or("no closing quote")? {
            '\\' => i128::from(self.escape()?),
            other => {
                self.at += 1;
                i128::from(u32::from(other))
            }
        };
        if self.peek() != Some('\'') {
            return Err("no closing quote");
        }
        self.at += 1;
        Ok(value)
    }

    fn escape(&mut self) -> Result<u8, &'static str> {
        const UNKNOWN: &str = "the escapes are \\n \\t \\r \\0 \\\\ \\\" \\' \\xHH";
        let kind = self.characters.get(self.at + 1).ok_or("no closing quote")?;
        self.at += 2;
        match kind {
            'n' => Ok(b'\n'),
            't' => Ok(b'\t'),
            'r' => Ok(b'\r'),
            '0' => Ok(0),
            '\\' => Ok(b'\\'),
            '"' => Ok(b'"'),
            '\'' => Ok(b'\''),
            'x' => {
                let digits: String = self.characters.iter().skip(self.at).take(2).collect();
                self.at += 2;
                if digits.len() == 2 { u8::from_str_radix(&digits, 16).map_err(|_| UNKNOWN) } else { Err(UNKNOWN) }
            }
            _ => Err(UNKNOWN),
        }
    }
}

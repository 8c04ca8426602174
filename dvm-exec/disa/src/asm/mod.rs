//! The assembler: source to object.
//!
//! Owns the way from text to a verified program. Must not read files.
//!
//! ```text
//!   source -> lex -> parse (mnemonic, directive) -> statements -> layout (rounds, until addresses settle) -> verify -> Object
//! ```

mod diagnostic;
mod directive;
mod layout;
mod lex;
mod literal;
mod mnemonic;
mod parse;
mod section;
mod syntax;

pub use diagnostic::{Diagnostic, Diagnostics, Position, Reason};

use crate::limits::SOURCE_BYTES_MAX;
use crate::object::Object;

/// The program that a source describes; `file` is its name in errors and in the line table.
///
/// # Errors
/// The source is wrong: every error found, with line and column.
pub fn assemble(source: &str, file: &str) -> Result<Object, Diagnostics> {
    let refuse = |all| Diagnostics { file: file.into(), all };
    if source.len() > SOURCE_BYTES_MAX {
        let at = Position { line: 1, column: 1 };
        return Err(refuse(vec![Diagnostic { at, reason: Reason::SourceTooLong(source.len()) }]));
    }
    let (statements, diagnostics) = parse::parse(source);
    if !diagnostics.is_empty() {
        return Err(refuse(diagnostics));
    }
    layout::layout(&statements, file).map_err(refuse)
}

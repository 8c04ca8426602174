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
    layout::layout(&[(file, statements)]).map_err(|all| refuse(all.into_iter().map(|(_, diagnostic)| diagnostic).collect()))
}

/// One of the sources of a program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name in errors and in the line table.
    pub name: String,
    /// What it says.
    pub text: String,
}

/// The program that several sources are: names are those of each source, but for those that one makes `.global` and others
/// `.extern`.
///
/// # Errors
/// A source is wrong, or they do not fit together: every error found.
pub fn link(sources: &[Source]) -> Result<Object, Vec<Diagnostics>> {
    let mut units = Vec::with_capacity(sources.len());
    let mut refused: Vec<Diagnostics> = Vec::new();
    for Source { name, text } in sources {
        let (statements, all) = parse::parse(text);
        if !all.is_empty() {
            refused.push(Diagnostics { file: name.clone(), all });
        }
        units.push((name.as_str(), statements));
    }
    if !refused.is_empty() {
        return Err(refused);
    }
    layout::layout(&units).map_err(|all| {
        let mut by_source: Vec<Diagnostics> =
            sources.iter().map(|source| Diagnostics { file: source.name.clone(), all: Vec::new() }).collect();
        for (unit, diagnostic) in all {
            by_source[unit].all.push(diagnostic);
        }
        by_source.retain(|source| !source.all.is_empty());
        by_source
    })
}

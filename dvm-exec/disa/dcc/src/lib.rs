//! `dcc`: a subset of C with runners, compiled to the assembly of DISA. The language is in docs/dcc.md.
//!
//! Owns the way from text to text. Must not read files, encode instructions or know a machine.
//!
//! ```text
//!   source -> lex -> parse -> syntax tree -> check (names, types, constants) -> typed tree -> generate -> instructions over
//!   variables -> allocate (liveness, linear scan of the window) -> print -> assembly
//! ```

#![forbid(unsafe_code)]

mod allocate;
mod check;
mod code;
mod diagnostic;
mod generate;
mod lex;
mod limits;
mod parse;
mod print;
mod syntax;
mod typed;
mod types;

pub use diagnostic::{Diagnostic, Diagnostics, Reason};

/// A constant of the program that is given another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Define {
    /// Its name.
    pub name: String,
    /// The value.
    pub value: i64,
}

/// A source, compiled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembly {
    /// What the assembler reads.
    pub text: String,
    /// Constants of the source that a [`Define`] may change.
    pub constants: Vec<String>,
}

/// The assembly of a source; `file` is its name in errors and in the line table.
///
/// # Errors
/// The source is wrong: every error found, with line and column.
pub fn compile(source: &str, file: &str, defines: &[Define]) -> Result<Assembly, Diagnostics> {
    let refuse = |all| Diagnostics { file: file.into(), all };
    let tokens = lex::tokens(source).map_err(|error| refuse(vec![error]))?;
    let items = parse::parse(tokens).map_err(|error| refuse(vec![error]))?;
    let unit = check::check(items, defines).map_err(refuse)?;
    let mut functions = Vec::with_capacity(unit.functions.len());
    for function in &unit.functions {
        let mut code = generate::generate(function);
        allocate::allocate(&mut code).map_err(|reason| refuse(vec![Diagnostic { at: function.at, reason }]))?;
        functions.push(code);
    }
    Ok(Assembly { text: print::print(&unit, &functions, file), constants: unit.constants })
}

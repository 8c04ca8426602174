//! Directives.
//!
//! Owns their names and what follows them. Must not know what they do.

use super::diagnostic::{Diagnostic, Position, Reason};
use super::lex::{Kind, Token};
use super::parse::{Cursor, check_name};
use super::syntax::{SectionName, Statement};
use crate::types::Type;

/// Reads the rest of a directive whose name was read.
///
/// # Errors
/// There is no such directive.
pub fn parse(name: &str, at: Position, cursor: &mut Cursor<'_>) -> Result<Statement, Diagnostic> {
    Ok(match name {
        ".text" => Statement::Section(SectionName::Text, None),
        ".rodata" => Statement::Section(SectionName::Rodata, None),
        ".data" => section(SectionName::Data, cursor)?,
        ".bss" => section(SectionName::Bss, cursor)?,
        ".page" => Statement::Page,
        ".standalone" => {
            let name = symbol(cursor)?;
            cursor.mark(',', "`,`")?;
            Statement::Standalone(name, cursor.expression()?)
        }
        ".private" => {
            let name = symbol(cursor)?;
            cursor.mark(',', "`,`")?;
            Statement::Private(name, cursor.expression()?)
        }
        ".byte" => integers(Type::B, cursor)?,
        ".word" => integers(Type::W, cursor)?,
        ".long" => integers(Type::L, cursor)?,
        ".quad" => integers(Type::Q, cursor)?,
        ".single" => reals(Type::F, cursor)?,
        ".double" => reals(Type::D, cursor)?,
        ".ascii" => Statement::Text(cursor.text()?),
        ".space" => Statement::Space(cursor.expression()?),
        ".equ" => {
            let name = symbol(cursor)?;
            cursor.mark(',', "`,`")?;
            Statement::Equ(name, cursor.expression()?)
        }
        ".global" => Statement::Global(cursor.name("a symbol")?.0),
        ".extern" => Statement::Extern(cursor.name("a symbol")?.0),
        ".entry" => Statement::Entry(cursor.expression()?),
        ".file" => Statement::File(String::from_utf8_lossy(&cursor.text()?).into_owned()),
        ".loc" => {
            let line = line(cursor)?;
            let column = if cursor.take(',') { self::line(cursor)? } else { 1 };
            Statement::Loc(Position { line, column })
        }
        ".grain" => match cursor.name("page or word")?.0.as_str() {
            "page" => Statement::Grain(true),
            "word" => Statement::Grain(false),
            other => return Err(Diagnostic { at, reason: Reason::Unexpected(other.into()) }),
        },
        ".serializable" => Statement::Serializable,
        _ => return Err(Diagnostic { at, reason: Reason::UnknownDirective(name.into()) }),
    })
}

fn symbol(cursor: &mut Cursor<'_>) -> Result<String, Diagnostic> {
    let (name, at) = cursor.name("a symbol")?;
    check_name(&name, at)?;
    Ok(name)
}

fn section(name: SectionName, cursor: &mut Cursor<'_>) -> Result<Statement, Diagnostic> {
    let address = cursor.peek().is_some().then(|| cursor.expression()).transpose()?;
    Ok(Statement::Section(name, address))
}

fn integers(ty: Type, cursor: &mut Cursor<'_>) -> Result<Statement, Diagnostic> {
    let mut all = Vec::new();
    loop {
        let at = cursor.position();
        all.push((cursor.expression()?, at));
        if !cursor.take(',') {
            return Ok(Statement::Integers(ty, all));
        }
    }
}

fn reals(ty: Type, cursor: &mut Cursor<'_>) -> Result<Statement, Diagnostic> {
    let mut all = Vec::new();
    loop {
        let at = cursor.position();
        all.push((cursor.literal()?, at));
        if !cursor.take(',') {
            return Ok(Statement::Reals(ty, all));
        }
    }
}

fn line(cursor: &mut Cursor<'_>) -> Result<u32, Diagnostic> {
    let number = match cursor.peek() {
        Some(Token { kind: Kind::Integer(number), .. }) => u32::try_from(*number).ok(),
        _ => None,
    };
    let number = number.ok_or_else(|| cursor.expected("a line number"))?;
    cursor.expression()?;
    Ok(number)
}

//! The house's layout of a source: labels at the margin, statements and comments in columns. What it means stays.
//!
//! Owns columns and spaces. Must not know what a statement means: a source with errors is laid out, too.

use std::collections::BTreeSet;

/// Where statements begin.
const STATEMENT_COLUMN: usize = 8;
/// Where comments behind statements begin, if there is room.
const COMMENT_COLUMN: usize = 32;

/// A source in the house's layout. Lines stay lines, so errors and line tables do not change.
#[must_use]
pub fn format(source: &str) -> String {
    let mut out = String::new();
    for line in source.lines() {
        out.push_str(&format_line(line));
        out.push('\n');
    }
    out
}

fn format_line(line: &str) -> String {
    let (code, comment) = split_comment(line);
    let mut out = String::new();
    let mut rest = code.trim();
    while let Some((label, after)) = split_label(rest) {
        pad(&mut out, 0);
        out.push_str(label);
        rest = after.trim_start();
    }
    if !rest.is_empty() {
        let is_at_margin = out.is_empty() && rest.starts_with('.') && !code.starts_with(char::is_whitespace);
        pad(&mut out, if is_at_margin { 0 } else { STATEMENT_COLUMN });
        out.push_str(&spaced(rest));
    }
    if let Some(comment) = comment {
        let is_alone = code.trim().is_empty();
        match (is_alone, line.starts_with(char::is_whitespace)) {
            (true, false) => {}
            (true, true) => pad(&mut out, STATEMENT_COLUMN),
            (false, _) => pad(&mut out, COMMENT_COLUMN),
        }
        out.push_str(comment.trim_end());
    }
    out
}

/// Fills up to a column, with at least one space behind text.
fn pad(out: &mut String, column: usize) {
    let length = out.chars().count();
    let spaces = column.saturating_sub(length).max(usize::from(length > 0));
    out.extend(std::iter::repeat_n(' ', spaces));
}

/// The characters of a line that are in no string and no character constant, with their place.
fn plain(line: &str) -> impl Iterator<Item = (usize, char)> {
    let mut quote = None;
    let mut is_escaped = false;
    line.char_indices().filter(move |(_, character)| {
        let was_inside = quote.is_some();
        match (quote, character) {
            (Some(_), _) if is_escaped => is_escaped = false,
            (Some(_), '\\') => is_escaped = true,
            (Some(open), close) if open == *close => quote = None,
            (None, '"' | '\'') => quote = Some(*character),
            _ => {}
        }
        !was_inside && quote.is_none()
    })
}

fn split_comment(line: &str) -> (&str, Option<&str>) {
    match plain(line).find(|(_, character)| matches!(character, '#' | ';')) {
        Some((at, _)) => (&line[..at], Some(&line[at..])),
        None => (line, None),
    }
}

fn split_label(code: &str) -> Option<(&str, &str)> {
    let end = code.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.')))?;
    let after = code[end..].trim_start().strip_prefix(':')?;
    let is_label = end > 0 && (after.is_empty() || after.starts_with(char::is_whitespace));
    is_label.then(|| (&code[..code.len() - after.len()], after))
}

/// One space for several, one behind commas and none before; strings stay.
fn spaced(statement: &str) -> String {
    let is_plain: BTreeSet<usize> = plain(statement).map(|(at, _)| at).collect();
    let mut out = String::new();
    let mut wants_space = false;
    for (at, character) in statement.char_indices() {
        let is_mark = is_plain.contains(&at);
        if is_mark && character.is_whitespace() {
            wants_space = true;
            continue;
        }
        let is_comma = is_mark && character == ',';
        if wants_space && !is_comma {
            out.push(' ');
        }
        out.push(character);
        wants_space = is_comma;
    }
    out
}

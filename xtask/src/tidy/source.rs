//! The form of one Rust file.
//!
//! Owns the rules of STYLE.md that a line scanner can see: head, lengths, where `unsafe` and `unwrap` may stand. Relies on
//! rustfmt's layout. Must not read files.

use anyhow::{Context, Result};

const FILE_LINES_WARN: usize = 600;
const FILE_LINES_MAX: usize = 900;
const FUNCTION_LINES_MAX: usize = 70;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Must be mended.
    Fault(String),
    /// Should be.
    Warning(String),
}

/// Known long functions.
#[derive(Debug, Default)]
pub struct Ratchet {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    path: String,
    function: String,
    lines: usize,
    met: bool,
}

impl Ratchet {
    /// Reads lines of `path function lines`.
    ///
    /// # Errors
    /// A line is no such thing.
    pub fn parse(text: &str) -> Result<Self> {
        let entry = |line: &str| {
            let mut words = line.split_whitespace();
            let (path, function) = (words.next()?.to_owned(), words.next()?.to_owned());
            Some(Entry { path, function, lines: words.next()?.parse().ok()?, met: false })
        };
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let entries =
            lines.map(|line| entry(line).with_context(|| format!("ratchet.txt: bad line `{line}`"))).collect::<Result<_>>()?;
        Ok(Self { entries })
    }

    fn allows(&mut self, path: &str, function: &str, lines: usize) -> bool {
        let found = self.entries.iter_mut().find(|entry| entry.path == path && entry.function == function);
        found.is_some_and(|entry| {
            entry.met = true;
            lines <= entry.lines
        })
    }

    /// Entries whose function is short by now.
    #[must_use]
    pub fn unused(&self) -> Vec<String> {
        let unmet = self.entries.iter().filter(|entry| !entry.met);
        unmet
            .map(|entry| format!("ratchet.txt: {} {} is no longer too long: remove the line", entry.path, entry.function))
            .collect()
    }
}

/// All that is wrong with a file.
#[must_use]
pub fn check(path: &str, text: &str, ratchet: &mut Ratchet) -> Vec<Finding> {
    let lines: Vec<&str> = text.lines().collect();
    let code = lines.get(..tests_start(&lines)).unwrap_or(&lines);
    let mut findings = Vec::new();
    let mut fault = |text: String| findings.push(Finding::Fault(text));
    if !text.starts_with("//!") {
        fault(format!("{path}: does not start with //!: say what it owns and what it must not know"));
    }
    let is_test = path.starts_with("tests/") || path.contains("/tests/");
    let may_be_unsafe = path.ends_with("/sys.rs") || path.contains("/sys/");
    for (index, line) in lines.iter().enumerate() {
        let bare = without_comment_and_strings(line);
        let at = index + 1;
        if !may_be_unsafe && has_word(&bare, "unsafe") {
            fault(format!("{path}:{at}: unsafe outside sys.rs and sys/"));
        }
        if bare.contains("#[allow(") || bare.contains("#![allow(") {
            fault(format!("{path}:{at}: #[allow]: use #[expect(.., reason = \"..\")]"));
        }
        if !is_test && index < code.len() && bare.contains(".unwrap()") {
            fault(format!("{path}:{at}: unwrap outside tests: use expect(\"why this cannot happen\") or an error"));
        }
    }
    if !is_test {
        for (name, start, length) in functions(code) {
            if length > FUNCTION_LINES_MAX && !ratchet.allows(path, name, length) {
                fault(format!("{path}:{start}: fn {name} has {length} lines: {FUNCTION_LINES_MAX} are allowed"));
            }
        }
        let count = code.len();
        if count > FILE_LINES_MAX {
            fault(format!("{path}: {count} lines: {FILE_LINES_MAX} are allowed"));
        } else if count > FILE_LINES_WARN {
            findings.push(Finding::Warning(format!("{path}: {count} lines: aim at {FILE_LINES_WARN}")));
        }
    }
    findings
}

/// Where the unit tests of a file begin; its end if it has none.
fn tests_start(lines: &[&str]) -> usize {
    let is_start = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    lines.windows(2).position(is_start).unwrap_or(lines.len())
}

/// Name, first line and length of every function: from its `fn` to the closing brace of the same indentation.
fn functions<'a>(lines: &[&'a str]) -> Vec<(&'a str, usize, usize)> {
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indentation = line.len() - line.trim_start().len();
        let closing = format!("{}}}", " ".repeat(indentation));
        let rest = lines.get(index..).unwrap_or_default();
        let one_liner = rest.iter().position(|line| line.trim_end().ends_with(['}', ';'])).unwrap_or(0);
        let end = rest.iter().position(|line| *line == closing).unwrap_or(one_liner);
        let header_ends_at_once = line.trim_end().ends_with(['}', ';']);
        found.push((name, index + 1, if header_ends_at_once { 1 } else { end + 1 }));
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    loop {
        if let Some(after) = rest.strip_prefix("fn ") {
            return Some(after.split(['(', '<']).next().unwrap_or(after));
        }
        let (word, after) = rest.split_once(' ')?;
        let is_modifier = word.starts_with("pub") || ["const", "async", "unsafe", "extern", "\"C\""].contains(&word);
        if !is_modifier {
            return None;
        }
        rest = after;
    }
}

/// A line with its comment and the contents of its strings taken out.
fn without_comment_and_strings(line: &str) -> String {
    let mut bare = String::with_capacity(line.len());
    let (mut in_string, mut escaped) = (false, false);
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        if in_string {
            match character {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match character {
            '/' if characters.peek() == Some(&'/') => break,
            // A character literal may hold a quote.
            '\'' if characters.clone().nth(1) == Some('\'') => {
                characters.nth(1);
            }
            '"' => in_string = true,
            _ => bare.push(character),
        }
    }
    bare
}

fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text.get(..at).and_then(|before| before.chars().next_back());
        let after = text.get(at + word.len()..).and_then(|after| after.chars().next());
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(path: &str, text: &str) -> usize {
        let findings = check(path, text, &mut Ratchet::default());
        findings.iter().filter(|finding| matches!(finding, Finding::Fault(_))).count()
    }

    #[test]
    fn each_rule_bites() {
        let long = format!("//! x\nfn f() {{\n{}}}\n", "    g();\n".repeat(70));
        let fits = format!("//! x\nfn f() {{\n{}}}\n", "    g();\n".repeat(68));
        let huge = format!("//! x\n{}", "const X: u8 = 1;\n".repeat(900));
        for (path, text, count) in [
            ("a/src/x.rs", "//! x\nfn f() {}\n", 0),
            ("a/src/x.rs", "fn f() {}\n", 1),
            ("a/src/x.rs", "//! x\nfn f() { unsafe { g() } }\n", 1),
            ("a/src/sys.rs", "//! x\nfn f() { unsafe { g() } }\n", 0),
            ("a/src/sys/x.rs", "//! x\nfn f() { unsafe { g() } }\n", 0),
            ("a/src/x.rs", "//! x\n// unsafe\nconst A: &str = \"unsafe\";\n#![deny(unsafe_code)]\n", 0),
            ("a/src/x.rs", "//! x\n#[allow(dead_code)]\nfn f() {}\n", 1),
            ("a/src/x.rs", "//! x\nfn f() {\n    g().unwrap();\n}\n", 1),
            ("tests/src/x.rs", "//! x\nfn f() {\n    g().unwrap();\n}\n", 0),
            ("a/src/x.rs", "//! x\n#[cfg(test)]\nmod tests {\n    fn f() {\n        g().unwrap();\n    }\n}\n", 0),
            ("a/src/x.rs", &long, 1),
            ("a/src/x.rs", &fits, 0),
            ("a/src/x.rs", &huge, 1),
        ] {
            assert_eq!(faults(path, text), count, "{path}: {}", text.lines().take(4).collect::<Vec<_>>().join(" / "));
        }
    }

    #[test]
    fn the_ratchet_only_turns_one_way() {
        let text = format!("//! x\nfn f() {{\n{}}}\n", "    g();\n".repeat(80));
        let mut ratchet = Ratchet::parse("a/x.rs f 82\na/y.rs gone 99\n").unwrap();
        assert_eq!(check("a/x.rs", &text, &mut ratchet), Vec::new());
        assert_eq!(ratchet.unused().len(), 1);
        let mut ratchet = Ratchet::parse("a/x.rs f 81\n").unwrap();
        assert_eq!(check("a/x.rs", &text, &mut ratchet).len(), 1);
        assert!(Ratchet::parse("nonsense\n").is_err());
    }
}

//! The agent's talk: one line on stderr per event a person may want to know.
//!
//! Owns the form of a line. Must not be on the way of a fault.

use crate::counters::Counters;
use std::fmt::Display;
use std::io::Write;

/// Writes one line to stderr; a line that cannot be written is counted.
pub fn say(counters: &Counters, line: impl Display) {
    // What husks, peers and programs' names bring along must not steer a terminal.
    let line: String = line.to_string().chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    let text = format!("dvm-agent: {line}\n");
    if std::io::stderr().write_all(text.as_bytes()).is_err() {
        counters.log_lines_lost.add();
    }
}

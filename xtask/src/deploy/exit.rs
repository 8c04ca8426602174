//! One exit code per cause that `cargo xtask deploy` ends for.
//!
//! Owns the numbers; `docs/operating.md` has them as a table. Must not know how a cause is found.

use std::fmt;

macro_rules! codes {
    ($($(#[doc = $text:literal])* $variant:ident = $code:literal,)*) => {
        /// Exit codes of `cargo xtask deploy`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Exit { $($(#[doc = $text])* $variant = $code,)* }

        impl Exit {
            /// All causes with their code and meaning, in order.
            #[cfg(test)]
            const TABLE: &'static [(u8, &'static str, &'static str)] =
                &[$(($code, stringify!($variant), concat!($($text),*)),)*];
        }
    };
}

codes! {
    /// done, or nothing was to be done
    Success = 0,
    /// something that should not happen; the message is worth a bug report
    Internal = 1,
    /// the hosts file, the cluster key or the programs are wrong; no host was asked
    Input = 40,
    /// a host cannot be reached, or is not who it was; nothing was changed on any host
    Connection = 41,
    /// a host is not fit, or has files that are not ours; nothing was changed on any host
    Unfit = 42,
    /// files could not be copied to a host; nothing was changed on any host
    Copy = 43,
    /// hosts were changed, but not all of them as wanted; each is named with what to do
    Partial = 44,
    /// `--check` found something to change
    Pending = 45,
    /// jobs run on hosts whose agents would have to be restarted
    Busy = 46,
}

/// Why a deployment ends: the exit code and what to print, a line for each host or cause.
#[derive(Debug, PartialEq, Eq)]
pub struct Failure {
    /// Exit code.
    pub exit: Exit,
    /// What to print.
    pub lines: Vec<String>,
}

impl Failure {
    /// A failure of one cause.
    pub fn new(exit: Exit, line: impl fmt::Display) -> Self {
        Self { exit, lines: vec![line.to_string()] }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Internal, format!("{error:#}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_stands_in_the_guide() {
        let guide = include_str!("../../../docs/operating.md");
        let ours = guide.split("\n## Deploy\n").nth(1).and_then(|text| text.split("\n## ").next()).unwrap();
        for (code, name, text) in Exit::TABLE {
            let line = format!("| {code} | {name} |{text} |");
            assert!(ours.lines().any(|row| row == line), "docs/operating.md lacks the line: {line}");
        }
        let rows = ours.lines().filter(|row| row.starts_with("| ") && row[2..].starts_with(|c: char| c.is_ascii_digit()));
        assert_eq!(rows.count(), Exit::TABLE.len(), "docs/operating.md has rows for codes that do not exist");
    }
}

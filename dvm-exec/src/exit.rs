//! Why `dvm-exec` itself ends, and with which code. The program's own status passes through unchanged.
//!
//! Owns the codes; `docs/operating.md` tables them. Must not print.

use thiserror::Error;

/// A reason to end that is not the program's.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// No such program.
    #[error("{0}")]
    NotFound(String),
    /// A directory, no permission, an unusable file.
    #[error("{0}")]
    NotRunnable(String),
    /// Neither ELF nor script.
    #[error("{0}")]
    NotElf(String),
    /// A 32-bit program.
    #[error("{0}")]
    ThirtyTwoBit(String),
    /// No agent to talk to.
    #[error("{0}")]
    NoAgent(String),
    /// This host or kernel cannot.
    #[error("{0}")]
    Unsupported(String),
    /// A host was lost while the program ran.
    #[error("host {host} lost: {reason}")]
    HostLost {
        /// Its name.
        host: String,
        /// What was seen.
        reason: String,
    },
    /// The agent refused the job; the code is its own.
    #[error("{reason}")]
    Refused {
        /// Code from the agent.
        code: u8,
        /// Why.
        reason: String,
    },
    /// Something that should not happen.
    #[error("{0}")]
    Internal(String),
}

impl Failure {
    /// The exit code.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::NotElf(_) => 71,
            Self::ThirtyTwoBit(_) => 72,
            Self::HostLost { .. } => 87,
            Self::NoAgent(_) => 73,
            Self::Unsupported(_) => 74,
            Self::Internal(_) => 75,
            Self::NotRunnable(_) => 126,
            Self::NotFound(_) => 127,
            Self::Refused { code, .. } => *code,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table in the operator's guide is the golden copy: a code never changes its meaning unnoticed.
    #[test]
    fn every_code_stands_in_the_guide() {
        let text = String::new;
        let expected = [
            (Failure::NotElf(text()), "| 71 | neither ELF nor script |"),
            (Failure::ThirtyTwoBit(text()), "| 72 | a 32-bit program |"),
            (Failure::NoAgent(text()), "| 73 | no agent answers |"),
            (Failure::Unsupported(text()), "| 74 | this host or kernel cannot do it |"),
            (Failure::Internal(text()), "| 75 | something that should not happen |"),
            (
                Failure::Refused { code: crate::process::features::CODE, reason: text() },
                "| 82 | a host of the job lacks processor features that cannot be hidden from the program |",
            ),
            (
                Failure::NotRunnable(text()),
                "| 126 | the file cannot be executed; or the program lives by forked children, as below |",
            ),
            (Failure::NotFound(text()), "| 127 | there is no such program |"),
        ];
        let guide = include_str!("../../docs/operating.md");
        let ours = guide.split("\n### dvm-exec itself\n").nth(1).and_then(|text| text.split("\n### ").next()).unwrap();
        let rows: Vec<&str> = ours.lines().filter(|row| row.starts_with("| ") && row.as_bytes()[2].is_ascii_digit()).collect();
        assert_eq!(rows, expected.each_ref().map(|(_, row)| *row));
        for (failure, row) in expected {
            assert!(row.starts_with(&format!("| {} |", failure.code())), "{failure:?} does not end with the code of {row}");
        }
    }
}

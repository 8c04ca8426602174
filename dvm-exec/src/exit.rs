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

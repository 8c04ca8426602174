//! What a program did: output, ends of runners, figures.
//!
//! Owns the layout of exit-code pages and the exit status. Must not know how it came about.

use super::effects::page_of;
use super::store::Conflict;
use crate::map;
use crate::trap::TrapKind;
use serde::{Deserialize, Serialize};

/// How a runner ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndState {
    /// It committed.
    Committed,
    /// It aborted.
    Aborted,
    /// It died.
    Trapped(TrapKind),
    /// It could not commit: others were first, too often.
    Failed,
}

impl EndState {
    /// As exit-code pages show it.
    #[must_use]
    pub const fn number(self) -> u64 {
        match self {
            Self::Committed => 1,
            Self::Aborted => 2,
            Self::Trapped(_) => 3,
            Self::Failed => 4,
        }
    }
}

/// The words that an end writes: state, code, pc, line, tries. The code of a runner that commits is its own to write.
#[must_use]
pub fn exit_code(id: u64, state: EndState, pc: u64, line: u32, tries: u64) -> Vec<(u64, u64)> {
    let Some(page) = page_of(map::EXIT_CODES, id) else { return Vec::new() };
    let code = match state {
        EndState::Committed => None,
        EndState::Aborted | EndState::Failed => Some(0),
        EndState::Trapped(kind) => Some(kind.code()),
    };
    let words = [Some(state.number()), code, Some(pc), Some(u64::from(line)), Some(tries)];
    (page.base..).step_by(8).zip(words).filter_map(|(address, word)| Some((address, word?))).collect()
}

/// Why a runner did not commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// It died.
    Trap(TrapKind),
    /// Another runner was first, too often.
    Conflict(Conflict),
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Trap(kind) => write!(f, "{kind}"),
            Self::Conflict(Conflict { address, winner: Some(winner) }) => {
                write!(f, "conflict at 0x{address:x}: runner {winner} was first")
            }
            Self::Conflict(Conflict { address, winner: None }) => {
                write!(f, "conflict at 0x{address:x}: another commit is under way")
            }
        }
    }
}

/// A runner that died or could not commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Its number.
    pub id: u64,
    /// Why.
    pub cause: Cause,
    /// Where.
    pub pc: u64,
    /// The source.
    pub file: String,
    /// Its line; 0 if it is not known.
    pub line: u32,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { id, cause, pc, file, line } = self;
        let end = if matches!(cause, Cause::Trap(_)) { "TRAP" } else { "FAILED" };
        write!(f, "{end} runner {id} {file}:{line} (pc 0x{pc:x}): {cause}")
    }
}

/// Counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statistics {
    /// Runs, repeated ones too.
    pub starts: u64,
    /// Instructions of all runs.
    pub instructions: u64,
    /// Runners made by committed ones.
    pub made: u64,
    /// Instances of watchers.
    pub fired: u64,
    /// Ends by commit.
    pub committed: u64,
    /// Ends by abort.
    pub aborted: u64,
    /// Ends by trap.
    pub trapped: u64,
    /// Ends by conflict.
    pub failed: u64,
    /// Commits that others came before.
    pub conflicts: u64,
    /// Runs whose host was lost.
    pub lost: u64,
}

impl Statistics {
    /// Counts an end.
    pub const fn count(&mut self, state: EndState) {
        match state {
            EndState::Committed => self.committed += 1,
            EndState::Aborted => self.aborted += 1,
            EndState::Trapped(_) => self.trapped += 1,
            EndState::Failed => self.failed += 1,
        }
    }
}

/// What came of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Output of committed runners, in the order of their commits.
    pub output: Vec<u8>,
    /// Their log.
    pub log: Vec<u8>,
    /// Runners that died or could not commit.
    pub failures: Vec<Failure>,
    /// Watchers that still wait.
    pub armed: Vec<u64>,
    /// Whether runners were left because the starts were used up.
    pub is_cut: bool,
    /// Counts.
    pub statistics: Statistics,
}

impl Report {
    /// 0: all is well; 1: a runner died, could not commit or did not start; 3: watchers still wait.
    #[must_use]
    pub const fn exit_status(&self) -> u8 {
        if !self.armed.is_empty() {
            3
        } else if !self.failures.is_empty() || self.is_cut {
            1
        } else {
            0
        }
    }
}

//! How far a program has come.
//!
//! Owns the figures of a moment. Must not know clocks: rates are for who asks twice.

use super::Machine;

/// The figures of a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Runners made so far, and instances of watchers.
    pub born: u64,
    /// Runners that wait for a processor.
    pub ready: u64,
    /// Runners that have begun and not ended.
    pub running: u64,
    /// Commits so far.
    pub committed: u64,
    /// Runs that others came before, so far.
    pub retried: u64,
}

impl Machine<'_> {
    /// How far it has come.
    #[must_use]
    pub const fn progress(&self) -> Progress {
        let counts = &self.report.statistics;
        Progress {
            born: counts.made + counts.fired,
            ready: self.ready.len() as u64,
            running: (self.ran.len() + self.prepared.len()) as u64,
            committed: counts.committed,
            retried: counts.conflicts,
        }
    }
}

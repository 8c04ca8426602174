//! A backup of the root: a host that has the log, and all that follows from it.
//!
//! Owns what a root needs to go on where another one was lost. Must not decide anything.

use crate::home::Home;
use crate::ledger::{Happened, Ledger, Ready};
use crate::message::{Record, State};
use crate::program::Program;
use dvm_disa::machine::report::Statistics;
use dvm_disa::machine::runner::Runner;
use dvm_disa::machine::store::Timestamp;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A copy of the log.
#[derive(Debug)]
pub struct Follower {
    /// What follows from it.
    pub ledger: Ledger,
    /// All runners that are not over and do not wait for a change.
    pub runners: BTreeMap<u64, Runner>,
    /// Nobody has an older snapshot: every host has heard of the commits up to here.
    pub oldest: Timestamp,
}

impl Follower {
    /// Before the first end.
    #[must_use]
    pub fn new(program: Arc<Program>, told_words_max: usize) -> Self {
        let first = Runner::main(program.object.entry);
        let state = State { runners: vec![first], ..State::default() };
        Self::of(program, told_words_max, state)
    }

    /// With what another host knows.
    #[must_use]
    pub fn of(program: Arc<Program>, told_words_max: usize, state: State) -> Self {
        let State { facts, runners, newest: _, oldest } = state;
        let runners = runners.into_iter().map(|runner| (runner.id, runner)).collect();
        Self { ledger: Ledger::new(program, told_words_max, facts), runners, oldest }
    }

    /// Writes down what the root has decided.
    pub fn record(&mut self, records: Vec<Record>, stable: Timestamp, statistics: Statistics, log: &mut Home) {
        for record in records {
            match record {
                Record::Tried { id, tries } => {
                    if let Some(runner) = self.runners.get_mut(&id) {
                        runner.tries = tries;
                    }
                }
                Record::Ended(entry) => {
                    // Anything else is no word of a root; what it waits for then never comes.
                    if entry.at.0 != log.store().newest().0 + 1 {
                        return;
                    }
                    let Some(runner) = self.runners.remove(&entry.finished.id) else { return };
                    let ready: Vec<Ready> = self.ledger.apply(&runner, &entry, log);
                    self.runners.extend(ready.into_iter().map(|(runner, _)| (runner.id, runner)));
                }
            }
        }
        self.ledger.facts.statistics = statistics;
        self.ledger.settle(stable);
        self.ledger.facts.output.trim();
    }

    /// Snapshots may include all up to `watermark`; nobody has one older than `oldest`.
    pub fn advance(&mut self, watermark: Timestamp, oldest: Timestamp) {
        self.oldest = self.oldest.max(oldest);
        self.ledger.forget(watermark, self.oldest);
    }

    /// The next end of a runner that nothing can undo.
    pub fn poll_happened(&mut self) -> Option<Happened> {
        self.ledger.poll_happened()
    }
}

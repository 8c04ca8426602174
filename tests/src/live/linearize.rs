//! Whether a history of reads, writes and compare-exchanges of one word is linearizable.
//!
//! Owns the search. Must not know where histories come from.
//!
//! A state of the search is how many operations of each thread have taken effect, and the word's value. An operation may be
//! next if no operation that is still waiting ended before it began. States are remembered, so none is tried twice.

use std::collections::{BTreeMap, BTreeSet};

/// What an operation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Read this value.
    Read(u64),
    /// Wrote this value.
    Write(u64),
    /// Found the first value and replaced it by the second.
    Exchange(u64, u64),
    /// Expected the first value, found the second, changed nothing.
    Refused(u64, u64),
}

/// One operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operation {
    /// Who did it.
    pub thread: usize,
    /// When it began.
    pub invoke: u64,
    /// When it was over.
    pub response: u64,
    /// What it did.
    pub effect: Effect,
}

/// Why a history is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Most operations that any order could explain.
    pub explained: usize,
    /// The operations of which none could come next there.
    pub stuck: Vec<Operation>,
}

/// States tried before the search gives up; a history of few threads needs a few per operation.
const STATES_MAX: usize = 20_000_000;

/// Checks one word that held `initial` at first.
///
/// # Errors
/// No order of the operations explains them.
///
/// # Panics
/// When the search needs more than 20 million states, which a history of few threads never does.
pub fn check(operations: &[Operation], initial: u64) -> Result<(), Violation> {
    let threads = by_thread(operations);
    let mut seen = BTreeSet::new();
    let mut open = vec![(vec![0_usize; threads.len()], initial)];
    let mut best = Violation { explained: 0, stuck: first_of(&threads, &vec![0; threads.len()]) };
    while let Some(state) = open.pop() {
        if !seen.insert(state.clone()) {
            continue;
        }
        assert!(seen.len() <= STATES_MAX, "history too concurrent: more than {STATES_MAX} states");
        let (done, value) = state;
        let count: usize = done.iter().sum();
        if count == operations.len() {
            return Ok(());
        }
        let first = first_of(&threads, &done);
        if count > best.explained {
            best = Violation { explained: count, stuck: first.clone() };
        }
        let earliest_end = first.iter().map(|operation| operation.response).min().unwrap_or(u64::MAX);
        for (index, operations) in threads.iter().enumerate() {
            let Some(operation) = operations.get(done[index]) else { continue };
            if operation.invoke > earliest_end {
                continue;
            }
            if let Some(after) = operation.effect.apply(value) {
                let mut done = done.clone();
                done[index] += 1;
                open.push((done, after));
            }
        }
    }
    Err(best)
}

fn by_thread(operations: &[Operation]) -> Vec<Vec<Operation>> {
    let mut threads = BTreeMap::<usize, Vec<Operation>>::new();
    for operation in operations {
        threads.entry(operation.thread).or_default().push(*operation);
    }
    threads.into_values().collect()
}

/// The next operation of each thread.
fn first_of(threads: &[Vec<Operation>], done: &[usize]) -> Vec<Operation> {
    threads.iter().zip(done).filter_map(|(operations, done)| operations.get(*done).copied()).collect()
}

impl Effect {
    /// The value afterwards; none if the operation cannot happen at this value.
    fn apply(self, value: u64) -> Option<u64> {
        match self {
            Self::Read(seen) => (seen == value).then_some(value),
            Self::Write(written) => Some(written),
            Self::Exchange(expected, new) => (expected == value).then_some(new),
            Self::Refused(expected, found) => (found == value && found != expected).then_some(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(thread: usize, invoke: u64, response: u64, effect: Effect) -> Operation {
        Operation { thread, invoke, response, effect }
    }

    #[test]
    fn good_histories_pass() {
        check(&[], 0).unwrap();
        let overlapping = [
            operation(0, 0, 10, Effect::Write(1)),
            operation(1, 5, 6, Effect::Read(0)),
            operation(1, 7, 8, Effect::Read(1)),
            operation(2, 2, 20, Effect::Exchange(1, 2)),
            operation(1, 21, 22, Effect::Read(2)),
            operation(0, 23, 24, Effect::Refused(1, 2)),
        ];
        check(&overlapping, 0).unwrap();
    }

    #[test]
    fn planted_faults_are_caught() {
        let write = operation(0, 0, 1, Effect::Write(1));
        let cases: [(&str, Vec<Operation>); 5] = [
            ("stale read", vec![write, operation(1, 2, 3, Effect::Read(0))]),
            ("value from nowhere", vec![write, operation(1, 2, 3, Effect::Read(9))]),
            (
                "new then old",
                vec![
                    operation(0, 0, 10, Effect::Write(1)),
                    operation(1, 1, 2, Effect::Read(1)),
                    operation(1, 3, 4, Effect::Read(0)),
                ],
            ),
            ("two winners", vec![operation(0, 0, 10, Effect::Exchange(0, 1)), operation(1, 0, 10, Effect::Exchange(0, 2))]),
            ("lost write", vec![write, operation(1, 2, 3, Effect::Write(2)), operation(0, 4, 5, Effect::Read(1))]),
        ];
        for (name, history) in cases {
            assert!(check(&history, 0).is_err(), "{name}");
        }
    }
}

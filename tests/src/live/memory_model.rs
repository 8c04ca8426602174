//! Which outcomes of a litmus test sequential consistency and x86-TSO allow, by trying every interleaving.
//!
//! Owns the text form of a test (the same `tests/programs/litmus.c` reads) and two small abstract machines that differ in
//! one thing: under TSO a store waits in its thread's buffer. Must not know how a test is run.

use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const LOCATIONS: [char; 3] = ['x', 'y', 'z'];
const REGISTERS: usize = 8;

/// One operation of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operation {
    Store { location: usize, value: u8 },
    Load { register: usize, location: usize },
    Increment { register: usize, location: usize },
    Fence,
}

/// A litmus test: what each thread does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    threads: Vec<Vec<Operation>>,
    registers: usize,
    locations: usize,
}

/// The machine whose outcomes are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// Every store is seen by all at once.
    SequentialConsistency,
    /// A thread's stores wait in order in a buffer that only it can see.
    TotalStoreOrder,
}

/// Everything that can differ between two moments of a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    next: Vec<usize>,
    buffers: Vec<VecDeque<(usize, u8)>>,
    memory: [u8; LOCATIONS.len()],
    registers: [u8; REGISTERS],
}

impl Test {
    /// Reads `x=1; r0=y | y=1; r1=x`.
    ///
    /// # Errors
    /// Names the operation it cannot read.
    pub fn parse(text: &str) -> Result<Self> {
        let mut test = Self { threads: Vec::new(), registers: 0, locations: 0 };
        for thread in text.split('|') {
            let operations = thread.split(';').map(|word| Operation::parse(word.trim())).collect::<Result<Vec<_>>>()?;
            test.threads.push(operations);
        }
        for operation in test.threads.iter().flatten() {
            if let Some(location) = operation.location() {
                test.locations = test.locations.max(location + 1);
            }
            if let Some(register) = operation.register() {
                test.registers = test.registers.max(register + 1);
            }
        }
        Ok(test)
    }

    /// Number of threads.
    #[must_use]
    pub fn thread_count(&self) -> usize {
        self.threads.len()
    }

    /// All outcomes the model allows, each as the program prints it: `r0=0 r1=1 x=1 y=1`.
    #[must_use]
    pub fn outcomes(&self, model: Model) -> BTreeSet<String> {
        let start = State {
            next: vec![0; self.threads.len()],
            buffers: vec![VecDeque::new(); self.threads.len()],
            memory: [0; LOCATIONS.len()],
            registers: [0; REGISTERS],
        };
        let (mut seen, mut open, mut outcomes) = (BTreeSet::new(), vec![start], BTreeSet::new());
        while let Some(state) = open.pop() {
            if !seen.insert(state.clone()) {
                continue;
            }
            let steps: Vec<State> = (0..self.threads.len()).flat_map(|thread| self.steps(&state, thread, model)).collect();
            if steps.is_empty() {
                outcomes.insert(self.describe(&state));
            }
            open.extend(steps);
        }
        outcomes
    }

    /// What one thread, or its buffer, can do next.
    fn steps(&self, state: &State, thread: usize, model: Model) -> Vec<State> {
        let mut steps = Vec::new();
        if let Some((location, value)) = state.buffers[thread].front().copied() {
            let mut after = state.clone();
            after.buffers[thread].pop_front();
            after.memory[location] = value;
            steps.push(after);
        }
        let Some(operation) = self.threads[thread].get(state.next[thread]) else { return steps };
        let mut after = state.clone();
        after.next[thread] += 1;
        let drained = state.buffers[thread].is_empty();
        match *operation {
            Operation::Store { location, value } => match model {
                Model::SequentialConsistency => after.memory[location] = value,
                Model::TotalStoreOrder => after.buffers[thread].push_back((location, value)),
            },
            Operation::Load { register, location } => {
                let own = state.buffers[thread].iter().rev().find(|(at, _)| *at == location);
                after.registers[register] = own.map_or(state.memory[location], |(_, value)| *value);
            }
            Operation::Increment { register, location } if drained => {
                after.registers[register] = state.memory[location];
                after.memory[location] += 1;
            }
            Operation::Fence if drained => {}
            Operation::Increment { .. } | Operation::Fence => return steps,
        }
        steps.push(after);
        steps
    }

    fn describe(&self, state: &State) -> String {
        let registers = state.registers.iter().take(self.registers).enumerate().map(|(index, value)| format!("r{index}={value}"));
        let memory = LOCATIONS.iter().zip(&state.memory).take(self.locations).map(|(name, value)| format!("{name}={value}"));
        registers.chain(memory).collect::<Vec<_>>().join(" ")
    }
}

impl Operation {
    fn parse(word: &str) -> Result<Self> {
        if word == "mfence" {
            return Ok(Self::Fence);
        }
        let (left, right) = word.split_once('=').with_context(|| format!("`{word}` is no operation"))?;
        if let Some(location) = location(left) {
            return Ok(Self::Store { location, value: right.parse().with_context(|| format!("`{word}`: no value"))? });
        }
        let register: usize = left.strip_prefix('r').and_then(|text| text.parse().ok()).with_context(|| format!("`{word}`"))?;
        ensure!(register < REGISTERS, "`{word}`: registers are r0 to r{}", REGISTERS - 1);
        let (name, is_increment) = right.strip_suffix("++").map_or((right, false), |name| (name, true));
        let Some(location) = location(name) else { bail!("`{word}`: locations are x, y and z") };
        Ok(if is_increment { Self::Increment { register, location } } else { Self::Load { register, location } })
    }

    fn location(self) -> Option<usize> {
        match self {
            Self::Store { location, .. } | Self::Load { location, .. } | Self::Increment { location, .. } => Some(location),
            Self::Fence => None,
        }
    }

    fn register(self) -> Option<usize> {
        match self {
            Self::Load { register, .. } | Self::Increment { register, .. } => Some(register),
            Self::Store { .. } | Self::Fence => None,
        }
    }
}

fn location(name: &str) -> Option<usize> {
    LOCATIONS.iter().position(|location| name.len() == 1 && name.starts_with(*location))
}

/// What is wrong with these counts: an outcome that TSO forbids, or one that SC allows and nobody saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judgement {
    /// Seen, though forbidden.
    pub forbidden: Vec<String>,
    /// Allowed by sequential consistency, but never seen.
    pub unseen: Vec<String>,
}

/// Judges the outcomes seen of a test.
#[must_use]
pub fn judge(test: &Test, seen: &BTreeMap<String, u64>) -> Judgement {
    let allowed = test.outcomes(Model::TotalStoreOrder);
    let wanted = test.outcomes(Model::SequentialConsistency);
    Judgement {
        forbidden: seen.keys().filter(|outcome| !allowed.contains(*outcome)).cloned().collect(),
        unseen: wanted.into_iter().filter(|outcome| !seen.contains_key(outcome)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, sc: usize, tso: usize, forbidden: &str) {
        let test = Test::parse(text).unwrap();
        let strong = test.outcomes(Model::SequentialConsistency);
        let weak = test.outcomes(Model::TotalStoreOrder);
        assert!(strong.is_subset(&weak), "{text}");
        assert_eq!((strong.len(), weak.len()), (sc, tso), "{text}: {weak:?}");
        assert!(forbidden.is_empty() || !weak.contains(forbidden), "{text}");
    }

    #[test]
    fn outcomes_are_those_of_the_books() {
        check("x=1; r0=y | y=1; r1=x", 3, 4, "");
        check("x=1; mfence; r0=y | y=1; mfence; r1=x", 3, 3, "r0=0 r1=0 x=1 y=1");
        check("x=1; y=1 | r0=y; r1=x", 3, 3, "r0=1 r1=0 x=1 y=1");
        check("r0=x; y=1 | r1=y; x=1", 3, 3, "r0=1 r1=1 x=1 y=1");
        check("x=1 | y=1 | r0=x; r1=y | r2=y; r3=x", 15, 15, "r0=1 r1=0 r2=1 r3=0 x=1 y=1");
        check("x=1; y=2 | y=1; x=2", 3, 3, "x=1 y=1");
        check("x=1; y=1 | y=2; r0=x", 3, 4, "");
        check("x=2; y=1 | r0=y; x=1", 3, 3, "r0=1 x=2 y=1");
        check("x=1 | r0=x; r1=x", 3, 3, "r0=1 r1=0 x=1");
        check("x=1; x=2 | r0=x", 3, 3, "r0=0 x=1");
        check("r0=x++ | r1=x++", 2, 2, "r0=0 r1=0 x=1");
    }

    #[test]
    fn judgement_names_both_faults() {
        let test = Test::parse("x=1; y=1 | r0=y; r1=x").unwrap();
        let seen = [("r0=1 r1=0 x=1 y=1", 1), ("r0=1 r1=1 x=1 y=1", 9)].map(|(text, count)| (text.to_owned(), count)).into();
        let judgement = judge(&test, &seen);
        assert_eq!(judgement.forbidden, ["r0=1 r1=0 x=1 y=1"]);
        assert_eq!(judgement.unseen, ["r0=0 r1=0 x=1 y=1", "r0=0 r1=1 x=1 y=1"]);
    }

    #[test]
    fn bad_text_is_named() {
        for text in ["x", "q=1", "r9=x", "r0=w", "x=a"] {
            assert!(Test::parse(text).is_err(), "{text}");
        }
    }
}

//! Runs of a recording, again: each is a function of text, descriptor, snapshot and what the machine answered.
//!
//! Owns the snapshot that is gone, and the answers. Must not show anything.

use super::chance::Chance;
use super::memory::{RunnerMemory, Snapshot};
use super::recorder::{Recording, Run};
use super::runner;
use super::store::{Store, Timestamp};
use crate::code::Code;
use crate::interpreter::Interpreter;
use crate::map::{self, PAGE_BYTES, Range, WORD_BYTES};
use crate::memory::{Born, Effects, Spawn};
use crate::trap::TrapKind;
use crate::verify::VerifyError;

/// Answers as they were recorded.
#[derive(Debug)]
pub struct Answers<'a> {
    recording: &'a Recording,
    left: &'a [u64],
    time_ns: u64,
    chance: Chance,
    /// What it printed.
    pub output: Vec<u8>,
    /// Where the runner came to `brk`, if it just did.
    pub broke_at: Option<u64>,
}

impl<'a> Answers<'a> {
    /// The next answers; zeros if the recording has no more.
    fn take<const N: usize>(&mut self) -> [u64; N] {
        let Some((taken, rest)) = self.left.split_first_chunk::<N>() else { return [0; N] };
        self.left = rest;
        *taken
    }

    fn settings(&self) -> &'a super::Settings {
        &self.recording.settings
    }
}

impl Effects for Answers<'_> {
    fn spawn(&mut self, _: Spawn) -> Result<Born, TrapKind> {
        let [id, base, bytes] = self.take();
        if bytes == 0 { Err(TrapKind::Mem) } else { Ok(Born { id, stack: Range::new(base, bytes) }) }
    }

    fn print(&mut self, bytes: &[u8]) -> Result<(), TrapKind> {
        if (self.output.len() + bytes.len()) as u64 > self.settings().limits.output_bytes {
            return Err(TrapKind::Mem);
        }
        self.output.extend_from_slice(bytes);
        Ok(())
    }

    fn log(&mut self, bytes: &[u8]) -> Result<(), TrapKind> {
        self.print(bytes)
    }

    fn input(&mut self, offset: u64, bytes: &mut [u8]) -> usize {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.settings().input.get(offset..)).unwrap_or_default();
        let count = rest.len().min(bytes.len());
        bytes[..count].copy_from_slice(&rest[..count]);
        count
    }

    fn open(&mut self, name: &[u8]) -> Option<Range> {
        self.settings().place_of_files().find(|(file, _)| file.name == name).map(|(_, range)| range)
    }

    fn allocate(&mut self, _: u64) -> Option<Range> {
        let [base, bytes] = self.take();
        (base != 0).then_some(Range::new(base, bytes))
    }

    fn free(&mut self, _: u64) -> bool {
        self.take() == [1]
    }

    fn time(&mut self) -> u64 {
        self.time_ns
    }

    fn random(&mut self) -> u64 {
        self.chance.next()
    }

    fn argument(&mut self, index: u64) -> Option<&[u8]> {
        self.settings().arguments.get(usize::try_from(index).ok()?).map(Vec::as_slice)
    }

    fn touch(&mut self, _: Range) {}

    fn breakpoint(&mut self, pc: u64) {
        self.broke_at = Some(pc);
    }
}

/// The words of shared memory that a run changed so far, but for exit codes.
///
/// # Errors
/// RANGE: a byte outside the granted ranges was changed.
pub fn changes<S: Snapshot>(memory: RunnerMemory<'_, S>) -> Result<Vec<(u64, u64)>, TrapKind> {
    let mut words = Vec::new();
    for (page, (changed, own)) in memory.finish()?.changed {
        words.extend(changed.iter().map(|word| (page * PAGE_BYTES + word as u64 * WORD_BYTES, own.word(word))));
    }
    words.retain(|(address, _)| !map::EXIT_CODES.contains(*address));
    Ok(words)
}

/// What a run sees and changes.
pub type Recalled<'a> = RunnerMemory<'a, (&'a Store, Timestamp)>;

/// Memory as it was, for one run after the other.
#[derive(Debug)]
pub struct Replay<'a> {
    recording: &'a Recording,
    code: Code,
    store: Store,
    epoch: u64,
    applied: usize,
}

impl<'a> Replay<'a> {
    /// Before the first commit.
    ///
    /// # Errors
    /// The text does not pass the verifier.
    pub fn new(recording: &'a Recording) -> Result<Self, VerifyError> {
        let code = Code::verified(&recording.object.text)?;
        let store = Store::new(recording.object.rules);
        let mut replay = Self { recording, code, store, epoch: 0, applied: 0 };
        replay.rewind();
        Ok(replay)
    }

    fn rewind(&mut self) {
        (self.store, self.epoch, self.applied) = (Store::new(self.recording.object.rules), 0, 0);
        let first = self.recording.settings.first_pages(&self.recording.object);
        first.into_iter().for_each(|(page, contents)| self.store.place_page(page, contents));
    }

    /// A run before its first instruction. In the order of snapshots this is cheapest.
    ///
    /// # Errors
    /// There is not even memory for the runner's system page.
    pub fn begin(&mut self, run: &'a Run) -> Result<Interpreter<'_, Recalled<'_>, Answers<'a>>, TrapKind> {
        if run.epoch < self.epoch {
            self.rewind();
        }
        self.epoch = run.epoch;
        while let Some(commit) = self.recording.commits.get(self.applied).filter(|commit| commit.at <= run.epoch) {
            for (address, value) in &commit.words {
                self.store.place(Range::new(*address, 8), &value.to_le_bytes());
            }
            self.applied += 1;
        }
        let (object, settings) = (&self.recording.object, &self.recording.settings);
        let descriptor = run.runner();
        let sections = [&object.text[..], &object.rodata[..]];
        let memory = RunnerMemory::new((&self.store, Timestamp(run.epoch)), sections, descriptor.grants(), settings.limits.pages);
        let answers = Answers {
            recording: self.recording,
            left: &run.answers,
            time_ns: settings.time_ns.wrapping_add(run.epoch),
            chance: Chance::new(run.id),
            output: Vec::new(),
            broke_at: None,
        };
        let mut interpreter = Interpreter::new(&self.code, run.first, settings.limits.fuel, memory, answers);
        runner::describe(&descriptor, &mut interpreter.memory)?;
        Ok(interpreter)
    }
}

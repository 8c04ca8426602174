//! The recording of a program: its runs and its commits, enough to run any of its runners again.
//!
//! Owns what is kept. Must not know how it is written down, or what it is looked at for.

use super::Machine;
use super::runner::{Ran, Runner};
use super::settings::Settings;
use super::store::{Changes, Timestamp};
use crate::map::{PAGE_BYTES, Range, WORD_BYTES};
use crate::object::Object;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// It is not known: the program was cut off.
    Unknown,
    /// It committed, at this timestamp.
    Committed(u64),
    /// It aborted.
    Aborted,
    /// It died of the trap with this number.
    Trapped(u64),
    /// Another runner was first.
    Conflict {
        /// The word.
        address: u64,
        /// Who; `None`: somebody whose commit was under way.
        winner: Option<u64>,
    },
    /// Its host was lost.
    Lost,
}

/// One run of one runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The runner's number.
    pub id: u64,
    /// Who made it.
    pub parent: u64,
    /// Its first instruction.
    pub first: u64,
    /// Its stack.
    pub stack: Range,
    /// What it may use.
    pub heap: Vec<Range>,
    /// What it waited for.
    pub watched: Vec<Range>,
    /// Which start of this runner it was, from 1 on.
    pub tries: u64,
    /// The timestamp of its snapshot.
    pub epoch: u64,
    /// Instructions it took.
    pub fuel_used: u64,
    /// Where it ended.
    pub pc: u64,
    /// How.
    pub end: RunEnd,
    /// Instructions that all runs together had taken when it began.
    pub began: u64,
    /// The same, when it ended.
    pub ended: u64,
    /// What the machine answered to it.
    pub answers: Vec<u64>,
}

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Its timestamp.
    pub at: u64,
    /// The runner.
    pub author: u64,
    /// The words it changed, and what they became.
    pub words: Vec<(u64, u64)>,
}

/// A recorded program.
#[derive(Clone, Debug)]
pub struct Recording {
    /// The program.
    pub object: Object,
    /// What it was given.
    pub settings: Settings,
    /// Its runs, as they began.
    pub runs: Vec<Run>,
    /// Its commits, in order.
    pub commits: Vec<Commit>,
}

impl Run {
    /// The runner as it was before this run.
    pub(super) fn runner(&self) -> Runner {
        let Self { id, parent, first, stack, .. } = *self;
        Runner { id, parent, first, stack, heap: self.heap.clone(), watched: self.watched.clone(), tries: self.tries }
    }
}

impl Recording {
    /// The run that began last of those with this number and, if given, this start.
    #[must_use]
    pub fn find(&self, id: u64, tries: Option<u64>) -> Option<usize> {
        self.runs.iter().rposition(|run| run.id == id && tries.is_none_or(|tries| run.tries == tries))
    }

    /// The commit that woke the watcher whose instance a run was: the first one of another runner that changed a watched word
    /// since the watcher was armed.
    #[must_use]
    pub fn woken_by(&self, index: usize) -> Option<&Commit> {
        let run = self.runs.get(index)?;
        if run.watched.is_empty() {
            return None;
        }
        let is_instance = |other: &&Run| other.id == run.id && matches!(other.end, RunEnd::Committed(_) | RunEnd::Aborted);
        let before = self.runs[..index].iter().rev().find(is_instance).map(|other| other.epoch);
        let birth =
            |commit: &Commit| self.runs.iter().find(|other| other.id == run.parent && other.end == RunEnd::Committed(commit.at));
        let made = self.commits.iter().filter(|commit| commit.author == run.parent).find_map(|commit| {
            birth(commit).filter(|parent| parent.answers.contains(&run.id)).map(|parent| (parent.epoch, commit.at))
        });
        let (baseline, except) = match before {
            Some(baseline) => (baseline, made.map_or(0, |(_, at)| at)),
            None => made?,
        };
        let is_watched = |address: u64| run.watched.iter().any(|range| range.overlaps(Range::new(address, WORD_BYTES)));
        let mut since =
            self.commits.iter().filter(|commit| commit.at > baseline && commit.at <= run.epoch && commit.at != except);
        since.find(|commit| commit.author != run.id && commit.words.iter().any(|(address, _)| is_watched(*address)))
    }
}

impl Machine<'_> {
    /// Keeps a recording from now on.
    pub fn record(&mut self) {
        let (object, settings) = (self.object.clone(), self.settings.clone());
        self.recording = Some(Recording { object, settings, runs: Vec::new(), commits: Vec::new() });
    }

    /// The recording, if one was asked for.
    #[must_use]
    pub const fn recording(&self) -> Option<&Recording> {
        self.recording.as_ref()
    }

    pub(super) fn note_start(&mut self, ran: &mut Ran) {
        let Some(recording) = &mut self.recording else { return };
        ran.record = recording.runs.len();
        let Runner { id, parent, first, stack, heap, watched, tries } = ran.runner.clone();
        let (began, fuel_used) = (self.report.statistics.instructions, ran.fuel_used);
        let answers = ran.kept.answers.clone();
        let (epoch, pc, end, ended) = (ran.epoch.0, ran.pc, RunEnd::Unknown, began + fuel_used);
        recording.runs.push(Run {
            id,
            parent,
            first,
            stack,
            heap,
            watched,
            tries,
            epoch,
            fuel_used,
            pc,
            end,
            began,
            ended,
            answers,
        });
    }

    pub(super) fn note_end(&mut self, ran: &Ran, end: RunEnd) {
        let now = self.report.statistics.instructions;
        if let Some(run) = self.recording.as_mut().and_then(|recording| recording.runs.get_mut(ran.record)) {
            (run.end, run.ended) = (end, now);
        }
    }

    pub(super) fn note_commit(&mut self, at: Timestamp, author: u64, changes: &Changes) {
        let Some(recording) = &mut self.recording else { return };
        let mut words = Vec::new();
        for (page, changed) in changes {
            let now = self.store.at(*page, at);
            words.extend(changed.iter().map(|word| (page * PAGE_BYTES + word as u64 * WORD_BYTES, now.word(word))));
        }
        recording.commits.push(Commit { at: at.0, author, words });
    }
}

//! The machine of one host: all of DISA, deterministic, the oracle of every other machine.
//!
//! Owns the life of runners and the order of events, which follows from the seed alone. Must not do input or output, or know
//! clocks and threads.
//!
//! ```text
//!   READY -> run (snapshot) -> ran -> prepare -> prepared -> commit -> children READY or armed, watchers fire
//!              ^                 |        '-- conflict ----.
//!              '-----------------'-- host lost ------------'      abort, trap, too many conflicts: only the exit code is seen
//! ```

pub mod arena;
pub mod chance;
pub mod effects;
pub mod memory;
pub mod page;
mod private;
mod progress;
pub mod ranges;
mod recorder;
mod replay;
pub mod report;
pub mod runner;
mod settings;
pub mod store;
pub mod watch;

pub use memory::PagesMax;
pub use progress::Progress;
pub use recorder::{Commit, Recording, Run, RunEnd};
pub use replay::{Answers, Recalled, Replay, changes};
pub use report::{Cause, EndState, Failure, Report, Statistics};
pub use settings::{File, Limits, Settings};

use crate::code::Code;
use crate::engine::{Engine, Interpreted};
use crate::map::Range;
use crate::object::Object;
use crate::types::ExitMode;
use crate::verify::VerifyError;
use arena::Arena;
use chance::Chance;
use effects::{Ids, Kept};
use memory::Used;
use runner::{Ground, Ran, Runner};
use store::{Conflict, Prepared, Store, Timestamp};
use watch::Watchers;

/// A program and everything it did so far.
#[derive(Debug)]
pub struct Machine<'a> {
    object: &'a Object,
    code: Code,
    settings: Settings,
    engine: &'a dyn Engine,
    chance: Chance,
    store: Store,
    arena: Arena,
    watchers: Watchers,
    ids: Ids,
    ready: Vec<Runner>,
    ran: Vec<Ran>,
    prepared: Vec<(Ran, Prepared)>,
    report: Report,
    recording: Option<Recording>,
}

/// What can happen next.
#[derive(Clone, Copy, Debug)]
enum Event {
    Run,
    Prepare,
    Commit,
}

impl<'a> Machine<'a> {
    /// A machine in which the program's first runner is ready.
    ///
    /// # Errors
    /// The text does not pass the verifier.
    pub fn new(object: &'a Object, settings: Settings) -> Result<Self, VerifyError> {
        let mut store = Store::new(object.rules);
        settings.first_pages(object).into_iter().for_each(|(page, contents)| store.place_page(page, contents));
        Ok(Self {
            object,
            code: Code::verified(&object.text)?,
            chance: Chance::new(settings.seed),
            settings,
            engine: &Interpreted,
            store,
            arena: Arena::default(),
            watchers: Watchers::default(),
            ids: Ids { next: 1, step: 1 },
            ready: vec![Runner::main(object.entry)],
            ran: Vec::new(),
            prepared: Vec::new(),
            report: Report::default(),
            recording: None,
        })
    }

    /// Has runners run by another engine. What comes of it is the same.
    #[must_use]
    pub fn with_engine(self, engine: &'a dyn Engine) -> Self {
        Self { engine, ..self }
    }

    /// Runs the program to its end.
    pub fn run(&mut self) -> &Report {
        while self.step() {}
        self.report.is_cut = !self.ready.is_empty();
        self.report.armed = self.watchers.armed().collect();
        &self.report
    }

    /// Lets one thing happen; `false`: nothing can, and [`Self::run`] gives the report.
    pub fn step(&mut self) -> bool {
        match self.next_event() {
            Some(Event::Run) => self.start(),
            Some(Event::Prepare) => self.prepare(),
            Some(Event::Commit) => self.commit(),
            None => return false,
        }
        true
    }

    /// A quad of committed memory.
    #[must_use]
    pub fn quad(&self, address: u64) -> u64 {
        let mut bytes = [0; 8];
        for (page, offset, part) in memory::parts(Range::new(address, 8)) {
            self.store.at(page, self.store.newest()).read(offset, &mut bytes[part]);
        }
        u64::from_le_bytes(bytes)
    }

    /// Versions of pages that are kept.
    #[must_use]
    pub fn versions(&self) -> usize {
        self.store.versions()
    }

    fn next_event(&mut self) -> Option<Event> {
        let is_free = self.ran.len() + self.prepared.len() < self.settings.slots.max(1);
        let may_start = is_free && self.report.statistics.starts < self.settings.starts_max;
        let possible = [
            (Event::Run, may_start && !self.ready.is_empty()),
            (Event::Prepare, !self.ran.is_empty()),
            (Event::Commit, !self.prepared.is_empty()),
        ];
        let count = possible.iter().filter(|(_, is_possible)| *is_possible).count();
        let chosen = if count == 0 { return None } else { self.chance.below(count) };
        possible.iter().filter(|(_, is_possible)| *is_possible).nth(chosen).map(|(event, _)| *event)
    }

    fn start(&mut self) {
        let chosen = self.chance.below(self.ready.len());
        let mut runner = self.ready.swap_remove(chosen);
        runner.tries += 1;
        let ground = Ground {
            object: self.object,
            code: &self.code,
            settings: &self.settings,
            engine: self.engine,
            epoch: self.store.newest(),
            shared: (&self.store, self.store.newest()),
            arena: &mut self.arena,
            ids: &mut self.ids,
        };
        let mut ran = runner::run(runner, ground);
        self.note_start(&mut ran);
        self.report.statistics.starts += 1;
        self.report.statistics.instructions += ran.fuel_used;
        self.ran.push(ran);
    }

    /// Ends a run that does not commit; of one that does, locks what it changed.
    fn prepare(&mut self) {
        let chosen = self.chance.below(self.ran.len());
        let mut ran = self.ran.swap_remove(chosen);
        if self.settings.losses_percent > 0 && self.chance.below(100) < self.settings.losses_percent as usize {
            self.report.statistics.lost += 1;
            self.note_end(&ran, RunEnd::Lost);
            self.undo(ran.kept);
            ran.runner.tries -= 1;
            self.ready.push(ran.runner);
            return;
        }
        match ran.end {
            Ok(mode) if mode.commits() => self.lock(ran, mode),
            Ok(_) => self.end(ran, EndState::Aborted),
            Err(trap) => {
                self.fail(&ran, Cause::Trap(trap.kind));
                self.end(ran, EndState::Trapped(trap.kind));
            }
        }
    }

    fn lock(&mut self, mut ran: Ran, mode: ExitMode) {
        let freed_before = ran.kept.freed.iter().find(|base| !self.arena.has(**base)).copied();
        if let Some(address) = freed_before {
            return self.conflict(ran, mode, Conflict { address, winner: None });
        }
        let used = std::mem::take(&mut ran.used);
        match self.store.prepare(ran.epoch, used) {
            Ok(prepared) => {
                ran.kept.retired = ran.kept.freed.iter().filter_map(|base| self.arena.retire(*base)).collect();
                self.prepared.push((ran, prepared));
            }
            Err(conflict) => self.conflict(ran, mode, conflict),
        }
    }

    fn conflict(&mut self, ran: Ran, mode: ExitMode, conflict: Conflict) {
        self.report.statistics.conflicts += 1;
        self.note_end(&ran, RunEnd::Conflict { address: conflict.address, winner: conflict.winner });
        if mode == ExitMode::CommitOnce || ran.runner.tries > u64::from(self.settings.conflicts_max) {
            self.fail(&ran, Cause::Conflict(conflict));
            self.end(ran, EndState::Failed);
        } else {
            self.undo(ran.kept);
            self.ready.push(ran.runner);
        }
    }

    fn undo(&mut self, kept: Kept) {
        kept.taken.into_iter().for_each(|range| self.arena.give_back(range));
    }

    fn fail(&mut self, ran: &Ran, cause: Cause) {
        let (file, line) = self.object.line_of(ran.last);
        let failure = Failure { id: ran.runner.id, cause, pc: ran.pc, file: file.into(), line };
        self.report.failures.push(failure);
    }

    /// The oldest snapshot that can still be asked for.
    fn oldest(&self, epoch: Timestamp) -> Timestamp {
        let live = self.ran.iter().chain(self.prepared.iter().map(|(ran, _)| ran));
        live.map(|ran| ran.epoch).fold(epoch, Timestamp::min)
    }

    /// Publishes how a runner ended without a commit of its own.
    fn end(&mut self, mut ran: Ran, state: EndState) {
        match state {
            EndState::Aborted => self.note_end(&ran, RunEnd::Aborted),
            EndState::Trapped(kind) => self.note_end(&ran, RunEnd::Trapped(kind.code())),
            EndState::Committed | EndState::Failed => {}
        }
        self.undo(std::mem::take(&mut ran.kept));
        let nothing = self.store.prepare(ran.epoch, Used::default()).expect("nothing conflicts with nothing");
        self.publish(&ran, nothing, state);
        let keeps_watching = matches!(ran.end, Ok(ExitMode::Abort)) && state == EndState::Aborted;
        self.settle(&ran, keeps_watching);
    }

    fn publish(&mut self, ran: &Ran, prepared: Prepared, state: EndState) -> Timestamp {
        let line = self.object.line_of(ran.last).1;
        let words = report::exit_code(ran.runner.id, state, ran.pc, line, ran.runner.tries);
        let oldest = self.oldest(ran.epoch);
        let (at, changes) = self.store.commit(prepared, &words, ran.runner.id, oldest);
        self.report.statistics.count(state);
        self.note_commit(at, ran.runner.id, &changes);
        let fired = self.watchers.notify(&changes);
        self.fired(fired);
        at
    }

    /// What becomes of the watcher whose instance has ended, if it was one.
    fn settle(&mut self, ran: &Ran, keeps_watching: bool) {
        let id = ran.runner.id;
        if keeps_watching {
            let fired = self.watchers.arm(id, ran.epoch, &self.store);
            self.fired(fired);
        } else {
            self.watchers.remove(id);
        }
    }

    fn fired(&mut self, instances: impl IntoIterator<Item = Runner>) {
        for instance in instances {
            self.report.statistics.fired += 1;
            self.ready.push(instance);
        }
    }

    /// Commits: memory, exit code, output and children are there at one timestamp.
    fn commit(&mut self) {
        let chosen = self.chance.below(self.prepared.len());
        let (mut ran, prepared) = self.prepared.swap_remove(chosen);
        let kept = std::mem::take(&mut ran.kept);
        let at = self.publish(&ran, prepared, EndState::Committed);
        self.note_end(&ran, RunEnd::Committed(at.0));
        self.report.output.extend(kept.output);
        self.report.log.extend(kept.log);
        kept.taken.into_iter().for_each(|range| self.arena.keep(range));
        kept.retired.into_iter().for_each(|range| self.arena.give_back(range));
        let deletes = ran.end == Ok(ExitMode::CommitDelete);
        self.settle(&ran, !deletes && self.watchers.is_persistent(ran.runner.id));
        for (born, spawn) in kept.children {
            let parent = ran.runner.id;
            let (heap, watched) = (spawn.heap, spawn.watched);
            let child = Runner { id: born.id, parent, first: spawn.first, stack: born.stack, heap, watched, tries: 0 };
            self.report.statistics.made += 1;
            if child.watched.is_empty() {
                self.ready.push(child);
            } else {
                let fired = self.watchers.add(child, spawn.is_persistent, ran.epoch, at, &self.store);
                self.fired(fired);
            }
        }
    }
}

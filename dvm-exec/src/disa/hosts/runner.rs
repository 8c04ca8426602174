//! A runner process: runs one runner after the other on pages that its husk gives it.
//!
//! Owns nothing but the run at hand: an error here costs this process. Must not know hosts, versions or other runners.

use super::super::engine;
use super::frames;
use dvm_disa::code::Code;
use dvm_disa::engine::Engine;
use dvm_disa::interpreter::{Interpreter, Outcome};
use dvm_disa::machine::Settings;
use dvm_disa::machine::arena::Arena;
use dvm_disa::machine::effects::{Ids, Kept, RunnerEffects};
use dvm_disa::machine::memory::{RunnerMemory, Snapshot, Used};
use dvm_disa::machine::page::Page;
use dvm_disa::machine::runner::{Runner, describe};
use dvm_disa::machine::store::Timestamp;
use dvm_disa::map::Range;
use dvm_disa::memory::{Born, Effects, Spawn};
use dvm_disa::object::Object;
use dvm_disa::trap::{Trap, TrapKind};
use dvm_disa::types::ExitMode;
use dvm_runners::Delta;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::io::{BufReader, BufWriter, Error, ErrorKind, Stdin, Stdout};

/// The word after `disa` that makes this process one.
pub const NAME: &str = "runner-process";

/// From the husk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum ToRunner {
    /// First: the program as an ELF file, and settings without files.
    Program(Vec<u8>, Settings),
    /// Run this one on this snapshot; runners it makes have these numbers: the next, and the step.
    Run(Runner, Timestamp, [u64; 2]),
    /// The page asked for: all words that are not zero.
    Page(Delta),
    /// The memory allocated, or the file opened.
    Range(Option<Range>),
    /// Whether memory was given back.
    Freed(bool),
}

/// To the husk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum FromRunner {
    /// A page of the snapshot.
    Page(u64),
    /// Memory to allocate.
    Allocate(u64),
    /// Whether committed memory begins there.
    IsAllocated(u64),
    /// Memory that is given back by who allocated it.
    GiveBack(Range),
    /// A file.
    Open(Vec<u8>),
    /// The run is over.
    Done(Box<Done>),
}

/// A run that is over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    /// Its mode of exit, or why it died.
    pub end: Result<ExitMode, Trap>,
    /// Where it ended.
    pub pc: u64,
    /// Its last instruction.
    pub last: u64,
    /// Instructions.
    pub fuel_used: u64,
    /// Words changed.
    pub changed: Vec<Delta>,
    /// Pages used.
    pub read: Vec<u64>,
    /// Runners made.
    pub children: Vec<(Born, Spawn)>,
    /// Output.
    pub output: Vec<u8>,
    /// Log.
    pub log: Vec<u8>,
    /// Memory allocated.
    pub taken: Vec<Range>,
    /// Memory given back.
    pub freed: Vec<u64>,
    /// The next number of a runner made.
    pub next_id: u64,
}

/// The pipes to the husk. A husk that is gone ends this process.
#[derive(Debug)]
struct Husk {
    from: BufReader<Stdin>,
    to: BufWriter<Stdout>,
}

impl Husk {
    fn ask(&mut self, question: &FromRunner) -> ToRunner {
        let answer = frames::write(&mut self.to, question).and_then(|()| frames::read(&mut self.from));
        match answer {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(_) => std::process::exit(0),
        }
    }
}

/// Shared memory, page by page from the husk.
struct Pages<'a>(&'a RefCell<Husk>);

impl Snapshot for Pages<'_> {
    fn page(&mut self, page: u64) -> Page {
        match self.0.borrow_mut().ask(&FromRunner::Page(page)) {
            ToRunner::Page(delta) => delta.to_page(),
            _ => std::process::exit(1),
        }
    }
}

/// Effects of which the husk has those that concern others.
struct Remote<'a> {
    own: RunnerEffects<'a>,
    husk: &'a RefCell<Husk>,
}

impl Remote<'_> {
    fn range(&self, question: &FromRunner) -> Option<Range> {
        match self.husk.borrow_mut().ask(question) {
            ToRunner::Range(range) => range,
            _ => std::process::exit(1),
        }
    }

    fn is_true(&self, question: &FromRunner) -> bool {
        matches!(self.husk.borrow_mut().ask(question), ToRunner::Freed(true))
    }
}

impl Effects for Remote<'_> {
    fn spawn(&mut self, spawn: Spawn) -> Result<Born, TrapKind> {
        self.own.spawn(spawn)
    }

    fn print(&mut self, bytes: &[u8]) -> Result<(), TrapKind> {
        self.own.print(bytes)
    }

    fn log(&mut self, bytes: &[u8]) -> Result<(), TrapKind> {
        self.own.log(bytes)
    }

    fn input(&mut self, offset: u64, bytes: &mut [u8]) -> usize {
        self.own.input(offset, bytes)
    }

    fn open(&mut self, name: &[u8]) -> Option<Range> {
        self.range(&FromRunner::Open(name.to_vec()))
    }

    fn allocate(&mut self, bytes: u64) -> Option<Range> {
        let range = self.range(&FromRunner::Allocate(bytes))?;
        self.own.kept.taken.push(range);
        Some(range)
    }

    fn free(&mut self, base: u64) -> bool {
        let kept = &mut self.own.kept;
        if let Some(index) = kept.taken.iter().position(|range| range.base == base) {
            let range = kept.taken.swap_remove(index);
            return self.is_true(&FromRunner::GiveBack(range));
        }
        let is_live = !self.own.kept.freed.contains(&base) && self.is_true(&FromRunner::IsAllocated(base));
        if is_live {
            self.own.kept.freed.push(base);
        }
        is_live
    }

    fn time(&mut self) -> u64 {
        self.own.time()
    }

    fn random(&mut self) -> u64 {
        self.own.random()
    }

    fn argument(&mut self, index: u64) -> Option<&[u8]> {
        self.own.argument(index)
    }

    fn touch(&mut self, range: Range) {
        self.own.touch(range);
    }

    fn breakpoint(&mut self, pc: u64) {
        self.own.breakpoint(pc);
    }
}

/// Runs runners until the husk ends.
pub fn main() -> Result<(), Error> {
    let refused = |reason: String| Error::new(ErrorKind::InvalidData, reason);
    let husk = RefCell::new(Husk { from: BufReader::new(std::io::stdin()), to: BufWriter::new(std::io::stdout()) });
    let first = frames::read(&mut husk.borrow_mut().from)?;
    let Some(ToRunner::Program(bytes, settings)) = first else { return Ok(()) };
    let object = dvm_disa::elf::read(&bytes).map_err(|error| refused(error.to_string()))?;
    let code = Code::verified(&object.text).map_err(|error| refused(error.to_string()))?;
    let engine = engine::of(&object, settings.tier).map_err(|error| refused(error.to_string()))?;
    loop {
        let next = frames::read(&mut husk.borrow_mut().from)?;
        let Some(ToRunner::Run(runner, epoch, [next, step])) = next else { return Ok(()) };
        let done = run(&runner, epoch, Ids { next, step }, (&object, &code, &settings), &*engine, &husk);
        frames::write(&mut husk.borrow_mut().to, &FromRunner::Done(Box::new(done)))?;
    }
}

fn run(
    runner: &Runner,
    epoch: Timestamp,
    mut ids: Ids,
    (object, code, settings): (&Object, &Code, &Settings),
    engine: &dyn Engine,
    husk: &RefCell<Husk>,
) -> Done {
    let mut unused = Arena::default();
    let memory = RunnerMemory::new(Pages(husk), [&object.text, &object.rodata], runner.grants(), settings.limits.pages);
    let time_ns = settings.time_ns.wrapping_add(epoch.0);
    let own = RunnerEffects::new(settings, &mut unused, &mut ids, runner.id, time_ns);
    let mut interpreter = Interpreter::new(code, runner.first, settings.limits.fuel, memory, Remote { own, husk });
    let outcome = match describe(runner, &mut interpreter.memory) {
        Ok(()) => engine.run(&mut interpreter),
        Err(kind) => Outcome::Trap(Trap { kind, pc: runner.first }),
    };
    let (pc, last, fuel_used) = (interpreter.pc(), interpreter.last(), interpreter.fuel_used());
    let (end, used) = match outcome {
        Outcome::Exit(mode, _) if !mode.commits() => (Ok(mode), Used::default()),
        Outcome::Exit(mode, pc) => match interpreter.memory.finish() {
            Ok(used) => (Ok(mode), used),
            Err(kind) => (Err(Trap { kind, pc }), Used::default()),
        },
        Outcome::Trap(trap) => (Err(trap), Used::default()),
    };
    let Kept { children, output, log, taken, freed, .. } = interpreter.effects.own.kept;
    let changed = used.changed.iter().map(|(page, (words, left))| Delta::of(*page, *words, left)).collect();
    Done { end, pc, last, fuel_used, changed, read: used.read, children, output, log, taken, freed, next_id: ids.next }
}

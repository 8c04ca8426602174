//! One run of one runner: a function of text, descriptor and snapshot.
//!
//! Owns the descriptor and what a run leaves. Must not know what becomes of it.

use super::arena::Pool;
use super::effects::{Ids, Kept, RunnerEffects, page_of};
use super::memory::{RunnerMemory, Snapshot, Used};
use super::ranges::Grants;
use super::settings::Settings;
use super::store::Timestamp;
use crate::code::Code;
use crate::engine::Engine;
use crate::interpreter::{Interpreter, Outcome};
use crate::map::{self, Range, cell};
use crate::memory::Memory;
use crate::object::Object;
use crate::trap::Trap;
use crate::types::ExitMode;
use serde::{Deserialize, Serialize};

/// What is known of a runner before it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runner {
    /// Its number.
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
    /// Times it was started.
    pub tries: u64,
}

impl Runner {
    /// The first of a program.
    #[must_use]
    pub fn main(entry: u64) -> Self {
        let stack = Range::new(map::STACKS.base, map::STACK_BYTES);
        Self { id: 0, parent: 0, first: entry, stack, heap: vec![map::SHARED_DATA], watched: Vec::new(), tries: 0 }
    }

    /// What it may use of shared memory.
    #[must_use]
    pub fn grants(&self) -> Grants {
        let mut grants = Grants::default();
        let exit_code = page_of(map::EXIT_CODES, self.id);
        self.heap.iter().chain(&self.watched).chain([&self.stack]).chain(&exit_code).for_each(|range| grants.insert(*range));
        grants
    }
}

/// A runner that has run, and nobody knows yet.
#[derive(Debug)]
pub struct Ran {
    /// Who.
    pub runner: Runner,
    /// Its snapshot.
    pub epoch: Timestamp,
    /// Its mode of exit, or why it died.
    pub end: Result<ExitMode, Trap>,
    /// Where it ended.
    pub pc: u64,
    /// Its last instruction.
    pub last: u64,
    /// Pages it used.
    pub used: Used,
    /// What else becomes true when it commits.
    pub kept: Kept,
    /// Instructions it took.
    pub fuel_used: u64,
    /// Which run of the recording this is.
    pub record: usize,
}

/// What every run of a machine needs.
#[derive(Debug)]
pub struct Ground<'a, S, P> {
    /// The program.
    pub object: &'a Object,
    /// Its text.
    pub code: &'a Code,
    /// Limits, input, arguments.
    pub settings: &'a Settings,
    /// What runs it.
    pub engine: &'a dyn Engine,
    /// Its snapshot.
    pub epoch: Timestamp,
    /// Shared memory as the snapshot shows it.
    pub shared: S,
    /// Memory to be allocated.
    pub arena: P,
    /// The numbers of runners made.
    pub ids: &'a mut Ids,
}

/// Runs it to its end.
pub fn run<S: Snapshot, P: Pool>(runner: Runner, ground: Ground<'_, S, P>) -> Ran {
    let Ground { object, code, settings, engine, epoch, shared, arena, ids } = ground;
    let time_ns = settings.time_ns.wrapping_add(epoch.0);
    let memory = RunnerMemory::new(shared, [&object.text, &object.rodata], runner.grants(), settings.limits.pages);
    let effects = RunnerEffects::new(settings, arena, ids, runner.id, time_ns);
    let mut interpreter = Interpreter::new(code, runner.first, settings.limits.fuel, memory, effects);
    let outcome = match describe(&runner, &mut interpreter.memory) {
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
    Ran { runner, epoch, end, pc, last, used, kept: interpreter.effects.kept, fuel_used, record: 0 }
}

/// Fills the system page.
///
/// # Errors
/// MEM: not even that page is allowed.
pub fn describe(runner: &Runner, memory: &mut impl Memory) -> Result<(), crate::trap::TrapKind> {
    let Range { base, bytes } = runner.stack;
    for (cell, value) in [
        (cell::STACK, base),
        (cell::STACK_SIZE, bytes),
        (cell::ARGUMENTS, base + bytes - map::ARGUMENT_BYTES),
        (cell::SELF, runner.id),
        (cell::PARENT, runner.parent),
        (cell::INSTANCE, u64::from(!runner.watched.is_empty())),
    ] {
        memory.store(cell, 8, value)?;
    }
    Ok(())
}

//! What the engines of this project make of a program, in the words of the reference model's driver.
//!
//! Owns the translation: the model's instructions all have 16 bytes, and a few of its traps have other names. Must not judge.

use anyhow::{Context, Result};
use dvm_disa::code::Code;
use dvm_disa::engine::Engine;
use dvm_disa::interpreter::{Interpreter, Outcome};
use dvm_disa::machine::arena::Arena;
use dvm_disa::machine::effects::{Ids, RunnerEffects};
use dvm_disa::machine::memory::RunnerMemory;
use dvm_disa::machine::runner::{Runner, describe};
use dvm_disa::machine::store::Store;
use dvm_disa::machine::{Cause, Failure, Machine, Settings};
use dvm_disa::map::{self, PAGE_BYTES, Range, WORD_BYTES, cell};
use dvm_disa::memory::{Born, Memory, Spawn};
use dvm_disa::object::Object;
use dvm_disa::trap::TrapKind;
use dvm_disa::types::ExitMode;

const MODEL_INSTRUCTION_BYTES: u64 = 16;

/// A program made ready.
pub struct Program {
    object: Object,
    code: Code,
}

/// What became of a runner, and how that was found out.
pub struct Seen {
    /// In the driver's words.
    pub text: String,
    /// The trap, if one ended it.
    pub trap: Option<TrapKind>,
}

impl Program {
    /// An assembled program.
    ///
    /// # Errors
    /// Its text is not valid.
    pub fn new(object: Object) -> Result<Self> {
        let code = Code::verified(&object.text).context("the assembler verified it")?;
        Ok(Self { object, code })
    }

    /// Its text.
    pub fn text(&self) -> &[u8] {
        &self.object.text
    }

    /// The first runner, up to its end; of its memory, these pages.
    ///
    /// # Errors
    /// The runner cannot even begin.
    pub fn alone(&self, engine: &dyn Engine, fuel: u64, pages: &[u64]) -> Result<Seen> {
        let mut store = Store::new(self.object.rules);
        self.object.data.iter().for_each(|segment| store.place(segment.range(), &segment.bytes));
        let (settings, runner) = (Settings::default(), Runner::main(self.object.entry));
        let constants = [&self.object.text[..], &self.object.rodata[..]];
        let memory = RunnerMemory::new((&store, store.newest()), constants, runner.grants(), settings.limits.pages);
        let (mut arena, mut ids) = (Arena::default(), Ids { next: 1, step: 1 });
        let effects = RunnerEffects::new(&settings, &mut arena, &mut ids, runner.id, 0);
        let mut processor = Interpreter::new(&self.code, runner.first, fuel, memory, effects);
        describe(&runner, &mut processor.memory).map_err(|kind| anyhow::anyhow!("no room for a runner: {kind}"))?;
        let outcome = engine.run(&mut processor);
        let (end, trap) = match outcome {
            Outcome::Exit(mode, _) => (exit(mode).to_owned(), None),
            Outcome::Trap(trap) => (self.trap(trap.kind), Some(trap.kind)),
        };
        let fuel_used = processor.fuel_used();
        let mut lines = vec![format!("end {end}"), format!("pc {:x}", self.plain(processor.pc())), format!("fuel {fuel_used}")];
        if trap != Some(TrapKind::Fuel) {
            lines.push(format!("line {}", self.object.line_of(processor.last()).1));
        }
        let output = if trap.is_some() { &[] } else { &processor.effects.kept.output[..] };
        let hex = output.iter().filter(|byte| **byte != b'\n').map(|byte| format!("{byte:02x}"));
        lines.push(format!("out {}", hex.collect::<String>()));
        lines.extend(processor.effects.kept.children.iter().map(|(born, spawn)| self.child(born, spawn)));
        let window = *processor.window();
        for page in pages {
            self.show(&mut lines, *page, |address| match map::window_slot(address) {
                Some(slot) => window[usize::from(slot)],
                None => processor.memory.load(address, 8).unwrap_or(0),
            });
        }
        Ok(Seen { text: lines.join("\n"), trap })
    }

    /// The program to its end; of what is left, these pages.
    ///
    /// # Errors
    /// Its text is not valid.
    pub fn whole(&self, engine: &dyn Engine, settings: Settings, pages: &[u64]) -> Result<String> {
        let mut machine = Machine::new(&self.object, settings)?.with_engine(engine);
        let report = machine.run().clone();
        let figures = report.statistics;
        let mut lines = vec![format!("watchers {}", report.armed.len())];
        lines.push(format!(
            "committed {} aborted {} trapped {} failed {} fired {}",
            figures.committed, figures.aborted, figures.trapped, figures.failed, figures.fired
        ));
        let mut ends: Vec<String> = report.failures.iter().map(|failure| self.failure(failure)).collect();
        ends.sort();
        lines.extend(ends);
        lines.extend(String::from_utf8_lossy(&report.output).lines().map(|line| format!("out {line}")));
        for page in pages {
            self.show(&mut lines, *page, |address| machine.quad(address));
        }
        Ok(lines.join("\n"))
    }

    fn show(&self, lines: &mut Vec<String>, page: u64, mut quad: impl FnMut(u64) -> u64) {
        let base = page * PAGE_BYTES;
        // Cells of which the model knows nothing.
        let known = (base..base + PAGE_BYTES)
            .step_by(WORD_BYTES as usize)
            .filter(|address| ![cell::PARENT, cell::INSTANCE].contains(address));
        for address in known {
            let value = self.plain(quad(address));
            if value != 0 {
                lines.push(format!("m {address:x} {value:x}"));
            }
        }
    }

    /// The address of an instruction as the model has it; every other number as it is.
    fn plain(&self, value: u64) -> u64 {
        let offset = value.wrapping_sub(map::TX.base);
        if offset > self.object.text.len() as u64 {
            return value;
        }
        let is_end = offset == self.object.text.len() as u64;
        let index = if is_end { self.code.len() as u64 } else { u64::from(self.code.index(value)) };
        if index > self.code.len() as u64 { value } else { map::TX.base + MODEL_INSTRUCTION_BYTES * index }
    }

    fn trap(&self, kind: TrapKind) -> String {
        match kind {
            TrapKind::Pc(address) => format!("PC 0x{:x}", self.plain(address)),
            TrapKind::Store => "STORE to immediate".into(),
            TrapKind::NRanges(0) => "NEWW without ranges".into(),
            TrapKind::RangeList { base, bytes } => format!("RANGE list 0x{base:x}+0x{bytes:x}"),
            TrapKind::Illegal
            | TrapKind::Addr(_)
            | TrapKind::Range(_)
            | TrapKind::RangeAtExit(_)
            | TrapKind::Text(_)
            | TrapKind::Window(_)
            | TrapKind::Div0
            | TrapKind::DivOvf
            | TrapKind::NRanges(_)
            | TrapKind::Sys(_)
            | TrapKind::Fuel
            | TrapKind::Mem
            | TrapKind::User(_) => kind.to_string(),
        }
    }

    fn failure(&self, failure: &Failure) -> String {
        match failure.cause {
            Cause::Trap(kind) => format!("end line {}: {}", failure.line, self.trap(kind)),
            Cause::Conflict(_) => "end conflict".into(),
        }
    }

    fn child(&self, born: &Born, spawn: &Spawn) -> String {
        let kind = if spawn.is_persistent { 'w' } else { 'r' };
        let show = |ranges: &[Range]| ranges.iter().map(|r| format!("{:x}+{:x}", r.base, r.bytes)).collect::<Vec<_>>().join(" ");
        let (stack, heap, watched) = (show(&[born.stack]), show(&spawn.heap), show(&spawn.watched));
        format!("kid {kind} {} {:x} stack {stack} heap {heap} watched {watched}", born.id, self.plain(spawn.first))
    }
}

const fn exit(mode: ExitMode) -> &'static str {
    match mode {
        ExitMode::Commit => "c",
        ExitMode::Abort => "a",
        ExitMode::CommitDelete => "cd",
        ExitMode::AbortDelete => "ad",
        ExitMode::CommitOnce => "c1",
    }
}

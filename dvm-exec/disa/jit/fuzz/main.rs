//! Runs programs by chance instruction by instruction, on the interpreter in one go, and as machine code, and compares every word.
//!
//! Owns the comparison, and shrinking what differs. Must not know either engine's inside.

mod memory;
mod program;

use anyhow::{Context, Result, bail};
use dvm_disa::code::Code;
use dvm_disa::engine::{Engine, Interpreted, Position, Processor};
use dvm_disa::interpreter::{Interpreter, Outcome};
use dvm_disa::trap::Trap;
use dvm_disa::{listing, map, object::Object};
use dvm_jit::Jit;
use memory::{Asked, Pages};
use program::{Chance, Line, program, text};
use std::collections::BTreeMap;

/// Most instructions of a run.
const FUEL: u64 = 600;
/// Amounts of fuel that a program is run with beside the most.
const FUELS: u64 = 6;
/// Programs after which the translator begins anew.
const PROGRAMS_PER_JIT: u64 = 200;

/// The engine that all others are held against: one instruction after the other, with nothing made ready.
#[derive(Debug)]
struct Stepped;

impl Engine for Stepped {
    fn run(&self, processor: &mut dyn Processor) -> Outcome {
        loop {
            let pc = processor.position().pc;
            match processor.step() {
                Ok(None) => {}
                Ok(Some(mode)) => return Outcome::Exit(mode, pc),
                Err(kind) => return Outcome::Trap(Trap { kind, pc }),
            }
        }
    }
}

/// How a run ended, with all that is seen of it.
#[derive(Debug, PartialEq)]
struct End {
    outcome: Outcome,
    position: Position,
    window: [u64; map::WINDOW_SLOTS],
    memory: BTreeMap<u64, Vec<u8>>,
    asked: Vec<String>,
}

fn run(engine: &dyn Engine, text: &[u8], code: &Code, fuel: u64, pages: usize) -> End {
    let mut processor = Interpreter::new(code, map::TX.base, fuel, Pages::new(text, pages), Asked::default());
    let outcome = engine.run(&mut processor);
    let (position, window) = (processor.position(), *processor.window());
    let mut memory = processor.memory.contents();
    if !matches!(outcome, Outcome::Exit(..)) {
        // A page that a dead runner was about to look at does not count: nobody sees it.
        memory.retain(|_, bytes| bytes.iter().any(|byte| *byte != 0));
    }
    End { outcome, position, window, memory, asked: processor.effects.0 }
}

/// Whether the engines differ on a text; the fuel and the pages with which they do.
fn differs(jit: &Jit, text: &[u8], chance: &mut Chance) -> Result<Option<String>> {
    let code = Code::verified(text).context("the program was made valid")?;
    let translation = jit.load(text).context("the program was made valid")?;
    let all = run(&Stepped, text, &code, FUEL, 16);
    let used = all.position.fuel_used;
    let mut cases = vec![(FUEL, 16), (FUEL, 1 + chance.below(3) as usize)];
    cases.extend((0..FUELS).map(|_| (chance.below(used.clamp(1, FUEL) + 1), 16)));
    for (fuel, pages) in cases {
        let expected = run(&Stepped, text, &code, fuel, pages);
        for (name, engine) in [("interpreter", &Interpreted as &dyn Engine), ("machine code", &*translation)] {
            let found = run(engine, text, &code, fuel, pages);
            if !is_same(&expected, &found) {
                let (expected, found) = (show(&expected), show(&found));
                return Ok(Some(format!("{name}, fuel {fuel} pages {pages}\nexpected {expected}\nfound    {found}")));
            }
        }
    }
    Ok(None)
}

/// Shared pages that were never stored to may be there or not.
fn is_same(expected: &End, found: &End) -> bool {
    let same_but_memory = expected.outcome == found.outcome
        && expected.position == found.position
        && expected.window == found.window
        && expected.asked == found.asked;
    let is_dead = !matches!(expected.outcome, Outcome::Exit(..));
    let agree = |one: &End, other: &End| {
        one.memory
            .iter()
            .all(|(page, bytes)| other.memory.get(page).map_or(is_dead && is_first(*page, bytes), |same| same == bytes))
    };
    same_but_memory && agree(expected, found) && agree(found, expected)
}

fn is_first(page: u64, bytes: &[u8]) -> bool {
    map::SR.contains(page * map::PAGE_BYTES) && bytes.iter().enumerate().all(|(offset, byte)| *byte == (offset * 7 % 251) as u8)
}

fn show(end: &End) -> String {
    let slots: Vec<String> = end
        .window
        .iter()
        .enumerate()
        .filter(|(_, value)| **value != 0)
        .map(|(slot, value)| format!("w{slot}={value:x}"))
        .collect();
    format!("{:x?} {:x?} {} pages {:x?} {:?}", end.outcome, end.position, slots.join(" "), end.memory.keys(), end.asked)
}

/// Leaves out what is not needed to differ.
fn shrink(lines: Vec<Line>, seed: u64) -> Result<Vec<Line>> {
    let jit = Jit::after(0)?;
    let mut best = lines;
    let mut at = 0;
    while at < best.len() {
        let mut fewer = best.clone();
        program::remove(&mut fewer, at);
        if !fewer.is_empty()
            && (0..4).any(|more| matches!(differs(&jit, &text(&fewer), &mut Chance::new(seed + more)), Ok(Some(_))))
        {
            best = fewer;
        } else {
            at += 1;
        }
    }
    Ok(best)
}

fn main() -> Result<()> {
    let arguments: Vec<u64> =
        std::env::args().skip(1).map(|word| word.parse().context("usage: disa-fuzz START COUNT")).collect::<Result<_>>()?;
    let [start, count] = arguments[..] else { bail!("usage: disa-fuzz START COUNT") };
    let mut jit = Jit::after(0)?;
    let mut units = 0;
    for seed in start..start + count {
        if seed % PROGRAMS_PER_JIT == 0 {
            jit = Jit::after(0)?;
        }
        let mut chance = Chance::new(seed);
        let lines = program(&mut chance);
        let bytes = text(&lines);
        if differs(&jit, &bytes, &mut chance)?.is_some() {
            let small = text(&shrink(lines, seed)?);
            let why = (0..8).find_map(|more| differs(&Jit::after(0).ok()?, &small, &mut Chance::new(seed + more)).ok()?);
            let object = Object { text: small, ..Object::default() };
            bail!("seed {seed} differs: {}\n{}", why.unwrap_or_default(), listing::listing(&object)?);
        }
        units += jit.load(&bytes)?.units();
    }
    println!("{count} programs from seed {start}: {units} units of machine code, no difference");
    Ok(())
}

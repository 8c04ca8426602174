//! One text, and what of it is translated.
//!
//! Owns the counts that say what is hot, and the turns that interpreter and machine code take. Must not know either's inside.

use crate::compiler::Compiler;
use crate::limits::{FUEL_PER_SURRENDER_MIN, SURRENDERS_MAX};
use crate::sys::{Left, Regions, State, Unit, enter};
use dvm_disa::code::Code;
use dvm_disa::engine::{Engine, Interpreted, Processor};
use dvm_disa::interpreter::Outcome;
use dvm_disa::trap::Trap;
use dvm_disa::verify::VerifyError;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

/// A place where a unit may begin.
#[derive(Debug, Default)]
struct Head {
    arrivals: AtomicU32,
    unit: OnceLock<Option<Unit>>,
}

/// The engine for one text.
#[derive(Debug)]
pub struct Translation {
    code: Code,
    heads: Vec<Head>,
    compiler: Arc<Compiler>,
    arrivals_before: u32,
}

impl Translation {
    pub(crate) fn new(text: &[u8], compiler: Arc<Compiler>, arrivals_before: u32) -> Result<Self, VerifyError> {
        let code = Code::verified(text)?;
        let heads = (0..code.len()).map(|_| Head::default()).collect();
        Ok(Self { code, heads, compiler, arrivals_before })
    }

    /// How many units there are.
    #[must_use]
    pub fn units(&self) -> usize {
        self.heads.iter().filter(|head| matches!(head.unit.get(), Some(Some(_)))).count()
    }

    /// Counts an arrival at an address; the unit that begins there, once it is hot.
    fn arrive(&self, pc: u64) -> Option<(u32, &Unit)> {
        let index = self.code.index(pc);
        let head = self.heads.get(index as usize)?;
        let unit = match head.unit.get() {
            Some(unit) => unit,
            None if head.arrivals.fetch_add(1, Ordering::Relaxed) < self.arrivals_before => return None,
            None => head.unit.get_or_init(|| self.compiler.unit(&self.code, index)),
        };
        Some((index, unit.as_ref()?))
    }
}

impl Engine for Translation {
    fn run(&self, processor: &mut dyn Processor) -> Outcome {
        let (mut regions, mut generation) = (Regions::default(), processor.generation());
        let mut states: BTreeMap<u32, State> = BTreeMap::new();
        let (mut surrenders, mut fuel_used) = (0, 0);
        let mut found = self.arrive(processor.position().pc);
        loop {
            let Some((index, unit)) = found else {
                let outcome = processor.interpret(&mut |pc| {
                    found = self.arrive(pc);
                    found.is_some()
                });
                match outcome {
                    Some(outcome) => return outcome,
                    None => continue,
                }
            };
            if processor.generation() != generation {
                (regions, generation) = (Regions::default(), processor.generation());
                states.clear();
            }
            let state = states.entry(index).or_insert_with(|| State::new(unit));
            let before = processor.position().fuel_used;
            let left = enter(unit, state, &mut regions, processor);
            let pc = processor.position().pc;
            match left {
                Left::Ended(outcome) => return outcome,
                Left::Jump => found = self.arrive(pc),
                Left::Stale => found = None,
                Left::Surrender => {
                    surrenders += 1;
                    fuel_used += processor.position().fuel_used - before;
                    if surrenders > SURRENDERS_MAX && fuel_used / surrenders < FUEL_PER_SURRENDER_MIN {
                        return Interpreted.run(processor);
                    }
                    match processor.step() {
                        Ok(None) => {}
                        Ok(Some(mode)) => return Outcome::Exit(mode, pc),
                        Err(kind) => return Outcome::Trap(Trap { kind, pc }),
                    }
                    found = None;
                }
            }
        }
    }
}

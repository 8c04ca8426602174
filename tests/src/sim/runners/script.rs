//! What a runner of the simulator does: a function of its number, its generation and what it reads.
//!
//! Owns the choices. Must not know hosts or time; must not look at pages that it does not ask for.

use super::plan::Plan;
use crate::sim::rng::Rng;
use dvm_disa::machine::runner::Runner;
use dvm_disa::map::{self, PAGE_BYTES, Range, WORD_BYTES};
use dvm_disa::memory::Spawn;
use dvm_disa::types::ExitMode;

/// One step.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Reads a word.
    Read(u64),
    /// Stores what was read last, changed by this, to a word.
    Write(u64, u64),
}

/// All of what a runner does.
#[derive(Clone, Debug)]
pub struct Script {
    /// Its accesses.
    pub steps: Vec<Step>,
    /// Runners it makes.
    pub spawns: Vec<Spawn>,
    /// How it ends; `None`: by a trap.
    pub end: Option<ExitMode>,
}

/// The first word of the pages that runners share.
const DATA: u64 = map::SR.base;
/// Where instances of watchers store: nobody watches there.
const SINK: u64 = map::SR.base + (1 << 30);

/// The address of a shared word.
#[must_use]
pub fn word(plan: &Plan, index: u64) -> u64 {
    let index = index % (plan.pages * plan.words);
    // Neighbouring words of a page, and pages of different extents.
    DATA + index / plan.words * (2 << 20) + index % plan.words * WORD_BYTES
}

/// What a runner does. `first` of the runner is its generation.
#[must_use]
pub fn script(plan: &Plan, runner: &Runner) -> Script {
    let mut rng = Rng::new(plan.seed ^ runner.id.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ runner.first);
    let words = plan.pages * plan.words;
    let is_instance = !runner.watched.is_empty();
    let generation = runner.first;
    let mut steps = Vec::new();
    for _ in 0..rng.between(1, 6) {
        let index = rng.below(words);
        steps.push(Step::Read(word(plan, index)));
        let target = rng.below(words);
        if is_instance {
            steps.push(Step::Write(SINK + runner.id % 7 * WORD_BYTES, rng.below(plan.values)));
        } else if rng.chance(600_000) {
            let to = if rng.chance(500_000) { word(plan, index) } else { word(plan, target) };
            steps.push(Step::Write(to, rng.below(plan.values)));
        }
    }
    let count = if generation == 0 {
        plan.children
    } else if generation < plan.depth && !is_instance {
        rng.below(4)
    } else {
        0
    };
    let spawns = (0..count).map(|_| spawn(plan, &mut rng, generation + 1, runner.id)).collect();
    let end = match rng.below(100) {
        _ if generation == 0 => Some(ExitMode::Commit),
        0..8 => Some(ExitMode::Abort),
        8..11 => None,
        11..15 => Some(ExitMode::CommitOnce),
        15..20 => Some(ExitMode::CommitDelete),
        20..35 if is_instance => Some(ExitMode::Abort),
        _ => Some(ExitMode::Commit),
    };
    Script { steps, spawns, end }
}

fn spawn(plan: &Plan, rng: &mut Rng, generation: u64, parent: u64) -> Spawn {
    let is_watcher = rng.chance(plan.watchers);
    let watched = (0..if is_watcher { rng.between(1, 2) } else { 0 }).map(|_| {
        if rng.chance(150_000) {
            // How the creator ends.
            return Range::new(map::EXIT_CODES.base + parent * PAGE_BYTES, WORD_BYTES);
        }
        Range::new(word(plan, rng.below(plan.pages * plan.words)), WORD_BYTES * rng.between(1, 2))
    });
    let watched = watched.collect();
    Spawn {
        stack: None,
        heap: vec![Range::new(DATA, 1 << 30)],
        watched,
        first: generation,
        is_persistent: is_watcher && rng.chance(400_000),
    }
}

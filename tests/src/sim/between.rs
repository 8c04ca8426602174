//! Programs that go on while the agent is in the middle of something: between two of its accesses to a shared directory.
//!
//! Owns the tables of a host while its node works. Must not change what either of them does.

use super::fast::Fast;
use super::kernel::Sent;
use super::plan::FastPlan;
use super::verdicts::Count;
use super::world::World;
use dsm_proto::{Nanos, Node, plant};
use std::cell::RefCell;

/// How often programs go on during one call of a node.
const TURNS_MAX: u32 = 8;

thread_local! {
    static PRESENT: RefCell<Option<Between>> = const { RefCell::new(None) };
}

/// The programs of the host whose node works now.
struct Between {
    fast: Fast,
    plan: FastPlan,
    sent: Vec<Sent>,
    turns: u32,
}

impl Between {
    /// Perhaps one of the interrupted runs goes on.
    fn turn(&mut self) {
        let Fast { runs, rng, shared, .. } = &mut self.fast;
        if self.turns == TURNS_MAX || !rng.chance(250_000) {
            return;
        }
        let open = runs.values_mut().filter(|run| !run.is_over()).count() as u64;
        let chosen = rng.below(open) as usize;
        if let Some(run) = runs.values_mut().filter(|run| !run.is_over()).nth(chosen) {
            self.turns += 1;
            self.sent.extend(run.advance(shared, rng, &self.plan));
        }
    }
}

impl World {
    /// Lets the node of `host` work, while interrupted programs of that host go on.
    pub(super) fn call<R>(&mut self, host: usize, work: impl FnOnce(&mut Node, Nanos) -> R) -> Result<R, String> {
        let now = Nanos(self.now);
        let here = &mut self.hosts[host];
        let Some(fast) = here.fast.take_if(|fast| !fast.runs.is_empty()) else { return Ok(work(&mut here.node, now)) };
        fast.shared.now.set(self.now);
        PRESENT.set(Some(Between { fast, plan: self.plan.fast, sent: Vec::new(), turns: 0 }));
        plant::set_pause(Some(|| PRESENT.with_borrow_mut(|present| present.iter_mut().for_each(Between::turn))));
        let result = work(&mut here.node, now);
        plant::set_pause(None);
        let Some(Between { fast, sent, turns, .. }) = PRESENT.take() else { return Ok(result) };
        here.fast = Some(fast);
        (0..turns).for_each(|_| self.outcome.verdicts.add(Count::Between));
        self.send_all(host, sent)?;
        Ok(result)
    }
}

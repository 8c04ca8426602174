//! Memory of the simulated hosts: what their nodes are told of it, and that they keep within it.
//!
//! Owns the marks and the checker. Must not know which pages go.

use super::pager::Pager;
use super::picture;
use super::plan::MemoryPlan;
use super::world::World;
use dsm_proto::{Memory, PageOp};

/// Pages of a limit above which a host evicts, and down to which: its share of 20, at least one and two.
const HIGH_SHARE: u64 = 20;
const LOW_SHARE: u64 = 10;

impl World {
    /// Tells the node of `host` how much room there is, as a driver does.
    pub(super) fn tell_memory(&mut self, host: usize, plan: MemoryPlan) -> Result<(), String> {
        let (limit, used) = (plan.limit_of(host), self.used(host));
        let (low, high) = (limit - (limit / LOW_SHARE).max(2), limit - (limit / HIGH_SHARE).max(1));
        let room = Memory {
            free: limit.saturating_sub(used),
            spare: low.saturating_sub(used),
            excess: used.saturating_sub(low),
            is_high: used > high,
        };
        self.call(host, |node, now| node.handle_memory(now, room))
    }

    fn used(&self, host: usize) -> u64 {
        self.hosts[host].pager.pages() + self.hosts[host].coming
    }

    /// Whether the hosts may have too little memory together, or pages that nobody finds any more, since their anchor is dead.
    pub(super) fn is_short(&self) -> bool {
        self.plan.memory.is_some_and(|plan| plan.is_tight || self.plan.crash.is_some())
    }

    /// No host has more than its limit and what was on its way when it was reached.
    pub(super) fn check_memory(&self, host: usize) -> Result<(), String> {
        let Some(plan) = self.plan.memory else { return Ok(()) };
        let (limit, used) = (plan.limit_of(host), self.used(host));
        let pictured = if self.plan.pictures > 0 { picture::PAGES_MAX } else { 0 };
        let on_its_way = self.plan.threads + pictured + limit / 4;
        if used > limit + on_its_way {
            return Err(format!("host {host} has {used} pages, its limit is {limit} and {on_its_way} may be on their way"));
        }
        Ok(())
    }
}

/// Pages an operation adds.
pub(super) fn coming_by(work: &PageOp, pager: &Pager) -> u64 {
    match work {
        PageOp::InstallZero { .. }
        | PageOp::Install { .. }
        | PageOp::ProtectRead { .. }
        | PageOp::Read { .. }
        | PageOp::Refresh { .. } => pager.absent(work.range()),
        PageOp::Unprotect { .. } | PageOp::Take { .. } | PageOp::Drop { .. } | PageOp::Poison { .. } => 0,
    }
}

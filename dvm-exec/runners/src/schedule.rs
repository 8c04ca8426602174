//! Who runs where: at the root, all runners that are ready, and where the others are.
//!
//! Owns queues, loads and waits. Must not know what a runner does.
//!
//! ```text
//!   add -> early (its snapshot is not there yet) -> ready -> out at a host -> take: it has ended
//!       '> delayed (after a conflict) -----------'    ^------- host lost, or given back
//! ```

use crate::Nanos;
use crate::limits::{
    BACKOFF_NS_MAX, BACKOFF_NS_MIN, PLACING_BYTES_MIN, PLACING_EXTENTS_MAX, QUEUED_PER_SLOT_MAX, REMEMBERED_EXTENTS_MAX,
};
use crate::message::Host;
use crate::place::Homes;
use dvm_disa::machine::chance::Chance;
use dvm_disa::machine::runner::Runner;
use dvm_disa::machine::store::Timestamp;
use std::collections::{BTreeMap, VecDeque};

/// Bytes of an extent.
const EXTENT_BYTES: u64 = 2 << 20;
/// The grain in which loads are compared.
const PARTS_OF_SLOT: u64 = 1024;

#[derive(Clone, Copy, Debug)]
struct Load {
    slots: u64,
    out: u64,
    /// It was asked to give some back; not again before one of its runs is over or one starts.
    is_recalled: bool,
}

/// All runners that are not over.
#[derive(Debug)]
pub struct Scheduler {
    chance: Chance,
    ready: VecDeque<Runner>,
    early: BTreeMap<(Timestamp, u64), Runner>,
    delayed: BTreeMap<(Nanos, u64), (Runner, Timestamp)>,
    out: BTreeMap<u64, (Host, Runner)>,
    loads: Vec<Load>,
    /// Hosts that used an extent, bit by bit.
    users: BTreeMap<u64, u64>,
    starts: u64,
    starts_max: u64,
}

impl Scheduler {
    /// Nothing to run, on hosts with so many slots.
    #[must_use]
    pub fn new(slots: &[usize], seed: u64, starts_max: u64) -> Self {
        let loads = slots.iter().map(|slots| Load { slots: *slots as u64, out: 0, is_recalled: false }).collect();
        Self {
            chance: Chance::new(seed),
            ready: VecDeque::new(),
            early: BTreeMap::new(),
            delayed: BTreeMap::new(),
            out: BTreeMap::new(),
            loads,
            users: BTreeMap::new(),
            starts: 0,
            starts_max,
        }
    }

    /// So many starts were counted elsewhere.
    pub const fn go_on(&mut self, starts: u64) {
        self.starts = starts;
    }

    /// All runners that are not over, as if none of them ran.
    #[must_use]
    pub fn all(&self) -> Vec<Runner> {
        let waiting = self.ready.iter().chain(self.early.values()).chain(self.delayed.values().map(|(runner, _)| runner));
        let out = self.out.values().map(|(_, runner)| Runner { tries: runner.tries.saturating_sub(1), ..runner.clone() });
        waiting.cloned().chain(out).collect()
    }

    /// A runner that needs a snapshot of this age.
    pub fn add(&mut self, runner: Runner, epoch_min: Timestamp) {
        self.early.insert((epoch_min, runner.id), runner);
    }

    /// A runner that lost a conflict. If the winner is known to have committed, a snapshot with that commit is all it waits for;
    /// else some time that grows with its tries.
    pub fn add_after_conflict(&mut self, now: Nanos, runner: Runner, epoch_min: Timestamp, is_winner_known: bool) {
        let tries = if is_winner_known { runner.tries.saturating_sub(3) } else { runner.tries };
        if tries == 0 {
            return self.add(runner, epoch_min);
        }
        let longest = (BACKOFF_NS_MIN << tries.min(16)).min(BACKOFF_NS_MAX);
        let wait = longest / 2 + self.chance.below((longest / 2) as usize) as u64;
        self.delayed.insert((Nanos(now.0 + wait), runner.id), (runner, epoch_min));
    }

    /// A runner at a host.
    #[must_use]
    pub fn running(&self, id: u64, host: Host) -> Option<&Runner> {
        self.out.get(&id).filter(|(at, _)| *at == host).map(|(_, runner)| runner)
    }

    /// A runner at a host is there no more.
    pub fn take(&mut self, id: u64, host: Host) -> Option<Runner> {
        self.running(id, host)?;
        let (_, runner) = self.out.remove(&id)?;
        if let Some(load) = self.loads.get_mut(usize::from(host.0)) {
            load.out = load.out.saturating_sub(1);
            load.is_recalled = false;
        }
        Some(runner)
    }

    /// A host is lost; how many runs with it.
    pub fn lose(&mut self, host: Host) -> u64 {
        let lost: Vec<u64> = self.out.iter().filter(|(_, (at, _))| *at == host).map(|(id, _)| *id).collect();
        for id in &lost {
            if let Some(mut runner) = self.take(*id, host) {
                runner.tries = runner.tries.saturating_sub(1);
                self.ready.push_back(runner);
            }
        }
        lost.len() as u64
    }

    /// A host gives back what it has not started.
    pub fn returned(&mut self, host: Host, ids: &[u64]) {
        for id in ids {
            if let Some(mut runner) = self.take(*id, host) {
                runner.tries = runner.tries.saturating_sub(1);
                self.ready.push_front(runner);
            }
        }
    }

    /// What starts where, now that snapshots may include all up to `watermark`.
    pub fn dispatch(&mut self, now: Nanos, watermark: Timestamp, homes: &Homes) -> Vec<(Host, Vec<Runner>)> {
        while let Some(entry) = self.delayed.first_entry().filter(|entry| entry.key().0 <= now) {
            let (runner, epoch_min) = entry.remove();
            self.early.insert((epoch_min, runner.id), runner);
        }
        while let Some(entry) = self.early.first_entry().filter(|entry| entry.key().0 <= watermark) {
            self.ready.push_back(entry.remove());
        }
        let mut starts: BTreeMap<Host, Vec<Runner>> = BTreeMap::new();
        while self.starts < self.starts_max {
            let Some(mut runner) = self.ready.pop_front() else { break };
            let Some(host) = self.choose(&runner, homes) else {
                self.ready.push_front(runner);
                break;
            };
            runner.tries += 1;
            self.starts += 1;
            self.loads[usize::from(host.0)].out += 1;
            self.loads[usize::from(host.0)].is_recalled = false;
            self.remember(&runner, host);
            self.out.insert(runner.id, (host, runner.clone()));
            starts.entry(host).or_default().push(runner);
        }
        starts.into_iter().collect()
    }

    /// A host with more than it can run, while another has nothing to do: who, and how many it should give back.
    pub fn recall(&mut self, homes: &Homes) -> Option<(Host, u64)> {
        let is_hungry = |host: Host| self.loads[usize::from(host.0)].out == 0;
        if !self.ready.is_empty() || !homes.members().any(is_hungry) {
            return None;
        }
        let waits = |host: &Host| {
            let load = self.loads[usize::from(host.0)];
            if load.is_recalled { 0 } else { load.out.saturating_sub(load.slots) }
        };
        let most = homes.members().max_by_key(waits).filter(|host| waits(host) > 1)?;
        let count = waits(&most) / 2;
        self.loads[usize::from(most.0)].is_recalled = true;
        Some((most, count))
    }

    /// Whether no runner can ever run again.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let is_cut = self.starts >= self.starts_max;
        self.out.is_empty() && (is_cut || self.is_empty())
    }

    /// Whether no runner waits to start.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.early.is_empty() && self.delayed.is_empty()
    }

    /// Starts so far.
    #[must_use]
    pub const fn starts(&self) -> u64 {
        self.starts
    }

    /// When the next delayed runner is ready.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Nanos> {
        self.delayed.first_key_value().map(|((at, _), _)| *at)
    }

    /// Of the hosts with room: one with a free slot rather than without, then the one where what waits and what of the runner's large
    /// ranges was not used there weigh least. A runner that was given back because a host has nothing to do goes there by the first.
    fn choose(&mut self, runner: &Runner, homes: &Homes) -> Option<Host> {
        let load = |host: Host| self.loads[usize::from(host.0)];
        let has_room = |host: &Host| load(*host).out < load(*host).slots * QUEUED_PER_SLOT_MAX as u64;
        let extents = extents(runner);
        let used =
            |host: Host| extents.iter().filter(|extent| self.users.get(extent).is_some_and(|users| has(*users, host))).count();
        let rank = |host: Host| {
            let Load { slots, out, .. } = load(host);
            // In parts of a slot, so that hosts of different size compare. All of the ranges weighs as much as a runner in each slot.
            let missing = (extents.len() - used(host)) as u64 * PARTS_OF_SLOT / extents.len().max(1) as u64;
            (out >= slots, out * PARTS_OF_SLOT / slots.max(1) + missing)
        };
        let best = homes.members().filter(has_room).map(rank).min()?;
        let equals: Vec<Host> = homes.members().filter(has_room).filter(|host| rank(*host) == best).collect();
        let chosen = self.chance.below(equals.len());
        equals.get(chosen).copied()
    }

    fn remember(&mut self, runner: &Runner, host: Host) {
        for extent in extents(runner) {
            if self.users.len() < REMEMBERED_EXTENTS_MAX || self.users.contains_key(&extent) {
                *self.users.entry(extent).or_default() |= bit(host);
            }
        }
    }
}

const fn bit(host: Host) -> u64 {
    1 << (host.0 % 64)
}

const fn has(users: u64, host: Host) -> bool {
    users & bit(host) != 0
}

/// Extents of large ranges that a runner declares.
fn extents(runner: &Runner) -> Vec<u64> {
    let large = runner.heap.iter().chain(&runner.watched).filter(|range| range.bytes >= PLACING_BYTES_MIN);
    let all = large.flat_map(|range| range.base / EXTENT_BYTES..range.base.saturating_add(range.bytes).div_ceil(EXTENT_BYTES));
    all.take(PLACING_EXTENTS_MAX).collect()
}

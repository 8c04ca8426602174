//! Which threads should share a host.
//!
//! Owns the arithmetic of `--place auto`: how strongly threads pull at the same pages, and which moves are worth it. Must not
//! know pages, hosts' names, time or how a thread is moved.
//!
//! A move is worth the waiting it ends, less what is then computed one after the other because a host has not processors enough.
//! A thread that does not wait for pages may compute or sleep in a call: all are taken to compute the same part of that time.

use std::collections::BTreeMap;

/// Moves of one decision.
pub const MOVES_MAX: usize = 8;
/// Threads that are looked at: those that share most.
const THREADS_MAX: usize = 64;
/// What is left of a measured pull after an interval in which it was not seen, for threads on different hosts.
const DECAY: f64 = 0.5;

/// A thread as the decision sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// Its number.
    pub tid: i32,
    /// Its host.
    pub host: usize,
    /// Whether it may be moved now.
    pub is_free: bool,
    /// The part of its time in which it waits for pages, 0 to 1.
    pub waits: f64,
}

/// What the hosts offer and the program takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Supply<'a> {
    /// Processors of each host.
    pub processors: &'a [u32],
    /// Processors used on all hosts, on the average.
    pub computing: f64,
    /// Seconds for which one fault has a thread wait.
    pub fault_s: f64,
}

/// One thread goes to another host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Who.
    pub tid: i32,
    /// Where to.
    pub host: usize,
}

/// How strongly pairs of threads pull at the same pages: faults a second that would not be if they shared a host.
#[derive(Clone, Debug, Default)]
pub struct Affinity {
    pulls: BTreeMap<(i32, i32), f64>,
}

impl Affinity {
    /// Takes in the pages of one interval: for each the threads with their faults a second. What threads on one host share
    /// shows no faults, so for those the last measure stays.
    pub fn observe<'a>(&mut self, pages: impl Iterator<Item = &'a [(i32, f64)]>, host_of: impl Fn(i32) -> Option<usize>) {
        self.pulls.retain(|(one, two), pull| {
            let (Some(first), Some(second)) = (host_of(*one), host_of(*two)) else { return false };
            if first != second {
                *pull *= DECAY;
            }
            *pull >= 1.0
        });
        for users in pages {
            for (at, (one, faults)) in users.iter().enumerate() {
                for (two, others) in &users[at + 1..] {
                    if one != two {
                        *self.pulls.entry(((*one).min(*two), (*one).max(*two))).or_default() += faults.min(*others);
                    }
                }
            }
        }
    }

    fn pull(&self, one: i32, two: i32) -> f64 {
        self.pulls.get(&(one.min(two), one.max(two))).copied().unwrap_or(0.0)
    }

    /// The threads with pulls, strongest first.
    fn strongest(&self) -> Vec<i32> {
        let mut sums: BTreeMap<i32, f64> = BTreeMap::new();
        for ((one, two), pull) in &self.pulls {
            *sums.entry(*one).or_default() += pull;
            *sums.entry(*two).or_default() += pull;
        }
        let mut order: Vec<i32> = sums.keys().copied().collect();
        order.sort_by(|one, two| sums[two].total_cmp(&sums[one]));
        order.truncate(THREADS_MAX);
        order
    }

    /// The moves that are worth at least `least` seconds a second each, with at most one thread more or less on a host than its
    /// share of the processors, or than it has. Nobody is moved twice.
    #[must_use]
    pub fn decide(&self, places: &[Place], supply: &Supply<'_>, least: f64) -> Vec<Move> {
        let mut balance = Balance::new(places, supply);
        let mut now: BTreeMap<i32, Place> = places.iter().map(|place| (place.tid, *place)).collect();
        let strongest: Vec<i32> = self.strongest().into_iter().filter(|tid| now.contains_key(tid)).collect();
        let mut moves = Vec::new();
        while moves.len() + 2 <= MOVES_MAX {
            let Some((saved, step)) = self.best(&strongest, &now, &balance, least) else { break };
            balance.relieve(saved, &step);
            for going in step {
                let Some(place) = now.get_mut(&going.tid) else { continue };
                balance.shift(place, going.host);
                (place.host, place.is_free) = (going.host, false);
                moves.push(going);
            }
        }
        moves
    }

    /// The step that is worth most a move, and the faults it saves.
    fn best(&self, strongest: &[i32], now: &BTreeMap<i32, Place>, balance: &Balance, least: f64) -> Option<(f64, Vec<Move>)> {
        let pulled = |tid: i32, host: usize| -> f64 {
            let others = strongest.iter().filter(|other| **other != tid && now[*other].host == host);
            others.map(|other| self.pull(tid, *other)).sum()
        };
        let mut best = None;
        let mut most = least;
        let mut offer = |saved: f64, step: Vec<Move>| {
            // Of equal worth the one with fewer moves.
            let worth = balance.worth(saved, &step, now) / step.len() as f64;
            if saved > 0.0 && worth >= most && (best.is_none() || worth > most) {
                (most, best) = (worth, Some((saved, step)));
            }
        };
        let free: Vec<Place> = strongest.iter().map(|tid| now[tid]).filter(|place| place.is_free).collect();
        for one in &free {
            let stays = pulled(one.tid, one.host);
            for host in (0..balance.count.len()).filter(|host| *host != one.host) {
                let gain = pulled(one.tid, host) - stays;
                if balance.allows(one.host, host) {
                    offer(gain, vec![Move { tid: one.tid, host }]);
                }
            }
        }
        // A swap leaves the numbers as they are; with threads that pull at nothing, too.
        let others: Vec<Place> = now.values().filter(|place| place.is_free).copied().collect();
        for one in &free {
            for two in others.iter().filter(|two| two.host != one.host) {
                let both = 2.0 * self.pull(one.tid, two.tid);
                let first = pulled(one.tid, two.host) - pulled(one.tid, one.host);
                let second = pulled(two.tid, one.host) - pulled(two.tid, two.host);
                let step = vec![Move { tid: one.tid, host: two.host }, Move { tid: two.tid, host: one.host }];
                offer(first + second - both, step);
            }
        }
        best
    }
}

struct Balance {
    count: Vec<usize>,
    share: Vec<f64>,
    processors: Vec<f64>,
    /// Processors that the threads there would use, on the average.
    demand: Vec<f64>,
    /// The part of its time without waits that a thread computes.
    activity: f64,
    fault_s: f64,
}

impl Balance {
    fn new(places: &[Place], supply: &Supply<'_>) -> Self {
        let processors: Vec<f64> = supply.processors.iter().map(|own| f64::from(*own)).collect();
        let all: f64 = processors.iter().sum::<f64>().max(1.0);
        let awake: f64 = places.iter().map(|place| 1.0 - place.waits).sum();
        let activity = if awake > supply.computing { supply.computing / awake } else { 1.0 };
        let (mut count, mut demand) = (vec![0; processors.len()], vec![0.0; processors.len()]);
        for place in places.iter().filter(|place| place.host < processors.len()) {
            count[place.host] += 1;
            demand[place.host] += activity * (1.0 - place.waits);
        }
        let share = processors.iter().map(|own| places.len() as f64 * own / all).collect();
        Self { count, share, processors, demand, activity, fault_s: supply.fault_s }
    }

    fn allows(&self, from: usize, to: usize) -> bool {
        (self.count[to] + 1) as f64 <= self.share[to] + 1.0 && self.count[from] as f64 - 1.0 >= self.share[from] - 1.0
    }

    /// Seconds of computing that a second gains if these faults a second are saved by the step.
    fn worth(&self, saved: f64, step: &[Move], now: &BTreeMap<i32, Place>) -> f64 {
        let mut after = self.demand.clone();
        for going in step {
            let own = self.activity * (1.0 - now[&going.tid].waits);
            after[now[&going.tid].host] -= own;
            after[going.host] += own + self.relief(saved, step);
        }
        let excess =
            |demand: &[f64]| -> f64 { demand.iter().zip(&self.processors).map(|(own, most)| (own - most).max(0.0)).sum() };
        self.relief(saved, step) * step.len() as f64 - (excess(&after) - excess(&self.demand))
    }

    /// What each move of the step adds to what is computed.
    fn relief(&self, saved: f64, step: &[Move]) -> f64 {
        self.activity * saved * self.fault_s / step.len() as f64
    }

    /// The faults saved by the step are waited for no more.
    fn relieve(&mut self, saved: f64, step: &[Move]) {
        let relief = self.relief(saved, step);
        step.iter().for_each(|going| self.demand[going.host] += relief);
    }

    fn shift(&mut self, place: &Place, to: usize) {
        let own = self.activity * (1.0 - place.waits);
        self.count[place.host] -= 1;
        self.demand[place.host] -= own;
        self.count[to] += 1;
        self.demand[to] += own;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn affinity(pulls: &[(i32, i32, f64)]) -> Affinity {
        Affinity { pulls: pulls.iter().map(|(one, two, pull)| (((*one).min(*two), (*one).max(*two)), *pull)).collect() }
    }

    fn after(places: &[Place], moves: &[Move]) -> BTreeMap<i32, usize> {
        let mut hosts: BTreeMap<i32, usize> = places.iter().map(|place| (place.tid, place.host)).collect();
        hosts.extend(moves.iter().map(|going| (going.tid, going.host)));
        hosts
    }

    fn in_turn(threads: i32, hosts: usize) -> Vec<Place> {
        (0..threads).map(|tid| Place { tid, host: tid as usize % hosts, is_free: tid != 0, waits: 0.9 }).collect()
    }

    /// Of threads that wait nine tenths of their time, for 100 us at each fault.
    fn supply(processors: &[u32]) -> Supply<'_> {
        Supply { processors, computing: 0.4, fault_s: 1e-4 }
    }

    #[test]
    fn pairs_come_together() {
        for (threads, hosts) in [(5, 2), (5, 3), (7, 2), (7, 3), (9, 4)] {
            let places = in_turn(threads, hosts);
            let pairs: Vec<(i32, i32, f64)> = (0..threads / 2).map(|pair| (2 * pair + 1, 2 * pair + 2, 9000.0)).collect();
            let moves = affinity(&pairs).decide(&places, &supply(&vec![2; hosts]), 0.05);
            let hosts = after(&places, &moves);
            assert!(pairs.iter().all(|(one, two, _)| hosts[one] == hosts[two]), "{threads} {hosts:?} {moves:?}");
        }
    }

    #[test]
    fn what_is_little_or_held_stays() {
        let places = in_turn(5, 2);
        let pulls = [(1, 2, 1000.0), (3, 4, 1000.0)];
        assert!(affinity(&pulls).decide(&places, &supply(&[2, 2]), 0.2).is_empty());
        let held: Vec<Place> = places.iter().map(|place| Place { is_free: false, ..*place }).collect();
        assert!(affinity(&pulls).decide(&held, &supply(&[2, 2]), 0.005).is_empty());
        assert!(Affinity::default().decide(&places, &supply(&[2, 2]), 0.005).is_empty());
    }

    #[test]
    fn threads_that_compute_and_share_with_all_stay_in_balance() {
        // Each of four threads waits half its time for pages that all of them write; each host has one processor.
        let pulls: Vec<(i32, i32, f64)> =
            (1..5).flat_map(|one| (one + 1..5).map(move |two| (one, two, 1500.0 + 30.0 * f64::from(one * two)))).collect();
        let places: Vec<Place> = in_turn(5, 2).iter().map(|place| Place { waits: 0.5, ..*place }).collect();
        let supply = Supply { processors: &[1, 1], computing: 1.7, fault_s: 1e-4 };
        assert_eq!(affinity(&pulls).decide(&places, &supply, 0.05), []);
    }

    #[test]
    fn pulls_fade_unless_they_cannot_be_seen() {
        let mut seen = Affinity::default();
        let page = [(1, 100.0), (2, 60.0), (3, 10.0)];
        seen.observe([page.as_slice()].into_iter(), |tid| Some(tid as usize % 2));
        assert_eq!((seen.pull(2, 1), seen.pull(1, 3), seen.pull(2, 3)), (60.0, 10.0, 10.0));
        seen.observe(std::iter::empty(), |tid| Some(tid as usize % 2));
        assert_eq!((seen.pull(1, 2), seen.pull(1, 3)), (30.0, 10.0));
        seen.observe(std::iter::empty(), |tid| (tid != 1).then_some(0));
        assert_eq!((seen.pull(1, 2), seen.pull(2, 3)), (0.0, 5.0));
    }

    proptest! {
        #[test]
        fn never_unbalanced_and_always_an_end(
            hosts in 2_usize..5,
            places in proptest::collection::vec((0_usize..5, any::<bool>()), 1..20),
            pulls in proptest::collection::vec((0_i32..20, 0_i32..20, 0.0_f64..5000.0), 0..60),
        ) {
            let places: Vec<Place> = places.iter().enumerate()
                .map(|(tid, (host, is_free))| Place { tid: tid as i32, host: host % hosts, is_free: *is_free, waits: 0.5 })
                .collect();
            let pulls: Vec<_> = pulls.into_iter().filter(|(one, two, _)| one != two).collect();
            let (weights, processors) = (affinity(&pulls), vec![2; hosts]);
            let supply = supply(&processors);
            let moves = weights.decide(&places, &supply, 0.005);
            prop_assert!(moves.len() <= MOVES_MAX);
            let moved: std::collections::BTreeSet<i32> = moves.iter().map(|going| going.tid).collect();
            prop_assert_eq!(moved.len(), moves.len());
            prop_assert!(places.iter().all(|place| place.is_free || !moved.contains(&place.tid)));
            let (before, now) = (Balance::new(&places, &supply), after(&places, &moves));
            let cut = |hosts: &BTreeMap<i32, usize>| -> f64 {
                let known = |tid: &i32| hosts.get(tid);
                weights.pulls.iter().filter(|((one, two), _)| known(one).is_some() && known(two).is_some() && known(one) != known(two)).map(|(_, pull)| pull).sum()
            };
            prop_assert!(cut(&now) <= cut(&after(&places, &[])));
            for host in 0..hosts {
                let count = now.values().filter(|own| **own == host).count() as f64;
                let former = before.count[host] as f64;
                prop_assert!(count <= (before.share[host] + 1.0).max(former), "{} threads on host {}", count, host);
                prop_assert!(count >= (before.share[host] - 1.0).min(former));
            }
        }
    }
}

//! What a seed decides before runners run: hosts, program, weather.
//!
//! Owns the ranges. Must not run anything.

use crate::sim::rng::Rng;

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Runners at a time, by host.
    pub slots: Vec<usize>,
    /// Pages in use.
    pub pages: u64,
    /// Words in use of each.
    pub words: u64,
    /// Values words may have: the fewer, the more often one comes back.
    pub values: u64,
    /// Runners the first one makes.
    pub children: u64,
    /// Generations of runners.
    pub depth: u64,
    /// Of a million runners, those that watch.
    pub watchers: u64,
    /// Commits validate what they read.
    pub is_serializable: bool,
    /// Pages conflict.
    pub is_page_grain: bool,
    /// Words that are told instead of fetched.
    pub told_words_max: usize,
    /// Longest time between two accesses.
    pub step_ns_max: u64,
    /// A frame is lost, of a million.
    pub loss: u64,
    /// A frame comes twice.
    pub duplicates: u64,
    /// Shortest way.
    pub delay_ns_min: u64,
    /// Longest way.
    pub delay_ns_max: u64,
    /// Times at which two hosts cannot reach each other: from, until, both.
    pub partitions: Vec<(u64, u64, [usize; 2])>,
    /// Hosts that are lost: which, when, how much later the membership says so; and whether it only seems so.
    pub losses: Vec<Loss>,
    /// Hosts that have the log.
    pub copies: usize,
    /// Roots after the first that are lost, once as many hosts as there should be have the log: `at_ns` counts from then.
    pub chain: Vec<Loss>,
    /// Longest time until a host hears from the membership.
    pub told_ns_max: u64,
}

/// A host that is lost.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// Which.
    pub host: usize,
    /// When it stops.
    pub at_ns: u64,
    /// How much later the membership gives it up.
    pub lease_ns: u64,
    /// It does not stop: it is slow, and taken for lost.
    pub is_alive: bool,
}

const US: u64 = 1_000;
const MS: u64 = 1_000_000;

impl Plan {
    /// The plan of `seed`; `nodes` fixes the number of hosts.
    #[must_use]
    pub fn of(seed: u64, nodes: Option<u64>) -> Self {
        let mut rng = Rng::new(seed ^ 0xd15a);
        let hosts = nodes.unwrap_or_else(|| rng.between(2, 8)) as usize;
        let slots = (0..hosts).map(|_| rng.between(1, 4) as usize).collect();
        let is_calm = rng.chance(200_000);
        let partitions = (0..rng.below(4)).map(|_| {
            let (from, long) = (rng.below(60 * MS), rng.between(1, 40) * MS);
            let one = rng.below(hosts as u64) as usize;
            (from, from + long, [one, (one + 1 + rng.below(hosts as u64 - 1) as usize) % hosts])
        });
        let partitions = partitions.collect();
        let copies = rng.between(1, 3) as usize;
        let is_root_lost = copies > 1 && rng.chance(600_000);
        let mut loss = |host, at_ns_max| {
            let (at_ns, lease_ns) = (rng.between(200 * US, at_ns_max), rng.between(1, 30) * MS);
            Loss { host, at_ns, lease_ns, is_alive: rng.chance(300_000) }
        };
        let mut losses: Vec<Loss> = (0..hosts).map(|host| loss(host, 60 * MS)).collect();
        let mut chain: Vec<Loss> = (1..hosts - 1).map(|host| loss(host, 20 * MS)).collect();
        let lost_of_million = if is_root_lost { 80_000 } else { 250_000 };
        // The last host stays, or nobody could go on.
        losses.retain(|loss| {
            let is_lost = rng.chance(lost_of_million);
            if loss.host == 0 { is_root_lost } else { is_lost && (copies == 1 || loss.host + 1 < hosts) }
        });
        if copies == 1 || rng.chance(500_000) {
            chain.clear();
        }
        Self {
            seed,
            slots,
            pages: rng.between(1, 6),
            words: rng.between(1, 6),
            values: rng.between(2, 5),
            children: rng.between(2, 40),
            depth: rng.between(1, 3),
            watchers: rng.below(500_000),
            is_serializable: rng.chance(300_000),
            is_page_grain: rng.chance(150_000),
            told_words_max: if rng.chance(500_000) { 0 } else { 64 },
            step_ns_max: [5 * US, 100 * US, 2 * MS][rng.below(3) as usize],
            loss: if is_calm { 0 } else { rng.below(150_000) },
            duplicates: if is_calm { 0 } else { rng.below(150_000) },
            delay_ns_min: rng.between(5, 50) * US,
            delay_ns_max: rng.between(60, 3000) * US,
            partitions,
            losses,
            copies,
            chain,
            told_ns_max: [10 * US, 3 * MS, 30 * MS][rng.below(3) as usize],
        }
    }
}

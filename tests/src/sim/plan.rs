//! What a seed decides before the run begins: cluster, load, weather.
//!
//! Owns the ranges. Must not run anything.

use super::rng::Rng;
use dsm_wire::NodeId;

/// One run, as its seed (and what the caller fixed) has it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Hosts.
    pub nodes: u64,
    /// Node numbers are multiples of it; 63 makes every node one class of a wide sharer set.
    pub stride: u64,
    /// Hosts that share pages with each other: the first so many, the next so many, … 0: all.
    pub group: u64,
    /// Threads of each host.
    pub threads: u64,
    /// Accesses of each thread.
    pub accesses: u64,
    /// Extents in use.
    pub extents: u64,
    /// Pages in use in each.
    pub pages: u64,
    /// Writes among the accesses, in millionths.
    pub writes: u64,
    /// Sequential runs among the accesses, in millionths.
    pub scans: u64,
    /// Discards, in millionths of the accesses.
    pub discards: u64,
    /// Whether pages have contents before anybody touched them.
    pub is_sourced: bool,
    /// Weather until `heal_ns`.
    pub weather: Weather,
    /// Nanoseconds until the weather is fine for good.
    pub heal_ns: u64,
    /// Crash of one host: when, and after how long it comes back (0: never).
    pub crash: Option<Crash>,
    /// The kernel's part.
    pub fast: FastPlan,
    /// Pictures of some pages, in millionths of the accesses.
    pub pictures: u64,
    /// How little memory the hosts have; none: enough.
    pub memory: Option<MemoryPlan>,
}

/// How little memory the hosts have.
#[derive(Clone, Copy, Debug)]
pub struct MemoryPlan {
    /// Pages of each host.
    pub pages: u64,
    /// A host that has more, and how much.
    pub roomy: Option<(usize, u64)>,
    /// All together may have too little.
    pub is_tight: bool,
}

/// Which hosts have a fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FastMode {
    /// All.
    On,
    /// None.
    Off,
    /// All, none or some, by the seed.
    Mixed,
}

/// What the kernel programs of the hosts have, and how they are disturbed.
#[derive(Clone, Copy, Debug)]
pub struct FastPlan {
    /// Bit `i`: hosts with this number mod 64 have a fast path.
    pub hosts: u64,
    /// A program that cannot lengthen packets comes first.
    pub has_small: bool,
    /// A page fits one datagram.
    pub pages_fit: bool,
    /// Directories that can be shared, per host.
    pub directories: u32,
    /// Extents that can have published pages, per host.
    pub places: u32,
    /// Pages that can be published, per host.
    pub copies: u32,
    /// A page is published when a read grant of it leaves, in millionths.
    pub published: u64,
    /// A run of a program is interrupted, in millionths.
    pub interrupted: u64,
    /// Longest interruption.
    pub pause_ns_max: u64,
}

/// What the network and the pagers do to frames and operations. Probabilities in millionths.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// A frame is lost.
    pub loss: u64,
    /// A frame comes twice.
    pub duplicates: u64,
    /// Shortest way.
    pub delay_ns_min: u64,
    /// Longest way; frames overtake each other in between.
    pub delay_ns_max: u64,
    /// A frame is late by up to a second.
    pub stragglers: u64,
    /// A partition begins, per millisecond.
    pub partitions: u64,
    /// Longest page operation.
    pub operation_ns_max: u64,
    /// An operation takes milliseconds.
    pub slow_operations: u64,
    /// A mapping vanishes under a thread.
    pub vanishing: u64,
}

/// The crash of one host.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// Which.
    pub host: usize,
    /// When.
    pub at_ns: u64,
    /// How long until the others are told.
    pub lease_ns: u64,
    /// How long until it is back, knowing nothing; 0: it stays away.
    pub restart_after_ns: u64,
}

const MS: u64 = 1_000_000;

impl Plan {
    /// The plan of `seed`; `nodes` fixes the number of hosts.
    #[must_use]
    pub fn of(seed: u64, nodes: Option<u64>) -> Self {
        let mut rng = Rng::new(seed);
        let nodes = nodes.unwrap_or_else(|| rng.between(2, 8));
        let heal_ns = rng.between(5, 200) * MS;
        let crash = rng.chance(250_000).then(|| Crash {
            host: rng.below(nodes) as usize,
            at_ns: rng.between(1, heal_ns / MS) * MS / 2,
            lease_ns: rng.between(5, 60) * MS,
            restart_after_ns: if rng.chance(600_000) { rng.between(1, 100) * MS } else { 0 },
        });
        let mut plan = Self {
            seed,
            nodes,
            stride: if seed % 8 == 5 { 63 } else { 1 },
            group: 0,
            threads: rng.between(1, 3),
            accesses: rng.between(20, 120),
            extents: rng.between(1, 3),
            pages: rng.pick(&[1, 2, 4, 8, 24, 64]),
            writes: rng.pick(&[50_000, 300_000, 500_000, 900_000]),
            scans: rng.pick(&[0, 100_000, 400_000]),
            discards: rng.pick(&[0, 0, 10_000, 50_000]),
            // From a stream of its own: the rest of a seed's plan does not depend on it.
            is_sourced: Rng::new(seed ^ 0x50ce).chance(400_000),
            weather: Weather::of(&mut rng),
            heal_ns,
            crash,
            fast: FastPlan::of(seed),
            // As for the sources.
            pictures: Rng::new(seed ^ 0x91c7).pick(&[0, 0, 0, 10_000, 100_000, 300_000]),
            memory: None,
        };
        plan.memory = MemoryPlan::of(&plan);
        plan
    }

    /// The same with the fast path on all hosts, or on none.
    #[must_use]
    pub const fn with_fast(mut self, mode: FastMode) -> Self {
        self.fast.hosts = match mode {
            FastMode::On => u64::MAX,
            FastMode::Off => 0,
            FastMode::Mixed => self.fast.hosts,
        };
        self
    }

    /// A plan for `nodes` hosts in which nothing goes wrong or runs short.
    fn fine(seed: u64, nodes: u64) -> Self {
        Self {
            stride: 1,
            is_sourced: false,
            weather: Weather::fine(),
            heal_ns: 0,
            crash: None,
            memory: None,
            ..Self::of(seed, Some(nodes))
        }
    }

    /// A cluster of `nodes` in fine weather, of which every four share 64 pages of their own.
    #[must_use]
    pub fn scale(nodes: u64) -> Self {
        Self {
            group: 4,
            threads: 1,
            accesses: 100,
            extents: 2,
            pages: 32,
            writes: 300_000,
            scans: 0,
            discards: 0,
            ..Self::fine(0x5ca1e, nodes)
        }
        .with_fast(FastMode::Off)
    }

    /// Hosts in fine weather that mostly read and write fresh and shared memory in sequence.
    #[must_use]
    pub fn scanning(seed: u64) -> Self {
        Self {
            threads: 2,
            accesses: 1000,
            extents: 1,
            pages: 2,
            scans: 2_000_000,
            discards: if seed.is_multiple_of(2) { 0 } else { 10_000 },
            ..Self::fine(seed, 3)
        }
    }

    /// Number of the node on host `host`.
    #[must_use]
    pub const fn node_of(&self, host: usize) -> NodeId {
        NodeId((host as u64 * self.stride) as u16)
    }

    /// The host of a node.
    #[must_use]
    pub const fn host_of(&self, node: NodeId) -> usize {
        (node.0 as u64 / self.stride) as usize
    }
}

impl MemoryPlan {
    /// Pages a scan may touch.
    const SCANNED: u64 = 150;
    /// Pages of the smallest host.
    const PAGES_MIN: u64 = 8;

    /// Draws from a stream of its own, as [`FastPlan::of`].
    fn of(plan: &Plan) -> Option<Self> {
        let mut rng = Rng::new(plan.seed ^ 0xe71c);
        let used = plan.extents * plan.pages + if plan.scans > 0 { Self::SCANNED } else { 0 };
        let living = plan.nodes - u64::from(plan.crash.is_some());
        let fair = (used * 3 / 2).div_ceil(living.max(1)) + 4;
        let roomy = (0..plan.nodes as usize).find(|host| plan.crash.is_none_or(|crash| crash.host != *host));
        let (pages, roomy, is_tight) = match rng.below(10) {
            0 | 1 => (fair, None, false),
            2 => (Self::PAGES_MIN, roomy.map(|host| (host, used * 3 / 2 + 8)), false),
            3 => (used / 2 / plan.nodes, None, true),
            _ => return None,
        };
        Some(Self { pages: pages.max(Self::PAGES_MIN), roomy, is_tight })
    }

    /// Pages of `host`.
    #[must_use]
    pub fn limit_of(&self, host: usize) -> u64 {
        self.roomy.filter(|(roomy, _)| *roomy == host).map_or(self.pages, |(_, pages)| pages)
    }
}

impl FastPlan {
    /// Draws from a stream of its own: the rest of a seed's plan does not depend on it.
    fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0xfa57);
        let some = rng.draw();
        Self {
            hosts: rng.pick(&[u64::MAX, u64::MAX, u64::MAX, some, some, 0]),
            has_small: rng.chance(400_000),
            pages_fit: rng.chance(900_000),
            directories: rng.between(1, 4) as u32,
            places: rng.between(1, 6) as u32,
            copies: rng.pick(&[2, 5, 12, 32]),
            published: rng.pick(&[1_000_000, 1_000_000, 300_000, 50_000]),
            interrupted: rng.pick(&[0, 300_000, 600_000, 1_000_000]),
            pause_ns_max: rng.pick(&[1_000, 50_000, 500_000, 2_000_000]),
        }
    }

    /// Whether `host` has a fast path.
    #[must_use]
    pub const fn is_on(&self, host: usize) -> bool {
        self.hosts >> (host % 64) & 1 != 0
    }
}

impl Weather {
    fn of(rng: &mut Rng) -> Self {
        let is_fine = rng.chance(150_000);
        let mut stormy = |choices: &[u64]| {
            let choice = rng.pick(choices);
            if is_fine { 0 } else { choice }
        };
        Self {
            loss: stormy(&[0, 10_000, 100_000, 300_000]),
            duplicates: stormy(&[0, 10_000, 100_000, 400_000]),
            stragglers: stormy(&[0, 1_000, 20_000]),
            partitions: stormy(&[0, 0, 5_000, 30_000]),
            slow_operations: stormy(&[0, 0, 5_000, 50_000]),
            vanishing: stormy(&[0, 0, 10_000]),
            delay_ns_min: rng.between(1, 50) * 1_000,
            delay_ns_max: rng.between(50, 3_000) * 1_000,
            operation_ns_max: rng.pick(&[1, 2_000, 20_000, 500_000]),
        }
    }

    /// Nothing goes wrong, and nothing takes long.
    #[must_use]
    pub const fn fine() -> Self {
        Self {
            loss: 0,
            duplicates: 0,
            delay_ns_min: 10_000,
            delay_ns_max: 20_000,
            stragglers: 0,
            partitions: 0,
            operation_ns_max: 2_000,
            slow_operations: 0,
            vanishing: 0,
        }
    }
}

//! How often the kernel programs of a run came to which verdict, and what happened to their runs.
//!
//! Owns the names and the counts. Must not decide anything.

use dsm_fast::{Drop, Pass, Verdict};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Passed up.
    Passed(Pass),
    /// Dropped.
    Dropped(Drop),
    /// An acknowledgement counted.
    Counted,
    /// A heartbeat answered.
    Ponged,
    /// A request forwarded.
    Forwarded,
    /// All pages of a request served.
    Served,
    /// Some, or none, and the frame passed up.
    ServedPartly,
    /// A page sent.
    PageServed,
    /// A run interrupted.
    Interrupted,
    /// An interruption; a run may have several.
    Interruption,
    /// A run that went on between two accesses of the agent to a directory.
    Between,
    /// A page published.
    Published,
    /// A published page that made room.
    Evicted,
    /// A directory shared.
    Shared,
}

/// The counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdicts([u64; NAMES.len()]);

const PASSES: usize = 11;
const DROPS: usize = 9;
const NAMES: [&str; PASSES + DROPS + 12] = [
    "pass_stranger",
    "pass_asleep",
    "pass_payload",
    "pass_no_session",
    "pass_agent",
    "pass_busy",
    "pass_unpublished",
    "pass_later",
    "pass_mtu",
    "pass_race",
    "pass_last_ack",
    "drop_short",
    "drop_version",
    "drop_kind",
    "drop_length",
    "drop_cluster",
    "drop_destination",
    "drop_epoch",
    "drop_tag",
    "drop_replay",
    "counted",
    "ponged",
    "forwarded",
    "served",
    "served_partly",
    "pages_served",
    "runs_interrupted",
    "interruptions",
    "between_accesses",
    "pages_published",
    "pages_evicted",
    "directories_shared",
];

const _: () = assert!(Pass::LastAck as usize + 1 == PASSES && Drop::Replay as usize + 1 == DROPS);

impl Count {
    /// What a verdict counts as; of a service it is not known before its end.
    #[must_use]
    pub const fn of(verdict: &Verdict) -> Count {
        match verdict {
            Verdict::Pass(pass) => Count::Passed(*pass),
            Verdict::Drop(drop) => Count::Dropped(*drop),
            Verdict::Counted => Count::Counted,
            Verdict::Pong { .. } => Count::Ponged,
            Verdict::Forward { .. } => Count::Forwarded,
            Verdict::Serve(_) => Count::Served,
        }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        NAMES[self.place()]
    }

    const fn place(self) -> usize {
        match self {
            Count::Passed(pass) => pass as usize,
            Count::Dropped(drop) => PASSES + drop as usize,
            Count::Counted => PASSES + DROPS,
            Count::Ponged => PASSES + DROPS + 1,
            Count::Forwarded => PASSES + DROPS + 2,
            Count::Served => PASSES + DROPS + 3,
            Count::ServedPartly => PASSES + DROPS + 4,
            Count::PageServed => PASSES + DROPS + 5,
            Count::Interrupted => PASSES + DROPS + 6,
            Count::Interruption => PASSES + DROPS + 7,
            Count::Between => PASSES + DROPS + 8,
            Count::Published => PASSES + DROPS + 9,
            Count::Evicted => PASSES + DROPS + 10,
            Count::Shared => PASSES + DROPS + 11,
        }
    }
}

impl Default for Verdicts {
    fn default() -> Self {
        Self([0; NAMES.len()])
    }
}

impl Verdicts {
    /// One more.
    pub const fn add(&mut self, count: Count) {
        self.0[count.place()] += 1;
    }

    /// How many.
    #[must_use]
    pub const fn get(&self, count: Count) -> u64 {
        self.0[count.place()]
    }

    /// Adds what another run counted.
    pub fn merge(&mut self, other: &Verdicts) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, count)| *sum += count);
    }

    /// What no run came to though sound programs do.
    #[must_use]
    pub fn unwalked(&self) -> Vec<&'static str> {
        let needed = [
            Count::Passed(Pass::Race),
            Count::Passed(Pass::Busy),
            Count::Passed(Pass::Unpublished),
            Count::Passed(Pass::Mtu),
            Count::Passed(Pass::NoSession),
            Count::Dropped(Drop::Replay),
            Count::Dropped(Drop::Epoch),
            Count::Forwarded,
            Count::Served,
            Count::ServedPartly,
            Count::PageServed,
            Count::Interrupted,
            Count::Between,
            Count::Evicted,
            Count::Shared,
        ];
        needed.into_iter().filter(|count| self.get(*count) == 0).map(Count::name).collect()
    }

    /// Names and counts.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        NAMES.into_iter().zip(self.0)
    }
}

//! How often the kernel programs of a run came to which verdict, and what happened to their runs.
//!
//! Owns the names and the counts. Must not decide anything.

use dsm_fast::{Drop, FanOut, Pass, SERVE_FAILED, SERVED, VERDICT_NAMES, Verdict};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// A verdict; of a service only that it was carried out.
    Verdict(Verdict),
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
pub struct Verdicts([u64; VERDICTS + RUNS.len()]);

const VERDICTS: usize = VERDICT_NAMES.len();
/// What happens to runs, beside their verdicts.
const RUNS: [&str; 7] = [
    "pages_served",
    "runs_interrupted",
    "interruptions",
    "between_accesses",
    "pages_published",
    "pages_evicted",
    "directories_shared",
];

impl Count {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        VERDICT_NAMES.into_iter().chain(RUNS).nth(self.place()).unwrap_or_default()
    }

    const fn place(self) -> usize {
        match self {
            Count::Verdict(verdict) => verdict.number() as usize,
            Count::Served => SERVED as usize,
            Count::ServedPartly => SERVE_FAILED as usize,
            Count::PageServed => VERDICTS,
            Count::Interrupted => VERDICTS + 1,
            Count::Interruption => VERDICTS + 2,
            Count::Between => VERDICTS + 3,
            Count::Published => VERDICTS + 4,
            Count::Evicted => VERDICTS + 5,
            Count::Shared => VERDICTS + 6,
        }
    }
}

impl Default for Verdicts {
    fn default() -> Self {
        Self([0; VERDICTS + RUNS.len()])
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
            Count::Verdict(Verdict::Pass(Pass::Race)),
            Count::Verdict(Verdict::Pass(Pass::Busy)),
            Count::Verdict(Verdict::Pass(Pass::Unpublished)),
            Count::Verdict(Verdict::Pass(Pass::Mtu)),
            Count::Verdict(Verdict::Pass(Pass::NoSession)),
            Count::Verdict(Verdict::Drop(Drop::Replay)),
            Count::Verdict(Verdict::Drop(Drop::Epoch)),
            Count::Verdict(Verdict::Forward { to: 0 }),
            Count::Verdict(Verdict::FanOut(FanOut::default())),
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
        VERDICT_NAMES.into_iter().chain(RUNS).zip(self.0)
    }
}

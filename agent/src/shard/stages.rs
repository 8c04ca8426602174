//! When the shard reads what the kernel recorded of its husk's faults.
//!
//! Owns the rings, the notes between two readings and their maximum. Must not decide what fits what ([`super::matching`]), and
//! never reads for a single fault: a reading costs some microseconds of the shard.

use super::figures::{Figures, Span};
use super::matching::{Happening, Matcher, Moment, Stage};
use super::sys::{OpenError, Record, Rings, What};
use dsm_proto::Nanos;
use dsm_wire::PageNumber;

/// Notes after which the rings are read; a fault makes two.
const NOTES_PER_READING: usize = 512;
/// Notes kept between two readings.
const NOTES_MAX: usize = 8 * NOTES_PER_READING;
/// How often the rings' filling is looked at: threads that only switch fill them, too.
const LOOK_INTERVAL: Nanos = Nanos::from_millis(20);

/// What the kernel is asked to record of a husk.
#[derive(Debug, Default)]
pub enum Watch {
    /// Nothing: the job was started without `--stages`.
    #[default]
    Off,
    /// Nothing, because it refused.
    Refused,
    /// Page faults and switches.
    On(Rings),
}

impl Watch {
    /// Watches the faults and switches of process `husk`, which waits for this.
    ///
    /// # Errors
    /// Without the right to it, or when the husk has ended.
    pub fn open(husk: i32) -> Result<Self, OpenError> {
        Rings::open(husk).map(Self::On)
    }
}

/// The stages of one husk's faults that the kernel sees.
#[derive(Debug, Default)]
pub(super) struct Stages {
    watch: Watch,
    /// CLOCK_MONOTONIC at zero of the shard's clock.
    origin_ns: u64,
    /// The shard's notes, and records later than the last reading's begin.
    moments: Vec<Moment>,
    notes: usize,
    notes_dropped: u64,
    samples_lost: u64,
    records: Vec<Record>,
    matcher: Matcher,
    look_at: Nanos,
}

impl Stages {
    /// Reads from `watch`; the shard's clock began at `origin_ns` of CLOCK_MONOTONIC.
    pub(super) fn new(watch: Watch, origin_ns: u64) -> Self {
        Self { watch, origin_ns, ..Self::default() }
    }

    pub(super) fn is_on(&self) -> bool {
        matches!(self.watch, Watch::On(_))
    }

    /// The shard has read the event of a fault.
    pub(super) fn note_read(&mut self, at: Nanos, thread: u32, page: PageNumber) {
        self.note(at, Happening::Read { thread, page });
    }

    /// The faults that waited for a page are served.
    pub(super) fn note_installed(&mut self, at: Nanos, page: PageNumber, is_remote: bool) {
        self.note(at, Happening::Installed { page, is_remote });
    }

    fn note(&mut self, at: Nanos, what: Happening) {
        if !self.is_on() {
            return;
        }
        if self.notes >= NOTES_MAX {
            self.notes_dropped += 1;
            return;
        }
        self.notes += 1;
        self.moments.push(Moment { at, what });
    }

    /// When to ask again whether it is time to read.
    pub(super) fn due(&self) -> Option<Nanos> {
        self.is_on().then_some(self.look_at)
    }

    /// Whether it is time to read.
    pub(super) fn wants_reading(&mut self, now: Nanos) -> bool {
        let Watch::On(rings) = &self.watch else { return false };
        if now < self.look_at {
            return self.notes >= NOTES_PER_READING;
        }
        self.look_at = now + LOOK_INTERVAL;
        self.notes >= NOTES_PER_READING || rings.is_quarter_full()
    }

    /// Reads the rings and records every stage found up to `now`, the shard's clock just before this call.
    pub(super) fn read(&mut self, now: Nanos, figures: &mut Figures) {
        let Watch::On(rings) = &mut self.watch else { return };
        let loss = rings.read(&mut self.records);
        self.samples_lost = self.samples_lost.saturating_add(loss.records);
        self.notes = 0;
        if loss.records > 0 || loss.is_full {
            self.matcher.forget(&self.moments);
            self.moments.clear();
            self.records.clear();
            return;
        }
        let origin_ns = self.origin_ns;
        self.moments.extend(self.records.drain(..).map(|record| moment(record, origin_ns)));
        self.moments.sort_by_key(|moment| moment.at);
        // One ring is read after the other: of what came meanwhile a thread's earlier records may be missing.
        let complete = self.moments.partition_point(|moment| moment.at <= now);
        self.matcher.advance(&self.moments[..complete], |stage, ns| {
            figures.record(if stage == Stage::Delivered { Span::Delivered } else { Span::Resumed }, ns);
        });
        self.moments.drain(..complete);
    }

    /// What could not be told; nothing for a job that did not ask.
    pub(super) fn counters(&self) -> Vec<(&'static str, u64)> {
        if matches!(self.watch, Watch::Off) {
            return Vec::new();
        }
        let unmatched = self.matcher.unmatched();
        vec![
            ("stages_refused", u64::from(matches!(self.watch, Watch::Refused))),
            ("stage_samples_lost", self.samples_lost),
            ("stage_notes_dropped", self.notes_dropped),
            ("stage_faults_unmatched", unmatched.faults),
            ("stage_resumes_unmatched", unmatched.resumes),
        ]
    }
}

fn moment(record: Record, origin_ns: u64) -> Moment {
    let thread = record.thread;
    let what = match record.what {
        What::Fault { address } => Happening::Fault { thread, page: PageNumber::containing(address) },
        What::Out => Happening::Out { thread },
        What::In => Happening::In { thread },
    };
    Moment { at: Nanos(record.at_ns.saturating_sub(origin_ns)), what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_or_told_unless_asked_for() {
        for (watch, refused) in [(Watch::Off, None), (Watch::Refused, Some(("stages_refused", 1)))] {
            let mut stages = Stages::new(watch, 0);
            stages.note_read(Nanos(1), 1, PageNumber(1));
            assert!(stages.moments.is_empty() && stages.due().is_none() && !stages.wants_reading(Nanos(u64::MAX)));
            assert_eq!(stages.counters().first().copied(), refused);
        }
    }

    #[test]
    fn records_stand_on_the_shard_s_clock() {
        let record = Record { at_ns: 1_500, thread: 7, what: What::Fault { address: 0x3fff } };
        let expected = Moment { at: Nanos(500), what: Happening::Fault { thread: 7, page: PageNumber(3) } };
        assert_eq!(moment(record, 1_000), expected);
        assert_eq!(moment(record, 2_000).at, Nanos(0));
    }
}

//! Deadlines in order, and how long to wait for each peer (RFC 6298).
//!
//! Owns both. Must not know what a deadline is for.

use crate::face::Nanos;
use crate::limits::{RTO_INITIAL, RTO_MAX, RTO_MIN};
use alloc::collections::{BTreeMap, BTreeSet};
use dsm_wire::{ExtentNumber, PageNumber};

/// What a deadline belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerKey {
    /// The transient of a page.
    Page(PageNumber),
    /// The search for an extent's home.
    Extent(ExtentNumber),
    /// A discard this node started, by number.
    Discard(u64),
    /// Offers, and faults that wait for room.
    Memory,
}

/// At most one deadline for each key.
#[derive(Debug, Default)]
pub struct Timers {
    order: BTreeSet<(Nanos, TimerKey)>,
    others: BTreeMap<TimerKey, Nanos>,
}

impl Timers {
    /// Moves the deadline of `key` from `old`, its present value, to `new`.
    pub fn change(&mut self, key: TimerKey, old: Option<Nanos>, new: Option<Nanos>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.order.remove(&(old, key));
        }
        if let Some(new) = new {
            self.order.insert((new, key));
        }
    }

    /// As [`Timers::change`], for keys whose owner does not keep the deadline itself.
    pub fn set(&mut self, key: TimerKey, new: Option<Nanos>) {
        let old = match new {
            Some(new) => self.others.insert(key, new),
            None => self.others.remove(&key),
        };
        self.change(key, old, new);
    }

    pub fn first(&self) -> Option<Nanos> {
        self.order.first().map(|(deadline, _)| *deadline)
    }

    /// The next key whose deadline is `now` or before; its deadline stays until changed.
    pub fn due(&self, now: Nanos) -> Option<TimerKey> {
        self.order.first().filter(|(deadline, _)| *deadline <= now).map(|(_, key)| *key)
    }
}

/// Smoothed round trip to one peer.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundTrip {
    smoothed: u64,
    variance: u64,
    seen: bool,
}

impl RoundTrip {
    /// Takes a measured round trip of a frame that was sent once.
    pub fn on_sample(&mut self, sample: Nanos) {
        if self.seen {
            self.variance = (3 * self.variance + self.smoothed.abs_diff(sample.0)) / 4;
            self.smoothed = (7 * self.smoothed + sample.0) / 8;
        } else {
            self.smoothed = sample.0;
            self.variance = sample.0 / 2;
            self.seen = true;
        }
    }

    /// How long to wait for an answer after `tries` frames without one.
    pub fn timeout(&self, tries: u32) -> Nanos {
        let base = if self.seen { Nanos(self.smoothed + 4 * self.variance) } else { RTO_INITIAL };
        let base = base.clamp(RTO_MIN, RTO_MAX);
        Nanos(base.0 << tries.min(10)).min(RTO_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_follows_the_samples_and_doubles() {
        let mut trip = RoundTrip::default();
        assert_eq!(trip.timeout(0), RTO_INITIAL);
        trip.on_sample(Nanos::from_millis(4));
        assert_eq!(trip.timeout(0), Nanos::from_millis(12));
        assert_eq!(trip.timeout(1), Nanos::from_millis(24));
        assert_eq!(trip.timeout(60), RTO_MAX);
        (0..100).for_each(|_| trip.on_sample(Nanos::from_micros(50)));
        assert_eq!(trip.timeout(0), RTO_MIN);
    }

    #[test]
    fn deadlines_come_in_order_and_once() {
        let mut timers = Timers::default();
        let (a, b) = (TimerKey::Discard(1), TimerKey::Discard(2));
        timers.set(a, Some(Nanos(9)));
        timers.set(b, Some(Nanos(5)));
        timers.set(a, Some(Nanos(7)));
        assert_eq!(timers.first(), Some(Nanos(5)));
        assert_eq!(timers.due(Nanos(4)), None);
        timers.set(b, None);
        assert_eq!(timers.due(Nanos(8)), Some(a));
        timers.set(a, None);
        assert_eq!(timers.first(), None);
    }
}

//! Whether this host itself stood still (SIGSTOP, a virtual machine's pause): then it is not its peers that were silent.
//!
//! Owns the look at the clock. Must not know who asks.

use crate::limits::{HEARTBEAT, LEASE};
use std::time::{Duration, Instant};

/// Ticks that come regularly while the host runs.
pub struct Standstill {
    ticked: Instant,
    /// When the last long gap ended, and its length.
    seen: Option<(Instant, Duration)>,
}

impl Standstill {
    /// The first tick.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { ticked: now, seen: None }
    }

    /// One more tick.
    pub fn tick(&mut self, now: Instant) {
        self.seen = self.lately(now).map(|gap| match self.seen {
            Some(seen) if seen.1 == gap => seen,
            _ => (now, gap),
        });
        self.ticked = now;
    }

    /// Which host is to blame that `lost` is lost to `own` for this reason, and why.
    #[must_use]
    pub fn explain(&self, now: Instant, own: &str, lost: &str, reason: String) -> (String, String) {
        match self.lately(now).filter(|_| lost != own) {
            Some(gap) => {
                let reason = format!("it stood still for {:.1} s, and {lost} is lost to it: {reason}", gap.as_secs_f64());
                (own.to_owned(), reason)
            }
            None => (lost.to_owned(), reason),
        }
    }

    /// How long the host stood still, if it was long enough to lose a peer and is over since less than a lease.
    fn lately(&self, now: Instant) -> Option<Duration> {
        let gap = now.saturating_duration_since(self.ticked);
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < LEASE;
        if gap > LEASE - HEARTBEAT { Some(gap) } else { self.seen.filter(|seen| is_fresh(seen.0)).map(|seen| seen.1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_gap_is_told_for_a_lease() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut still = Standstill::new(start);
        still.tick(after(250));
        assert_eq!(still.lately(after(600)), None);
        let gap = Some(Duration::from_millis(6000));
        assert_eq!(still.lately(after(6250)), gap);
        still.tick(after(6250));
        still.tick(after(6500));
        assert_eq!(still.lately(after(6600)), gap);
        assert_eq!(still.explain(after(6600), "a", "b", String::new()).0, "a");
        for ms in (6750..9500).step_by(250) {
            still.tick(after(ms));
        }
        assert_eq!(still.lately(after(9300)), None);
        assert_eq!(still.explain(after(9300), "a", "b", "silence".into()), ("b".to_owned(), "silence".to_owned()));
    }
}

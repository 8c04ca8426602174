//! Byte credits: how much page traffic of one class may be under way to one peer.
//!
//! Owns both ends' arithmetic. Must not know frames, sockets or peers.

use crate::Nanos;
use crate::limits::{CREDIT_PROBE_INTERVAL, CREDIT_REPORT_SHARE};
use std::collections::VecDeque;

/// The sending end. The receiver reports the highest sequence it consumed; everything up to it is free again, whether it arrived
/// or was lost.
pub(crate) struct CreditSender {
    window: u32,
    in_flight: u32,
    sent: VecDeque<(u64, u32)>,
    probe_at: Option<Nanos>,
}

impl CreditSender {
    /// `window` bytes of credit, none used.
    pub(crate) fn new(window: u32) -> CreditSender {
        CreditSender { window, in_flight: 0, sent: VecDeque::new(), probe_at: None }
    }

    /// Whether `bytes` may go now. A frame larger than the window may go alone.
    pub(crate) fn is_open(&self, bytes: u32) -> bool {
        self.in_flight == 0 || self.in_flight.saturating_add(bytes) <= self.window
    }

    /// Notes that `bytes` left, the last of them under `sequence`.
    pub(crate) fn on_sent(&mut self, sequence: u64, bytes: u32) {
        self.in_flight += bytes;
        self.sent.push_back((sequence, bytes));
    }

    /// Frees everything up to `sequence`. Returns whether that was anything.
    pub(crate) fn on_report(&mut self, sequence: u64) -> bool {
        let before = self.in_flight;
        while let Some((_, bytes)) = self.sent.pop_front_if(|(sent, _)| *sent <= sequence) {
            self.in_flight -= bytes;
        }
        let freed = self.in_flight != before;
        if freed {
            self.probe_at = None;
        }
        freed
    }

    /// Notes that a frame waits for credits. Returns whether that is news.
    pub(crate) fn on_blocked(&mut self, now: Nanos) -> bool {
        let news = self.probe_at.is_none();
        self.probe_at.get_or_insert(now.after(CREDIT_PROBE_INTERVAL));
        news
    }

    /// When to probe, if a frame waits.
    pub(crate) fn probe_at(&self) -> Option<Nanos> {
        self.probe_at
    }

    /// Whether a probe is due; the next one follows after another interval.
    pub(crate) fn is_probe_due(&mut self, now: Nanos) -> bool {
        let due = self.probe_at.is_some_and(|at| at <= now);
        if due {
            self.probe_at = Some(now.after(CREDIT_PROBE_INTERVAL));
        }
        due
    }
}

/// The receiving end.
pub(crate) struct CreditReceiver {
    window: u32,
    unreported: u32,
}

impl CreditReceiver {
    /// Reports a [`CREDIT_REPORT_SHARE`]th of `window` at a time.
    pub(crate) fn new(window: u32) -> CreditReceiver {
        CreditReceiver { window, unreported: 0 }
    }

    /// Notes that `bytes` were consumed. Returns whether to report now.
    pub(crate) fn on_consumed(&mut self, bytes: u32) -> bool {
        self.unreported += bytes;
        let due = self.unreported >= self.window / CREDIT_REPORT_SHARE;
        if due {
            self.unreported = 0;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_closes_and_reports_open_it() {
        let mut sender = CreditSender::new(100);
        assert!(sender.is_open(1000), "alone, anything goes");
        sender.on_sent(1, 60);
        assert!(sender.is_open(40) && !sender.is_open(41));
        sender.on_sent(2, 40);
        assert!(!sender.is_open(1));
        assert!(!sender.on_report(0), "nothing freed");
        assert!(sender.on_report(1));
        assert!(sender.is_open(60) && !sender.is_open(61));
        assert!(sender.on_report(9), "a later sequence frees what was lost before it");
        assert!(sender.is_open(1000));
        assert!(!sender.on_report(1), "an old report changes nothing");
    }

    #[test]
    fn blocked_sender_probes_until_freed() {
        let mut sender = CreditSender::new(100);
        let start = Nanos(1_000);
        sender.on_sent(1, 100);
        assert!(!sender.is_probe_due(start));
        assert!(sender.on_blocked(start) && !sender.on_blocked(start));
        let due = start.after(CREDIT_PROBE_INTERVAL);
        assert!(!sender.is_probe_due(Nanos(due.0 - 1)));
        assert!(sender.is_probe_due(due) && !sender.is_probe_due(due));
        assert!(sender.on_report(1));
        assert_eq!(sender.probe_at(), None);
    }

    #[test]
    fn receiver_reports_by_quarter() {
        let mut receiver = CreditReceiver::new(100);
        assert!(!receiver.on_consumed(24));
        assert!(receiver.on_consumed(1));
        assert!(!receiver.on_consumed(24));
        assert!(receiver.on_consumed(500));
    }
}

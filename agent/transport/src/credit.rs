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

    /// Whether `bytes` may go now. Large trains count for half a window, so that one may always go once everything that was sent
    /// is consumed, though the receiver has not reported the last of it (less than half a window).
    pub(crate) fn is_open(&self, bytes: u32) -> bool {
        self.in_flight.saturating_add(bytes.min(self.window / 2)) <= self.window
    }

    /// Notes that a datagram of `bytes` left under `sequence`.
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
        assert!(sender.is_open(1000), "onto an idle peer, anything goes");
        sender.on_sent(1, 60);
        assert!(sender.is_open(40) && !sender.is_open(41));
        sender.on_sent(2, 40);
        assert!(!sender.is_open(1));
        assert!(!sender.on_report(0), "nothing freed");
        assert!(sender.on_report(1));
        assert!(sender.is_open(1000), "what is left unreported is less than half");
        sender.on_sent(3, 20);
        assert!(sender.is_open(40) && !sender.is_open(41));
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
    fn receiver_reports_by_half() {
        let mut receiver = CreditReceiver::new(100);
        assert!(!receiver.on_consumed(49));
        assert!(receiver.on_consumed(1));
        assert!(!receiver.on_consumed(49));
        assert!(receiver.on_consumed(500));
    }

    #[test]
    fn without_loss_a_train_of_any_size_goes_without_a_probe() {
        for window in [100, 999, 16 << 10, 256 << 10] {
            for datagram in [1u32, 30, 99, 1472, 4160, 8256, 61_504] {
                let (mut sender, mut receiver) = (CreditSender::new(window), CreditReceiver::new(window));
                let mut sequence = 0;
                for datagrams in (1..=16).cycle().take(200) {
                    assert!(sender.is_open(datagram * datagrams), "{datagrams} of {datagram} in {window}");
                    for _ in 0..datagrams {
                        sequence += 1;
                        sender.on_sent(sequence, datagram);
                        if receiver.on_consumed(datagram) {
                            sender.on_report(sequence);
                        }
                    }
                }
            }
        }
    }
}

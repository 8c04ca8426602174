//! A pair of hosts over a network that loses, doubles and reorders: messages are delivered once and in order.
//!
//! Owns sequence numbers, acknowledgements and repetition. Must not know what is carried.

use crate::Nanos;
use crate::limits::{LINK_EARLY_MAX, LINK_WINDOW_MAX, RESEND_NS_MAX, RESEND_NS_MIN};
use std::collections::{BTreeMap, VecDeque};

/// What travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<T> {
    /// A message.
    Data {
        /// Its place among all of this direction.
        sequence: u64,
        /// The message.
        payload: T,
    },
    /// All before this place have arrived.
    Acknowledge(u64),
}

/// One end.
#[derive(Debug)]
pub struct Link<T> {
    /// Place of the first that is not acknowledged.
    first: u64,
    /// From that place on; the first so many of them are under way.
    unacknowledged: VecDeque<T>,
    under_way: usize,
    resend_at: Option<Nanos>,
    wait_ns: u64,
    expected: u64,
    early: BTreeMap<u64, T>,
    owes: bool,
    out: VecDeque<Frame<T>>,
    arrived: VecDeque<T>,
}

impl<T> Default for Link<T> {
    fn default() -> Self {
        Self {
            first: 0,
            unacknowledged: VecDeque::new(),
            under_way: 0,
            resend_at: None,
            wait_ns: RESEND_NS_MIN,
            expected: 0,
            early: BTreeMap::new(),
            owes: false,
            out: VecDeque::new(),
            arrived: VecDeque::new(),
        }
    }
}

impl<T: Clone> Link<T> {
    /// Sends a message, now or when there is room in the window.
    pub fn handle_send(&mut self, now: Nanos, message: T) {
        self.unacknowledged.push_back(message);
        self.fill(now);
    }

    /// A frame has come.
    pub fn handle_frame(&mut self, now: Nanos, frame: Frame<T>) {
        match frame {
            Frame::Acknowledge(next) => self.acknowledged(now, next),
            Frame::Data { sequence, payload } => {
                self.owes = true;
                let is_near = sequence >= self.expected && sequence - self.expected < LINK_EARLY_MAX as u64;
                if is_near {
                    self.early.entry(sequence).or_insert(payload);
                }
                while let Some(message) = self.early.remove(&self.expected) {
                    self.arrived.push_back(message);
                    self.expected += 1;
                }
            }
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Nanos) {
        if self.resend_at.is_none_or(|at| at > now) {
            return;
        }
        for index in 0..self.under_way {
            let payload = self.unacknowledged[index].clone();
            self.out.push_back(Frame::Data { sequence: self.first + index as u64, payload });
        }
        self.wait_ns = (self.wait_ns * 2).min(RESEND_NS_MAX);
        self.resend_at = Some(Nanos(now.0 + self.wait_ns));
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self) -> Option<Frame<T>> {
        if self.owes {
            self.owes = false;
            return Some(Frame::Acknowledge(self.expected));
        }
        self.out.pop_front()
    }

    /// The next message that has arrived.
    pub fn poll_arrived(&mut self) -> Option<T> {
        self.arrived.pop_front()
    }

    /// When something is to be sent again.
    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Nanos> {
        self.resend_at
    }

    fn acknowledged(&mut self, now: Nanos, next: u64) {
        let count = next.saturating_sub(self.first);
        // More than was sent: no acknowledgement of ours.
        if count == 0 || count > self.under_way as u64 {
            return;
        }
        self.first = next;
        self.unacknowledged.drain(..count as usize);
        self.under_way -= count as usize;
        self.wait_ns = RESEND_NS_MIN;
        self.resend_at = (self.under_way > 0).then(|| Nanos(now.0 + self.wait_ns));
        self.fill(now);
    }

    fn fill(&mut self, now: Nanos) {
        while self.under_way < self.unacknowledged.len().min(LINK_WINDOW_MAX) {
            let payload = self.unacknowledged[self.under_way].clone();
            self.out.push_back(Frame::Data { sequence: self.first + self.under_way as u64, payload });
            self.under_way += 1;
            self.resend_at.get_or_insert(Nanos(now.0 + self.wait_ns));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends `count` numbers; `fate` says for each frame how often it arrives.
    fn check(count: u64, mut fate: impl FnMut(u64) -> usize) {
        let (mut one, mut two) = (Link::default(), Link::default());
        (0..count).for_each(|number| one.handle_send(Nanos(0), number));
        let (mut arrived, mut frames) = (Vec::new(), 0);
        for step in 0..10_000 {
            let now = Nanos(step * RESEND_NS_MAX);
            let mut forth: Vec<Frame<u64>> = std::iter::from_fn(|| one.poll_transmit()).collect();
            forth.reverse();
            for frame in forth {
                frames += 1;
                (0..fate(frames)).for_each(|_| two.handle_frame(now, frame.clone()));
            }
            arrived.extend(std::iter::from_fn(|| two.poll_arrived()));
            while let Some(frame) = two.poll_transmit() {
                frames += 1;
                (0..fate(frames)).for_each(|_| one.handle_frame(now, frame.clone()));
            }
            one.handle_timeout(now);
        }
        assert_eq!(arrived, (0..count).collect::<Vec<_>>());
        assert!(one.poll_timeout().is_none(), "nothing is owed at the end");
    }

    #[test]
    fn messages_come_once_and_in_order() {
        check(1000, |_| 1);
        check(1000, |frame| usize::from(frame % 3 != 0));
        check(1000, |frame| (frame % 4) as usize);
    }

    #[test]
    fn a_foreign_acknowledgement_is_ignored() {
        let mut link = Link::default();
        link.handle_send(Nanos(0), 1);
        link.handle_frame(Nanos(0), Frame::Acknowledge(7));
        assert!(link.poll_timeout().is_some());
    }
}

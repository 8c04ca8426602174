//! Messages between the hosts of one guest: each arrives once and in order, over connections that lose, double and reorder.
//!
//! Owns numbers, acknowledgements and repeats of one link between two hosts. Must not know sockets or what a message does.

use crate::limits::{RETRY_NS, WAITING_MAX, WINDOW};
use std::collections::VecDeque;

/// What travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<M> {
    /// All messages below this number have arrived at the sender of the frame.
    pub acknowledged: u64,
    /// A message with its number, or the acknowledgement alone.
    pub message: Option<(u64, M)>,
}

/// The other host lets more messages pile up than may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stuck;

/// One end of a link.
#[derive(Clone, Debug)]
pub struct Link<M> {
    /// Messages that are not acknowledged, the first of them with number `first`.
    waiting: VecDeque<M>,
    first: u64,
    /// Number of the next one to send.
    next: u64,
    /// Number of the next one to arrive.
    expected: u64,
    owes_acknowledgement: bool,
    retry_ns: Option<u64>,
}

impl<M> Default for Link<M> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), first: 0, next: 0, expected: 0, owes_acknowledgement: false, retry_ns: None }
    }
}

impl<M: Clone> Link<M> {
    /// Takes a message to send.
    ///
    /// # Errors
    /// Too many wait.
    pub fn push(&mut self, message: M) -> Result<(), Stuck> {
        if self.waiting.len() >= WAITING_MAX {
            return Err(Stuck);
        }
        self.waiting.push_back(message);
        Ok(())
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self, now_ns: u64) -> Option<Frame<M>> {
        let under_way = (self.next - self.first) as usize;
        let message = if under_way < WINDOW { self.waiting.get(under_way).cloned() } else { None };
        if message.is_none() && !self.owes_acknowledgement {
            return None;
        }
        self.owes_acknowledgement = false;
        let message = message.map(|message| {
            self.next += 1;
            self.retry_ns.get_or_insert(now_ns.saturating_add(RETRY_NS));
            (self.next - 1, message)
        });
        Some(Frame { acknowledged: self.expected, message })
    }

    /// A frame has come; gives its message if that is the next one.
    pub fn handle_frame(&mut self, frame: Frame<M>, now_ns: u64) -> Option<M> {
        // What was never sent cannot have arrived.
        let arrived = frame.acknowledged.min(self.next);
        if arrived > self.first {
            self.waiting.drain(..(arrived - self.first) as usize);
            self.first = arrived;
            self.retry_ns = (self.next > self.first).then(|| now_ns.saturating_add(RETRY_NS));
        }
        let (number, message) = frame.message?;
        self.owes_acknowledgement = true;
        if number != self.expected {
            return None;
        }
        self.expected += 1;
        Some(message)
    }

    /// When [`Link::handle_timeout`] is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<u64> {
        self.retry_ns
    }

    /// Time has passed: what was not acknowledged is sent again.
    pub fn handle_timeout(&mut self, now_ns: u64) {
        if self.retry_ns.is_some_and(|at| at <= now_ns) {
            self.next = self.first;
            self.retry_ns = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_sent_again_and_doubles_are_dropped() {
        let (mut left, mut right) = (Link::default(), Link::default());
        for message in 0..3 {
            left.push(message).unwrap();
        }
        let frames: Vec<_> = std::iter::from_fn(|| left.poll_transmit(0)).collect();
        assert_eq!(frames.len(), 3);
        assert_eq!(right.handle_frame(frames[0].clone(), 0), Some(0));
        assert_eq!(right.handle_frame(frames[0].clone(), 0), None, "doubled");
        assert_eq!(right.handle_frame(frames[2].clone(), 0), None, "out of order");
        let answer = right.poll_transmit(0).unwrap();
        assert_eq!(answer, Frame { acknowledged: 1, message: None });
        assert_eq!(left.handle_frame(answer, 5), None);
        assert_eq!((left.poll_transmit(6), left.poll_timeout()), (None, Some(5 + RETRY_NS)));
        left.handle_timeout(5 + RETRY_NS);
        let again: Vec<_> =
            std::iter::from_fn(|| left.poll_transmit(6)).filter_map(|frame| right.handle_frame(frame, 7)).collect();
        assert_eq!(again, [1, 2]);
        assert_eq!(left.handle_frame(Frame { acknowledged: 99, message: None }, 8), None, "more than was sent");
        assert_eq!(left.poll_timeout(), None);
    }

    #[test]
    fn a_window_is_under_way_and_the_queue_is_bounded() {
        let mut link = Link::default();
        for message in 0..WAITING_MAX {
            link.push(message).unwrap();
        }
        assert_eq!(link.push(0), Err(Stuck));
        assert_eq!(std::iter::from_fn(|| link.poll_transmit(0)).count(), WINDOW);
    }
}

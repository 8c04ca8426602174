//! Operations that wait for their next attempt.
//!
//! Owns a bounded first-in first-out list with one delay. Has no clock: `now` is an argument. Must not know what an
//! operation is.

use std::collections::VecDeque;

use crate::limits::DEFERRED_MAX;

/// Operations handed back as [`PagerError::Busy`](crate::PagerError::Busy), kept until they are due again.
///
/// The kernel refuses while a mapping changes, and the change may need the very thread that would spin on it; so the
/// caller puts the rest of the operation here, goes on draining faults, and asks [`Deferred::retry`] each round.
#[derive(Debug)]
pub struct Deferred<T> {
    delay_ns: u64,
    waiting: VecDeque<(u64, T)>,
    count_max: usize,
}

impl<T> Deferred<T> {
    /// An empty list whose entries are due `delay_ns` after they were put in.
    #[must_use]
    pub const fn new(delay_ns: u64) -> Self {
        Self { delay_ns, waiting: VecDeque::new(), count_max: DEFERRED_MAX }
    }

    /// Puts `operation` in; hands it back if the list is full, which the caller answers by dropping the view.
    ///
    /// # Errors
    /// The operation itself, when [`DEFERRED_MAX`] are waiting.
    pub fn push(&mut self, now_ns: u64, operation: T) -> Result<(), T> {
        if self.waiting.len() >= self.count_max {
            return Err(operation);
        }
        self.waiting.push_back((now_ns.saturating_add(self.delay_ns), operation));
        Ok(())
    }

    /// The oldest operation that is due at `now_ns`, taken out.
    pub fn retry(&mut self, now_ns: u64) -> Option<T> {
        let (due_ns, _) = self.waiting.front()?;
        if *due_ns > now_ns {
            return None;
        }
        self.waiting.pop_front().map(|(_, operation)| operation)
    }

    /// When the next operation is due.
    #[must_use]
    pub fn due_ns(&self) -> Option<u64> {
        self.waiting.front().map(|(due_ns, _)| *due_ns)
    }

    /// Operations waiting.
    #[must_use]
    pub fn count(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_in_order_and_bounded() {
        let mut list = Deferred::new(100);
        list.count_max = 2;
        assert_eq!(list.push(10, 'a'), Ok(()));
        assert_eq!(list.push(20, 'b'), Ok(()));
        assert_eq!(list.push(30, 'c'), Err('c'));
        assert_eq!((list.due_ns(), list.count()), (Some(110), 2));
        assert_eq!(list.retry(109), None);
        assert_eq!(list.retry(110), Some('a'));
        assert_eq!(list.retry(110), None);
        assert_eq!(list.retry(u64::MAX), Some('b'));
        assert_eq!((list.due_ns(), list.retry(u64::MAX)), (None, None));
    }
}

//! One host's part in the coherence of one space: the face.
//!
//! Owns the queues between driver and protocol. Must not know how a page moves.

use crate::face::{Config, Event, FaultKind, Frame, Nanos, OpId, OpResult, PageOp, Transmit};
use crate::stats::Counters;
use alloc::collections::VecDeque;
use dsm_wire::{Epoch, NodeId, PageNumber, PageRange};

/// One host's part in the coherence of one space.
#[derive(Debug)]
pub struct Node {
    config: Config,
    ops: VecDeque<(OpId, PageOp)>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    counters: Counters,
}

impl Node {
    /// A node that holds no page and knows no home.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config, ops: VecDeque::new(), transmits: VecDeque::new(), events: VecDeque::new(), counters: Counters::default() }
    }

    /// A thread stopped at `page`. Ends in an operation that wakes it, sooner or later.
    pub fn handle_fault(&mut self, _now: Nanos, _page: PageNumber, _kind: FaultKind) {}

    /// A frame came in. Never panics, whatever it says; what makes no sense is counted, and its buffers are freed.
    pub fn handle_frame(&mut self, _now: Nanos, _frame: Frame) {}

    /// A page operation is done.
    ///
    /// # Panics
    /// If `op` is not in flight, or the result does not fit it: the driver is broken.
    pub fn handle_page_done(&mut self, _now: Nanos, _op: OpId, _result: OpResult) {}

    /// Forget the contents of `range` everywhere; [`Event::DiscardDone`] with `token` follows. Cheap for any range:
    /// only extents somebody touched are visited. Returns false, and does nothing, when too many discards wait.
    pub fn handle_discard(&mut self, _now: Nanos, _range: PageRange, _token: u64) -> bool {
        true
    }

    /// From now on the members are `members`, a subset of the ones before: who is missing is dead and fenced.
    pub fn handle_membership(&mut self, _now: Nanos, epoch: Epoch, _members: &[NodeId]) {
        self.config.epoch = epoch;
    }

    /// The time of `poll_timeout` has come, or passed.
    pub fn handle_timeout(&mut self, _now: Nanos) {}

    /// The next page operation to carry out.
    pub fn poll_page_op(&mut self) -> Option<(OpId, PageOp)> {
        self.ops.pop_front()
    }

    /// The next frame to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When `handle_timeout` is to be called; `None`: not before another input.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Nanos> {
        None
    }

    /// What was counted since the start.
    #[must_use]
    pub const fn stats(&self) -> &Counters {
        &self.counters
    }
}

//! The hold window: a page that is torn to and fro stays a little where it is, so that its threads get on.
//!
//! Owns the decision to delay what ends a writer's stay: a hand-over, or the order to become read-only for a reader; and the order
//! to drop a copy that has not come yet. Must not delay a page that is not torn to and fro, nor the drop of a copy that is here.
//!
//! A departure is regretted if threads here want the page again soon after it. What other nodes want much later than it left was in
//! nobody's way: the page of a thread that starts here and is joined there.
//!
//! ```text
//!   regrets                     0  1  2  3    4    5    6    7    8    9    10 …
//!   window of the next stay     0  0  0  25   50   100  200  400  800  1600 1600 us      (a departure without: three quarters of it)
//! ```

use crate::extent::LocalState;
use crate::face::{Frame, Nanos};
use crate::limits::{
    HOLD_BOUNCES_MIN, HOLD_QUICK_MAX, HOLD_REGRET_MAX, HOLD_WINDOW_FALSE_MAX, HOLD_WINDOW_MAX, HOLD_WINDOW_MIN, HOLDS_BITS,
    OVERTAKEN_MAX,
};
use crate::node::Node;
use crate::recent::Recent;
use crate::transient::Want;
use dsm_wire::{Line, Message, PageNumber, Rights};

#[derive(Clone, Copy, Debug, Default)]
struct Stay {
    arrived_at: Nanos,
    /// When it left, until it is wanted again.
    left_at: Option<Nanos>,
    bounces: u8,
    window: Nanos,
    /// Where in the page the thread stopped for which it came.
    line: Line,
}

/// The pages that came last, and how they fared.
#[derive(Debug, Default)]
pub struct Stays {
    stays: Recent<Stay, HOLDS_BITS>,
}

impl Stays {
    fn on_arrival(&mut self, page: PageNumber, line: Line, now: Nanos) {
        let stay = self.stays.entry(page);
        stay.arrived_at = now;
        stay.line = line;
    }

    fn on_departure(&mut self, page: PageNumber, now: Nanos) {
        let Some(stay) = self.stays.get_mut(page) else { return };
        if now.since(stay.arrived_at) > HOLD_QUICK_MAX {
            self.stays.forget(page);
            return;
        }
        stay.left_at = Some(now);
    }

    /// A thread here wants the page.
    fn on_wanted(&mut self, page: PageNumber, now: Nanos) {
        let Some(stay) = self.stays.get_mut(page) else { return };
        let Some(left_at) = stay.left_at.take() else { return };
        if now.since(left_at) > HOLD_REGRET_MAX {
            stay.window = Nanos(stay.window.0 / 4 * 3);
            if stay.window < HOLD_WINDOW_MIN {
                (stay.window, stay.bounces) = (Nanos::default(), 0);
            }
            return;
        }
        stay.bounces = stay.bounces.saturating_add(1);
        if stay.bounces >= HOLD_BOUNCES_MIN {
            stay.window = Nanos(stay.window.0 * 2).clamp(HOLD_WINDOW_MIN, HOLD_WINDOW_FALSE_MAX);
        }
    }

    /// Until when `page` stays though another node wants `line`, if that is later than `now`. Where both want the same line one
    /// likely waits for what the other does there, as with a lock: it is slowed by a small factor only.
    fn until(&mut self, page: PageNumber, line: Line, now: Nanos) -> Option<Nanos> {
        let stay = self.stays.get_mut(page)?;
        let window = if stay.line == line { stay.window.min(HOLD_WINDOW_MAX) } else { stay.window };
        let until = stay.arrived_at + window;
        (until > now).then_some(until)
    }

    pub fn len(&self) -> usize {
        self.stays.len()
    }
}

impl Node {
    /// Whether the order in `frame` has to wait for the page's window; if so, the timer is to be armed.
    pub(crate) fn is_held_back(&mut self, page: PageNumber, frame: &Frame) -> bool {
        let local_era = self.local(page).era;
        match frame.message {
            Message::Forward { rights: Rights::Write, era, line, .. } => era > local_era && self.must_stay(page, line),
            Message::Forward { rights: Rights::Read, era, line, .. } => era == local_era && self.must_stay(page, line),
            Message::Invalidate { era, .. } => era > local_era && self.awaits_copy(page),
            _ => false,
        }
    }

    /// Whether a thread here waits for a copy that the order to drop it has overtaken; if so, the timer is to be armed. Were the order
    /// carried out first, the copy would be too old to install, every time while others go on writing.
    fn awaits_copy(&mut self, page: PageNumber) -> bool {
        let is_absent = self.local(page).state == LocalState::Invalid;
        let Some(transient) = self.transients.get_mut(&page).filter(|_| is_absent) else { return false };
        let reads = |want: &&mut Want| !want.fault.is_ahead && want.ask.is_some_and(|ask| ask.rights == Rights::Read);
        let Some(want) = transient.want.as_mut().filter(reads) else { return false };
        let until = *want.fault.overtaken_at.get_or_insert(self.now) + OVERTAKEN_MAX;
        if until <= self.now {
            return false;
        }
        transient.hold_until = Some(until);
        true
    }

    /// Whether `page` is written here and its window is open to a node that wants `line`; if so, the timer is to be armed.
    pub(crate) fn must_stay(&mut self, page: PageNumber, line: Line) -> bool {
        if self.local(page).state != LocalState::Modified {
            return false;
        }
        let Some(until) = self.stays.until(page, line, self.now) else { return false };
        let transient = self.transients.entry(page).or_default();
        if transient.hold_until.is_none() {
            self.counters.holds += 1;
            self.counters.hold_ns_total += until.since(self.now).0;
        }
        transient.hold_until = Some(until);
        true
    }

    pub(crate) fn on_hold_due(&mut self, page: PageNumber) {
        let Some(transient) = self.transients.get_mut(&page) else { return };
        if transient.hold_until.take_if(|until| *until <= self.now).is_some() {
            self.release_page(page);
        }
    }

    /// The page came, to be written.
    pub(crate) fn note_arrival(&mut self, page: PageNumber, line: Line) {
        self.stays.on_arrival(page, line, self.now);
    }

    /// A fault on the page is to be resolved.
    pub(crate) fn note_wanted(&mut self, page: PageNumber) {
        self.stays.on_wanted(page, self.now);
    }

    /// The page was handed over, or made read-only for a reader.
    pub(crate) fn note_departure(&mut self, page: PageNumber) {
        self.stays.on_departure(page, self.now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::face::{Config, Contents, FaultKind, OpResult, PageOp, Transmit};
    use alloc::vec::Vec;
    use dsm_wire::{Epoch, Era, ExtentNumber, GrantContent, NodeId, RequestId, SpaceId};

    const PAGE: PageNumber = PageNumber(7);
    const HERE: Line = Line(3);
    const THERE: Line = Line(4);

    fn bounce(stays: &mut Stays, count: u64, stay: Nanos, line: Line) -> Option<Nanos> {
        bounce_and_want(stays, count, stay, Nanos::from_micros(30), line)
    }

    fn bounce_and_want(stays: &mut Stays, count: u64, stay: Nanos, away: Nanos, line: Line) -> Option<Nanos> {
        let mut now = Nanos::from_millis(5);
        for _ in 0..count {
            stays.on_arrival(PAGE, HERE, now);
            now = now + stay;
            stays.on_departure(PAGE, now);
            now = now + away;
            stays.on_wanted(PAGE, now);
        }
        stays.on_arrival(PAGE, HERE, now);
        stays.until(PAGE, line, now).map(|until| until.since(now))
    }

    #[test]
    fn a_window_opens_after_three_quick_stays_and_is_bounded() {
        let quick = Nanos::from_micros(30);
        assert_eq!(bounce(&mut Stays::default(), 0, quick, HERE), None);
        assert_eq!(bounce(&mut Stays::default(), 2, quick, THERE), None);
        assert_eq!(bounce(&mut Stays::default(), 3, quick, HERE), Some(HOLD_WINDOW_MIN));
        assert_eq!(bounce(&mut Stays::default(), 50, quick, HERE), Some(HOLD_WINDOW_MAX));
        assert_eq!(bounce(&mut Stays::default(), 50, quick, THERE), Some(HOLD_WINDOW_FALSE_MAX));
    }

    #[test]
    fn a_page_that_is_wanted_late_is_not_held() {
        let (quick, late) = (Nanos::from_micros(30), HOLD_REGRET_MAX + Nanos(1));
        let mut stays = Stays::default();
        assert_eq!(bounce_and_want(&mut stays, 50, quick, late, THERE), None);
        let open = bounce(&mut stays, 5, quick, THERE);
        assert_eq!(open, Some(Nanos::from_micros(100)));
        assert_eq!(bounce_and_want(&mut stays, 1, quick, late, THERE), Some(Nanos::from_micros(75)));
        assert_eq!(bounce_and_want(&mut stays, 4, quick, late, THERE), None);
    }

    #[test]
    fn a_slow_stay_closes_the_window() {
        let mut stays = Stays::default();
        bounce(&mut stays, 9, Nanos::from_micros(30), HERE);
        assert_eq!(bounce(&mut stays, 1, Nanos::from_millis(3), THERE), None);
    }

    const HOME: NodeId = NodeId(0);
    const WANTED: PageNumber = PageNumber(600);

    /// A node that has asked home to read a page, when home's order to drop the copy comes before it; and the request.
    fn overtaken() -> (Node, RequestId) {
        let me = NodeId(1);
        let rooted_from = ExtentNumber(1);
        let members = Vec::from([HOME, me]);
        let mut node = Node::new(Config { me, space: SpaceId(1), members, epoch: Epoch(1), rooted_from });
        node.handle_fault(Nanos(1), WANTED, FaultKind::Read, HERE);
        let Message::Request { request, .. } = node.poll_transmit().expect("it asks").message else { panic!("it asks") };
        come(&mut node, Nanos(2), Message::Invalidate { request: RequestId::new(HOME, 1), page: WANTED, era: Era(2) });
        (node, request)
    }

    fn come(node: &mut Node, now: Nanos, message: Message) {
        node.handle_frame(now, Frame { from: HOME, epoch: Epoch(1), message, contents: Contents::EMPTY });
    }

    fn has_acknowledged(node: &mut Node) -> bool {
        core::iter::from_fn(|| node.poll_transmit()).any(|sent| matches!(sent.message, Message::InvalidateAck { .. }))
    }

    #[test]
    fn a_reader_is_served_though_others_never_stop_writing() {
        let (mut node, request) = overtaken();
        assert!(!has_acknowledged(&mut node));
        let content = GrantContent::Zero;
        come(&mut node, Nanos(3), Message::Grant { request, page: WANTED, rights: Rights::Read, era: Era(1), count: 1, content });
        let (id, op) = node.poll_page_op().expect("the copy is not too old");
        assert!(matches!(op, PageOp::Install { first: WANTED, .. }), "{op:?}");
        node.handle_page_done(Nanos(4), id, OpResult::Done);
        let (id, op) = node.poll_page_op().expect("then the order is carried out");
        assert!(matches!(op, PageOp::Drop { .. }), "{op:?}");
        node.handle_page_done(Nanos(5), id, OpResult::Done);
        assert!(has_acknowledged(&mut node));
    }

    #[test]
    fn a_copy_that_does_not_come_is_not_waited_for() {
        let (mut node, request) = overtaken();
        let late = Nanos(2) + OVERTAKEN_MAX;
        node.handle_timeout(late);
        assert!(has_acknowledged(&mut node));
        let content = GrantContent::Zero;
        come(&mut node, late, Message::Grant { request, page: WANTED, rights: Rights::Read, era: Era(1), count: 1, content });
        assert!(node.poll_page_op().is_none(), "it is too old now");
        node.handle_timeout(late);
        let asks = |sent: Transmit| matches!(sent.message, Message::Request { request: again, .. } if again == request);
        assert!(core::iter::from_fn(|| node.poll_transmit()).any(asks), "it asks again at once");
    }
}

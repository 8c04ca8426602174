//! Discards: their initiator, which asks every home concerned, and the homes, which forget page by page.
//!
//! Owns both tables. A discard is not idempotent (the page may be written again right after), so each home
//! remembers which discards of each node it has carried out, as a replay window does.

use crate::extent::{Form, Local, LocalState};
use crate::face::{Event, PageOp};
use crate::limits::{DISCARD_PAGES_IN_FLIGHT_MAX, DISCARDS_ACTIVE_MAX, DISCARDS_QUEUED_MAX, PAGES_MAX};
use crate::node::{Node, whole_extent};
use crate::operation::Follow;
use crate::plant::{Plant, is};
use crate::timer::TimerKey;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use dsm_fast::{Directory, State, Step};
use dsm_wire::{ExtentNumber, Message, NodeId, PAGES_PER_EXTENT, PageNumber, PageRange, RequestId};

/// Marks the counter of a discard's request; discards of one node are numbered without gaps.
const DISCARD_BIT: u64 = 1 << 47;
const WINDOW: u64 = 64;

/// A discard this node started.
#[derive(Debug)]
struct Started {
    token: u64,
    range: PageRange,
    /// Homes that have not answered.
    pending: Vec<NodeId>,
    tries: u32,
}

/// The discards this node started, and those that wait to be.
#[derive(Debug, Default)]
pub struct Discards {
    started: BTreeMap<u64, Started>,
    queued: VecDeque<(PageRange, u64)>,
    last: u64,
}

/// A discard under way at this home.
#[derive(Debug)]
struct Job {
    range: PageRange,
    /// Everything before it is forgotten or under way.
    cursor: PageNumber,
    in_flight: usize,
}

/// Which discards of one node are carried out here.
#[derive(Debug, Default)]
struct Window {
    highest: u64,
    /// Bit `i`: number `highest - i` is carried out or under way.
    seen: u64,
}

impl Window {
    /// Whether `number` is known, or too old not to be.
    fn contains(&self, number: u64) -> bool {
        let age = self.highest.checked_sub(number);
        age.is_some_and(|age| age >= WINDOW || self.seen & 1 << age != 0)
    }

    fn insert(&mut self, number: u64) {
        if number > self.highest {
            let shift = number - self.highest;
            self.seen = if shift >= WINDOW { 0 } else { self.seen << shift };
            self.highest = number;
        }
        self.seen |= 1 << (self.highest - number);
    }
}

/// The discards under way at this home, and the windows.
#[derive(Debug, Default)]
pub struct Jobs {
    jobs: BTreeMap<RequestId, Job>,
    windows: BTreeMap<NodeId, Window>,
    /// Something happened that may let a job go on.
    pub is_dirty: bool,
}

impl Discards {
    pub fn len(&self) -> usize {
        self.started.len() + self.queued.len()
    }
}

impl Jobs {
    pub fn len(&self) -> usize {
        self.jobs.len()
    }
}

const fn number_of(request: RequestId) -> u64 {
    request.0 & (DISCARD_BIT - 1)
}

impl Node {
    pub(crate) fn on_discard_wanted(&mut self, range: PageRange, token: u64) -> bool {
        if self.discards.queued.len() >= DISCARDS_QUEUED_MAX {
            return false;
        }
        self.discards.queued.push_back((range, token));
        self.start_discards();
        true
    }

    /// Starts queued discards while the window of every home has room.
    fn start_discards(&mut self) {
        loop {
            let oldest = self.discards.started.first_key_value().map_or(self.discards.last + 1, |(number, _)| *number);
            if self.discards.last + 1 - oldest >= DISCARDS_ACTIVE_MAX {
                return;
            }
            let Some((range, token)) = self.discards.queued.pop_front() else { return };
            let range = clip(range);
            let pending = self.discard_targets(range);
            if pending.is_empty() || range.count == 0 {
                self.emit(Event::DiscardDone { token });
                continue;
            }
            self.discards.last += 1;
            let number = self.discards.last;
            self.discards.started.insert(number, Started { token, range, pending, tries: 0 });
            self.send_discard(number);
        }
    }

    /// The homes of `range` if all are known here, else every member.
    fn discard_targets(&self, range: PageRange) -> Vec<NodeId> {
        let extents = extents_of(range);
        let mut homes = Vec::new();
        let mut known = 0;
        for (_, extent) in self.extents.range(extents.clone()) {
            let home = match extent.form {
                Form::Unknown => continue,
                Form::Whole(_) | Form::Split(..) => self.me,
                Form::Remote(home, _) => home,
                // Others may know a home: it may be lost to this node only, with its anchor.
                Form::Lost => continue,
            };
            known += 1;
            if !homes.contains(&home) {
                homes.push(home);
            }
        }
        if known == extents.end().0 + 1 - extents.start().0 { homes } else { self.peers.keys().copied().collect() }
    }

    fn send_discard(&mut self, number: u64) {
        let Some(started) = self.discards.started.get(&number) else { return };
        let request = RequestId::new(self.me, DISCARD_BIT | number);
        let (range, pending, tries) = (started.range, started.pending.clone(), started.tries);
        let slowest = pending.iter().map(|node| self.timeout(*node, tries)).max().unwrap_or_default();
        self.timers.set(TimerKey::Discard(number), Some(self.now + slowest));
        for node in pending {
            self.send(node, Message::Discard { request, range });
        }
    }

    pub(crate) fn on_discard_due(&mut self, number: u64) {
        match self.discards.started.get_mut(&number) {
            Some(started) => {
                started.tries += 1;
                self.counters.discards_again += 1;
                self.send_discard(number);
            }
            None => self.timers.set(TimerKey::Discard(number), None),
        }
    }

    pub(crate) fn on_discard_done(&mut self, from: NodeId, request: RequestId) {
        let number = number_of(request);
        let Some(started) = self.discards.started.get_mut(&number).filter(|_| request.requester() == self.me) else {
            self.counters.dropped_stale += 1;
            return;
        };
        started.pending.retain(|node| *node != from);
        self.end_discard(number);
    }

    /// Ends a discard that waits for nobody any more.
    fn end_discard(&mut self, number: u64) {
        if self.discards.started.get(&number).is_some_and(|started| started.pending.is_empty())
            && let Some(started) = self.discards.started.remove(&number)
        {
            self.timers.set(TimerKey::Discard(number), None);
            self.emit(Event::DiscardDone { token: started.token });
            self.start_discards();
        }
    }

    /// Nobody waits for the dead.
    pub(crate) fn forget_dead_homes(&mut self) {
        let numbers: Vec<u64> = self.discards.started.keys().copied().collect();
        for number in numbers {
            if let Some(started) = self.discards.started.get_mut(&number) {
                started.pending.retain(|node| self.peers.contains_key(node));
            }
            self.end_discard(number);
        }
    }

    pub(crate) fn on_discard(&mut self, from: NodeId, request: RequestId, range: PageRange) {
        if request.requester() != from || request.0 & DISCARD_BIT == 0 {
            self.counters.dropped_nonsense += 1;
            return;
        }
        if self.jobs.jobs.contains_key(&request) {
            self.counters.dropped_stale += 1;
            return;
        }
        let window = self.jobs.windows.entry(from).or_default();
        if window.contains(number_of(request)) && !is(Plant::DiscardTwice) {
            self.counters.dropped_stale += 1;
            self.send(from, Message::DiscardDone { request });
            return;
        }
        window.insert(number_of(request));
        let range = clip(range);
        self.jobs.jobs.insert(request, Job { range, cursor: range.first, in_flight: 0 });
        self.jobs.is_dirty = true;
    }

    pub(crate) fn advance_jobs(&mut self) {
        let requests: Vec<RequestId> = self.jobs.jobs.keys().copied().collect();
        for request in requests {
            self.advance_job(request);
        }
    }

    fn advance_job(&mut self, request: RequestId) {
        while let Some(job) = self.jobs.jobs.get_mut(&request) {
            if job.cursor >= job.range.end() {
                if job.in_flight == 0 {
                    let range = job.range;
                    self.jobs.jobs.remove(&request);
                    self.merge_extents(range);
                    self.send(request.requester(), Message::DiscardDone { request });
                }
                return;
            }
            if job.in_flight >= DISCARD_PAGES_IN_FLIGHT_MAX {
                return;
            }
            let rest = PageRange::new(job.cursor, job.range.end().0 - job.cursor.0);
            let next =
                self.extents.range(extents_of(rest)).find(|(_, extent)| is_home_form(&extent.form)).map(|(number, _)| *number);
            let Some(number) = next else {
                job.cursor = rest.end();
                continue;
            };
            let here = intersection(rest, whole_extent(number));
            let is_parked = match self.extents.get(&number).map(|extent| &extent.form) {
                Some(Form::Whole(_)) => self.forget_whole(request, here),
                Some(Form::Split(..)) => self.forget_words(request, here),
                Some(Form::Unknown | Form::Remote(..) | Form::Lost) | None => false,
            };
            if is_parked {
                return;
            }
        }
    }

    /// Extents of `range` that are forgotten as a whole, and at rest, are this node's alone again.
    fn merge_extents(&mut self, range: PageRange) {
        let is_inside = |number: ExtentNumber| intersection(range, whole_extent(number)).count == PAGES_PER_EXTENT;
        let split: Vec<ExtentNumber> = self
            .extents
            .range(extents_of(range))
            .filter(|(number, extent)| matches!(extent.form, Form::Split(..)) && is_inside(**number))
            .map(|(number, _)| *number)
            .collect();
        for number in split {
            let pages = whole_extent(number);
            let is_at_rest = self.transients.range(pages.first..pages.end()).next().is_none();
            let is_free = is_at_rest && self.operations.overlapping(pages).is_none();
            if is_free && self.extents.get_mut(&number).is_some_and(|extent| extent.merge()) {
                self.counters.extents_merged += 1;
                self.close_directory(number);
            }
        }
    }

    fn advance_cursor(&mut self, request: RequestId, cursor: PageNumber, in_flight: usize) {
        if let Some(job) = self.jobs.jobs.get_mut(&request) {
            job.cursor = cursor;
            job.in_flight += in_flight;
        }
    }

    /// Forgets pages of an extent that only this node uses, with one operation. Returns whether it must wait.
    fn forget_whole(&mut self, request: RequestId, here: PageRange) -> bool {
        let number = here.first.extent();
        if self.operations.overlapping(whole_extent(number)).is_some() {
            return true;
        }
        let Some(Form::Whole(whole)) = self.extents.get_mut(&number).map(|extent| &mut extent.form) else { return false };
        let (first, count) = (here.first.index_in_extent(), here.count as usize);
        let span = whole.present.span_within(first, count);
        if let Some((low, span)) = span {
            let before = whole.present.len();
            whole.present.remove_run(first, count);
            whole.ramp = 0;
            self.counters.pages_discarded += (before - whole.present.len()) as u64;
            self.sources.add_to(&mut whole.present, here);
            let range = PageRange::new(number.page(low), span as u64);
            self.start(PageOp::Drop { range }, Follow::Forget { job: request });
            if let Some(extent) = self.extents.get_mut(&number) {
                self.sources.add_to(&mut extent.unread, here);
            }
        }
        self.advance_cursor(request, here.end(), usize::from(span.is_some()));
        false
    }

    /// Forgets pages of a split extent, each by its own transaction. Returns whether it must wait.
    fn forget_words(&mut self, request: RequestId, here: PageRange) -> bool {
        let mut cursor = here.first;
        loop {
            let Some(page) = self.next_to_forget(PageRange::new(cursor, here.end().0 - cursor.0)) else {
                self.advance_cursor(request, here.end(), 0);
                return false;
            };
            if self.jobs.jobs.get(&request).is_some_and(|job| job.in_flight >= DISCARD_PAGES_IN_FLIGHT_MAX) {
                self.advance_cursor(request, page, 0);
                return true;
            }
            let own = self.own_run(PageRange::new(page, here.end().0 - page.0));
            cursor = page.offset(own.count.max(1));
            self.advance_cursor(request, cursor, 1);
            if own.count > 0 {
                self.forget_own(request, own);
            } else if !self.forget_page(page, request) {
                self.on_page_forgotten(request);
            }
        }
    }

    /// The pages from the start of `rest` that this node alone has, with nothing in flight.
    fn own_run(&self, rest: PageRange) -> PageRange {
        let me = self.me;
        let is_own = |page: &PageNumber| {
            let word = self.entry(*page).word;
            let is_at_rest = !word.is_busy() && !self.operations.is_on(*page) && !self.transients.contains_key(page);
            word.state() == State::Owned && word.owner() == me && is_at_rest && word.era().0 < u32::MAX
        };
        let count = rest.pages().take_while(is_own).count();
        PageRange::new(rest.first, count as u64)
    }

    /// Drops a run of pages that this node alone has, with one operation; they are busy meanwhile.
    fn forget_own(&mut self, request: RequestId, run: PageRange) {
        for page in run.pages() {
            self.change(page, Step::Lock);
        }
        self.start(PageOp::Drop { range: run }, Follow::ForgetOwn { job: request });
    }

    pub(crate) fn on_own_forgotten(&mut self, run: PageRange, job: RequestId) {
        for page in run.pages() {
            self.counters.pages_discarded += 1;
            self.change(page, Step::Forgotten);
            let era = self.entry(page).word.era();
            self.set_local(page, Local { state: LocalState::Invalid, era });
            self.regain(page);
            self.finish(page);
        }
        self.on_page_forgotten(job);
    }

    /// The first page of `rest`, which lies in one extent, that is not fresh already.
    fn next_to_forget(&self, rest: PageRange) -> Option<PageNumber> {
        let Form::Split(_, directory) = &self.extents.get(&rest.first.extent())?.form else { return None };
        let is_fresh = |page: &PageNumber| {
            let word = directory.word(page.index_in_extent());
            word.state() == State::Fresh && !word.is_busy()
        };
        rest.pages().find(|page| !is_fresh(page))
    }

    /// One thing less that the job waits for.
    pub(crate) fn on_page_forgotten(&mut self, job: RequestId) {
        if let Some(job) = self.jobs.jobs.get_mut(&job) {
            job.in_flight = job.in_flight.saturating_sub(1);
        }
        self.jobs.is_dirty = true;
    }
}

const fn is_home_form(form: &Form) -> bool {
    matches!(form, Form::Whole(_) | Form::Split(..))
}

fn clip(range: PageRange) -> PageRange {
    let end = range.first.0.saturating_add(range.count).min(PAGES_MAX);
    PageRange::new(range.first, end.saturating_sub(range.first.0))
}

fn intersection(a: PageRange, b: PageRange) -> PageRange {
    let first = a.first.max(b.first);
    PageRange::new(first, a.end().min(b.end()).0.saturating_sub(first.0))
}

fn extents_of(range: PageRange) -> core::ops::RangeInclusive<ExtentNumber> {
    let last = PageNumber(range.end().0.saturating_sub(1));
    range.first.extent()..=last.extent().max(range.first.extent())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_remembers_and_forgets_only_what_is_too_old() {
        let mut window = Window::default();
        for number in [1, 3, 40, 70] {
            assert!(!window.contains(number), "{number}");
            window.insert(number);
            assert!(window.contains(number), "{number}");
        }
        assert!(window.contains(2), "64 numbers old counts as carried out");
        assert!(!window.contains(39) && !window.contains(71));
        window.insert(1000);
        assert!(window.contains(70) && !window.contains(999));
    }
}

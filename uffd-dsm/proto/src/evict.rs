//! Eviction: what leaves this host while its memory is short, who takes it, and which faults wait for room.
//!
//! Owns the hand that chooses, the offers to other hosts, the pages taken on from them, and the faults that wait. Must not move a
//! page that others need: a copy that nobody relies on is dropped, any other page leaves by the transaction of the host that takes it.
//! A sourced page that was never read takes no memory and stays, but a fault on it waits for room like one on an absent page.
//!
//! ```text
//!   used   0 ------------- low ----- high ----- limit
//!                                     |           \-- faults for absent pages wait
//!           takes pages on  |  declines   \-- pages go until low
//! ```
//!
//! The hand goes round over the pages here, as a clock's: one that came since its last visit is spared once.

use crate::extent::{Extent, Form, Local, LocalState};
use crate::face::{Event, FaultKind, Memory, Nanos, PageOp};
use crate::limits::{
    ADOPTED_MAX, EVICTION_EXTENTS_MAX, EVICTION_PAUSE, FULL_PAUSE, MEMORY_PATIENCE, OFFER_PATIENCE, OFFERS_MAX, PAGES_PER_OP_MAX,
    TRANSIENTS_MAX,
};
use crate::node::Node;
use crate::operation::Follow;
use crate::plant::{Plant, is};
use crate::timer::TimerKey;
use crate::transient::{Fault, Want};
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use dsm_wire::{ExtentNumber, Message, NodeId, PAGES_PER_EXTENT, PageNumber, PageRange, RequestId};

/// First touch takes at most this part of the free pages at once.
const FIRST_TOUCH_SHARE: u64 = 64;
/// Reading ahead, from others or from a source, takes at most this part of the free pages at once.
const AHEAD_SHARE: u64 = 8;

/// Pages another host was asked to take.
#[derive(Clone, Copy, Debug)]
struct Offer {
    range: PageRange,
    to: NodeId,
    /// Bit n: page n of the range is still here.
    here: u16,
    deadline: Nanos,
}

/// See the file's head.
#[derive(Debug, Default)]
pub struct Evictor {
    memory: Memory,
    /// The page the hand looks at next.
    hand: PageNumber,
    offers: BTreeMap<RequestId, Offer>,
    /// Clean copies whose drop is in flight.
    drops: u64,
    /// Hosts that had no room last, and until when they are not asked; then with one offer at a time.
    full: BTreeMap<NodeId, Nanos>,
    /// Room that another host asked for in vain: read copies that can go, go.
    asked_for: u64,
    /// Whom the last offer went to.
    asked_last: NodeId,
    /// A whole round found nothing that could go: when the next begins.
    resumes_at: Nanos,
    /// Pages that threads here wait for until there is room.
    waiting: VecDeque<PageNumber>,
    /// Pages of other hosts that this one is taking on.
    adopted: BTreeSet<PageNumber>,
    /// Room was made last, or the first of those that wait came.
    moved_at: Nanos,
    has_given_up: bool,
}

impl Evictor {
    /// Pages of others that are being taken on.
    pub fn adopted(&self) -> usize {
        self.adopted.len()
    }

    /// Faults that wait for room.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn leaving(&self) -> u64 {
        self.drops + self.offers.values().map(|offer| u64::from(offer.here.count_ones())).sum::<u64>()
    }

    /// Pages that have yet to be sent on their way, whoever has to take them.
    fn missing(&self) -> u64 {
        let goal = if self.memory.is_high { self.memory.excess } else { 0 };
        goal.saturating_sub(self.leaving())
    }

    /// Clean copies that have yet to be dropped, besides.
    fn missing_clean(&self) -> u64 {
        let goal = if self.asked_for > 0 { self.memory.excess + self.asked_for } else { 0 };
        goal.saturating_sub(self.leaving()).max(self.missing())
    }

    fn is_offered(&self, page: PageNumber) -> bool {
        self.offers.values().any(|offer| offer.range.contains(page))
    }

    /// log2 of the pages that a first touch may install at once.
    pub fn ramp_max(&self) -> u8 {
        (self.memory.free / FIRST_TOUCH_SHARE).max(1).ilog2() as u8
    }

    /// Pages that a read may bring at once.
    pub fn window_max(&self) -> u64 {
        (self.memory.free / AHEAD_SHARE).max(1)
    }

    /// Whether as many pages may still come.
    pub fn has_room_for(&self, count: u64) -> bool {
        self.memory.free >= count
    }

    /// These pages are about to come.
    pub fn spend(&mut self, count: u64) {
        self.memory.free = self.memory.free.saturating_sub(count);
    }

    /// Nobody wants `page` any more.
    pub fn forget(&mut self, page: PageNumber) {
        self.adopted.remove(&page);
        if !self.waiting.is_empty() {
            self.waiting.retain(|other| *other != page);
        }
    }
}

impl Node {
    pub(crate) fn on_memory(&mut self, memory: Memory) {
        self.evictor.memory = memory;
        if !memory.is_high && self.evictor.waiting.is_empty() {
            return;
        }
        self.admit();
        self.evict();
        self.set_memory_timer();
    }

    pub(crate) fn on_memory_due(&mut self) {
        let now = self.now;
        let late: alloc::vec::Vec<RequestId> =
            self.evictor.offers.iter().filter(|(_, offer)| offer.deadline <= now).map(|(request, _)| *request).collect();
        for request in late {
            if let Some(offer) = self.evictor.offers.remove(&request) {
                self.evictor.full.insert(offer.to, now + FULL_PAUSE);
            }
        }
        self.evict();
        let has_patience = self.evictor.waiting.is_empty() || now < self.evictor.moved_at + MEMORY_PATIENCE;
        if !has_patience && !self.evictor.has_given_up {
            self.evictor.has_given_up = true;
            self.emit(Event::MemoryExhausted);
        }
        self.set_memory_timer();
    }

    /// Whether a fault on `page` has to wait until there is room; if so, it is taken up again by itself.
    pub(crate) fn waits_for_room(&mut self, page: PageNumber) -> bool {
        if !self.lacks_room(page) {
            return false;
        }
        let evictor = &mut self.evictor;
        if !evictor.waiting.contains(&page) {
            if evictor.waiting.is_empty() {
                evictor.moved_at = self.now;
            }
            evictor.waiting.push_back(page);
            self.counters.faults_without_room += 1;
            self.set_memory_timer();
        }
        true
    }

    /// Whether `page` is absent, or was never read, and there is no room for it.
    pub(crate) fn lacks_room(&self, page: PageNumber) -> bool {
        self.evictor.memory.free == 0
            && !self.extents.get(&page.extent()).is_some_and(|extent| extent.has(page.index_in_extent()))
    }

    /// Lets those that wait go on, while there is room.
    fn admit(&mut self) {
        while self.evictor.memory.free > 0
            && let Some(page) = self.evictor.waiting.pop_front()
        {
            self.evictor.moved_at = self.now;
            self.pursue(page);
            self.settle(page);
        }
    }

    /// These pages have come: the hand spares them once.
    pub(crate) fn note_come(&mut self, range: PageRange) {
        if let Some(extent) = self.extents.get_mut(&range.first.extent()) {
            extent.young.insert_run(range.first.index_in_extent(), range.count as usize);
            if let Some(words) = extent.words_mut() {
                words.provides.remove_run(range.first.index_in_extent(), range.count as usize);
            }
        }
    }

    /// `page`, written here, became read-only for a reader: others may be sent here, too.
    pub(crate) fn note_provider(&mut self, page: PageNumber) {
        if let Some(words) = self.extents.get_mut(&page.extent()).and_then(|extent| extent.words_mut()) {
            words.provides.insert_run(page.index_in_extent(), 1);
        }
    }

    /// `page` has left this host.
    pub(crate) fn note_gone(&mut self, page: PageNumber) {
        let evictor = &mut self.evictor;
        let Some((request, offer)) = evictor.offers.iter_mut().find(|(_, offer)| offer.range.contains(page)) else { return };
        let bit = 1 << (page.0 - offer.range.first.0);
        self.counters.pages_evicted_away += u64::from(offer.here & bit != 0);
        offer.here &= !bit;
        evictor.full.remove(&offer.to);
        evictor.resumes_at = Nanos::default();
        evictor.moved_at = self.now;
        if offer.here == 0 {
            let request = *request;
            evictor.offers.remove(&request);
        }
    }

    pub(crate) fn on_evicted(&mut self, range: PageRange) {
        self.evictor.drops -= range.count;
        self.evictor.moved_at = self.now;
    }

    pub(crate) fn on_offload(&mut self, from: NodeId, request: RequestId, page: PageNumber, count: u16) {
        if request.requester() != from || from == self.me {
            self.counters.dropped_nonsense += 1;
            return;
        }
        let pages_after = self.evictor.adopted.len() + usize::from(count);
        let has_room = self.evictor.memory.spare >= pages_after as u64 && pages_after <= ADOPTED_MAX;
        if !has_room || self.transients.len() + usize::from(count) > TRANSIENTS_MAX {
            self.counters.offloads_declined += 1;
            self.evictor.asked_for = u64::from(count);
            self.evict();
            self.send(from, Message::Declined { request, page });
            return;
        }
        for page in PageRange::new(page, u64::from(count)).pages() {
            self.take_in(page);
        }
    }

    /// Asks for `page` as a thread that writes would; nobody waits for it.
    fn take_in(&mut self, page: PageNumber) {
        let is_mine_to_ask = match self.extents.get(&page.extent()).map(|extent| &extent.form) {
            Some(Form::Split(..) | Form::Remote(..) | Form::Unknown) | None => true,
            Some(Form::Whole(_) | Form::Lost) => false,
        };
        let has_or_gets = matches!(self.local(page).state, LocalState::Modified | LocalState::Poisoned)
            || self.operations.is_on(page)
            || self.transients.get(&page).is_some_and(|transient| transient.want.is_some());
        if !is_mine_to_ask || has_or_gets {
            self.counters.dropped_stale += 1;
            return;
        }
        let fault = Fault::ahead(FaultKind::Write, self.now);
        self.transients.entry(page).or_default().want = Some(Want { fault, count: 1, ask: None, is_raised_again: false });
        self.evictor.adopted.insert(page);
        self.counters.pages_adopted += 1;
        self.pursue(page);
        self.settle(page);
    }

    pub(crate) fn on_declined(&mut self, from: NodeId, request: RequestId) {
        if self.evictor.offers.get(&request).is_none_or(|offer| offer.to != from) {
            self.counters.dropped_stale += 1;
            return;
        }
        self.evictor.offers.remove(&request);
        self.evictor.full.insert(from, self.now + FULL_PAUSE);
        // Its pages may be offered to the next host at once.
        self.evictor.resumes_at = Nanos::default();
        self.evict();
        self.set_memory_timer();
    }

    /// Sends pages on their way until enough of them leave.
    fn evict(&mut self) {
        if self.evictor.missing_clean() == 0 || self.now < self.evictor.resumes_at {
            return;
        }
        // Two rounds: in the first, pages may be spared.
        let extents_max = (2 * self.extents.len() + 1).min(EVICTION_EXTENTS_MAX);
        for _ in 0..extents_max {
            let from = self.evictor.hand;
            let next = self.extents.range(from.extent()..).map(|(number, _)| *number).next();
            let Some(number) = next.or_else(|| self.extents.keys().next().copied()) else { return };
            let index = if number == from.extent() { from.index_in_extent() } else { 0 };
            let index = self.sweep(number, index);
            self.evictor.hand = PageNumber(number.first_page().0 + index as u64);
            if self.evictor.missing_clean() == 0 {
                self.evictor.asked_for = 0;
                return;
            }
        }
        self.evictor.asked_for = 0;
        self.evictor.resumes_at = self.now + EVICTION_PAUSE;
    }

    /// Moves the hand over an extent, from `index` on, until enough pages leave. Returns where it stands.
    fn sweep(&mut self, number: ExtentNumber, mut index: usize) -> usize {
        while index < PAGES_PER_EXTENT as usize && self.evictor.missing_clean() > 0 {
            let has_taker = self.taker(number.first_page()).is_some();
            let Some(extent) = self.extents.get_mut(&number) else { return index };
            let Some(next) = extent.next_to_evict(index, has_taker) else { return PAGES_PER_EXTENT as usize };
            index = next;
            let page = number.page(index);
            let count = if self.is_dispensable(page) { self.drop_copies_from(page) } else { self.offer_from(page) };
            index += count.max(1);
        }
        index
    }

    /// How many pages from `page` on may go, `missing` at most: here, at rest, not spared, and `is_of_kind`.
    fn goers(&self, page: PageNumber, missing: u64, is_of_kind: impl Fn(&Self, PageNumber) -> bool) -> usize {
        let room = (PAGES_PER_EXTENT as usize - page.index_in_extent()).min(usize::from(PAGES_PER_OP_MAX));
        let may_go = |offset: &usize| {
            let page = page.offset(*offset as u64);
            let index = page.index_in_extent();
            let is_seen =
                self.extents.get(&page.extent()).is_some_and(|extent| extent.has(index) && !extent.young.contains(index));
            is_seen
                && self.local(page).state != LocalState::Poisoned
                && !self.transients.contains_key(&page)
                && !self.operations.is_on(page)
                && !self.evictor.is_offered(page)
                && !self.pins.contains(page)
                && is_of_kind(self, page)
        };
        (0..room.min(missing as usize)).take_while(may_go).count()
    }

    /// Whether the copy of `page` came by a read grant: others have it, and nobody is told to get it here.
    fn is_dispensable(&self, page: PageNumber) -> bool {
        let Some(extent) = self.extents.get(&page.extent()) else { return false };
        let is_shared = self.local(page).state == LocalState::Shared;
        let provides = extent.words().is_some_and(|words| words.provides.contains(page.index_in_extent()))
            || matches!(extent.form, Form::Split(..)) && self.entry(page).word.owner() == self.me;
        is_shared && (!provides || is(Plant::ProviderEvicted))
    }

    /// Drops the copies from `page` on. They are none from now on: who dies meanwhile does not make this node a provider. Returns
    /// how many they are.
    fn drop_copies_from(&mut self, page: PageNumber) -> usize {
        let count = self.goers(page, self.evictor.missing_clean(), |node, page| node.is_dispensable(page));
        let range = PageRange::new(page, count as u64);
        for page in range.pages() {
            let local = self.local(page);
            self.set_local(page, Local { state: LocalState::Invalid, ..local });
        }
        if count > 0 {
            self.evictor.drops += range.count;
            self.counters.pages_evicted_clean += range.count;
            self.start(PageOp::Drop { range }, Follow::Evict);
        }
        count
    }

    /// Who is asked to take `page`: its home, if it had room last, or all hosts in turn; nobody, if none has room.
    fn taker(&self, page: PageNumber) -> Option<NodeId> {
        if self.evictor.missing() == 0 || self.evictor.offers.len() >= OFFERS_MAX {
            return None;
        }
        let has_room = |node: &NodeId| {
            let is_asked = || self.evictor.offers.values().any(|offer| offer.to == *node);
            *node != self.me && self.evictor.full.get(node).is_none_or(|until| *until <= self.now && !is_asked())
        };
        let is_sure = |node: &NodeId| self.peers.contains_key(node) && !self.evictor.full.contains_key(node);
        let home = self.home_of(page).filter(|home| *home != self.me && is_sure(home));
        let last = self.evictor.asked_last;
        let after = self.peers.range(last..).map(|(node, _)| *node).filter(|node| *node != last);
        let before = self.peers.range(..=last).map(|(node, _)| *node);
        home.or_else(|| after.chain(before).find(has_room))
    }

    /// Offers the pages from `page` on to somebody. Returns how many they are.
    fn offer_from(&mut self, page: PageNumber) -> usize {
        let Some(to) = self.taker(page) else { return 0 };
        let pages = self.goers(page, self.evictor.missing(), |node, page| !node.is_dispensable(page));
        if pages == 0 {
            return 0;
        }
        let range = PageRange::new(page, pages as u64);
        let request = self.next_request();
        let count = range.count as u16;
        let here = u16::MAX >> (PAGES_PER_OP_MAX - count);
        self.evictor.asked_last = to;
        self.evictor.offers.insert(request, Offer { range, to, here, deadline: self.now + OFFER_PATIENCE });
        self.counters.pages_offered += u64::from(count);
        self.send(to, Message::Offload { request, page: range.first, count });
        pages
    }

    fn set_memory_timer(&mut self) {
        let evictor = &self.evictor;
        let offers = evictor.offers.values().map(|offer| offer.deadline);
        let is_waited = !evictor.waiting.is_empty();
        let again = is_waited.then_some(evictor.resumes_at.max(self.now + EVICTION_PAUSE));
        let end = (is_waited && !evictor.has_given_up).then_some(evictor.moved_at + MEMORY_PATIENCE);
        let deadline = offers.chain(again).chain(end).min();
        self.timers.set(TimerKey::Memory, deadline);
    }
}

impl Extent {
    /// The first page from `index` on that is here, not spared, and, unless `has_taker`, a copy that others may have. Those before
    /// it are not spared next time.
    fn next_to_evict(&mut self, index: usize, has_taker: bool) -> Option<usize> {
        let is_copy = |extent: &Self, index: usize| {
            extent.words().is_some_and(|words| words.local(index).state == LocalState::Shared && !words.provides.contains(index))
        };
        let may_go = |extent: &Self, index: usize| {
            let goes_alone = is(Plant::ProviderEvicted) || is_copy(extent, index);
            extent.has(index) && !extent.young.contains(index) && (has_taker || goes_alone)
        };
        let found = (index..PAGES_PER_EXTENT as usize).find(|index| may_go(self, *index));
        self.young.remove_run(index, found.unwrap_or(PAGES_PER_EXTENT as usize) - index);
        found
    }

    /// Whether page `index` takes memory here.
    pub fn has(&self, index: usize) -> bool {
        let is_here = match &self.form {
            Form::Whole(whole) => whole.present.contains(index),
            Form::Split(words, _) | Form::Remote(_, words) => words.local(index).state != LocalState::Invalid,
            Form::Unknown | Form::Lost => false,
        };
        is_here && !self.unread.contains(index)
    }
}

//! One host's part in the coherence of one space: inputs in, queues out.
//!
//! Owns the tables and the order in which things happen inside one call. Must not know how a role decides: see
//! `requester`, `holder`, `home`, `anchor`, `discard`, `membership`.

use crate::discard::{Discards, Jobs};
use crate::extent::{DirectoryWords, Extent, Form, Local};
use crate::face::{Class, Config, Contents, Event, FaultKind, Frame, Memory, Nanos, OpId, OpResult, PageOp, Transmit};
use crate::limits::{INBOX_PER_EXTENT_MAX, INBOX_PER_PAGE_MAX, MEMBERS_MAX, PAGES_MAX};
use crate::operation::{Follow, Operations};
use crate::stats::{Counters, Tables};
use crate::timer::{RoundTrip, TimerKey, Timers};
use crate::transient::Transient;
use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use dsm_fast::Acks;
use dsm_wire::{Epoch, ExtentNumber, Line, Message, NodeId, PageNumber, PageRange, RequestId};

/// One host's part in the coherence of one space.
#[derive(Debug)]
pub struct Node {
    pub(crate) me: NodeId,
    pub(crate) epoch: Epoch,
    /// Every member the space ever had, in the order that names anchors.
    pub(crate) members: Vec<NodeId>,
    /// Members that live, and how far away they are.
    pub(crate) peers: BTreeMap<NodeId, RoundTrip>,
    pub(crate) now: Nanos,
    pub(crate) extents: BTreeMap<ExtentNumber, Box<Extent>>,
    pub(crate) transients: BTreeMap<PageNumber, Box<Transient>>,
    pub(crate) operations: Operations,
    pub(crate) timers: Timers,
    pub(crate) anchored: BTreeMap<ExtentNumber, NodeId>,
    pub(crate) searches: BTreeMap<ExtentNumber, crate::anchor::Search>,
    pub(crate) discards: Discards,
    pub(crate) jobs: Jobs,
    pub(crate) reading: crate::ahead::Streams,
    pub(crate) writing: crate::ahead::Streams,
    pub(crate) batches: crate::ahead::Batches,
    pub(crate) stays: crate::hold::Stays,
    pub(crate) habits: crate::migratory::Habits,
    pub(crate) evictor: crate::evict::Evictor,
    pub(crate) pins: crate::pin::Pins,
    pub(crate) acks: Option<Acks>,
    pub(crate) rooted_from: ExtentNumber,
    pub(crate) sources: crate::source::Sources,
    pub(crate) counters: Counters,
    request_last: u64,
    /// Messages of one role of this node to another.
    loopback: VecDeque<(Message, Contents)>,
    ops: VecDeque<(OpId, PageOp)>,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
}

impl Node {
    /// A node that holds no page and knows no home.
    ///
    /// # Panics
    /// If there are more members, or higher node numbers, than [`MEMBERS_MAX`](crate::limits::MEMBERS_MAX).
    #[must_use]
    pub fn new(config: Config) -> Self {
        let is_nameable = |node: &NodeId| usize::from(node.0) < MEMBERS_MAX;
        assert!(config.members.len() <= MEMBERS_MAX && config.members.iter().all(is_nameable), "too many members");
        let peers = config.members.iter().map(|member| (*member, RoundTrip::default())).collect();
        Self {
            me: config.me,
            epoch: config.epoch,
            members: config.members,
            peers,
            now: Nanos::default(),
            extents: BTreeMap::new(),
            transients: BTreeMap::new(),
            operations: Operations::default(),
            timers: Timers::default(),
            anchored: BTreeMap::new(),
            searches: BTreeMap::new(),
            discards: Discards::default(),
            jobs: Jobs::default(),
            reading: crate::ahead::Streams::default(),
            writing: crate::ahead::Streams::default(),
            batches: crate::ahead::Batches::default(),
            stays: crate::hold::Stays::default(),
            habits: crate::migratory::Habits::default(),
            evictor: crate::evict::Evictor::default(),
            pins: crate::pin::Pins::default(),
            acks: None,
            rooted_from: config.rooted_from,
            sources: crate::source::Sources::default(),
            counters: Counters::default(),
            request_last: 0,
            loopback: VecDeque::new(),
            ops: VecDeque::new(),
            transmits: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// A thread stopped at `line` of `page`. Ends in an operation that wakes it, sooner or later.
    pub fn handle_fault(&mut self, now: Nanos, page: PageNumber, kind: FaultKind, line: Line) {
        self.now = now;
        match kind {
            FaultKind::Read => self.counters.faults_read += 1,
            FaultKind::Write => self.counters.faults_write += 1,
        }
        self.on_fault(page, kind, line);
        self.run();
    }

    /// A frame came in. Never panics, whatever it says; what makes no sense is counted, and its buffers are freed.
    pub fn handle_frame(&mut self, now: Nanos, frame: Frame) {
        self.now = now;
        self.counters.frames_in += 1;
        if self.is_current(&frame) {
            self.dispatch(frame);
            self.run();
        } else {
            self.free(&frame.contents);
        }
    }

    /// A page operation is done.
    ///
    /// # Panics
    /// If `op` is not in flight, or the result does not fit it: the driver is broken.
    pub fn handle_page_done(&mut self, now: Nanos, op: OpId, result: OpResult) {
        self.now = now;
        let op = self.operations.finish(op);
        let contents = match result {
            OpResult::Done => Contents::EMPTY,
            OpResult::Contents(contents) => contents,
        };
        self.on_done(op, contents);
        self.release(op.range);
        self.jobs.is_dirty = true;
        self.run();
    }

    /// Forget the contents of `range` everywhere; [`Event::DiscardDone`] with `token` follows. Cheap for any range:
    /// only extents somebody touched are visited. Returns false, and does nothing, when too many discards wait.
    pub fn handle_discard(&mut self, now: Nanos, range: PageRange, token: u64) -> bool {
        self.now = now;
        let is_taken = self.on_discard_wanted(range, token);
        self.run();
        is_taken
    }

    /// From now on the members are `members`, a subset of the ones before: who is missing is dead and fenced.
    pub fn handle_membership(&mut self, now: Nanos, epoch: Epoch, members: &[NodeId]) {
        self.now = now;
        self.on_membership(epoch, members);
        self.run();
    }

    /// There is this much room from now on. Pages go, and faults wait, as it says; at first there is room for everything.
    pub fn handle_memory(&mut self, now: Nanos, memory: Memory) {
        self.now = now;
        self.on_memory(memory);
        self.run();
    }

    /// The time of `poll_timeout` has come, or passed.
    pub fn handle_timeout(&mut self, now: Nanos) {
        self.now = now;
        while let Some(key) = self.timers.due(now) {
            match key {
                TimerKey::Page(page) => self.on_page_due(page),
                TimerKey::Extent(extent) => self.on_search_due(extent),
                TimerKey::Discard(number) => self.on_discard_due(number),
                TimerKey::Memory => self.on_memory_due(),
            }
            self.run();
        }
    }

    /// Moves the directory entries of `extent` to `memory`, which others may change from now on by `dsm_fast`'s rules, until
    /// [`Event::DirectoryClosed`]. Returns false, and does nothing, if this node keeps none or they are shared already.
    pub fn share_directory(&mut self, extent: ExtentNumber, memory: &'static DirectoryWords) -> bool {
        self.extents.get_mut(&extent).is_some_and(|extent| extent.share(memory))
    }

    /// Counts acknowledgements in `acks` from now on, which others may count down by `dsm_fast`'s rules.
    pub const fn share_acks(&mut self, acks: Acks) {
        self.acks = Some(acks);
    }

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
        self.timers.first()
    }

    /// What was counted since the start.
    #[must_use]
    pub const fn stats(&self) -> &Counters {
        &self.counters
    }

    /// How full the tables are.
    #[must_use]
    pub fn tables(&self) -> Tables {
        let split = self.extents.values().filter(|extent| extent.words().is_some());
        Tables {
            transients: self.transients.len(),
            operations: self.operations.len(),
            searches: self.searches.len(),
            discards: self.discards.len(),
            jobs: self.jobs.len(),
            evictions: self.evictor.waiting() + self.evictor.adopted(),
            pins: self.pins.len(),
            extents: self.extents.len(),
            extents_split: split.count(),
            anchored: self.anchored.len(),
            stays: self.stays.len(),
        }
    }

    fn is_current(&mut self, frame: &Frame) -> bool {
        if frame.epoch != self.epoch && !crate::plant::is(crate::plant::Plant::MissedEpochCheck) {
            self.counters.dropped_epoch += 1;
            return false;
        }
        if frame.from == self.me || !self.peers.contains_key(&frame.from) {
            self.counters.dropped_stranger += 1;
            return false;
        }
        let is_sane = crate::sense::is_sane(&frame.message, &frame.contents);
        if !is_sane {
            self.counters.dropped_nonsense += 1;
        }
        is_sane
    }

    /// Lets the roles of this node talk until nothing is left to say.
    pub(crate) fn run(&mut self) {
        loop {
            if let Some((message, contents)) = self.loopback.pop_front() {
                self.dispatch(Frame { from: self.me, epoch: self.epoch, message, contents });
            } else if self.jobs.is_dirty {
                self.jobs.is_dirty = false;
                self.advance_jobs();
            } else if !self.advance_pins() {
                return;
            }
        }
    }

    pub(crate) fn has_loopback(&self) -> bool {
        !self.loopback.is_empty()
    }

    /// Hands a frame to its role. One that waited here while the members changed comes again, if it still matters.
    pub(crate) fn dispatch(&mut self, frame: Frame) {
        let from = frame.from;
        if frame.epoch != self.epoch && !crate::plant::is(crate::plant::Plant::MissedEpochCheck) {
            self.counters.dropped_epoch += 1;
            self.free(&frame.contents);
            return;
        }
        match frame.message {
            Message::Request { page, .. } => self.on_request(page, frame),
            Message::Grant { page, .. } | Message::Forward { page, .. } | Message::Invalidate { page, .. } => {
                self.on_page_frame(page, frame);
            }
            Message::InvalidateAck { request, page, era } => self.on_ack(from, request, page, era),
            Message::Done { request, page, era } => self.on_done_frame(from, request, page, era),
            Message::Retry { request, page, home } => self.on_retry(from, request, page, home),
            Message::Locate { request, extent } => self.on_locate(from, request, extent),
            Message::Located { request, extent, home } => self.on_located(from, request, extent, home),
            Message::Discard { request, range } => self.on_discard(from, request, range),
            Message::DiscardDone { request } => self.on_discard_done(from, request),
            Message::Lost { request, page, era } => self.on_lost(from, request, page, era),
            Message::Offload { request, page, count } => self.on_offload(from, request, page, count),
            Message::Declined { request, .. } => self.on_declined(from, request),
        }
    }

    /// A frame for what this node holds of a page: waits while an operation on the page is in flight.
    fn on_page_frame(&mut self, page: PageNumber, frame: Frame) {
        if self.operations.is_on(page) || self.is_pinned_against(page, &frame) || self.is_held_back(page, &frame) {
            self.defer(page, frame);
            return;
        }
        match frame.message {
            Message::Grant { .. } => self.on_grant(frame),
            Message::Forward { request, page, rights, era, .. } => self.on_forward(frame.from, request, page, rights, era),
            Message::Invalidate { request, page, era } => self.on_invalidate(frame.from, request, page, era),
            Message::Request { .. }
            | Message::InvalidateAck { .. }
            | Message::Done { .. }
            | Message::Retry { .. }
            | Message::Locate { .. }
            | Message::Located { .. }
            | Message::Discard { .. }
            | Message::DiscardDone { .. }
            | Message::Lost { .. }
            | Message::Offload { .. }
            | Message::Declined { .. } => unreachable!("dispatch sends only these three here"),
        }
        self.settle(page);
    }

    /// Keeps `frame` until the operation on `page` is done.
    pub(crate) fn defer(&mut self, page: PageNumber, frame: Frame) {
        let inbox = &mut self.transients.entry(page).or_default().inbox;
        if inbox.len() < INBOX_PER_PAGE_MAX {
            inbox.push_back(frame);
        } else {
            self.counters.dropped_full += 1;
            self.free(&frame.contents);
        }
        self.settle(page);
    }

    /// Keeps `frame` until no operation on the extent of `page` is in flight.
    pub(crate) fn defer_extent(&mut self, page: PageNumber, frame: Frame) {
        let room = self.extents.get_mut(&page.extent()).filter(|extent| extent.inbox.len() < INBOX_PER_EXTENT_MAX);
        match room {
            Some(extent) => extent.inbox.push_back(frame),
            None => self.counters.dropped_full += 1,
        }
    }

    /// Hands on what waited for an operation on `range`.
    fn release(&mut self, range: PageRange) {
        self.forget_pins_of_absent(range);
        if range.count == 1 {
            self.release_page(range.first);
        } else {
            let pages: Vec<PageNumber> = self.transients.range(range.first..range.end()).map(|(page, _)| *page).collect();
            pages.into_iter().for_each(|page| self.release_page(page));
        }
        self.release_extent(range.first.extent());
    }

    pub(crate) fn release_page(&mut self, page: PageNumber) {
        self.advance_pin(page);
        let Some(transient) = self.transients.get_mut(&page) else { return };
        let inbox = core::mem::take(&mut transient.inbox);
        for frame in inbox {
            self.dispatch(frame);
        }
        self.pursue(page);
        self.settle(page);
    }

    fn release_extent(&mut self, number: ExtentNumber) {
        let Some(extent) = self.extents.get_mut(&number) else { return };
        if extent.inbox.is_empty() || self.operations.overlapping(whole_extent(number)).is_some() {
            return;
        }
        let inbox = core::mem::take(&mut extent.inbox);
        inbox.into_iter().for_each(|frame| self.dispatch(frame));
    }

    fn on_page_due(&mut self, page: PageNumber) {
        self.on_want_due(page);
        self.on_held_due(page);
        self.on_deal_due(page);
        self.on_hold_due(page);
        self.on_look_due(page);
        self.settle(page);
    }

    /// Removes the transient of `page` if nothing is in flight any more, and arms its timer if something is.
    pub(crate) fn settle(&mut self, page: PageNumber) {
        let Some(transient) = self.transients.get_mut(&page) else { return };
        let armed = transient.armed;
        if transient.is_idle() {
            self.transients.remove(&page);
            self.timers.change(TimerKey::Page(page), armed, None);
        } else {
            transient.armed = transient.deadline();
            self.timers.change(TimerKey::Page(page), armed, transient.armed);
        }
    }

    pub(crate) fn next_request(&mut self) -> RequestId {
        self.request_last += 1;
        RequestId::new(self.me, self.request_last)
    }

    pub(crate) fn start(&mut self, op: PageOp, follow: Follow) {
        self.note_read(op.range());
        let id = self.operations.start(op.range(), follow);
        self.ops.push_back((id, op));
    }

    /// Sends a message without payload, to a peer or to another role of this node.
    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        self.send_contents(to, message, Contents::EMPTY, false);
    }

    /// Sends a message with payload.
    pub(crate) fn send_contents(&mut self, to: NodeId, message: Message, contents: Contents, keeps_buffers: bool) {
        if to == self.me {
            self.loopback.push_back((message, contents));
            return;
        }
        if !self.peers.contains_key(&to) {
            self.counters.dropped_stranger += 1;
            if !keeps_buffers {
                self.free(&contents);
            }
            return;
        }
        self.counters.frames_out += 1;
        self.counters.pages_out += u64::from(contents.len());
        let class = if contents.len() > 1 { Class::Bulk } else { Class::Urgent };
        self.transmits.push_back(Transmit { to, message, contents, keeps_buffers, class });
    }

    pub(crate) fn emit(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Says that the directory of `extent` is gone; nothing, if it was not yet told that there is one.
    pub(crate) fn close_directory(&mut self, extent: ExtentNumber) {
        let opened = Event::DirectoryOpened(extent);
        match self.events.iter().position(|event| *event == opened) {
            Some(place) => drop(self.events.remove(place)),
            None => self.emit(Event::DirectoryClosed(extent)),
        }
    }

    pub(crate) fn free(&mut self, contents: &Contents) {
        self.events.extend(contents.buffers().map(Event::FreeBuffer));
    }

    pub(crate) fn timeout(&self, peer: NodeId, tries: u32) -> Nanos {
        self.peers.get(&peer).copied().unwrap_or_default().timeout(tries)
    }

    /// The page as this node holds it; for a page of an extent without words, nothing of no era.
    pub(crate) fn local(&self, page: PageNumber) -> Local {
        self.extents
            .get(&page.extent())
            .and_then(|extent| extent.words())
            .map_or_else(Local::default, |words| words.local(page.index_in_extent()))
    }

    pub(crate) fn set_local(&mut self, page: PageNumber, local: Local) {
        if let Some(words) = self.extents.get_mut(&page.extent()).and_then(|extent| extent.words_mut()) {
            *words.local_mut(page.index_in_extent()) = local;
        }
    }

    /// Home of `page`, as far as this node knows.
    pub(crate) fn home_of(&self, page: PageNumber) -> Option<NodeId> {
        match self.extents.get(&page.extent())?.form {
            Form::Whole(_) | Form::Split(..) => Some(self.me),
            Form::Remote(home, _) => Some(home),
            Form::Unknown | Form::Lost => None,
        }
    }
}

/// All pages of an extent.
pub(crate) const fn whole_extent(extent: ExtentNumber) -> PageRange {
    PageRange::new(extent.first_page(), dsm_wire::PAGES_PER_EXTENT)
}

/// Whether a page lies inside a space.
pub(crate) const fn is_in_space(page: PageNumber) -> bool {
    page.0 < PAGES_MAX
}

//! The loop of a shard: events in, protocol, page operations and frames out.
//!
//! Owns the order of work. Must not know jobs or the control plane beyond its commands and events.

use super::fast::Fast;
use super::figures::{Figures, Span};
use super::pages::Pages;
use super::sketch::Sketch;
use super::stages::{Stages, Watch};
use super::sys::{dvm_mark_fault_read, dvm_mark_grant_in, dvm_mark_installed, dvm_mark_request_out};
use super::{ShardCommand, ShardEvent};
use crate::clock::monotonic_ns;
use crate::memory::Share;
use dsm_proto::{Class, Event as ProtocolEvent, FaultKind, FaultStages, Frame, Nanos, Node, OpId, OpResult, PageOp, Transmit};
use dsm_transport::{Endpoint, Event as TransportEvent, LostReason};
use dsm_wire::{Epoch, GrantContent, Message, NodeId, PAGE_BYTES, PageNumber, PageRange, Rights};
use nix::sys::eventfd::EventFd;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use tokio::sync::mpsc::UnboundedSender;
use uffd_dsm::limits::INSTALL_PAGES_MAX;
use uffd_dsm::{Drained, Fault};

const TOKEN_COMMANDS: u32 = 0;
const TOKEN_FAULTS: u32 = 1;

/// Everything one shard thread owns.
pub(super) struct Driver {
    pub(super) host: String,
    pub(super) epoch: Epoch,
    pub(super) clock: Clock,
    pub(super) node: Node,
    pub(super) pages: Pages,
    pub(super) share: Share,
    pub(super) endpoint: Endpoint,
    pub(super) fast: Fast,
    pub(super) commands: Receiver<ShardCommand>,
    pub(super) wake: Arc<EventFd>,
    pub(super) events: UnboundedSender<ShardEvent>,
    pub(super) figures: Figures,
    pub(super) stages: Stages,
    pub(super) sketch: Sketch,
    pub(super) tally: Tally,
    pub(super) peers_awaited: BTreeSet<NodeId>,
    pub(super) discards: BTreeMap<u64, Nanos>,
    /// Orders to pin that are not carried out yet.
    pub(super) pins: Vec<PinOrder>,
    /// Faults are left unread, and all that is mapped is read-only.
    pub(super) stands_still: bool,
    pub(super) faults: Vec<Fault>,
    /// Operations the protocol wants that are not yet carried out.
    pub(super) wanted: VecDeque<(OpId, PageOp)>,
}

/// An order to pin, and the pages it still waits for.
#[derive(Debug)]
pub(super) struct PinOrder {
    tag: u64,
    coming: BTreeSet<PageNumber>,
}

/// What only the driver can count.
#[derive(Debug, Default)]
pub(super) struct Tally {
    batches: u64,
    dropped_no_buffer: u64,
    send_refused: u64,
    operations: u64,
    operations_put_off: u64,
}

/// Nanoseconds since the shard began, at this time of CLOCK_MONOTONIC: what the kernel stamps compares exactly.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin_ns: u64,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { origin_ns: monotonic_ns() }
    }

    fn now(self) -> Nanos {
        Nanos(monotonic_ns().saturating_sub(self.origin_ns))
    }
}

/// Whether the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Continue,
    Stop,
}

impl Driver {
    /// Runs until [`ShardCommand::Stop`], the end of the command channel, or an error that kills the space.
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        let wake = Arc::clone(&self.wake);
        self.endpoint.watch(wake.as_fd(), TOKEN_COMMANDS)?;
        loop {
            let now = self.clock.now();
            self.fast.note_alive(self.clock.origin_ns + now.0);
            if self.take_batch(now)? == Flow::Stop {
                return Ok(());
            }
            let now = self.clock.now();
            if self.node.poll_timeout().is_some_and(|due| due <= now) {
                self.node.handle_timeout(now);
            }
            self.pump(now)?;
            if self.stages.wants_reading(now) {
                self.stages.read(self.clock.now(), &mut self.figures);
            }
            let deadline = [self.node.poll_timeout(), self.pages.due(), self.stages.due()].into_iter().flatten().min();
            self.endpoint.wait(transport_time(self.clock.now()), deadline.map(transport_time))?;
            self.tally.batches += 1;
        }
    }

    fn take_batch(&mut self, now: Nanos) -> anyhow::Result<Flow> {
        let mut waiting = 0;
        while let Some(event) = self.endpoint.next_event(transport_time(now)) {
            match event {
                TransportEvent::Frame { from, message, pages } => {
                    mark_answer(&message);
                    if let Message::Grant { .. } = message {
                        self.figures.note_source(from);
                    }
                    let page_count = pages.len();
                    let Some(contents) = self.pages.keep(pages) else {
                        self.tally.dropped_no_buffer += 1;
                        continue;
                    };
                    let is_order = dsm_transport::is_order(&message);
                    self.node.handle_frame(now, Frame { from, epoch: self.epoch, message, contents });
                    // Parts of one long grant follow each other, and are installed together; orders that came together are followed
                    // together.
                    waiting = match page_count {
                        0 if is_order && self.endpoint.is_followed() => waiting + 1,
                        0 | 1 => 0,
                        _ => waiting + page_count,
                    };
                    if !(1..INSTALL_PAGES_MAX).contains(&waiting) {
                        waiting = 0;
                        self.pump(now)?;
                    }
                }
                TransportEvent::Ready { token: TOKEN_FAULTS } => self.take_faults(now)?,
                TransportEvent::Ready { .. } => {
                    if self.take_commands(now)? == Flow::Stop {
                        return Ok(Flow::Stop);
                    }
                }
                TransportEvent::Session { node, key, urgent } => self.fast.open_peer(node, key, urgent),
                TransportEvent::Answered { node, key } => self.fast.answer_peer(node, key),
                TransportEvent::PeerUp { node } => self.on_peer_up(node),
                TransportEvent::PeerLost { node, reason } => {
                    self.fast.close_peer(node);
                    let reason = lost_text(reason).to_owned();
                    self.report(ShardEvent::PeerLost { node, reason });
                }
            }
        }
        if waiting > 0 {
            self.pump(now)?;
        }
        Ok(Flow::Continue)
    }

    fn take_faults(&mut self, now: Nanos) -> anyhow::Result<()> {
        if self.stands_still {
            return Ok(());
        }
        loop {
            let drained = self.pages.drain_faults(&mut self.faults)?;
            self.faults.iter().for_each(|fault| dvm_mark_fault_read(fault.page.0, u64::from(fault.thread)));
            if self.stages.is_on() {
                let read_at = self.clock.now();
                self.faults.iter().for_each(|fault| self.stages.note_read(read_at, fault.thread, fault.page));
            }
            for fault in std::mem::take(&mut self.faults) {
                self.sketch.note_fault(fault.page, fault.thread, fault.line, fault.write);
                let kind = if fault.write { FaultKind::Write } else { FaultKind::Read };
                self.node.handle_fault(now, fault.page, kind, fault.line);
                self.pump(now)?;
            }
            if drained == Drained::Empty {
                return Ok(());
            }
        }
    }

    fn take_commands(&mut self, now: Nanos) -> anyhow::Result<Flow> {
        match self.wake.read() {
            Ok(_) | Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => {}
            Err(error) => anyhow::bail!("shard: reading its eventfd failed ({error}): the agent is out of order, restart it"),
        }
        loop {
            match self.commands.try_recv() {
                Ok(ShardCommand::AddPeers(members)) => {
                    for member in members {
                        let node = NodeId(member.node);
                        self.peers_awaited.insert(node);
                        self.endpoint.add_peer(transport_time(now), node, member.urgent, member.bulk)?;
                    }
                    self.on_peers_changed();
                }
                Ok(ShardCommand::AttachView { userfaultfd, watch }) => self.attach_view(now, userfaultfd, watch)?,
                Ok(ShardCommand::Source { tag, range, file, offset }) => self.add_source(now, tag, range, file, offset)?,
                Ok(ShardCommand::Discard { tag, range, keeps_source }) => {
                    if !keeps_source {
                        self.node.handle_unsource(now, range);
                        self.pages.remove_source(range);
                    }
                    anyhow::ensure!(
                        self.node.handle_discard(now, range, tag),
                        "shard: too many discards wait; the executor must wait for the earlier ones"
                    );
                    self.discards.insert(tag, now);
                    self.pump(now)?;
                }
                Ok(ShardCommand::AskHome { tag }) => self.report(match self.node.stats().pages_out {
                    0 => ShardEvent::Completed { tag },
                    count => ShardEvent::Refused { tag, reason: format!("{count} pages were sent to other hosts") },
                }),
                Ok(ShardCommand::Pin { tag, pages }) => {
                    self.pins.push(PinOrder { tag, coming: pages.clone() });
                    pages.into_iter().for_each(|page| self.node.handle_pin(now, page));
                    self.pump(now)?;
                }
                Ok(ShardCommand::Unpin) => self.unpin(now)?,
                Ok(ShardCommand::StopWriters { tag }) => {
                    self.stands_still = true;
                    let is_still = self.pages.protect_all()?;
                    self.report(if is_still {
                        ShardEvent::Completed { tag }
                    } else {
                        ShardEvent::Refused {
                            tag,
                            reason: "the kernel does not protect the program's pages, again and again".to_owned(),
                        }
                    });
                }
                Ok(ShardCommand::LetWrite) => {
                    self.stands_still = false;
                    self.take_faults(now)?;
                }
                Ok(ShardCommand::Statistics { tag }) => {
                    self.stages.read(self.clock.now(), &mut self.figures);
                    let statistics = self.figures.report(&self.host, self.counters(), self.sketch.report());
                    self.report(ShardEvent::Statistics { tag, statistics });
                }
                Ok(ShardCommand::Stop) | Err(TryRecvError::Disconnected) => return Ok(Flow::Stop),
                Err(TryRecvError::Empty) => return Ok(Flow::Continue),
            }
        }
    }

    fn unpin(&mut self, now: Nanos) -> anyhow::Result<()> {
        for PinOrder { tag, .. } in std::mem::take(&mut self.pins) {
            self.report(ShardEvent::Refused { tag, reason: "the pages were let go before they were at rest".to_owned() });
        }
        self.node.handle_unpin(now);
        self.pump(now)
    }

    fn add_source(&mut self, now: Nanos, tag: u64, range: PageRange, file: OwnedFd, offset: u64) -> anyhow::Result<()> {
        let added = self.pages.add_source(range, file, offset);
        if added.is_ok() && self.node.handle_source(now, range) {
            self.report(ShardEvent::Completed { tag });
        } else {
            self.node.handle_unsource(now, range);
            self.pages.remove_source(range);
            let reason = added
                .err()
                .map_or_else(|| "some of the pages are in use: discard them first".to_owned(), |error| error.to_string());
            self.report(ShardEvent::Refused { tag, reason });
        }
        self.pump(now)
    }

    fn attach_view(&mut self, now: Nanos, userfaultfd: OwnedFd, watch: Watch) -> anyhow::Result<()> {
        self.stages = Stages::new(watch, self.clock.origin_ns);
        self.pages.attach_view(userfaultfd)?;
        let fault_fd = self.pages.fault_fd().expect("a view was attached just now");
        self.endpoint.watch(fault_fd, TOKEN_FAULTS)?;
        self.take_faults(now)
    }

    fn on_peer_up(&mut self, node: NodeId) {
        if self.peers_awaited.remove(&node) {
            self.on_peers_changed();
        }
    }

    fn on_peers_changed(&mut self) {
        if self.peers_awaited.is_empty() {
            self.report(ShardEvent::PeersReady);
        }
    }

    /// Carries out what the protocol wants until it wants nothing more now.
    fn pump(&mut self, now: Nanos) -> anyhow::Result<()> {
        while let Some((id, op)) = self.pages.retry(now) {
            self.operate(id, op)?;
        }
        let mut is_weighed = false;
        loop {
            let mut is_idle = true;
            self.wanted.extend(std::iter::from_fn(|| self.node.poll_page_op()));
            while let Some((id, op)) = self.wanted.pop_front() {
                (is_idle, is_weighed) = (false, false);
                if !self.operate_run(id, &op)? {
                    self.operate(id, op)?;
                }
            }
            while let Some(transmit) = self.node.poll_transmit() {
                is_idle = false;
                self.send(now, &transmit);
            }
            while let Some(event) = self.node.poll_event() {
                is_idle = false;
                self.on_event(now, event);
            }
            if is_idle && is_weighed {
                break;
            }
            if is_idle {
                let room = self.share.note(self.pages.resident()?, self.clock.origin_ns + now.0);
                self.node.handle_memory(now, room);
                is_weighed = true;
            }
        }
        if self.pages.take_view_lost() {
            self.endpoint.unwatch(TOKEN_FAULTS);
        }
        Ok(())
    }

    /// Carries `op` out together with those after it that do the same to the pages after its own. Returns false if there are none or
    /// the kernel would not have them all at once.
    fn operate_run(&mut self, id: OpId, op: &PageOp) -> anyhow::Result<bool> {
        let count = 1 + Pages::continued_by(op, self.wanted.iter().map(|(_, op)| op));
        if count == 1 {
            return Ok(false);
        }
        let before = self.clock.now();
        if !self.pages.operate_run(op, self.wanted.iter().take(count - 1).map(|(_, op)| op))? {
            return Ok(false);
        }
        let after = self.clock.now();
        self.figures.record(Span::PageOperation, after.since(before).0);
        self.tally.operations += 1;
        self.node.handle_page_done(after, id, OpResult::Done);
        for (id, _) in self.wanted.drain(..count - 1).collect::<Vec<_>>() {
            self.node.handle_page_done(after, id, OpResult::Done);
        }
        Ok(true)
    }

    fn operate(&mut self, id: OpId, op: PageOp) -> anyhow::Result<()> {
        let before = self.clock.now();
        let Some(result) = self.pages.execute(before, id, op)? else {
            self.tally.operations_put_off += 1;
            return Ok(());
        };
        let after = self.clock.now();
        self.tally.operations += 1;
        self.figures.record(Span::PageOperation, after.since(before).0);
        self.node.handle_page_done(after, id, result);
        Ok(())
    }

    fn send(&mut self, now: Nanos, transmit: &Transmit) {
        let mut payload: [&[u8; PAGE_BYTES]; dsm_proto::limits::PAGES_PER_OP_MAX as usize] =
            [&[0; PAGE_BYTES]; dsm_proto::limits::PAGES_PER_OP_MAX as usize];
        let mut count = 0;
        for buffer in transmit.contents.buffers() {
            payload[count] = self.pages.bytes(buffer);
            count += 1;
        }
        let class = match transmit.class {
            Class::Urgent => dsm_transport::Class::Urgent,
            Class::Bulk => dsm_transport::Class::Bulk,
        };
        let sent = self.endpoint.send(transport_time(now), transmit.to, &transmit.message, &payload[..count], class);
        mark_request(&transmit.message);
        if let Message::Request { .. } = transmit.message {
            self.figures.record(Span::RequestOut, self.clock.now().since(now).0);
        }
        if self.fast.publishes() {
            self.publish(transmit);
        }
        if sent.is_err() {
            self.tally.send_refused += 1; // As good as lost on the way: the protocol sends again.
        }
        if !transmit.keeps_buffers {
            for buffer in transmit.contents.buffers() {
                self.pages.free(buffer);
            }
        }
    }

    /// Lets the kernel serve what was served just now, if it is a page to read.
    fn publish(&mut self, transmit: &Transmit) {
        let Message::Grant { page, rights: Rights::Read, era, count, content, .. } = transmit.message else { return };
        for (offset, next) in (0..count).map(|offset| (offset, page.offset(u64::from(offset)))) {
            let buffer = transmit.contents.buffers().nth(usize::from(offset));
            match (content, buffer) {
                (GrantContent::Bytes, Some(buffer)) => {
                    self.fast.publish(&self.endpoint, next, era, Some(self.pages.bytes(buffer)));
                }
                (GrantContent::Zero, _) => self.fast.publish(&self.endpoint, next, era, None),
                (GrantContent::Bytes | GrantContent::Copy, _) => {}
            }
        }
    }

    fn on_event(&mut self, now: Nanos, event: ProtocolEvent) {
        match event {
            ProtocolEvent::FaultResolved { page, kind, stages } => {
                dvm_mark_installed(page.0, u64::from(stages.request_at.is_some()));
                self.stages.note_installed(stages.installed_at, page, stages.request_at.is_some());
                self.sketch.note_resolved(page, stages.request_at.is_some());
                self.record_fault(kind, &stages);
            }
            ProtocolEvent::DiscardDone { token } => {
                if let Some(begun) = self.discards.remove(&token) {
                    self.figures.record(Span::Discard, now.since(begun).0);
                }
                self.report(ShardEvent::Completed { tag: token });
            }
            ProtocolEvent::MemoryExhausted => {
                let limit = self.share.limit_bytes() >> 20;
                let reason = format!(
                    "memory limit of {limit} MiB reached and no host of the job has room; raise `memory` in node.toml or add hosts"
                );
                self.report(ShardEvent::MemoryExhausted { reason });
            }
            ProtocolEvent::Pinned { page } => {
                let done = |order: &mut PinOrder| order.coming.remove(&page) && order.coming.is_empty();
                let tags: Vec<u64> = self.pins.extract_if(.., done).map(|order| order.tag).collect();
                tags.into_iter().for_each(|tag| self.report(ShardEvent::Completed { tag }));
            }
            ProtocolEvent::PageLost { .. } => {} // Counted by the protocol; the thread gets SIGBUS.
            ProtocolEvent::FreeBuffer(buffer) => self.pages.free(buffer),
            ProtocolEvent::DirectoryOpened(extent) => self.fast.open_directory(&mut self.node, extent),
            ProtocolEvent::DirectoryClosed(extent) => self.fast.close_directory(extent),
        }
    }

    fn record_fault(&mut self, kind: FaultKind, stages: &FaultStages) {
        let total = stages.installed_at.since(stages.raised_at).0;
        let Some(request_at) = stages.request_at else {
            self.figures.record(Span::LocalFault, total);
            return;
        };
        let span = match kind.rights() {
            Rights::Read => Span::RemoteRead,
            Rights::Write => Span::RemoteWrite,
        };
        self.figures.record(span, total);
        if let Some(grant_at) = stages.grant_at {
            self.figures.record(Span::ReplyIn, grant_at.since(request_at).0);
            self.figures.record(Span::Installed, stages.installed_at.since(grant_at).0);
        }
    }

    fn counters(&self) -> Vec<(String, u64)> {
        let pager = self.pages.stats();
        let own = [
            ("batches", self.tally.batches),
            ("dropped_no_buffer", self.tally.dropped_no_buffer),
            ("send_refused", self.tally.send_refused),
            ("page_operations", self.tally.operations),
            ("page_operations_put_off", self.tally.operations_put_off),
            ("page_buffers_taken", self.pages.buffers_taken() as u64),
            ("kernel_faults", pager.faults),
            ("pages_installed_zero", pager.zero_pages),
            ("pages_installed_bytes", pager.copied_pages),
            ("pages_read_from_files", pager.source_pages),
        ];
        let named = self
            .node
            .stats()
            .iter()
            .chain(self.endpoint.counters().named())
            .chain(own)
            .chain(self.stages.counters())
            .chain(self.fast.counters());
        named.map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn report(&self, event: ShardEvent) {
        // The agent drops its end only after it has ordered the stop, which arrives on the command channel.
        drop(self.events.send(event));
    }
}

/// What asks other hosts for pages; a host that is the page's home asks holders, for itself as for others.
fn mark_request(message: &Message) {
    if let Message::Request { page, count, .. } = message {
        dvm_mark_request_out(page.0, u64::from(*count));
    } else if let Message::Forward { page, .. } | Message::Invalidate { page, .. } = message {
        dvm_mark_request_out(page.0, 0);
    }
}

fn mark_answer(message: &Message) {
    if let Message::Grant { page, count, .. } = message {
        dvm_mark_grant_in(page.0, u64::from(*count));
    } else if let Message::InvalidateAck { page, .. } = message {
        dvm_mark_grant_in(page.0, 1);
    }
}

fn transport_time(now: Nanos) -> dsm_transport::Nanos {
    dsm_transport::Nanos(now.0)
}

fn lost_text(reason: LostReason) -> &'static str {
    match reason {
        LostReason::Lease => "no heartbeat on the data path for a lease",
        LostReason::NoHandshake => "it never finished the data path's handshake: compare the cluster keys",
        LostReason::Restarted => "its agent was restarted",
    }
}

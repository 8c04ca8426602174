//! Turns bytes into a life of one node: faults, forged frames, timeouts, discards, deaths.
//!
//! Owns the meaning of the bytes and what must hold whatever they say: no panic, no operation that does not fit the
//! pages, no buffer lost or freed twice. Must not expect sense of any frame.

use crate::sim::pager::{self, Pager};
use dsm_proto::{Config, Contents, Event, FaultKind, Frame, Memory, Nanos, Node, OpId, PageContent, PageOp};
use dsm_wire::{
    Epoch, Era, ExtentNumber, GrantContent, Header, Kind, Line, Message, NodeId, PageNumber, PageRange, RequestId, Rights,
    SpaceId, VERSION,
};
use std::collections::VecDeque;

const MEMBERS: u16 = 4;
const ME: NodeId = NodeId(1);
const FIRST_EXTENT: u64 = 9;
const STEPS_MAX: usize = 400;

/// What a life reached; lives that reach something new are worth keeping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reached {
    /// Bit `i`: counter `i` is above zero.
    pub counters: u64,
    /// Bit `k`: a frame of kind `k` was sent.
    pub kinds: u64,
    /// Bit `o`: an operation of form `o` was carried out.
    pub operations: u64,
}

struct Life<'a> {
    bytes: std::slice::Iter<'a, u8>,
    node: Node,
    pager: Pager,
    epoch: Epoch,
    now: u64,
    slow: VecDeque<(OpId, PageOp)>,
    reached: Reached,
}

/// Lives the life that `bytes` describe.
///
/// # Errors
/// What may never happen, if it happened.
pub fn live(bytes: &[u8]) -> Result<Reached, String> {
    let members = (0..MEMBERS).map(NodeId).collect();
    let node = Node::new(Config { me: ME, space: SpaceId(1), members, epoch: Epoch(1), rooted_from: ExtentNumber(u64::MAX) });
    let mut life = Life {
        bytes: bytes.iter(),
        node,
        pager: Pager::default(),
        epoch: Epoch(1),
        now: 0,
        slow: VecDeque::new(),
        reached: Reached::default(),
    };
    for _ in 0..STEPS_MAX {
        let Some(action) = life.bytes.next().copied() else { break };
        life.act(action)?;
    }
    life.finish()?;
    for (index, (_, value)) in life.node.stats().iter().enumerate() {
        life.reached.counters |= u64::from(value > 0) << (index % 64);
    }
    Ok(life.reached)
}

impl Life<'_> {
    fn byte(&mut self) -> u64 {
        self.bytes.next().copied().map_or(0, u64::from)
    }

    fn page(&mut self) -> PageNumber {
        let byte = self.byte();
        PageNumber((FIRST_EXTENT + (byte >> 6)) * 512 + 500 + byte % 16)
    }

    fn act(&mut self, action: u8) -> Result<(), String> {
        self.now += self.byte() * 10_000;
        let now = Nanos(self.now);
        match action % 16 {
            0..=2 => {
                let kind = if action & 16 == 0 { FaultKind::Read } else { FaultKind::Write };
                let page = self.page();
                self.node.handle_fault(now, page, kind, Line(action >> 2));
            }
            3 => self.node.handle_timeout(Nanos(self.now + 50_000_000)),
            4 => {
                let range = PageRange::new(self.page(), self.byte() * 9 + 1);
                self.node.handle_discard(now, range, 1);
            }
            5 if action & 0xf0 == 0xf0 => {
                self.epoch = Epoch(self.epoch.0 + 1);
                let dead = NodeId(self.byte() as u16 % MEMBERS);
                let members: Vec<NodeId> = (0..MEMBERS).map(NodeId).filter(|node| *node != dead || *node == ME).collect();
                self.node.handle_membership(now, self.epoch, &members);
            }
            5 if action & 0xf0 == 0xe0 => {
                let memory =
                    Memory { free: self.byte() % 8, spare: self.byte() % 32, excess: self.byte() % 16, is_high: action & 1 == 1 };
                self.node.handle_memory(now, memory);
            }
            5 if action & 0xf0 == 0xd0 => match self.byte() {
                byte if byte % 4 == 0 => self.node.handle_unpin(now),
                _ => {
                    let page = self.page();
                    self.node.handle_pin(now, page);
                }
            },
            5 | 6 => self.carry_out_one()?,
            7 => self.raw_frame()?,
            _ => {
                let message = self.message();
                self.frame(message);
            }
        }
        self.drain(action & 32 != 0)
    }

    /// Any header that parses, as it is.
    fn raw_frame(&mut self) -> Result<(), String> {
        let mut header = Header { version: VERSION, kind: (self.byte() % 16) as u8, ..Header::default() };
        header.flags.set((self.byte() << 8 | self.byte()) as u16);
        header.page.set(self.byte() << 56 | self.byte() << 40 | (FIRST_EXTENT * 512 + self.byte()));
        header.page_version.set(self.byte() as u32);
        header.request.set(self.byte() << 48 | self.byte());
        let Some(kind) = Kind::from_wire(header.kind) else { return Ok(()) };
        if let Ok(message) = Message::decode(&header, kind) {
            self.frame(message);
        }
        Ok(())
    }

    fn frame(&mut self, message: Message) {
        let from = NodeId(self.byte() as u16 % (MEMBERS + 1));
        let epoch = if self.byte() == 255 { Epoch(77) } else { self.epoch };
        let mut contents = Contents::EMPTY;
        if let Message::Grant { content: GrantContent::Bytes, count, .. } = message {
            let odd = u16::from(self.byte() == 255);
            (0..count - odd).for_each(|_| {
                contents.push(PageContent::Buffer(self.pager.fill(self.now + 1)));
            });
        }
        self.node.handle_frame(Nanos(self.now), Frame { from, epoch, message, contents });
    }

    fn message(&mut self) -> Message {
        let page = self.page();
        let request = RequestId::new(NodeId(self.byte() as u16 % MEMBERS), self.byte() % 32);
        let bits = self.byte();
        let era = Era((bits & 7) as u32);
        let (rights, count) = if bits & 8 == 0 { (Rights::Read, (bits >> 4) as u16 + 1) } else { (Rights::Write, 1) };
        let home = (bits & 64 == 0).then_some(NodeId((bits & 3) as u16));
        let content = match (bits >> 6, rights) {
            (0, Rights::Write) => GrantContent::Copy,
            (1, _) => GrantContent::Zero,
            _ => GrantContent::Bytes,
        };
        let extent = ExtentNumber(page.0 / 512);
        // The last bytes are of the kinds that came last: the committed lives keep their meaning.
        let kind = self.byte();
        match if kind >= 252 { 12 + kind % 2 } else { kind % 12 } {
            0 => Message::Request {
                request,
                page,
                rights,
                count,
                copy: (bits & 128 != 0).then_some(era),
                line: Line(bits as u8 & 63),
            },
            1 => Message::Grant { request, page, rights, era, count, content },
            2 => Message::Forward { request, page, rights, era, line: Line(bits as u8 & 63) },
            3 => Message::Invalidate { request, page, era },
            4 => Message::InvalidateAck { request, page, era },
            5 => Message::Done { request, page, era },
            6 => Message::Retry { request, page, home },
            7 => Message::Locate { request, extent },
            8 => Message::Located { request, extent, home },
            9 => Message::Discard { request: RequestId(request.0 | 1 << 47), range: PageRange::new(page, bits * 5 + 1) },
            10 => Message::DiscardDone { request: RequestId(request.0 | 1 << 47) },
            11 => Message::Lost { request, page, era },
            12 => Message::Offload { request, page, count: (bits >> 4) as u16 + 1 },
            _ => Message::Declined { request, page },
        }
    }

    fn drain(&mut self, is_slow: bool) -> Result<(), String> {
        loop {
            while let Some(next) = self.node.poll_page_op() {
                self.slow.push_back(next);
            }
            self.drain_frames()?;
            if is_slow || self.slow.is_empty() {
                return Ok(());
            }
            self.carry_out_one()?;
        }
    }

    fn drain_frames(&mut self) -> Result<(), String> {
        while let Some(transmit) = self.node.poll_transmit() {
            if transmit.to == ME {
                return Err("a node sends to itself".into());
            }
            self.reached.kinds |= 1 << (transmit.message.kind() as u64 % 64);
            for buffer in transmit.contents.buffers() {
                self.pager.peek(buffer)?;
                if !transmit.keeps_buffers {
                    self.pager.free(buffer)?;
                }
            }
        }
        while let Some(event) = self.node.poll_event() {
            match event {
                Event::FreeBuffer(buffer) => self.pager.free(buffer)?,
                Event::Pinned { page }
                    if self.pager.mapping(page).is_some_and(|mapping| mapping.rights == pager::Rights::Write) =>
                {
                    return Err(format!("page {page} is pinned and can be written"));
                }
                Event::Pinned { .. }
                | Event::FaultResolved { .. }
                | Event::DiscardDone { .. }
                | Event::PageLost { .. }
                | Event::MemoryExhausted
                | Event::DirectoryOpened(_)
                | Event::DirectoryClosed(_) => {}
            }
        }
        Ok(())
    }

    fn carry_out_one(&mut self) -> Result<(), String> {
        let Some((op, work)) = self.slow.pop_front() else { return Ok(()) };
        self.reached.operations |= 1 << form_of(&work);
        let (result, _) = self.pager.carry_out(&work)?;
        // The program writes wherever it may.
        for page in work.range().pages() {
            self.pager.access(page, FaultKind::Write, self.now + 2);
        }
        self.node.handle_page_done(Nanos(self.now), op, result);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), String> {
        self.drain(false)?;
        let tables = self.node.tables();
        if tables.operations > 0 { Err(format!("operations are left: {tables:?}")) } else { Ok(()) }
    }
}

const fn form_of(op: &PageOp) -> u64 {
    match op {
        PageOp::InstallZero { .. } => 0,
        PageOp::Install { writable: false, .. } => 1,
        PageOp::Install { writable: true, .. } => 2,
        PageOp::Unprotect { .. } => 3,
        PageOp::ProtectRead { .. } => 4,
        PageOp::Read { .. } => 5,
        PageOp::Take { .. } => 6,
        PageOp::Drop { .. } => 7,
        PageOp::Refresh { .. } => 8,
        PageOp::Poison { .. } => 9,
    }
}

//! What becomes of a frame: answered, forwarded, counted, refused, or passed up.
//!
//! Owns every decision of the fast path. Must not touch a packet: it turns the header into the one to send and says what to do.
//! The kernel programs, the agent and the simulator call the same code.
//!
//! ```text
//!   Ping                                 answered, if the agent was alive lately
//!   Request to read, page published      Serve: the reader is entered into the directory, page by page, then each page sent
//!   Request to read, other node has it   Forward: the reader is entered, the owner or provider told (TC alone finds the way)
//!   Forward to read, page published      Serve
//!   Request to write, readers near       FanOut: the page is locked, its readers told, then the agent goes on (TC alone)
//!   InvalidateAck, not the last          Counted
//!   anything wrong                       Drop
//!   anything else                        Pass
//! ```
//!
//! A frame that is passed up has changed nothing but perhaps entered a reader too many (or begun its transaction, see `fan_out`):
//! whoever sees it next sees it whole. Why bytes
//! of a published page can be sent though a writer may be granted meanwhile: the reader is entered before the word is looked at
//! once more, so the writer's home tells it to drop what it gets; what comes after that order is of an era it refuses.

use crate::admit::{Addressing, Drop, check_addressing};
use crate::directory::{load, try_step};
use crate::fan_out::{self, FanOut};
use crate::layout::{
    ACK_ERA, ACK_NODES, ACK_PAGE, ACK_PENDING, ACK_REQUEST, COPY_ERA, COPY_PAGE, COPY_TAG, COPY_TURN, COPY_USED, COPY_ZERO,
    ENDPOINT_CLUSTER, ENDPOINT_LIVE, ENDPOINT_PAGES_FIT, ENDPOINT_SEEN, ENDPOINT_SPACE, Map, PATIENCE_NS, PEER_ADDRESS,
    PEER_ANSWERED, PEER_KEY, PEER_LINK, PEER_LIVE, PEER_NEXT_KEY, PEER_SEQUENCE, PEER_WINDOWS, PEERS_PER_ENDPOINT, SEQUENCE_BULK,
    SEQUENCE_KERNEL, WINDOW_SLOTS, ack_record, copy_page, directory_of, extent_key, places_of,
};
use crate::sip::{SipKey, header_tag};
use crate::tables::{DirectoryIn, Tables, cell};
use crate::word::{Entry, State, Step};
use dsm_wire::{
    FLAG_COPY, FLAG_WRITE, FLAG_ZERO, HEADER_BYTES, Header, Kind, NodeId, PAGE_BYTES, PAGES_PER_EXTENT, PayloadShape, RequestId,
    VERSION,
};

pub(crate) const PAGE_LIMIT: u64 = 1 << 52;

/// What the caller can do with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// Send back what is as long as what came. Another program follows that can do more.
    SameSize,
    /// Make it longer, and send it where its address says.
    Grow,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Up to the agent.
    Pass(Pass),
    /// Nowhere.
    Drop(Drop),
    /// Nowhere: an acknowledgement that was counted.
    Counted,
    /// The header is now a Pong for this peer.
    Pong {
        /// Record of the peer.
        to: u32,
    },
    /// The header is now a Forward for this peer.
    Forward {
        /// Record of the peer.
        to: u32,
    },
    /// Pages for a reader: see [`Service::grant`].
    Serve(Service),
    /// Orders to the readers of a page, see [`FanOut::take`]; then up to the agent, as it came.
    FanOut(FanOut),
}

/// Why a frame is the agent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pass {
    /// No endpoint listens there.
    Stranger,
    /// The agent has not been alive lately, or does not want to be helped.
    Asleep,
    /// It carries bytes, several came joined, or it shakes hands.
    Payload,
    /// No session with that peer, or it cannot be told from others.
    NoSession,
    /// Only the agent knows what to do with it.
    Agent,
    /// A transaction on the page is under way.
    Busy,
    /// The page is not published here.
    Unpublished,
    /// Only the program that follows can answer.
    Later,
    /// A page does not fit one packet.
    Mtu,
    /// Somebody changed the entry at the same time.
    Race,
    /// The last acknowledgement.
    LastAck,
}

/// Pages to be sent to a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Record of the reader.
    pub to: u32,
    /// Pages, 1 to 16.
    pub count: u16,
    endpoint: u32,
    directory: Option<u32>,
    places: u32,
    page: u64,
    request: u64,
    era: u32,
}

/// A page to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Index of the bytes.
    pub index: u32,
    /// Whether there are no bytes, since all are zero.
    pub is_zero: bool,
    turn: u64,
    era: u32,
    tag: u64,
}

/// Decides on the frame of `bytes` bytes that came to `port`; its header becomes the one to send, if one is.
#[inline(always)]
pub fn classify<T: Tables>(header: &mut Header, bytes: usize, port: u16, means: Means, tables: &T) -> Verdict {
    match judge(header, bytes, port, means, tables) {
        Ok(verdict) => verdict,
        Err(Refusal::Drop(drop)) => Verdict::Drop(drop),
        Err(Refusal::Pass(pass)) => Verdict::Pass(pass),
    }
}

pub(crate) enum Refusal {
    Drop(Drop),
    Pass(Pass),
}

impl From<Drop> for Refusal {
    fn from(drop: Drop) -> Self {
        Refusal::Drop(drop)
    }
}

impl From<Pass> for Refusal {
    fn from(pass: Pass) -> Self {
        Refusal::Pass(pass)
    }
}

/// The endpoint a frame came to.
#[derive(Clone, Copy)]
pub(crate) struct Here {
    pub record: u32,
    pub us: Addressing,
    is_live: bool,
    pages_fit: bool,
}

#[inline(always)]
fn judge<T: Tables>(header: &mut Header, bytes: usize, port: u16, means: Means, tables: &T) -> Result<Verdict, Refusal> {
    let here = find_endpoint(port, tables)?;
    if bytes < HEADER_BYTES {
        return Err(Drop::Short.into());
    }
    if header.version != VERSION {
        return Err(Drop::Version.into());
    }
    let kind = Kind::from_wire(header.kind).ok_or(Drop::Kind)?;
    let shape = header.shape(kind);
    if shape == PayloadShape::Handshake {
        return Err(Pass::Payload.into());
    }
    check_addressing(header, kind, &here.us)?;
    if bytes < least_bytes(shape) {
        return Err(Drop::Length.into());
    }
    if shape != PayloadShape::Empty || bytes > HEADER_BYTES || header.sequence.get() & SEQUENCE_BULK != 0 {
        return Err(Pass::Payload.into());
    }
    let is_read = header.flags.get() & FLAG_WRITE == 0;
    let is_ours = match kind {
        Kind::Ping => header.page.get() == 0,
        Kind::Request => is_read || means == Means::Grow,
        Kind::Forward => is_read && means == Means::Grow,
        Kind::InvalidateAck => true,
        _ => false,
    };
    if !is_ours && means == Means::SameSize {
        return Err(Pass::Agent.into());
    }
    let source = peer_record(&here, NodeId(header.source.get()))?;
    check_tag(header, source, tables)?;
    let seen = check_fresh(header, source, tables)?;
    learn_link(source, tables);
    if !is_ours {
        return Err(Pass::Agent.into());
    }
    match kind {
        Kind::Ping => {
            seen.note(tables)?;
            header.kind = Kind::Pong as u8;
            header.flags.set(0);
            let to = NodeId(header.source.get());
            address(header, &here, to, source, tables)?;
            Ok(Verdict::Pong { to: source })
        }
        Kind::Request if !is_read => fan_out::on_write(header, &here, &seen, tables),
        Kind::Request => on_request(header, &here, source, &seen, means, tables),
        Kind::Forward => on_forward(header, &here, &seen, tables),
        _ => on_ack(header, &here, &seen, means, tables),
    }
}

/// Bytes of the shortest frame of this shape. A longer one may be several that were joined.
const fn least_bytes(shape: PayloadShape) -> usize {
    match shape {
        PayloadShape::Empty => HEADER_BYTES,
        PayloadShape::Pages(pages) => HEADER_BYTES + pages as usize * PAGE_BYTES,
        PayloadShape::Fragment { .. } | PayloadShape::Handshake => HEADER_BYTES + 1,
    }
}

#[inline(always)]
fn find_endpoint<T: Tables>(port: u16, tables: &T) -> Result<Here, Refusal> {
    let record = tables.endpoint(port).ok_or(Pass::Stranger)?;
    let here = endpoint_in(record, tables).ok_or(Pass::Stranger)?;
    let seen = tables.load(cell(Map::Endpoint, record, ENDPOINT_SEEN)).ok_or(Pass::Stranger)?;
    if !here.is_live || tables.now().saturating_sub(seen) > PATIENCE_NS {
        return Err(Pass::Asleep.into());
    }
    Ok(here)
}

#[inline(always)]
pub(crate) fn endpoint_in<T: Tables>(record: u32, tables: &T) -> Option<Here> {
    let word = |word| tables.load(cell(Map::Endpoint, record, word));
    let (cluster, space) = (word(ENDPOINT_CLUSTER)?, word(ENDPOINT_SPACE)?);
    let us = Addressing { cluster: cluster as u32, epoch: (cluster >> 32) as u32, space: space as u32, me: (space >> 32) as u16 };
    Some(Here { record, us, is_live: space & ENDPOINT_LIVE != 0, pages_fit: space & ENDPOINT_PAGES_FIT != 0 })
}

#[inline(always)]
pub(crate) fn peer_record(here: &Here, node: NodeId) -> Result<u32, Refusal> {
    let number = u32::from(node.0);
    if number >= PEERS_PER_ENDPOINT || node.0 == here.us.me {
        return Err(Pass::NoSession.into());
    }
    Ok(here.record * PEERS_PER_ENDPOINT + number)
}

#[inline(always)]
pub(crate) fn key_of<T: Tables>(peer: u32, tables: &T) -> Result<SipKey, Refusal> {
    let word = |word| tables.load(cell(Map::Peer, peer, word)).ok_or(Pass::NoSession);
    if word(PEER_ADDRESS)? & PEER_LIVE == 0 {
        return Err(Pass::NoSession.into());
    }
    Ok(SipKey(word(PEER_KEY)?, word(PEER_KEY + 1)?))
}

#[inline(always)]
fn check_tag<T: Tables>(header: &Header, peer: u32, tables: &T) -> Result<(), Refusal> {
    let tag = header.header_tag.get();
    if header_tag(key_of(peer, tables)?, header) == tag {
        return Ok(());
    }
    let word = |word| tables.load(cell(Map::Peer, peer, word)).ok_or(Pass::NoSession);
    if word(PEER_ADDRESS)? & PEER_ANSWERED != 0 {
        let next = SipKey(word(PEER_NEXT_KEY)?, word(PEER_NEXT_KEY + 1)?);
        if header_tag(next, header) == tag {
            return Err(Pass::NoSession.into());
        }
    }
    Err(Drop::Tag.into())
}

/// A sequence that was not seen when it was looked up.
pub(crate) struct Seen {
    peer: u32,
    word: usize,
    before: u64,
    sequence: u64,
}

#[inline(always)]
fn check_fresh<T: Tables>(header: &Header, peer: u32, tables: &T) -> Result<Seen, Refusal> {
    let sequence = header.sequence.get() & !SEQUENCE_KERNEL;
    let lane = if header.sequence.get() & SEQUENCE_KERNEL == 0 { 0 } else { WINDOW_SLOTS };
    let word = PEER_WINDOWS + (lane + sequence % WINDOW_SLOTS) as usize;
    let before = tables.load(cell(Map::Peer, peer, word)).ok_or(Pass::NoSession)?;
    if sequence <= before { Err(Drop::Replay.into()) } else { Ok(Seen { peer, word, before, sequence }) }
}

/// Remembers where frames of this peer come from.
#[inline(always)]
fn learn_link<T: Tables>(peer: u32, tables: &T) {
    let (link, at) = (tables.link(), cell(Map::Peer, peer, PEER_LINK));
    if let Some(known) = tables.load(at).filter(|known| link != 0 && *known != link) {
        // Another program that was first knows as much.
        tables.exchange(at, known, link);
    }
}

impl Seen {
    /// Notes the sequence: the frame goes no further.
    #[inline(always)]
    pub fn note<T: Tables>(&self, tables: &T) -> Result<(), Refusal> {
        let noted = tables.exchange(cell(Map::Peer, self.peer, self.word), self.before, self.sequence).ok_or(Pass::NoSession)?;
        if noted { Ok(()) } else { Err(Drop::Replay.into()) }
    }
}

/// Makes `header` one of a program's own frames for `to`, and tags it. Everything else must be set.
#[inline(always)]
pub(crate) fn address<T: Tables>(header: &mut Header, here: &Here, to: NodeId, peer: u32, tables: &T) -> Result<(), Refusal> {
    let key = key_of(peer, tables)?;
    let sequence = tables.add(cell(Map::Peer, peer, PEER_SEQUENCE), 1).ok_or(Pass::NoSession)? + 1;
    header.epoch.set(here.us.epoch);
    header.source.set(here.us.me);
    header.destination.set(to.0);
    header.sequence.set(sequence | SEQUENCE_KERNEL);
    header.header_tag.set(header_tag(key, header));
    Ok(())
}

#[inline(always)]
fn on_request<T: Tables>(
    header: &mut Header,
    here: &Here,
    source: u32,
    seen: &Seen,
    means: Means,
    tables: &T,
) -> Result<Verdict, Refusal> {
    let reader = NodeId(header.source.get());
    let (page, count) = (header.page.get(), header.count());
    let slot = (page % PAGES_PER_EXTENT) as usize;
    let request = header.request.get();
    let is_sane = page < PAGE_LIMIT
        && slot + usize::from(count) <= PAGES_PER_EXTENT as usize
        && header.flags.get() & FLAG_COPY == 0
        && RequestId(request).requester() == reader;
    if !is_sane {
        return Err(Pass::Agent.into());
    }
    let extent = tables.extent(extent_key(here.record, page / PAGES_PER_EXTENT)).ok_or(Pass::Agent)?;
    let record = directory_of(extent).ok_or(Pass::Agent)?;
    let directory = DirectoryIn::new(tables, record);
    let entry = load(&directory, slot);
    let word = entry.word;
    if word.is_busy() {
        return Err(Pass::Busy.into());
    }
    if word.is_wide() || !matches!(word.state(), State::Shared | State::Owned) || word.owner() == reader {
        return Err(Pass::Agent.into());
    }
    if let Some(places) = places_of(extent)
        && word.state() == State::Shared
        && published(here.record, places, page, word.era().0, tables).is_some()
    {
        if means == Means::SameSize {
            return Err(Pass::Later.into());
        }
        if !here.pages_fit {
            return Err(Pass::Mtu.into());
        }
        let era = word.era().0;
        let service = Service { to: source, count, endpoint: here.record, directory: Some(record), places, page, request, era };
        if !service.is_whole(tables) {
            return Err(Pass::Unpublished.into());
        }
        seen.note(tables)?;
        return Ok(Verdict::Serve(service));
    }
    if word.owner().0 == here.us.me {
        return Err(Pass::Unpublished.into());
    }
    if count > 1 {
        // Each of the pages has an owner of its own.
        return Err(Pass::Agent.into());
    }
    if means == Means::SameSize {
        return Err(Pass::Later.into());
    }
    let owner = peer_record(here, word.owner())?;
    key_of(owner, tables)?;
    let joined = try_step(&directory, slot, entry, Step::Joined(reader)).ok().flatten().ok_or(Pass::Race)?;
    seen.note(tables)?;
    let line = header.line();
    header.kind = Kind::Forward as u8;
    header.flags.set(0);
    header.set_line(line);
    header.page_version.set(joined.word.era().0);
    address(header, here, joined.word.owner(), owner, tables)?;
    Ok(Verdict::Forward { to: owner })
}

#[inline(always)]
fn on_forward<T: Tables>(header: &Header, here: &Here, seen: &Seen, tables: &T) -> Result<Verdict, Refusal> {
    let page = header.page.get();
    if page >= PAGE_LIMIT {
        return Err(Pass::Agent.into());
    }
    let request = header.request.get();
    let to = peer_record(here, RequestId(request).requester())?;
    key_of(to, tables)?;
    let extent = tables.extent(extent_key(here.record, page / PAGES_PER_EXTENT)).ok_or(Pass::Agent)?;
    let places = places_of(extent).ok_or(Pass::Agent)?;
    let era = header.page_version.get();
    published(here.record, places, page, era, tables).ok_or(Pass::Unpublished)?;
    if !here.pages_fit {
        return Err(Pass::Mtu.into());
    }
    seen.note(tables)?;
    Ok(Verdict::Serve(Service { to, count: 1, endpoint: here.record, directory: None, places, page, request, era }))
}

#[inline(always)]
fn on_ack<T: Tables>(header: &Header, here: &Here, seen: &Seen, means: Means, tables: &T) -> Result<Verdict, Refusal> {
    let source = header.source.get();
    let page = header.page.get();
    if source >= ACK_NODES {
        return Err(Pass::Agent.into());
    }
    let at = |word| cell(Map::Acks, ack_record(here.record, page), word);
    let word = |word| tables.load(at(word)).ok_or(Pass::Agent);
    // The turn in it is read before the names: if it is still there at the exchange, they are of one transaction.
    let pending = word(ACK_PENDING)?;
    let is_named = word(ACK_REQUEST)? == header.request.get()
        && word(ACK_PAGE)? == page
        && word(ACK_ERA)? as u32 == header.page_version.get();
    if !is_named {
        return Err(Pass::Agent.into());
    }
    let left = pending & ((1 << ACK_NODES) - 1) & !(1 << source);
    if left == 0 && means == Means::SameSize {
        return Err(Pass::LastAck.into());
    }
    if !tables.exchange(at(ACK_PENDING), pending, pending & !(1 << source)).ok_or(Pass::Race)? {
        return Err(Pass::Race.into());
    }
    if left == 0 {
        return Err(Pass::LastAck.into());
    }
    seen.note(tables)?;
    Ok(Verdict::Counted)
}

/// The published copy of `page` of `era`, if there is one.
#[inline(always)]
fn published<T: Tables>(endpoint: u32, places: u32, page: u64, era: u32, tables: &T) -> Option<Copy> {
    let place = tables.load(cell(Map::Places, places, (page % PAGES_PER_EXTENT) as usize))?;
    let index = (place as u32).checked_sub(1)?;
    let word = |word| tables.load(cell(Map::Copy, index, word));
    let turn = word(COPY_TURN)?;
    let is_of_page = turn % 2 == 0 && word(COPY_PAGE)? == copy_page(endpoint, page);
    let named = word(COPY_ERA)?;
    let copy = Copy { index, is_zero: named & COPY_ZERO != 0, turn, era, tag: word(COPY_TAG)? };
    (is_of_page && named as u32 == era).then_some(copy)
}

impl Copy {
    /// Whether the bytes are still what they were when they were granted: to be asked after they were copied out.
    #[inline(always)]
    pub fn is_still_there<T: Tables>(&self, tables: &T) -> bool {
        tables.load(cell(Map::Copy, self.index, COPY_TURN)) == Some(self.turn)
    }
}

impl Service {
    /// Whether the reader is who sent the frame, and not the one it was forwarded for.
    #[must_use]
    pub const fn is_answer(&self) -> bool {
        self.directory.is_some()
    }

    const fn reader(&self) -> NodeId {
        NodeId((self.to % PEERS_PER_ENDPOINT) as u16)
    }

    /// Whether the reader itself provides the page: what it asked is stale.
    fn is_provider(&self, entry: Option<Entry>) -> bool {
        entry.is_some_and(|entry| entry.word.owner() == self.reader())
    }

    /// Whether every page can be had.
    #[inline(always)]
    fn is_whole<T: Tables>(&self, tables: &T) -> bool {
        for offset in 1..u64::from(self.count) {
            let page = self.page + offset;
            let entry = self.entry(page, tables);
            if self.is_provider(entry) || self.find(page, entry, tables).is_none() {
                return false;
            }
        }
        true
    }

    /// The copy of a page of this service that may be sent now.
    #[inline(always)]
    fn find<T: Tables>(&self, page: u64, entry: Option<Entry>, tables: &T) -> Option<Copy> {
        let era = match entry {
            None => self.era,
            Some(Entry { word, .. }) if word.is_busy() || word.is_wide() || word.state() != State::Shared => return None,
            Some(Entry { word, .. }) => word.era().0,
        };
        published(self.endpoint, self.places, page, era, tables)
    }

    /// The directory's entry of a page, if this is the page's home.
    #[inline(always)]
    fn entry<T: Tables>(&self, page: u64, tables: &T) -> Option<Entry> {
        let record = self.directory?;
        Some(load(&DirectoryIn::new(tables, record), (page % PAGES_PER_EXTENT) as usize))
    }

    /// Enters the reader for the page at `offset` (0 to `count` - 1), and makes `header` its Grant. `None`: pass what came up to the
    /// agent. After the bytes are copied, ask [`Copy::is_still_there`].
    #[inline(always)]
    pub fn grant<T: Tables>(&self, header: &mut Header, offset: u16, tables: &T) -> Option<Copy> {
        let page = self.page + u64::from(offset);
        let slot = (page % PAGES_PER_EXTENT) as usize;
        let reader = self.reader();
        let entry = self.entry(page, tables);
        let copy = self.find(page, entry, tables).filter(|_| !self.is_provider(entry))?;
        if let (Some(record), Some(entry)) = (self.directory, entry) {
            try_step(&DirectoryIn::new(tables, record), slot, entry, Step::Joined(reader)).ok()??;
        }
        tables.exchange(cell(Map::Copy, copy.index, COPY_USED), 0, 1)?;
        let here = endpoint_in(self.endpoint, tables)?;
        header.kind = Kind::Grant as u8;
        header.flags = Header::flags_with_count(if copy.is_zero { FLAG_ZERO } else { 0 }, 1);
        header.page.set(page);
        header.page_version.set(copy.era);
        header.request.set(self.request);
        header.payload_tag.set(if copy.is_zero { 0 } else { copy.tag });
        address(header, &here, reader, self.to, tables).ok()?;
        Some(copy)
    }
}

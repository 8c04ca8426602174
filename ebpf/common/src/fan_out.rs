//! A request to write a page that others read: the page is locked, and who reads it told to drop it, before the agent has woken.
//!
//! Owns the beginning of such a transaction. Must not end it: the frame goes up as it came, and the agent takes the transaction over,
//! whatever brings it to the page first.
//!
//! ```text
//!   claim a record of acknowledgements --> name page, era, spared --> lock the word --> look at the sharers again
//!        \-- in use: pass                                               \-- failed: free, pass
//!   --> a bit for each that is to answer --> name the request: from now on the agent can take over --> one Invalidate for each
//! ```
//!
//! Once the word is locked nothing can fail: the record is this program's alone, and a locked word has a named record a moment later.
//! Readers that came until the word was locked, and cannot be told from here, are the agent's ([`ACK_UNTOLD`]).

use crate::classify::{Here, PAGE_LIMIT, Pass, Refusal, Seen, Verdict, address, endpoint_in, key_of, peer_record};
use crate::directory::{Directory, load, try_step};
use crate::layout::{
    ACK_CLAIMED, ACK_ERA, ACK_NODES, ACK_OPENED, ACK_PAGE, ACK_PENDING, ACK_REQUEST, ACK_UNTOLD, FAN_OUT_MAX, Map, PEER_LINK,
    PEERS_PER_ENDPOINT, ack_record, directory_of, extent_key,
};
use crate::tables::{DirectoryIn, Tables, cell};
use crate::word::{Entry, Sharers, State, Step};
use dsm_wire::{FLAG_COPY, Header, Kind, NodeId, PAGES_PER_EXTENT, RequestId};

const BITS: u64 = (1 << ACK_NODES) - 1;
const LINK_INTERFACE_SHIFT: u32 = 48;
const LINK_ADDRESS: u64 = (1 << LINK_INTERFACE_SHIFT) - 1;

/// Orders to be sent to the readers of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FanOut {
    endpoint: u32,
    era: u32,
    /// Who is still to be told (bit = node).
    nodes: u64,
}

/// To whom an order goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Record of the peer.
    pub to: u32,
    /// Its Ethernet address, first byte lowest.
    pub ethernet: u64,
}

impl FanOut {
    /// Makes `header`, which is the Request's or the order's before, the order for the next reader. `None`: there is none left. One
    /// that cannot be sent is sent by the agent's timer.
    #[inline(always)]
    pub fn take<T: Tables>(&mut self, header: &mut Header, tables: &T) -> Option<Told> {
        if self.nodes == 0 {
            return None;
        }
        let node = self.nodes.trailing_zeros();
        self.nodes &= self.nodes - 1;
        let here = endpoint_in(self.endpoint, tables)?;
        let to = self.endpoint * PEERS_PER_ENDPOINT + node;
        header.kind = Kind::Invalidate as u8;
        header.flags.set(0);
        header.page_version.set(self.era);
        header.payload_tag.set(0);
        address(header, &here, NodeId(node as u16), to, tables).ok()?;
        let link = tables.load(cell(Map::Peer, to, PEER_LINK))?;
        Some(Told { to, ethernet: link & LINK_ADDRESS })
    }
}

/// The page, as a writer finds it at rest.
struct Found {
    entry: Entry,
    writer: NodeId,
    spared: NodeId,
    /// The era that begins.
    era: u32,
}

impl Found {
    /// Who has to drop the page, of `sharers`.
    const fn others(&self, sharers: Sharers) -> u64 {
        sharers.without(self.writer, false).without(self.spared, false).0
    }
}

#[inline(always)]
pub(crate) fn on_write<T: Tables>(header: &Header, here: &Here, seen: &Seen, tables: &T) -> Result<Verdict, Refusal> {
    let (page, request) = (header.page.get(), header.request.get());
    let is_sane = page < PAGE_LIMIT
        && header.count() == 1
        && !matches!(request, 0 | ACK_CLAIMED)
        && RequestId(request).requester() == NodeId(header.source.get())
        && here.us.me < ACK_NODES;
    if !is_sane {
        return Err(Pass::Agent.into());
    }
    // Whatever becomes of it: the agent has a window of its own, and no frame is to begin two transactions.
    seen.note(tables)?;
    let extent = tables.extent(extent_key(here.record, page / PAGES_PER_EXTENT)).ok_or(Pass::Agent)?;
    let directory = DirectoryIn::new(tables, directory_of(extent).ok_or(Pass::Agent)?);
    let slot = (page % PAGES_PER_EXTENT) as usize;
    let found = find(header, load(&directory, slot))?;
    let me = 1 << here.us.me;
    let reached = reachable(found.others(found.entry.sharers) & !me, here, tables)?;

    let at = |word| cell(Map::Acks, ack_record(here.record, page), word);
    // Of a claimed record nobody else changes a word.
    let set = |word, value| tables.exchange(at(word), tables.load(at(word))?, value).filter(|is_done| *is_done);
    if !tables.exchange(at(ACK_REQUEST), 0, ACK_CLAIMED).ok_or(Pass::Busy)? {
        return Err(Pass::Busy.into());
    }
    let turn = (tables.load(at(ACK_PENDING)).ok_or(Pass::Race)? | BITS).wrapping_add(1);
    let named = u64::from(found.era) | u64::from(found.spared.0) << 32 | ACK_OPENED;
    set(ACK_PENDING, turn).and_then(|_| set(ACK_PAGE, page)).and_then(|_| set(ACK_ERA, named)).ok_or(Pass::Race)?;
    if try_step(&directory, slot, found.entry, Step::Lock).ok().flatten().is_none() {
        set(ACK_REQUEST, 0).ok_or(Pass::Race)?;
        return Err(Pass::Race.into());
    }
    // Readers may have come until the word was busy.
    let others = found.others(directory.sharers(slot));
    let nodes = others & !me;
    let is_told = nodes & !reached == 0;
    if is_told {
        set(ACK_PENDING, turn | others).ok_or(Pass::Race)?;
    } else {
        set(ACK_ERA, named | ACK_UNTOLD).ok_or(Pass::Race)?;
    }
    set(ACK_REQUEST, request).ok_or(Pass::Race)?;
    if is_told { Ok(Verdict::FanOut(FanOut { endpoint: here.record, era: found.era, nodes })) } else { Err(Pass::Race.into()) }
}

/// The page of `entry` for the writer who asks by `header`, if others may read it.
#[inline(always)]
fn find(header: &Header, entry: Entry) -> Result<Found, Refusal> {
    let Entry { word, sharers } = entry;
    let writer = NodeId(header.source.get());
    if word.is_busy() {
        return Err(Pass::Busy.into());
    }
    let era = word.era().0.checked_add(1).ok_or(Pass::Agent)?;
    if word.is_wide() || word.state() != State::Shared {
        return Err(Pass::Agent.into());
    }
    let has_copy =
        sharers.may_contain(writer, false) && header.flags.get() & FLAG_COPY != 0 && header.page_version.get() == word.era().0;
    let is_upgrade = word.owner() == writer || has_copy;
    Ok(Found { entry, writer, spared: if is_upgrade { writer } else { word.owner() }, era })
}

/// These nodes, if there are any and each can be told from here.
#[inline(always)]
fn reachable<T: Tables>(nodes: u64, here: &Here, tables: &T) -> Result<u64, Refusal> {
    let interface = tables.link() >> LINK_INTERFACE_SHIFT;
    if nodes == 0 || nodes & !BITS != 0 || interface == 0 {
        return Err(Pass::Agent.into());
    }
    let mut left = nodes;
    for _ in 0..FAN_OUT_MAX {
        let peer = peer_record(here, NodeId(left.trailing_zeros() as u16))?;
        key_of(peer, tables)?;
        if tables.load(cell(Map::Peer, peer, PEER_LINK)).ok_or(Pass::NoSession)? >> LINK_INTERFACE_SHIFT != interface {
            return Err(Pass::NoSession.into());
        }
        left &= left - 1;
        if left == 0 {
            return Ok(nodes);
        }
    }
    Err(Pass::Agent.into())
}

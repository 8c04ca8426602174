//! What the kernel programs and the agent share: arrays of records, each record a row of 64-bit words.
//!
//! Owns which word means what and how many there are. Must not know who maps them. Only the agent writes the parts that say so;
//! the rest changes by compare-exchange on both sides.
//!
//! ```text
//!   ports      UDP port -> endpoint
//!   extents    (endpoint, extent) -> directory and places                  PLACE_* below
//!   Endpoint   one per space on this host                                  ENDPOINT_*
//!   Peer       NARROW_NODES_MAX per endpoint: keys, address, replay        PEER_*
//!   Directory  words and sharers of an extent homed here                   see `directory`
//!   Places     for each page of an extent: which Copy has it, plus one
//!   Copy       a published page: what it is; its bytes lie in the map `pages` at the same index     COPY_*
//!   Acks       per endpoint: invalidations under way                       ACK_*
//! ```

use crate::directory::DIRECTORY_WORDS;
use crate::word::NARROW_NODES_MAX;
use dsm_wire::{PAGE_BYTES, PAGES_PER_EXTENT};

/// Words of a page.
pub const PAGE_WORDS: usize = PAGE_BYTES / 8;

/// Spaces of one host that have a fast path.
pub const ENDPOINTS_MAX: u32 = 16;
/// Peers of one endpoint.
pub const PEERS_PER_ENDPOINT: u32 = NARROW_NODES_MAX as u32;
/// Sequences of one lane of a peer that are remembered; a power of two.
pub const WINDOW_SLOTS: u64 = 512;
/// Invalidations under way that are counted in the kernel, per endpoint; a power of two.
pub const ACKS_PER_ENDPOINT: u32 = 256;
/// Nodes whose acknowledgements are counted in the kernel: numbers below this.
pub const ACK_NODES: u16 = 48;
/// Nodes that a program tells to drop a page, at most.
pub const FAN_OUT_MAX: u32 = 16;
/// An agent that was not heard of for this long does not answer through the kernel either, in nanoseconds.
pub const PATIENCE_NS: u64 = 5_000_000_000;

/// Which array.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Map {
    /// See the head of this file.
    Endpoint,
    /// See the head of this file.
    Peer,
    /// See the head of this file.
    Directory,
    /// See the head of this file.
    Places,
    /// See the head of this file.
    Copy,
    /// See the head of this file.
    Acks,
}

impl Map {
    /// Every array.
    pub const ALL: [Map; 6] = [Map::Endpoint, Map::Peer, Map::Directory, Map::Places, Map::Copy, Map::Acks];

    /// Words of one record.
    #[must_use]
    pub const fn words(self) -> usize {
        match self {
            Map::Endpoint | Map::Copy => 8,
            Map::Peer => PEER_WORDS,
            Map::Directory => DIRECTORY_WORDS,
            Map::Places => PAGES_PER_EXTENT as usize,
            Map::Acks => 4,
        }
    }
}

/// Endpoint: cluster fingerprint, epoch above it.
pub const ENDPOINT_CLUSTER: usize = 0;
/// Endpoint: space, then own node from bit 32, then [`ENDPOINT_LIVE`] and [`ENDPOINT_PAGES_FIT`].
pub const ENDPOINT_SPACE: usize = 1;
/// Endpoint: when its shard was last seen alive, in nanoseconds of CLOCK_MONOTONIC.
pub const ENDPOINT_SEEN: usize = 2;
/// Endpoint: own address, as in [`PEER_ADDRESS`].
pub const ENDPOINT_ADDRESS: usize = 3;
/// The programs may answer for this endpoint.
pub const ENDPOINT_LIVE: u64 = 1 << 48;
/// A whole page fits one datagram.
pub const ENDPOINT_PAGES_FIT: u64 = 1 << 49;

/// Peer: first half of the pair key.
pub const PEER_KEY: usize = 0;
/// Peer: how many frames the programs have sent to it.
pub const PEER_SEQUENCE: usize = 2;
/// Peer: IPv4 address (first byte lowest), UDP port of its urgent socket from bit 32, [`PEER_LIVE`].
pub const PEER_ADDRESS: usize = 3;
/// Peer: first half of the key that the next session will have, if [`PEER_ANSWERED`].
pub const PEER_NEXT_KEY: usize = 4;
/// Peer: the Ethernet address its frames come from (first byte lowest), the number of the interface they come by from bit 48; 0 if
/// none came yet.
pub const PEER_LINK: usize = 6;
/// There is a session, and its key is here.
pub const PEER_LIVE: u64 = 1 << 48;
/// A handshake was answered: the first frame under the next key begins a session.
pub const PEER_ANSWERED: u64 = 1 << 49;
/// Peer: highest sequence seen in each slot, of the urgent lane, then of the kernel's lane.
pub const PEER_WINDOWS: usize = 8;
/// Words of a peer.
pub const PEER_WORDS: usize = PEER_WINDOWS + 2 * WINDOW_SLOTS as usize;

/// Copy: odd while the agent changes it; grows with each change.
pub const COPY_TURN: usize = 0;
/// Copy: page number, endpoint from bit 52.
pub const COPY_PAGE: usize = 1;
/// Copy: era; [`COPY_ZERO`].
pub const COPY_ERA: usize = 2;
/// The page is all zero; there are no bytes.
pub const COPY_ZERO: u64 = 1 << 32;
/// Copy: payload tag of the bytes.
pub const COPY_TAG: usize = 3;
/// Copy: not 0 if a program has served it since the agent last looked.
pub const COPY_USED: usize = 4;
/// Copy: where it stands in `Places` (record times 512, plus the page's place in its extent), plus one.
pub const COPY_PLACE: usize = 5;

/// Acks: the request of the transaction; 0 if the record is free, [`ACK_CLAIMED`] if it is not named yet.
pub const ACK_REQUEST: usize = 0;
/// Acks: no request has this number.
pub const ACK_CLAIMED: u64 = u64::MAX;
/// Acks: the page.
pub const ACK_PAGE: usize = 1;
/// Acks: the era that begins; of a transaction that a program has begun, the spared node from bit 32, and [`ACK_OPENED`].
pub const ACK_ERA: usize = 2;
/// Acks: a program has begun the transaction, and the agent has not taken it over yet.
pub const ACK_OPENED: u64 = 1 << 48;
/// Acks: the program has told nobody, and who is to be told the agent finds out itself.
pub const ACK_UNTOLD: u64 = 1 << 49;
/// Acks: who has not answered (bit = node), turn of the record from bit 48.
pub const ACK_PENDING: usize = 3;

/// The bit of a sequence that says the frame came from the bulk socket.
pub const SEQUENCE_BULK: u64 = 1 << 63;
/// The bit of a sequence that says a kernel program sent the frame.
pub const SEQUENCE_KERNEL: u64 = 1 << 62;

/// Key of an extent in the map `extents`.
#[must_use]
pub const fn extent_key(endpoint: u32, extent: u64) -> u64 {
    extent | (endpoint as u64) << 48
}

/// Value in the map `extents`: records of the directory and of the places, if it has them.
#[must_use]
pub fn extent_value(directory: Option<u32>, places: Option<u32>) -> u64 {
    let plus_one = |index: Option<u32>| index.map_or(0, |index| u64::from(index) + 1);
    plus_one(directory) | plus_one(places) << 32
}

/// Record of the directory in a value of the map `extents`.
#[must_use]
pub const fn directory_of(value: u64) -> Option<u32> {
    (value as u32).checked_sub(1)
}

/// Record of the places in a value of the map `extents`.
#[must_use]
pub const fn places_of(value: u64) -> Option<u32> {
    ((value >> 32) as u32).checked_sub(1)
}

/// The value of [`COPY_PAGE`].
#[must_use]
pub const fn copy_page(endpoint: u32, page: u64) -> u64 {
    page | (endpoint as u64) << 52
}

/// The record of the map `Acks` that counts for `page`.
#[must_use]
pub const fn ack_record(endpoint: u32, page: u64) -> u32 {
    let spread = (page ^ page >> 9) as u32;
    endpoint * ACKS_PER_ENDPOINT + spread % ACKS_PER_ENDPOINT
}

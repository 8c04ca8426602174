//! A state of the tables by chance: endpoints, peers, directories, what is published, what is awaited.
//!
//! Owns which states there are. Must not know frames, nor what a program makes of a state.

use crate::rng::Rng;
use dsm_fast::layout::{
    ACK_ERA, ACK_NODES, ACK_PAGE, ACK_PENDING, ACK_REQUEST, ACKS_PER_ENDPOINT, COPY_ERA, COPY_PAGE, COPY_PLACE, COPY_TAG,
    COPY_TURN, COPY_USED, COPY_ZERO, ENDPOINT_ADDRESS, ENDPOINT_CLUSTER, ENDPOINT_LIVE, ENDPOINT_PAGES_FIT, ENDPOINT_SEEN,
    ENDPOINT_SPACE, ENDPOINTS_MAX, Map, PAGE_WORDS, PEER_ADDRESS, PEER_SEQUENCE, PEER_WINDOWS, PEERS_PER_ENDPOINT, WINDOW_SLOTS,
    ack_record, copy_page, extent_key, extent_value,
};
use dsm_fast::{Addressing, Arrays, SLOTS, SipKey, cell};
use dsm_wire::{NodeId, PAGES_PER_EXTENT, RequestId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Endpoints that have peers; the arrays end there.
pub const ENDPOINTS: u32 = 4;
const EXTENTS: u32 = 8;
const COPIES: u32 = 320;
/// Records of each array, in the order of [`Map::ALL`].
pub const COUNTS: [u32; Map::ALL.len()] =
    [ENDPOINTS_MAX, ENDPOINTS * PEERS_PER_ENDPOINT, EXTENTS, EXTENTS, COPIES, ENDPOINTS_MAX * ACKS_PER_ENDPOINT];
/// Nodes with which there may be sessions: the ends of each range are among them.
pub const NODES: [u16; 10] = [0, 1, 2, 3, 4, 5, 47, 48, 62, 63];
/// Pages that are alike.
pub const BLOCK: u64 = 32;
/// First page that no directory has.
pub const PAGE_LIMIT: u64 = 1 << 52;

/// UDP port -> endpoint.
pub type Ports = BTreeMap<u16, u32>;

/// A state.
pub struct World {
    /// Words; programs change copies of them.
    pub arrays: Arrays,
    /// See [`Ports`].
    pub ports: Ports,
    /// The map `extents`.
    pub extents: BTreeMap<u64, u64>,
    /// Endpoints that may answer, and more.
    pub endpoints: Vec<Endpoint>,
    /// Invalidations under way.
    pub awaited: Vec<Awaited>,
}

/// What a sender knows of an endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Record.
    pub record: u32,
    /// UDP port.
    pub port: u16,
    /// What frames for it say.
    pub us: Addressing,
    /// Sessions.
    pub peers: Vec<Peer>,
    /// First pages of its blocks that are worth asking for.
    pub blocks: Vec<u64>,
    /// Its extents.
    pub extents: Vec<u64>,
}

/// A session.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// Who.
    pub node: u16,
    /// Its key.
    pub key: SipKey,
    /// The key of the next session.
    pub next: Option<SipKey>,
}

/// An invalidation under way.
#[derive(Clone, Copy, Debug)]
pub struct Awaited {
    /// At which endpoint.
    pub endpoint: u32,
    /// Of which page.
    pub page: u64,
    /// Its request.
    pub request: u64,
    /// The era that begins.
    pub era: u32,
    /// Who has not answered.
    pub nodes: u64,
}

/// Zeroes, for as long as the process lives.
#[must_use]
pub fn memory(words: usize) -> &'static [AtomicU64] {
    Box::leak((0..words).map(|_| AtomicU64::new(0)).collect())
}

/// Words of each array, in the order of [`Map::ALL`], and of the pages.
#[must_use]
pub fn sizes() -> ([usize; Map::ALL.len()], usize) {
    (Map::ALL.map(|map| map.words() * COUNTS[map as usize] as usize), COPIES as usize * PAGE_WORDS)
}

/// Copies all words.
pub fn copy(from: &Arrays, to: &Arrays) {
    let pairs = from.maps.iter().chain([&from.pages]).zip(to.maps.iter().chain([&to.pages]));
    for (from, to) in pairs {
        for (from, to) in from.iter().zip(*to) {
            to.store(from.load(Relaxed), Relaxed);
        }
    }
}

impl World {
    /// Memory for a state, with nothing in it but the bytes of pages.
    #[must_use]
    pub fn empty() -> Self {
        let (words, pages) = sizes();
        let arrays = Arrays { maps: words.map(memory), pages: memory(pages) };
        let mut rng = Rng::new(0);
        arrays.pages.iter().for_each(|word| word.store(rng.draw(), Relaxed));
        Self { arrays, ports: Ports::new(), extents: BTreeMap::new(), endpoints: Vec::new(), awaited: Vec::new() }
    }

    /// Makes it another state.
    pub fn fill(&mut self, rng: &mut Rng) {
        for map in Map::ALL {
            self.arrays.maps[map as usize].iter().for_each(|word| word.store(0, Relaxed));
        }
        self.ports.clear();
        self.extents.clear();
        self.endpoints.clear();
        self.awaited.clear();
        for record in 0..ENDPOINTS {
            self.add_endpoint(record, rng);
        }
        // One without peers, and two that are not there.
        self.add_endpoint(ENDPOINTS + 1, rng);
        self.ports.insert(7100, ENDPOINTS_MAX);
        self.ports.insert(7101, u32::MAX);
        let mut copies = 0;
        for record in 0..EXTENTS {
            // Two endpoints have most of the pages, and one node of the wide kind of words each now and then.
            let endpoint = if rng.chance(900_000) { rng.below(2) } else { rng.below(4) } as usize;
            self.add_extent(record, endpoint, &mut copies, rng);
        }
        self.add_odd_extents(rng);
        self.add_awaited(rng);
    }

    fn store(&self, map: Map, record: u32, word: usize, value: u64) {
        if let Some(place) = self.arrays.at(cell(map, record, word)) {
            place.store(value, Relaxed);
        }
    }

    fn add_endpoint(&mut self, record: u32, rng: &mut Rng) {
        let us = Addressing {
            cluster: 0xc0ff_ee00 | rng.below(2) as u32,
            epoch: rng.between(1, 3) as u32,
            space: rng.between(1, 2) as u32,
            me: rng.pick(&NODES),
        };
        let port = 7000 + record as u16;
        let is_live = record < 2 || rng.chance(600_000);
        let is_seen = record < 2 || rng.chance(700_000);
        let fits = record == 0 || rng.chance(600_000);
        let flags = if is_live { ENDPOINT_LIVE } else { 0 } | if fits { ENDPOINT_PAGES_FIT } else { 0 };
        let store = |word, value| self.store(Map::Endpoint, record, word, value);
        store(ENDPOINT_CLUSTER, u64::from(us.cluster) | u64::from(us.epoch) << 32);
        store(ENDPOINT_SPACE, u64::from(us.space) | u64::from(us.me) << 32 | flags);
        // In the future, or before the machine was started: when a frame comes makes no difference.
        store(ENDPOINT_SEEN, if is_seen { u64::MAX } else { 0 });
        store(ENDPOINT_ADDRESS, address_word([10, 78, 0, 1], port));
        self.ports.insert(port, record);
        let mut peers = Vec::new();
        for node in NODES.into_iter().filter(|node| *node != us.me && record < ENDPOINTS) {
            let key = SipKey(rng.draw(), rng.draw());
            let address = [10, rng.pick(&[78, 78, 78, 79, 80]), 0, rng.between(2, 45) as u8];
            if rng.chance(850_000) {
                self.arrays.open_peer(record, node, key, address_word(address, rng.between(7000, 7010) as u16));
            } else if rng.chance(500_000) {
                // A key, but no session.
                self.store(Map::Peer, record * PEERS_PER_ENDPOINT + u32::from(node), PEER_ADDRESS, address_word(address, 7000));
            }
            let next = rng.chance(200_000).then(|| SipKey(rng.draw(), rng.draw()));
            if let Some(next) = next {
                self.arrays.answer_peer(record, node, next);
            }
            self.fill_windows(record * PEERS_PER_ENDPOINT + u32::from(node), rng);
            peers.push(Peer { node, key, next });
        }
        self.endpoints.push(Endpoint { record, port, us, peers, blocks: Vec::new(), extents: Vec::new() });
    }

    fn fill_windows(&self, peer: u32, rng: &mut Rng) {
        if rng.chance(300_000) {
            self.store(Map::Peer, peer, PEER_SEQUENCE, rng.below(1 << 61));
        }
        for _ in 0..rng.below(40) {
            let slot = rng.below(2 * WINDOW_SLOTS);
            let seen = rng.below(4) * WINDOW_SLOTS + slot % WINDOW_SLOTS;
            let seen = if rng.chance(100_000) { u64::MAX >> rng.below(4) } else { seen };
            self.store(Map::Peer, peer, PEER_WINDOWS + slot as usize, seen);
        }
    }

    /// An extent, in blocks of pages that are alike.
    fn add_extent(&mut self, record: u32, endpoint: usize, copies: &mut u32, rng: &mut Rng) {
        let number = if rng.chance(100_000) { PAGE_LIMIT / PAGES_PER_EXTENT - 1 } else { u64::from(record) };
        let at = self.endpoints[endpoint].record;
        let me = self.endpoints[endpoint].us.me;
        let directory = rng.chance(850_000).then_some(record);
        let places = rng.chance(850_000).then_some(record);
        self.extents.insert(extent_key(at, number), extent_value(directory, places));
        for block in 0..PAGES_PER_EXTENT / BLOCK {
            let is_served = *copies + BLOCK as u32 <= COPIES && rng.chance(150_000);
            let evenness = rng.pick(&[1_000_000, 995_000, 900_000]);
            for slot in block * BLOCK..(block + 1) * BLOCK {
                let is_even = rng.chance(evenness);
                let word = if is_even { plain_word(is_served, me, rng) } else { odd_word(me, rng) };
                self.store(Map::Directory, record, slot as usize, word);
                self.store(Map::Directory, record, SLOTS + slot as usize, sharers(rng));
                if is_served {
                    let page = number * PAGES_PER_EXTENT + slot;
                    self.publish(record, *copies, copy_page(at, page), (word >> 32) as u32, rng);
                    *copies += 1;
                }
            }
            if is_served || rng.chance(100_000) {
                self.endpoints[endpoint].blocks.push(number * PAGES_PER_EXTENT + block * BLOCK);
            }
        }
        self.endpoints[endpoint].extents.push(number);
    }

    fn publish(&self, places: u32, index: u32, page: u64, era: u32, rng: &mut Rng) {
        let slot = page % PAGES_PER_EXTENT;
        let is_odd = |rng: &mut Rng| rng.chance(8_000);
        let (index_there, page_there) = (
            if is_odd(rng) { COPIES + rng.below(2) as u32 } else { index },
            if is_odd(rng) { page ^ 1 << rng.below(56) } else { page },
        );
        let era = if is_odd(rng) { era.wrapping_sub(1) } else { era };
        let zero = if rng.chance(300_000) { COPY_ZERO } else { 0 };
        self.store(Map::Places, places, slot as usize, if is_odd(rng) { 0 } else { u64::from(index_there) + 1 });
        self.store(Map::Copy, index, COPY_TURN, rng.below(1000) * 2 + u64::from(is_odd(rng)));
        self.store(Map::Copy, index, COPY_PAGE, page_there);
        self.store(Map::Copy, index, COPY_ERA, u64::from(era) | zero);
        self.store(Map::Copy, index, COPY_TAG, rng.draw());
        self.store(Map::Copy, index, COPY_USED, rng.below(2));
        self.store(Map::Copy, index, COPY_PLACE, u64::from(places) * PAGES_PER_EXTENT + slot + 1);
    }

    /// Extents whose records are not there, or whose records are others'.
    fn add_odd_extents(&mut self, rng: &mut Rng) {
        let beyond = Some(EXTENTS + rng.below(2) as u32);
        let values = [
            extent_value(None, None),
            extent_value(beyond, Some(0)),
            extent_value(Some(1), beyond),
            extent_value(Some(2), Some(3)),
            rng.draw(),
        ];
        for (number, value) in (100..).zip(values) {
            let endpoint = rng.below(2) as usize;
            self.extents.insert(extent_key(self.endpoints[endpoint].record, number), value);
            self.endpoints[endpoint].extents.push(number);
        }
    }

    fn add_awaited(&mut self, rng: &mut Rng) {
        for _ in 0..200 {
            let endpoint = &self.endpoints[rng.below(3) as usize];
            let page = match endpoint.extents.as_slice() {
                [] => rng.below(1000),
                extents => rng.pick(extents) * PAGES_PER_EXTENT + rng.below(PAGES_PER_EXTENT),
            };
            let nodes = (0..rng.between(1, 5)).fold(0, |set, _| set | 1u64 << rng.pick(&NODES));
            let nodes = if rng.chance(50_000) { 0 } else { nodes & ((1 << ACK_NODES) - 1) };
            let request = RequestId::new(NodeId(rng.pick(&NODES)), rng.below(1000)).0;
            let awaited = Awaited { endpoint: endpoint.record, page, request, era: rng.between(1, 5) as u32, nodes };
            let record = ack_record(endpoint.record, page);
            self.store(Map::Acks, record, ACK_REQUEST, request);
            self.store(Map::Acks, record, ACK_PAGE, page);
            self.store(Map::Acks, record, ACK_ERA, u64::from(awaited.era));
            self.store(Map::Acks, record, ACK_PENDING, nodes | rng.below(1 << 16) << ACK_NODES);
            self.awaited.push(awaited);
        }
    }
}

/// As in [`PEER_ADDRESS`].
fn address_word(ip: [u8; 4], port: u16) -> u64 {
    u64::from(u32::from_le_bytes(ip)) | u64::from(port) << 32
}

/// Mostly Shared with us as the provider where the page is published, and someone else's where it is not.
fn plain_word(is_served: bool, me: u16, rng: &mut Rng) -> u64 {
    let state = if is_served && rng.chance(980_000) { 1 } else { rng.between(1, 2) };
    let owner = if is_served && rng.chance(950_000) { me } else { rng.pick(&NODES) };
    state | u64::from(owner) << 16 | rng.between(1, 5) << 32
}

/// Any state, busy or not, wide or not.
fn odd_word(me: u16, rng: &mut Rng) -> u64 {
    let owner = if rng.chance(500_000) { me } else { rng.pick(&[0, 1, 2, 48, 63, 64, 500]) };
    let busy = if rng.chance(250_000) { 8 } else { 0 };
    let wide = if rng.chance(200_000) { 16 } else { 0 };
    let rest = if rng.chance(20_000) { rng.draw() & 0xffe0 } else { 0 };
    let era = if rng.chance(100_000) { u64::from(u32::MAX) } else { rng.between(0, 5) };
    rng.below(8) | busy | wide | rest | u64::from(owner) << 16 | era << 32
}

fn sharers(rng: &mut Rng) -> u64 {
    match rng.below(4) {
        0 => 0,
        1 => rng.draw(),
        _ => (0..rng.below(4)).fold(0, |set, _| set | 1u64 << rng.pick(&NODES)),
    }
}

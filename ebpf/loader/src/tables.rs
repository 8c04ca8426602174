//! The tables as the agent writes them: one seat per space, with its peers, directories and published pages.
//!
//! Owns who uses which record. Must not know the protocol, nor what a program makes of a record (`dsm-fast` does).
//!
//! The arrays stay mapped for as long as the process lives: directory entries in them are used by shards and kernel at once, and an
//! agent has one set. A record that becomes free goes to the end of its queue, so that a program that still looks at it
//! has long ended when it gets another meaning.

use crate::error::Error;
use crate::load::FastPath;
use aya::maps::{HashMap, MapData};
use dsm_fast::layout::{
    ACK_REQUEST, ACKS_PER_ENDPOINT, ENDPOINT_ADDRESS, ENDPOINT_CLUSTER, ENDPOINT_LIVE, ENDPOINT_PAGES_FIT, ENDPOINT_SEEN,
    ENDPOINT_SPACE, ENDPOINTS_MAX, Map, PAGE_WORDS, PEERS_PER_ENDPOINT, extent_key, extent_value,
};
use dsm_fast::{Acks, Addressing, Arrays, Bytes, DIRECTORY_WORDS, Publisher, SipKey};
use dsm_wire::{Era, ExtentNumber, NodeId, PageNumber};
use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Extents of a host that can have a fast path: 8 KiB each for those homed here, 4 KiB for published pages.
pub const EXTENTS_MAX: u32 = 1024;
/// The directory of an extent, in memory that the programs share.
pub type SharedDirectory = &'static [AtomicU64; DIRECTORY_WORDS];

/// The tables of one host.
#[derive(Debug)]
pub struct Tables {
    arrays: Arrays,
    owned: Mutex<Owned>,
}

/// What one caller at a time may change.
#[derive(Debug)]
struct Owned {
    ports: HashMap<MapData, u32, u32>,
    extents: HashMap<MapData, u64, u64>,
    publisher: Publisher,
    endpoints: VecDeque<u32>,
    directories: VecDeque<u32>,
    places: VecDeque<u32>,
}

/// The records of an extent.
#[derive(Clone, Copy, Debug, Default)]
struct Records {
    directory: Option<u32>,
    places: Option<u32>,
}

impl Tables {
    /// Maps the tables of `path` into this process, for good. `pages` is how many the object was loaded with.
    ///
    /// # Errors
    /// A map is missing, or of another shape.
    pub fn of(path: &mut FastPath, pages: u32) -> Result<Self, Error> {
        let mut maps: [&'static [AtomicU64]; Map::ALL.len()] = [&[]; Map::ALL.len()];
        for (slot, map) in maps.iter_mut().zip(Map::ALL) {
            let (name, records) = name_of(map, pages);
            *slot = path.map_array(name, map.words() * size_of::<u64>(), records)?.leak();
        }
        let bytes = path.map_array("PAGES", PAGE_WORDS * size_of::<u64>(), pages)?.leak();
        let owned = Owned {
            ports: path.take_hash("PORTS")?,
            extents: path.take_hash("EXTENTS")?,
            publisher: Publisher::default(),
            endpoints: (0..ENDPOINTS_MAX).collect(),
            directories: (0..EXTENTS_MAX).collect(),
            places: (0..EXTENTS_MAX).collect(),
        };
        Ok(Self { arrays: Arrays { maps, pages: bytes }, owned: Mutex::new(owned) })
    }

    fn owned(&self) -> MutexGuard<'_, Owned> {
        // Every change leaves the tables whole: a shard that panicked is no reason to stop the others.
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self, map: Map, record: u32, word: usize, value: u64) {
        if let Some(place) = self.arrays.record(map, record).and_then(|words| words.get(word)) {
            place.store(value, SeqCst);
        }
    }
}

const fn name_of(map: Map, pages: u32) -> (&'static str, u32) {
    match map {
        Map::Endpoint => ("ENDPOINTS", ENDPOINTS_MAX),
        Map::Peer => ("PEERS", ENDPOINTS_MAX * PEERS_PER_ENDPOINT),
        Map::Directory => ("DIRECTORIES", EXTENTS_MAX),
        Map::Places => ("PLACES", EXTENTS_MAX),
        Map::Copy => ("COPIES", pages),
        Map::Acks => ("ACKS", ENDPOINTS_MAX * ACKS_PER_ENDPOINT),
    }
}

/// One space's place in the tables, until dropped.
#[derive(Debug)]
pub struct Seat {
    tables: Arc<Tables>,
    endpoint: u32,
    port: u16,
    records: BTreeMap<ExtentNumber, Records>,
}

impl Seat {
    /// A seat for the space whose urgent socket is bound to `address`. `pages_fit`: a header and a page fit one datagram. `None`
    /// when all seats are taken, or the kernel refuses the port.
    #[must_use]
    pub fn take(tables: Arc<Tables>, address: SocketAddrV4, us: &Addressing, pages_fit: bool, now_ns: u64) -> Option<Self> {
        let endpoint = tables.owned().endpoints.pop_front()?;
        let seat = Self { tables, endpoint, port: address.port(), records: BTreeMap::new() };
        for node in 0..PEERS_PER_ENDPOINT as u16 {
            seat.tables.arrays.close_peer(endpoint, node);
        }
        let records = endpoint * ACKS_PER_ENDPOINT..(endpoint + 1) * ACKS_PER_ENDPOINT;
        records.for_each(|record| seat.tables.store(Map::Acks, record, ACK_REQUEST, 0));
        let store = |word, value| seat.tables.store(Map::Endpoint, endpoint, word, value);
        store(ENDPOINT_CLUSTER, u64::from(us.cluster) | u64::from(us.epoch) << 32);
        store(ENDPOINT_ADDRESS, address_word(address));
        store(ENDPOINT_SEEN, now_ns);
        let fit = if pages_fit { ENDPOINT_PAGES_FIT } else { 0 };
        store(ENDPOINT_SPACE, u64::from(us.space) | u64::from(us.me) << 32 | fit | ENDPOINT_LIVE);
        // On failure the seat is given back by its drop.
        seat.tables.owned().ports.insert(u32::from(seat.port), endpoint, 0).ok()?;
        Some(seat)
    }

    /// Says that the shard is alive at `now_ns` of CLOCK_MONOTONIC.
    pub fn note_alive(&self, now_ns: u64) {
        self.tables.store(Map::Endpoint, self.endpoint, ENDPOINT_SEEN, now_ns);
    }

    /// There is a session with `node`, whose urgent socket is at `address`.
    pub fn open_peer(&self, node: NodeId, key: SipKey, address: SocketAddrV4) {
        self.tables.arrays.open_peer(self.endpoint, node.0, key, address_word(address));
    }

    /// A handshake of `node` was answered: a frame under `key` begins a new session.
    pub fn answer_peer(&self, node: NodeId, key: SipKey) {
        self.tables.arrays.answer_peer(self.endpoint, node.0, key);
    }

    /// There is none any more.
    pub fn close_peer(&self, node: NodeId) {
        self.tables.arrays.close_peer(self.endpoint, node.0);
    }

    /// Records in which this space's acknowledgements are counted.
    #[must_use]
    pub fn acks(&self) -> Option<Acks> {
        let first = self.endpoint as usize * Acks::WORDS;
        Acks::new(self.tables.arrays.maps[Map::Acks as usize].get(first..first + Acks::WORDS)?)
    }

    /// Memory for the directory of an extent homed here. `None` when there is none left. The programs see it after
    /// [`Seat::enter_directory`].
    pub fn take_directory(&mut self, extent: ExtentNumber) -> Option<SharedDirectory> {
        let record = self.tables.owned().directories.pop_front()?;
        self.records.entry(extent).or_default().directory = Some(record);
        self.tables.arrays.record(Map::Directory, record)?.try_into().ok()
    }

    /// Shows the directory of `extent`, whose entries are there now, to the programs.
    pub fn enter_directory(&mut self, extent: ExtentNumber) {
        self.enter(extent);
    }

    /// The extent has no directory here any more, and none of its pages is to be served.
    pub fn leave(&mut self, extent: ExtentNumber) {
        let Some(records) = self.records.remove(&extent) else { return };
        let mut owned = self.tables.owned();
        // Gone already, if it was never entered.
        owned.extents.remove(&extent_key(self.endpoint, extent.0)).ok();
        if let Some(places) = records.places {
            Publisher::withdraw(&self.tables.arrays, places);
            owned.places.push_back(places);
        }
        owned.directories.extend(records.directory);
    }

    /// Whether `page` of `era` is published.
    #[must_use]
    pub fn has_published(&self, page: PageNumber, era: Era) -> bool {
        let places = self.records.get(&page.extent()).and_then(|records| records.places);
        places.is_some_and(|places| Publisher::has(&self.tables.arrays, self.endpoint, places, page, era))
    }

    /// Publishes `page` of `era`, which is read-only wherever it is. Returns false if there is no room.
    pub fn publish(&mut self, page: PageNumber, era: Era, bytes: Bytes<'_>) -> bool {
        let extent = page.extent();
        if self.records.get(&extent).is_none_or(|records| records.places.is_none()) {
            let Some(places) = self.tables.owned().places.pop_front() else { return false };
            Publisher::withdraw(&self.tables.arrays, places);
            self.records.entry(extent).or_default().places = Some(places);
            if !self.enter(extent) {
                return false;
            }
        }
        let Some(places) = self.records.get(&extent).and_then(|records| records.places) else { return false };
        let arrays = self.tables.arrays;
        self.tables.owned().publisher.publish(&arrays, self.endpoint, places, page, era, bytes)
    }

    fn enter(&self, extent: ExtentNumber) -> bool {
        let Some(records) = self.records.get(&extent) else { return false };
        let value = extent_value(records.directory, records.places);
        self.tables.owned().extents.insert(extent_key(self.endpoint, extent.0), value, 0).is_ok()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.tables.store(Map::Endpoint, self.endpoint, ENDPOINT_SPACE, 0);
        // Gone already, if it was never entered.
        self.tables.owned().ports.remove(&u32::from(self.port)).ok();
        let extents: Vec<ExtentNumber> = self.records.keys().copied().collect();
        extents.into_iter().for_each(|extent| self.leave(extent));
        self.tables.owned().endpoints.push_back(self.endpoint);
    }
}

fn address_word(address: SocketAddrV4) -> u64 {
    let ip: &Ipv4Addr = address.ip();
    u64::from(u32::from_le_bytes(ip.octets())) | u64::from(address.port()) << 32
}

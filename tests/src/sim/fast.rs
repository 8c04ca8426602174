//! What one simulated host shares with its kernel programs, and the driver's part in it: sessions, directories, published pages.
//!
//! Owns which record belongs to which extent, and the access of a program to a word. Must not decide on a frame: see `kernel`.

use super::kernel::Run;
use super::pager::Stamp;
use super::plan::FastPlan;
use super::rng::Rng;
use super::seal;
use super::world::Sabotage;
use dsm_fast::layout::{
    COPY_PLACE, ENDPOINT_CLUSTER, ENDPOINT_LIVE, ENDPOINT_PAGES_FIT, ENDPOINT_SEEN, ENDPOINT_SPACE, Map, PAGE_WORDS,
    PEERS_PER_ENDPOINT, directory_of, extent_key, extent_value, places_of,
};
use dsm_fast::{Acks, Arrays, Bytes, Cell as Place, Publisher, SLOTS, Tables, Word, cell};
use dsm_proto::Node;
use dsm_wire::{Epoch, Era, ExtentNumber, NodeId, PAGE_BYTES, PageNumber};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Where every endpoint listens.
pub const PORT: u16 = 7100;
/// Record of the one endpoint of each host; not 0, so that a place forgotten is noticed.
pub const ENDPOINT: u32 = 1;
const ENDPOINTS: u32 = ENDPOINT + 1;
const DIRECTORIES_MAX: u32 = 4;
const PLACES_MAX: u32 = 6;
const COPIES_MAX: u32 = 32;

/// Arrays that no run uses now; the face of the tables wants them to live for ever.
static POOL: Mutex<Vec<Arrays>> = Mutex::new(Vec::new());

/// The memory of one host's programs, and who is in it.
#[derive(Debug)]
pub struct Fast {
    /// What the programs see.
    pub shared: Shared,
    /// Runs of programs that were interrupted.
    pub runs: BTreeMap<u64, Run>,
    /// Its own chance.
    pub rng: Rng,
    run_last: u64,
    publisher: Publisher,
    /// Free directories, longest free first, and the first run that cannot know them from before.
    directories: VecDeque<(u32, u64)>,
    places: VecDeque<u32>,
    whole: Arrays,
}

/// What the programs see.
#[derive(Debug)]
pub struct Shared {
    arrays: Arrays,
    extents: BTreeMap<u64, u64>,
    /// The present.
    pub now: Cell<u64>,
    /// Where the frame that is judged came from.
    pub link: Cell<u64>,
    /// The sharers of an entry as a program has seen them last, for a bug.
    early: RefCell<BTreeMap<(u32, usize), u64>>,
    /// The bug planted in the programs or in the driver.
    pub sabotage: Option<Sabotage>,
}

/// What a published page came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// There is no room.
    Nowhere,
    /// In room that was free, or its own.
    Here,
    /// Another one went for it.
    InPlaceOf,
}

impl Fast {
    /// The tables of `me`, who knows the keys of `peers` (and where a frame comes from: `salt`).
    #[must_use]
    pub fn new(me: NodeId, epoch: Epoch, peers: &[NodeId], salt: Option<u64>, plan: &FastPlan, rng: Rng) -> Self {
        let whole = POOL.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_else(allocate);
        clear(&whole);
        let mut arrays = whole;
        let used = Map::Copy.words() * plan.copies.min(COPIES_MAX) as usize;
        arrays.maps[Map::Copy as usize] = &whole.maps[Map::Copy as usize][..used];
        let fit = if plan.pages_fit { ENDPOINT_PAGES_FIT } else { 0 };
        let shared = Shared {
            arrays,
            extents: BTreeMap::new(),
            now: Cell::new(0),
            link: Cell::new(0),
            early: RefCell::default(),
            sabotage: None,
        };
        shared.set(ENDPOINT_SPACE, u64::from(seal::SPACE) | u64::from(me.0) << 32 | ENDPOINT_LIVE | fit);
        for peer in salt.into_iter().flat_map(|_| peers).filter(|peer| **peer != me) {
            let key = seal::pair_key(me, *peer, salt.unwrap_or_default());
            arrays.open_peer(ENDPOINT, peer.0, key, u64::from(peer.0));
        }
        let fast = Self {
            shared,
            runs: BTreeMap::new(),
            rng,
            run_last: 0,
            publisher: Publisher::default(),
            directories: (0..plan.directories.min(DIRECTORIES_MAX)).map(|record| (record, 0)).collect(),
            places: (0..plan.places.min(PLACES_MAX)).collect(),
            whole,
        };
        fast.enter_epoch(epoch, None);
        fast
    }

    /// Has `node` count acknowledgements where the programs do.
    pub fn share_acks(&self, node: &mut Node) {
        let first = ENDPOINT as usize * Acks::WORDS;
        let words = self.whole.maps[Map::Acks as usize].get(first..first + Acks::WORDS);
        if let Some(acks) = words.and_then(Acks::new) {
            node.share_acks(acks);
        }
    }

    /// The agent is alive at `now`.
    pub fn live(&self, now: u64) {
        self.shared.now.set(now);
        self.shared.set(ENDPOINT_SEEN, now);
    }

    /// A new epoch began, since `dead` is.
    pub fn enter_epoch(&self, epoch: Epoch, dead: Option<NodeId>) {
        self.shared.set(ENDPOINT_CLUSTER, u64::from(seal::CLUSTER) | u64::from(epoch.0) << 32);
        if let Some(dead) = dead {
            self.shared.arrays.close_peer(ENDPOINT, dead.0);
        }
    }

    /// A number for a new run.
    pub const fn next_run(&mut self) -> u64 {
        self.run_last += 1;
        self.run_last
    }

    /// The node has opened a directory: moves it to where the programs see it, if there is room. Says whether it did.
    pub fn open(&mut self, node: &mut Node, extent: ExtentNumber) -> bool {
        let oldest = self.runs.keys().next().copied().unwrap_or(u64::MAX);
        // Runs are short: a record that any of them may know rests until they are over.
        let Some((record, _)) = self.directories.pop_front_if(|(_, rests_until)| *rests_until <= oldest) else { return false };
        let words = self.shared.arrays.record(Map::Directory, record).and_then(|words| words.try_into().ok());
        if !words.is_some_and(|words| node.share_directory(extent, words)) {
            self.directories.push_front((record, 0));
            return false;
        }
        let key = extent_key(ENDPOINT, extent.0);
        self.leave(key);
        let places = self.places.pop_front();
        self.shared.extents.insert(key, extent_value(Some(record), places));
        true
    }

    /// The node has closed a directory: its records are free.
    pub fn close(&mut self, extent: ExtentNumber) {
        self.leave(extent_key(ENDPOINT, extent.0));
    }

    /// Publishes `page` as it is in `era`.
    pub fn publish(&mut self, page: PageNumber, era: Era, stamp: Stamp) -> Published {
        let key = extent_key(ENDPOINT, page.extent().0);
        let entered = self.shared.extents.get(&key).copied();
        let Some(places) = entered.map_or_else(|| self.enter_provider(key), places_of) else { return Published::Nowhere };
        let is_full = self.is_full();
        let is_held = self.shared.load(cell(Map::Places, places, page.index_in_extent())).is_some_and(|place| place != 0);
        let mut bytes = [0; PAGE_BYTES];
        bytes[..8].copy_from_slice(&stamp.to_le_bytes());
        bytes[PAGE_BYTES - 8..].copy_from_slice(&stamp.to_le_bytes());
        let content = if stamp == 0 { Bytes::Zero } else { Bytes::Page(&bytes, seal::payload_tag(page, era, stamp)) };
        match self.publisher.publish(&self.shared.arrays, ENDPOINT, places, page, era, content) {
            false => Published::Nowhere,
            true if is_full && !is_held => Published::InPlaceOf,
            true => Published::Here,
        }
    }

    fn is_full(&self) -> bool {
        let mut copies = 0..self.shared.arrays.records(Map::Copy);
        copies.all(|copy| self.shared.load(cell(Map::Copy, copy, COPY_PLACE)) != Some(0))
    }

    /// Places for an extent that has its home elsewhere; another such extent may have to go.
    fn enter_provider(&mut self, key: u64) -> Option<u32> {
        if self.places.is_empty() {
            let providers = self.shared.extents.iter().filter(|(_, value)| directory_of(**value).is_none());
            let keys: Vec<u64> = providers.map(|(key, _)| *key).collect();
            if !keys.is_empty() && self.rng.chance(100_000) {
                let key = self.rng.pick(&keys);
                self.leave(key);
            }
        }
        let places = self.places.pop_front()?;
        self.shared.extents.insert(key, extent_value(None, Some(places)));
        Some(places)
    }

    /// Takes an extent out of the index, and frees its records.
    fn leave(&mut self, key: u64) {
        let Some(value) = self.shared.extents.remove(&key) else { return };
        if let Some(places) = places_of(value) {
            Publisher::withdraw(&self.shared.arrays, places);
            self.places.push_back(places);
        }
        if let Some(directory) = directory_of(value) {
            self.directories.push_back((directory, self.run_last + 1));
        }
    }
}

impl Drop for Fast {
    fn drop(&mut self) {
        POOL.lock().unwrap_or_else(PoisonError::into_inner).push(self.whole);
    }
}

impl Shared {
    fn set(&self, word: usize, value: u64) {
        if let Some(atomic) = self.arrays.at(cell(Map::Endpoint, ENDPOINT, word)) {
            atomic.store(value, Ordering::SeqCst);
        }
    }

    /// A word of the bytes of a published page.
    pub fn page_word(&self, copy: u32, word: usize) -> Option<u64> {
        self.arrays.pages.get(copy as usize * PAGE_WORDS + word).map(|word| word.load(Ordering::SeqCst))
    }
}

impl Tables for Shared {
    fn endpoint(&self, port: u16) -> Option<u32> {
        (port == PORT).then_some(ENDPOINT)
    }

    fn extent(&self, key: u64) -> Option<u64> {
        self.extents.get(&key).copied()
    }

    fn load(&self, cell: Place) -> Option<u64> {
        let found = self.arrays.at(cell).map(|word| word.load(Ordering::SeqCst))?;
        if self.sabotage != Some(Sabotage::ReadersBeforeLock) || cell.map != Map::Directory || cell.word < SLOTS {
            return Some(found);
        }
        let is_locked = self.load(Place { word: cell.word - SLOTS, ..cell }).is_some_and(|word| Word(word).is_busy());
        let mut early = self.early.borrow_mut();
        let seen = early.entry((cell.record, cell.word)).or_insert(found);
        if !is_locked {
            *seen = found;
        }
        Some(*seen)
    }

    fn exchange(&self, cell: Place, current: u64, new: u64) -> Option<bool> {
        let is_skipped = self.sabotage == Some(Sabotage::ServeWithoutSecondLook) && current == new
            || self.sabotage == Some(Sabotage::ForwardWithoutEntry) && cell.word >= SLOTS;
        if is_skipped && cell.map == Map::Directory {
            return Some(true);
        }
        self.arrays.at(cell).map(|word| word.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst).is_ok())
    }

    fn add(&self, cell: Place, amount: u64) -> Option<u64> {
        self.arrays.at(cell).map(|word| word.fetch_add(amount, Ordering::SeqCst))
    }

    fn now(&self) -> u64 {
        self.now.get()
    }

    fn link(&self) -> u64 {
        self.link.get()
    }
}

fn allocate() -> Arrays {
    let leak = |words: usize| -> &'static [AtomicU64] { Box::leak((0..words).map(|_| AtomicU64::new(0)).collect()) };
    let records = |map| match map {
        Map::Endpoint => ENDPOINTS,
        Map::Peer => ENDPOINTS * PEERS_PER_ENDPOINT,
        Map::Directory => DIRECTORIES_MAX,
        Map::Places => PLACES_MAX,
        Map::Copy => COPIES_MAX,
        Map::Acks => ENDPOINTS * dsm_fast::layout::ACKS_PER_ENDPOINT,
    };
    Arrays { maps: Map::ALL.map(|map| leak(map.words() * records(map) as usize)), pages: leak(COPIES_MAX as usize * PAGE_WORDS) }
}

/// What an earlier run left is gone; of a peer it is enough that the session is.
fn clear(arrays: &Arrays) {
    for map in Map::ALL.into_iter().filter(|map| *map != Map::Peer) {
        arrays.maps[map as usize].iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }
    (0..PEERS_PER_ENDPOINT as u16).for_each(|peer| arrays.close_peer(ENDPOINT, peer));
}

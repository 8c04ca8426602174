//! The agent's side of the tables: arrays it shares with the kernel programs, and how a page is published in them.
//!
//! Owns the order of stores that a program running meanwhile relies on. Must not know maps, file descriptors or who runs it.
//!
//! A copy has a turn, odd while it changes: a program that read the same even turn before and after it copied the bytes has sent
//! what the record says. Which copy makes room is found by a clock hand over a bit that the programs set (Corbató 1968): least
//! recently used, as closely as one bit tells.

use crate::layout::{
    COPY_ERA, COPY_PAGE, COPY_PLACE, COPY_TAG, COPY_TURN, COPY_USED, COPY_ZERO, Map, PAGE_WORDS, PEER_ADDRESS, PEER_ANSWERED,
    PEER_KEY, PEER_LINK, PEER_LIVE, PEER_NEXT_KEY, PEER_SEQUENCE, PEER_WORDS, PEERS_PER_ENDPOINT, copy_page,
};
use crate::sip::SipKey;
use crate::tables::Cell;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};
use dsm_wire::{Era, PAGE_BYTES, PAGES_PER_EXTENT, PageNumber};

const PLACES: usize = PAGES_PER_EXTENT as usize;

/// The arrays, as words.
#[derive(Clone, Copy, Debug)]
pub struct Arrays {
    /// One slice for each of [`Map::ALL`], in its order.
    pub maps: [&'static [AtomicU64]; Map::ALL.len()],
    /// Bytes of the published pages.
    pub pages: &'static [AtomicU64],
}

impl Arrays {
    /// The word at `cell`; `None` beyond the end.
    #[must_use]
    pub fn at(&self, cell: Cell) -> Option<&'static AtomicU64> {
        let words = cell.map.words();
        self.maps[cell.map as usize].get(cell.record as usize * words..)?.get(..words)?.get(cell.word)
    }

    /// Records of `map`.
    #[must_use]
    pub fn records(&self, map: Map) -> u32 {
        (self.maps[map as usize].len() / map.words()) as u32
    }

    /// The words of a record. `None` beyond the end.
    #[must_use]
    pub fn record(&self, map: Map, record: u32) -> Option<&'static [AtomicU64]> {
        let words = map.words();
        self.maps[map as usize].get(record as usize * words..)?.get(..words)
    }

    /// Makes the session with a peer known: `address` as in [`PEER_ADDRESS`], without the live bit. Its sequences begin anew.
    pub fn open_peer(&self, endpoint: u32, node: u16, key: SipKey, address: u64) {
        let Some(words) = self.peer(endpoint, node) else { return };
        words[PEER_ADDRESS].store(0, SeqCst);
        for word in words.iter().take(PEER_WORDS).skip(PEER_SEQUENCE) {
            word.store(0, SeqCst);
        }
        words[PEER_KEY].store(key.0, SeqCst);
        words[PEER_KEY + 1].store(key.1, SeqCst);
        words[PEER_ADDRESS].store(address | PEER_LIVE, SeqCst);
    }

    /// A frame under `key` begins a new session with the peer: it passes up.
    pub fn answer_peer(&self, endpoint: u32, node: u16, key: SipKey) {
        let Some(words) = self.peer(endpoint, node) else { return };
        words[PEER_ADDRESS].fetch_and(!PEER_ANSWERED, SeqCst);
        words[PEER_NEXT_KEY].store(key.0, SeqCst);
        words[PEER_NEXT_KEY + 1].store(key.1, SeqCst);
        words[PEER_ADDRESS].fetch_or(PEER_ANSWERED, SeqCst);
    }

    /// From now on frames of the peer pass up, and nothing is sent to it.
    pub fn close_peer(&self, endpoint: u32, node: u16) {
        if let Some(words) = self.peer(endpoint, node) {
            words[PEER_ADDRESS].store(0, SeqCst);
            words[PEER_LINK].store(0, SeqCst);
        }
    }

    fn peer(&self, endpoint: u32, node: u16) -> Option<&'static [AtomicU64]> {
        let number = u32::from(node);
        (number < PEERS_PER_ENDPOINT).then(|| self.record(Map::Peer, endpoint * PEERS_PER_ENDPOINT + number))?
    }
}

/// What is published.
#[derive(Clone, Copy, Debug)]
pub enum Bytes<'a> {
    /// All zero.
    Zero,
    /// These, with their payload tag.
    Page(&'a [u8; PAGE_BYTES], u64),
}

/// Publishes pages; one for all endpoints of a host.
#[derive(Debug, Default)]
pub struct Publisher {
    hand: u32,
}

impl Publisher {
    /// Whether `page` of `era` is published.
    #[must_use]
    pub fn has(arrays: &Arrays, endpoint: u32, places: u32, page: PageNumber, era: Era) -> bool {
        Self::copy_of(arrays, endpoint, places, page).is_some_and(|words| words[COPY_ERA].load(SeqCst) as u32 == era.0)
    }

    /// Publishes `page` of `era` for `endpoint`, in place of what was known of it and, if there is no room, of some other page.
    /// `places` is the record of its extent. Returns false if there is no room at all.
    pub fn publish(&mut self, arrays: &Arrays, endpoint: u32, places: u32, page: PageNumber, era: Era, bytes: Bytes<'_>) -> bool {
        let Some(row) = arrays.record(Map::Places, places) else { return false };
        let slot = page.index_in_extent();
        let held = Self::copy_of(arrays, endpoint, places, page).and((row[slot].load(SeqCst) as u32).checked_sub(1));
        let Some(index) = held.or_else(|| self.claim(arrays)) else { return false };
        let Some(words) = arrays.record(Map::Copy, index) else { return false };
        let turn = words[COPY_TURN].load(SeqCst) | 1;
        words[COPY_TURN].store(turn, SeqCst);
        let (zero, tag) = match bytes {
            Bytes::Zero => (COPY_ZERO, 0),
            Bytes::Page(bytes, tag) => {
                let target = arrays.pages.iter().skip(index as usize * PAGE_WORDS);
                for (word, chunk) in target.zip(bytes.as_chunks::<8>().0) {
                    word.store(u64::from_le_bytes(*chunk), core::sync::atomic::Ordering::Relaxed);
                }
                (0, tag)
            }
        };
        words[COPY_PAGE].store(copy_page(endpoint, page.0), SeqCst);
        words[COPY_ERA].store(u64::from(era.0) | zero, SeqCst);
        words[COPY_TAG].store(tag, SeqCst);
        words[COPY_USED].store(0, SeqCst);
        words[COPY_PLACE].store(u64::from(places) * PLACES as u64 + slot as u64 + 1, SeqCst);
        words[COPY_TURN].store(turn.wrapping_add(1), SeqCst);
        row[slot].store(u64::from(index) + 1, SeqCst);
        true
    }

    /// Takes back every page of the extent whose places are in record `places`.
    pub fn withdraw(arrays: &Arrays, places: u32) {
        for word in arrays.record(Map::Places, places).unwrap_or_default() {
            if let Some(index) = (word.swap(0, SeqCst) as u32).checked_sub(1)
                && let Some(words) = arrays.record(Map::Copy, index)
            {
                words[COPY_PAGE].store(u64::MAX, SeqCst);
                words[COPY_PLACE].store(0, SeqCst);
                words[COPY_USED].store(0, SeqCst);
            }
        }
    }

    fn copy_of(arrays: &Arrays, endpoint: u32, places: u32, page: PageNumber) -> Option<&'static [AtomicU64]> {
        let place = arrays.record(Map::Places, places)?.get(page.index_in_extent())?.load(SeqCst);
        let words = arrays.record(Map::Copy, (place as u32).checked_sub(1)?)?;
        (words[COPY_PAGE].load(SeqCst) == copy_page(endpoint, page.0)).then_some(words)
    }

    /// A copy that was not used lately, out of its place.
    fn claim(&mut self, arrays: &Arrays) -> Option<u32> {
        let count = arrays.records(Map::Copy);
        // Every copy is passed twice at most: the first time its bit may be cleared.
        for _ in 0..u64::from(count) * 2 {
            let index = self.hand;
            self.hand = (self.hand + 1) % count;
            let words = arrays.record(Map::Copy, index)?;
            if words[COPY_USED].swap(0, SeqCst) != 0 {
                continue;
            }
            if let Some(place) = words[COPY_PLACE].load(SeqCst).checked_sub(1) {
                let (record, slot) = ((place / PLACES as u64) as u32, place as usize % PLACES);
                if let Some(word) = arrays.record(Map::Places, record).and_then(|row| row.get(slot)) {
                    word.store(0, SeqCst);
                }
            }
            return Some(index);
        }
        None
    }
}

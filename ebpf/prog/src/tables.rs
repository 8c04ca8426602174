//! The maps as `dsm-fast` sees them.
//!
//! Owns which map is which array. Must not know what a word means.

use crate::maps::{ACKS, COPIES, DIRECTORIES, ENDPOINTS, EXTENTS, PEERS, PLACES, PORTS};
use crate::sys;
use dsm_fast::layout::Map;
use dsm_fast::{Cell, Tables};

/// All of them, and where the frame came from.
pub struct Maps {
    /// See `PEER_LINK` of `dsm-fast`; 0 if that is not known.
    pub link: u64,
}

#[inline(always)]
fn at(cell: Cell) -> Option<sys::Word> {
    match cell.map {
        Map::Endpoint => sys::word(&ENDPOINTS, cell),
        Map::Peer => sys::word(&PEERS, cell),
        Map::Directory => sys::word(&DIRECTORIES, cell),
        Map::Places => sys::word(&PLACES, cell),
        Map::Copy => sys::word(&COPIES, cell),
        Map::Acks => sys::word(&ACKS, cell),
    }
}

impl Tables for Maps {
    #[inline(always)]
    fn endpoint(&self, port: u16) -> Option<u32> {
        sys::find(&PORTS, &u32::from(port))
    }

    #[inline(always)]
    fn extent(&self, key: u64) -> Option<u64> {
        sys::find(&EXTENTS, &key)
    }

    #[inline(always)]
    fn load(&self, cell: Cell) -> Option<u64> {
        Some(at(cell)?.load())
    }

    #[inline(always)]
    fn exchange(&self, cell: Cell, current: u64, new: u64) -> Option<bool> {
        Some(at(cell)?.exchange(current, new))
    }

    #[inline(always)]
    fn add(&self, cell: Cell, amount: u64) -> Option<u64> {
        Some(at(cell)?.add(amount))
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        sys::now()
    }

    #[inline(always)]
    fn link(&self) -> u64 {
        self.link
    }
}

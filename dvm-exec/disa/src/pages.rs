//! Tables by page.
//!
//! Owns how page numbers are spread. Must not know what is kept for a page.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A table by page number.
pub type PageMap<V> = HashMap<u64, V, BuildHasherDefault<PageHasher>>;

/// Spreads page numbers: Knuth's multiplication by 2^64 over the golden ratio (The Art of Computer Programming, 6.4). A program that
/// makes them collide slows nobody but itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct PageHasher(u64);

impl Hasher for PageHasher {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, page: u64) {
        let mixed = (self.0 ^ page).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

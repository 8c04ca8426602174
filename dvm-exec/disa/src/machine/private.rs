//! Private memory of one runner: pages that lie behind each other in this process as far as they do for the runner.
//!
//! Owns the pieces, which the next runner of the thread gets, and which pages of them are used. Must not know limits.

use super::ranges::Set;
use crate::map::{self, PAGE_BYTES, Range};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Bytes that may be stored to while others hold them.
pub type Bytes = Rc<[Cell<u8>]>;

/// Where the first pieces end: most runners use little, and a piece takes some time to make.
const FIRST_ENDS: [u64; 2] = [64 << 10, 1 << 20];
/// Bytes of every other piece: what a runner pays that uses one page of it.
const PIECE_BYTES: u64 = 1 << 20;
const _: () = assert!(FIRST_ENDS[0].is_multiple_of(PAGE_BYTES) && PIECE_BYTES.is_multiple_of(PAGE_BYTES));
/// Pieces of a runner that its thread keeps for the next one: the first so many, and the last, where a call stack lies.
const KEPT_FIRST: usize = 16;
/// Pieces without a runner that a thread keeps.
const FREE_MAX: usize = 32;

thread_local! {
    /// Pieces without a runner: all zero.
    static FREE: RefCell<BTreeMap<usize, Bytes>> = const { RefCell::new(BTreeMap::new()) };
}

/// Pieces of private memory, and the pages used of them.
#[derive(Debug, Default)]
pub struct Private {
    pieces: BTreeMap<usize, Bytes>,
    used: Set,
}

impl Private {
    /// A page that is used from now on: in which piece, and from where on.
    pub fn make(&mut self, page: u64) -> (Bytes, usize) {
        self.used.insert(page, page + 1);
        let (index, place) = piece_of(page);
        let new = || {
            let free = FREE.with_borrow_mut(|free| free.remove(&index));
            free.unwrap_or_else(|| (0..place.bytes).map(|_| Cell::new(0)).collect())
        };
        let piece = self.pieces.entry(index).or_insert_with(new);
        (Rc::clone(piece), (page * PAGE_BYTES - place.base) as usize)
    }

    /// The used pages around one that is used, as far as they lie behind each other here: their addresses, and where they are.
    pub fn around(&self, page: u64) -> Option<(Range, *mut u8)> {
        let (first, end) = self.used.around(page)?;
        let (index, place) = piece_of(page);
        let base = (first * PAGE_BYTES).max(place.base);
        let end = (end * PAGE_BYTES).min(place.base + place.bytes);
        let cells = &self.pieces.get(&index)?[(base - place.base) as usize..];
        Some((Range::new(base, end - base), cells.as_ptr().cast_mut().cast()))
    }
}

/// What was used is zero for the next one.
impl Drop for Private {
    fn drop(&mut self) {
        let last = self.pieces.last_key_value().map(|(index, _)| *index);
        let is_kept = |index: usize| index < KEPT_FIRST || Some(index) == last;
        for (first, end) in self.used.iter() {
            let mut page = first;
            while page < end {
                let (index, place) = piece_of(page);
                let until = (end * PAGE_BYTES).min(place.base + place.bytes);
                if is_kept(index)
                    && let Some(piece) = self.pieces.get(&index)
                {
                    let part = (page * PAGE_BYTES - place.base) as usize..(until - place.base) as usize;
                    piece[part].iter().for_each(|cell| cell.set(0));
                }
                page = until / PAGE_BYTES;
            }
        }
        // A thread that ends has no next runner.
        let kept = std::mem::take(&mut self.pieces).into_iter().filter(|(index, _)| is_kept(*index));
        let keep = |free: &RefCell<BTreeMap<_, _>>| {
            let mut free = free.borrow_mut();
            let room = FREE_MAX.saturating_sub(free.len());
            free.extend(kept.take(room));
        };
        FREE.try_with(keep).unwrap_or(());
    }
}

/// The piece of a page, and its addresses.
fn piece_of(page: u64) -> (usize, Range) {
    let at = page * PAGE_BYTES - map::PR.base;
    let [first, second] = FIRST_ENDS;
    let (index, base, bytes) = if at < first {
        (0, 0, first)
    } else if at < second {
        (1, first, second - first)
    } else {
        let index = (at - second) / PIECE_BYTES;
        (2 + index as usize, second + index * PIECE_BYTES, PIECE_BYTES)
    };
    (index, Range::new(map::PR.base + base, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: u64 = map::PR.base / PAGE_BYTES;

    #[test]
    fn neighbours_lie_behind_each_other_within_a_piece() {
        let mut private = Private::default();
        for page in [FIRST + 17, FIRST + 16, FIRST + 15, FIRST + 300] {
            let (piece, at) = private.make(page);
            piece[at].set(page as u8);
        }
        let (range, _) = private.around(FIRST + 17).unwrap();
        assert_eq!(range, Range::new((FIRST + 16) * PAGE_BYTES, 2 * PAGE_BYTES), "a piece begins there");
        assert_eq!(private.around(FIRST + 15).unwrap().0, Range::new((FIRST + 15) * PAGE_BYTES, PAGE_BYTES));
        assert!(private.around(FIRST + 18).is_none());
        let stack = FIRST + (2 << 30) / PAGE_BYTES - 1;
        let (piece, at) = private.make(stack);
        piece[at].set(1);
        drop(private);
        let mut next = Private::default();
        for page in [FIRST + 16, FIRST + 300, stack] {
            let (piece, at) = next.make(page);
            assert_eq!(piece[at].get(), 0, "the next runner finds zeros");
        }
    }
}

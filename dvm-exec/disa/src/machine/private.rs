//! Private memory of one runner: pages that lie behind each other in this process as far as they do for the runner.
//!
//! Owns the pieces, which the next runner of the thread gets, and which pages of them are used. Must not know limits.

use super::ranges::Set;
use crate::map::{self, PAGE_BYTES, Range};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::rc::Rc;
use zerocopy::FromZeros;

/// Bytes that may be stored to while others hold them.
pub type Bytes = Rc<Box<[Cell<u8>]>>;

/// Bytes of a piece. The system gives it memory page by page, when that is used: a large one costs no more than a small one, and what
/// most runners use lies in the first.
const PIECE_BYTES: u64 = 64 << 20;
const _: () = assert!(PIECE_BYTES.is_multiple_of(PAGE_BYTES) && map::PR.bytes.is_multiple_of(PIECE_BYTES));
/// Most bytes used of a piece that its thread keeps for the next runner.
const KEPT_BYTES_MAX: u64 = 16 << 20;
/// Pieces without a runner that a thread keeps.
const FREE_MAX: usize = 4;

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
    /// A page that is used from now on: in which piece, and from where on; `None`: this process has no addresses left for its piece.
    pub fn make(&mut self, page: u64) -> Option<(Bytes, usize)> {
        let (index, place) = piece_of(page);
        let piece = match self.pieces.entry(index) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(piece_for(index)?),
        };
        self.used.insert(page, page + 1);
        Some((Rc::clone(piece), (page * PAGE_BYTES - place.base) as usize))
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

/// Zeros: those of the thread, or new ones.
fn piece_for(index: usize) -> Option<Bytes> {
    let kept = FREE.with_borrow_mut(|free| free.remove(&index));
    kept.or_else(|| <[Cell<u8>]>::new_box_zeroed_with_elems(PIECE_BYTES as usize).ok().map(Rc::new))
}

/// What was used is zero for the next one.
impl Drop for Private {
    fn drop(&mut self) {
        for (index, piece) in std::mem::take(&mut self.pieces) {
            let used = parts(&self.used, index as u64 * PIECE_BYTES);
            if used.iter().map(|part| part.len() as u64).sum::<u64>() > KEPT_BYTES_MAX {
                continue;
            }
            used.into_iter().for_each(|part| piece[part].iter().for_each(|cell| cell.set(0)));
            // A thread that ends has no next runner.
            let keep = |free: &RefCell<BTreeMap<usize, Bytes>>| {
                let mut free = free.borrow_mut();
                if free.len() < FREE_MAX {
                    free.insert(index, piece);
                }
            };
            FREE.try_with(keep).unwrap_or(());
        }
    }
}

/// What of a piece is used.
fn parts(used: &Set, piece: u64) -> Vec<std::ops::Range<usize>> {
    let within = |page: u64| (page * PAGE_BYTES - map::PR.base).clamp(piece, piece + PIECE_BYTES) - piece;
    let parts = used.iter().map(|(first, end)| within(first) as usize..within(end) as usize);
    parts.filter(|part| !part.is_empty()).collect()
}

/// The piece of a page, and its addresses.
const fn piece_of(page: u64) -> (usize, Range) {
    let index = (page * PAGE_BYTES - map::PR.base) / PIECE_BYTES;
    (index as usize, Range::new(map::PR.base + index * PIECE_BYTES, PIECE_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: u64 = map::PR.base / PAGE_BYTES;

    #[test]
    fn neighbours_lie_behind_each_other_within_a_piece() {
        const PAGES: u64 = PIECE_BYTES / PAGE_BYTES;
        let mut private = Private::default();
        let all = [FIRST + PAGES + 1, FIRST + PAGES, FIRST + PAGES - 1, FIRST + 300];
        for page in all {
            let (piece, at) = private.make(page).unwrap();
            piece[at].set(page as u8);
        }
        let (range, _) = private.around(FIRST + PAGES + 1).unwrap();
        assert_eq!(range, Range::new((FIRST + PAGES) * PAGE_BYTES, 2 * PAGE_BYTES), "a piece begins there");
        assert_eq!(private.around(FIRST + PAGES - 1).unwrap().0, Range::new((FIRST + PAGES - 1) * PAGE_BYTES, PAGE_BYTES));
        assert!(private.around(FIRST + PAGES + 2).is_none());
        let stack = FIRST + (2 << 30) / PAGE_BYTES - 1;
        let (piece, at) = private.make(stack).unwrap();
        piece[at].set(1);
        drop(private);
        let mut next = Private::default();
        for page in all.into_iter().chain([stack]) {
            let (piece, at) = next.make(page).unwrap();
            assert_eq!(piece[at].get(), 0, "the next runner finds zeros");
        }
    }

    #[test]
    fn a_thread_keeps_little() {
        let is_kept = |index: usize| FREE.with_borrow(|free| free.contains_key(&index));
        let use_pages = |pages: u64| {
            let mut private = Private::default();
            (0..pages).for_each(|page| drop(private.make(FIRST + page)));
        };
        use_pages(KEPT_BYTES_MAX / PAGE_BYTES);
        assert!(is_kept(0));
        use_pages(KEPT_BYTES_MAX / PAGE_BYTES + 1);
        assert!(!is_kept(0), "the system has it back");
        let mut private = Private::default();
        (0..2 * FREE_MAX as u64).for_each(|piece| drop(private.make(FIRST + piece * PIECE_BYTES / PAGE_BYTES)));
        drop(private);
        assert_eq!(FREE.with_borrow(BTreeMap::len), FREE_MAX);
    }
}

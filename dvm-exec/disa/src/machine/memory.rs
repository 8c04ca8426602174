//! One runner's memory: private pages, and shared pages as its snapshot shows them.
//!
//! Owns copies and the difference they make. Must not know other runners, or whether the runner may commit.

use super::page::{Page, Words};
use super::private::{Bytes, Private};
use super::ranges::{Grants, Set};
use super::store::{Store, Timestamp};
use crate::map::{self, PAGE_BYTES, Range, WORD_BYTES};
use crate::memory::{Access, Memory, Region};
use crate::pages::PageMap;
use crate::trap::TrapKind;
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

/// A page that the runner has accessed.
#[derive(Debug)]
struct Frame {
    page: u64,
    /// As the snapshot shows it; zero if private.
    twin: Page,
    own: Own,
    is_stored: bool,
}

/// The bytes of a page for its runner.
#[derive(Debug)]
enum Own {
    /// Its own copy.
    Copy(Rc<[Cell<u8>]>),
    /// They begin there in a piece of private memory.
    Piece(Bytes, usize),
    /// Those of the twin, which is a part of many: nothing was stored yet.
    Twin,
}

impl Frame {
    /// Bytes of the page, from one on, that may be stored to; `None`: not yet.
    #[inline]
    fn cells(&self, offset: usize) -> Option<&[Cell<u8>]> {
        match &self.own {
            Own::Copy(bytes) => bytes.get(offset..),
            Own::Piece(bytes, first) => bytes.get(first + offset..first + PAGE_BYTES as usize),
            Own::Twin => None,
        }
    }
}

/// Pages of a file that a runner has only read, and the file's bytes.
#[derive(Debug)]
struct ReadOnly {
    of: Arc<[u8]>,
    /// The page that the first of them are.
    first: u64,
    /// Those that were read.
    pages: Set,
    /// Those that the snapshot shows so.
    shown: std::ops::Range<u64>,
}

/// The pages that a runner used of shared memory.
#[derive(Clone, Debug, Default)]
pub struct Used {
    /// What it changed: by page, the words and the page as the runner left it.
    pub changed: BTreeMap<u64, (Words, Page)>,
    /// What it read or changed.
    pub read: Vec<u64>,
}

/// Most pages of each kind that a runner may use.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct PagesMax {
    /// Of private memory.
    pub private: u64,
    /// Of shared memory.
    pub shared: u64,
}

/// Shared memory as one snapshot shows it.
pub trait Snapshot {
    /// A page of it.
    fn page(&mut self, page: u64) -> Page;

    /// The pages around one that is a part of a file which are parts of that file, too, as far as that is known at once.
    fn alike(&mut self, page: u64) -> std::ops::Range<u64> {
        page..page + 1
    }
}

/// Shared memory as a store shows it at a time.
impl Snapshot for (&Store, Timestamp) {
    fn page(&mut self, page: u64) -> Page {
        self.0.at(page, self.1)
    }
}

/// Memory of a runner with the snapshot `shared`.
#[derive(Debug)]
pub struct RunnerMemory<'a, S> {
    shared: S,
    text: &'a [u8],
    rodata: &'a [u8],
    grants: Grants,
    frames: Vec<Frame>,
    index: PageMap<usize>,
    recent: Recent,
    left: PagesMax,
    private: Private,
    read_only: Vec<ReadOnly>,
    /// How often a page was stored to that was read as it is in its file before.
    generation: u64,
}

/// Pages used lately, and which frames they are.
#[derive(Debug)]
struct Recent([(u64, usize); RECENT_PAGES]);

/// Pages that are found without a search. One place for all pages with the same number modulo this.
const RECENT_PAGES: usize = 64;

impl Recent {
    /// The frame of a page, and an offset in it, if the page was used lately and has all of these bytes.
    #[inline]
    fn find(&self, address: u64, bytes: u64) -> Option<(usize, usize)> {
        let (page, offset) = (address / PAGE_BYTES, address % PAGE_BYTES);
        let (known, slot) = self.0[page as usize % RECENT_PAGES];
        (known == page && bytes <= PAGE_BYTES - offset).then_some((slot, offset as usize))
    }

    const fn insert(&mut self, page: u64, slot: usize) {
        self.0[page as usize % RECENT_PAGES] = (page, slot);
    }
}

impl<'a, S: Snapshot> RunnerMemory<'a, S> {
    /// Nothing accessed yet.
    #[must_use]
    pub fn new(shared: S, [text, rodata]: [&'a [u8]; 2], grants: Grants, left: PagesMax) -> Self {
        let (frames, index, recent) = (Vec::new(), PageMap::default(), Recent([(u64::MAX, 0); RECENT_PAGES]));
        let (private, read_only) = (Private::default(), Vec::new());
        Self { shared, text, rodata, grants, frames, index, recent, left, private, read_only, generation: 0 }
    }

    /// What was changed and read.
    ///
    /// # Errors
    /// RANGE: a byte outside the granted ranges was changed.
    pub fn finish(self) -> Result<Used, TrapKind> {
        let mut used = Used::default();
        let mut outside: Option<u64> = None;
        for frame in &self.frames {
            let Frame { page, twin, is_stored, .. } = frame;
            let page = *page;
            if !map::SR.contains(page * PAGE_BYTES) {
                continue;
            }
            used.read.push(page);
            let Some(own) = frame.cells(0).filter(|_| *is_stored) else { continue };
            let own = twin.with(own);
            let words = own.changed(twin);
            if words.is_empty() {
                continue;
            }
            if !self.grants.has_all_of_page(page) {
                let changed = words.iter().flat_map(|word| changed_bytes(page, word, &own, twin));
                let first = changed.filter(|address| !self.grants.has_byte(*address)).min();
                outside = [outside, first].into_iter().flatten().min();
            }
            used.changed.insert(page, (words, own));
        }
        used.read.sort_unstable();
        outside.map_or(Ok(used), |address| Err(TrapKind::RangeAtExit(address)))
    }

    fn frame(&mut self, page: u64) -> Result<&mut Frame, TrapKind> {
        let slot = match self.recent.find(page * PAGE_BYTES, PAGE_BYTES) {
            Some((slot, _)) => slot,
            None => {
                let slot = match self.index.get(&page) {
                    Some(slot) => *slot,
                    None => self.make_frame(page)?,
                };
                self.recent.insert(page, slot);
                slot
            }
        };
        Ok(&mut self.frames[slot])
    }

    fn make_frame(&mut self, page: u64) -> Result<usize, TrapKind> {
        let is_shared = map::SR.contains(page * PAGE_BYTES);
        let left = if is_shared { &mut self.left.shared } else { &mut self.left.private };
        *left = left.checked_sub(1).ok_or(TrapKind::Mem)?;
        let slot = self.frames.len();
        let (twin, own) = if is_shared {
            let shown = self.read_only.iter().find(|known| known.shown.contains(&page));
            let shown = shown.and_then(|known| Page::part(&known.of, ((page - known.first) * PAGE_BYTES) as usize));
            let twin = shown.unwrap_or_else(|| self.shared.page(page));
            let own = if self.keep(page, &twin) { Own::Twin } else { Own::Copy(twin.cells()) };
            (twin, own)
        } else {
            let (piece, at) = self.private.make(page).ok_or(TrapKind::Mem)?;
            (Page::default(), Own::Piece(piece, at))
        };
        self.frames.push(Frame { page, own, twin, is_stored: false });
        self.index.insert(page, slot);
        Ok(slot)
    }

    /// Takes note of a page that is a part of a file; whether it is.
    fn keep(&mut self, page: u64, twin: &Page) -> bool {
        let Some((of, at)) = twin.as_part().filter(|(_, at)| at.is_multiple_of(PAGE_BYTES as usize)) else { return false };
        let first = page - at as u64 / PAGE_BYTES;
        let index = self.read_only.iter().position(|known| Arc::ptr_eq(&known.of, of) && known.first == first);
        let index = index.unwrap_or_else(|| {
            self.read_only.push(ReadOnly { of: Arc::clone(of), first, pages: Set::default(), shown: 0..0 });
            self.read_only.len() - 1
        });
        let known = &mut self.read_only[index];
        known.pages.insert(page, page + 1);
        if !known.shown.contains(&page) {
            known.shown = self.shared.alike(page);
        }
        true
    }

    /// The frame of a page that is to be stored to.
    fn frame_to_store(&mut self, page: u64) -> Result<&mut Frame, TrapKind> {
        self.frame(page)?;
        let slot = self.index[&page];
        if matches!(self.frames[slot].own, Own::Twin) {
            self.frames[slot].own = Own::Copy(self.frames[slot].twin.cells());
            self.read_only.iter_mut().for_each(|known| known.pages.remove(page));
            // What was shown of it is not what is stored now.
            self.generation += 1;
        }
        let frame = &mut self.frames[slot];
        frame.is_stored = true;
        Ok(frame)
    }

    /// Pages that were read, around one of them, as they lie in their file.
    fn read_around(&self, page: u64) -> Option<Region> {
        let (known, (first, end)) = self.read_only.iter().find_map(|known| Some((known, known.pages.around(page)?)))?;
        let bytes = known.of.get(((first - known.first) * PAGE_BYTES) as usize..)?;
        Some(Region { range: Range::new(first * PAGE_BYTES, (end - first) * PAGE_BYTES), host: bytes.as_ptr().cast_mut() })
    }

    fn is_constant(&self, range: Range) -> bool {
        let whole = |base, bytes: &[u8]| Range::new(base, (bytes.len() as u64).next_multiple_of(PAGE_BYTES));
        whole(map::TEXT.base, self.text).encloses(range) || whole(map::RODATA.base, self.rodata).encloses(range)
    }

    fn read_constant(&self, range: Range, bytes: &mut [u8]) {
        let (base, from) =
            if map::TEXT.contains(range.base) { (map::TEXT.base, self.text) } else { (map::RODATA.base, self.rodata) };
        let from = from.get((range.base - base) as usize..).unwrap_or_default();
        let count = from.len().min(bytes.len());
        bytes[..count].copy_from_slice(&from[..count]);
        bytes[count..].fill(0);
    }
}

/// The addresses of a word's bytes that differ.
fn changed_bytes(page: u64, word: usize, own: &Page, twin: &Page) -> impl Iterator<Item = u64> {
    let base = page * PAGE_BYTES + word as u64 * WORD_BYTES;
    let (own, twin) = (own.word(word).to_le_bytes(), twin.word(word).to_le_bytes());
    (base..).zip(own).zip(twin).filter(|((_, own), twin)| own != twin).map(|((address, _), _)| address)
}

impl<S: Snapshot> Memory for RunnerMemory<'_, S> {
    fn check(&mut self, range: Range, access: Access) -> Result<(), TrapKind> {
        if range.bytes == 0 || self.recent.find(range.base, range.bytes).is_some() || map::PR.encloses(range) {
            return Ok(());
        }
        if map::SR.encloses(range) {
            let mut pages = range.base / PAGE_BYTES..(range.base + range.bytes).div_ceil(PAGE_BYTES);
            let is_granted = pages.all(|page| self.grants.has_page(page));
            return if is_granted { Ok(()) } else { Err(TrapKind::Range(range.base)) };
        }
        match access {
            Access::Load if self.is_constant(range) => Ok(()),
            Access::Store if map::TX.contains(range.base) => Err(TrapKind::Text(range.base)),
            Access::Load | Access::Store => Err(TrapKind::Addr(range.base)),
        }
    }

    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), TrapKind> {
        let range = Range::new(address, bytes.len() as u64);
        self.check(range, Access::Load)?;
        if map::TX.contains(address) {
            self.read_constant(range, bytes);
            return Ok(());
        }
        for (page, offset, part) in parts(range) {
            let frame = self.frame(page)?;
            match frame.cells(offset) {
                Some(own) => bytes[part].iter_mut().zip(own).for_each(|(to, from)| *to = from.get()),
                None => frame.twin.read(offset, &mut bytes[part]),
            }
        }
        Ok(())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), TrapKind> {
        let range = Range::new(address, bytes.len() as u64);
        self.check(range, Access::Store)?;
        // All pages first: a store is done whole or not at all.
        for (page, _, _) in parts(range) {
            self.frame(page)?;
        }
        for (page, offset, part) in parts(range) {
            let own = self.frame_to_store(page)?.cells(offset).unwrap_or_default();
            own.iter().zip(&bytes[part]).for_each(|(to, from)| to.set(*from));
        }
        Ok(())
    }

    #[inline(always)]
    fn load_known(&self, address: u64, bytes: usize) -> Option<u64> {
        let (slot, offset) = self.recent.find(address, bytes as u64)?;
        let Some(own) = self.frames[slot].cells(offset) else {
            let mut value = [0; 8];
            self.frames[slot].twin.read(offset, &mut value[..bytes]);
            return Some(u64::from_le_bytes(value));
        };
        Some(match bytes {
            1 => u64::from(u8::from_le_bytes(first(own)?)),
            2 => u64::from(u16::from_le_bytes(first(own)?)),
            4 => u64::from(u32::from_le_bytes(first(own)?)),
            _ => u64::from_le_bytes(first(own)?),
        })
    }

    #[inline(always)]
    fn store_known(&mut self, address: u64, bytes: usize, value: u64) -> bool {
        let Some((slot, offset)) = self.recent.find(address, bytes as u64) else { return false };
        let frame = &mut self.frames[slot];
        if matches!(frame.own, Own::Twin) {
            return false;
        }
        frame.is_stored = true;
        let Some(own) = frame.cells(offset).and_then(|own| own.get(..bytes)) else { return false };
        if let Some(own) = own.first_chunk::<8>() {
            own.iter().zip(value.to_le_bytes()).for_each(|(to, from)| to.set(from));
        } else {
            own.iter().zip(value.to_le_bytes()).for_each(|(to, from)| to.set(from));
        }
        true
    }

    fn grant(&mut self, range: Range) {
        self.grants.insert(range);
    }

    fn region(&mut self, range: Range, access: Access) -> Option<Region> {
        self.check(range, access).ok()?;
        for (base, constant) in [(map::TEXT.base, self.text), (map::RODATA.base, self.rodata)] {
            let whole = Range::new(base, constant.len() as u64);
            if whole.encloses(range) {
                return Some(Region { range: whole, host: constant.as_ptr().cast_mut() });
            }
        }
        let page = range.base / PAGE_BYTES;
        let whole = Range::new(page * PAGE_BYTES, PAGE_BYTES);
        if !whole.encloses(range) || map::TX.contains(range.base) {
            return None;
        }
        let frame = self.frame(page).ok()?;
        match (&frame.own, access) {
            // Whoever wants to store there asks: what was shown of the page is then of no use.
            (Own::Twin, Access::Store) => return None,
            (Own::Twin, Access::Load) => return self.read_around(page),
            (Own::Copy(_) | Own::Piece(..), _) => frame.is_stored |= access == Access::Store,
        }
        if map::PR.encloses(range) {
            return self.private.around(page).map(|(range, host)| Region { range, host });
        }
        Some(Region { range: whole, host: frame.cells(0)?.as_ptr().cast_mut().cast() })
    }

    fn generation(&self) -> u64 {
        self.generation
    }
}

/// The first of some bytes.
#[inline]
fn first<const N: usize>(cells: &[Cell<u8>]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    bytes.iter_mut().zip(cells.first_chunk::<N>()?).for_each(|(to, from)| *to = from.get());
    Some(bytes)
}

/// The pages of a range: page, offset in it, part of the range.
pub fn parts(range: Range) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done >= range.bytes {
            return None;
        }
        let at = range.base + done;
        let offset = at % PAGE_BYTES;
        let count = (range.bytes - done).min(PAGE_BYTES - offset);
        let part = done as usize..(done + count) as usize;
        done += count;
        Some((at / PAGE_BYTES, offset as usize, part))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shared memory of which the first pages are those of a file.
    struct Files(Arc<[u8]>);

    impl Snapshot for Files {
        fn page(&mut self, page: u64) -> Page {
            let at = (page - BASE / PAGE_BYTES) * PAGE_BYTES;
            Page::part(&self.0, at as usize).unwrap_or_default()
        }
    }

    #[test]
    fn a_file_is_shown_as_it_lies_until_it_is_stored_to() {
        let bytes: Arc<[u8]> = (0..3 * PAGE_BYTES).map(|at| (at / 7) as u8).collect();
        let mut grants = Grants::default();
        grants.insert(map::SHARED_DATA);
        let mut memory = RunnerMemory::new(Files(Arc::clone(&bytes)), [&[], &[]], grants, PagesMax { private: 8, shared: 8 });
        let load = |address| Range::new(address, 8);
        let one = memory.region(load(BASE + 8), Access::Load).unwrap();
        let two = memory.region(load(BASE + PAGE_BYTES), Access::Load).unwrap();
        assert_eq!((one.range.bytes, two.range), (PAGE_BYTES, Range::new(BASE, 2 * PAGE_BYTES)));
        assert!(std::ptr::eq(two.host, bytes.as_ptr()), "nothing is copied");
        assert!(memory.region(load(BASE + 8), Access::Store).is_none() && memory.generation() == 0);
        assert_eq!((memory.load(BASE + 14, 1), memory.load_known(BASE + 14, 1)), (Ok(2), Some(2)));
        assert!(!memory.store_known(BASE + 8, 8, 1));
        memory.store(BASE + 14, 1, 77).unwrap();
        assert_eq!((memory.generation(), memory.load(BASE + 14, 1), memory.load(BASE + 21, 1)), (1, Ok(77), Ok(3)));
        assert_eq!(
            memory.region(load(BASE + PAGE_BYTES), Access::Load).unwrap().range,
            Range::new(BASE + PAGE_BYTES, PAGE_BYTES)
        );
        assert!(memory.region(load(BASE + 8), Access::Store).is_some());
        let used = memory.finish().unwrap();
        assert_eq!(used.changed.keys().copied().collect::<Vec<_>>(), [BASE / PAGE_BYTES]);
        assert_eq!(used.changed[&(BASE / PAGE_BYTES)].0.iter().collect::<Vec<_>>(), [1]);
        assert_eq!(used.read.len(), 2);
    }

    /// Shared memory in which nobody has written yet.
    struct Empty;

    impl Snapshot for Empty {
        fn page(&mut self, _: u64) -> Page {
            Page::default()
        }
    }

    const BASE: u64 = map::SR.base;

    fn memory() -> RunnerMemory<'static, Empty> {
        let mut grants = Grants::default();
        grants.insert(map::SHARED_DATA);
        RunnerMemory::new(Empty, [&[], &[]], grants, PagesMax { private: 8, shared: 2 * RECENT_PAGES as u64 })
    }

    #[test]
    fn what_is_known_is_what_a_load_gives() {
        let mut memory = memory();
        assert!(memory.load_known(BASE, 8).is_none() && !memory.store_known(BASE, 8, 1), "no page is made on the way");
        memory.store(BASE + 3, 8, 0x8877_6655_4433_2211).unwrap();
        for (address, bytes) in (0..16).flat_map(|offset| [1, 2, 4, 8].map(|bytes| (BASE + offset, bytes))) {
            let loaded = memory.load(address, bytes).unwrap();
            assert_eq!(memory.load_known(address, bytes), Some(loaded), "{bytes} bytes at {address:x}");
            assert!(memory.store_known(address, bytes, !loaded));
            assert_eq!(memory.load(address, bytes).unwrap(), !loaded & (u64::MAX >> (64 - 8 * bytes)));
            memory.store(BASE + 3, 8, 0x8877_6655_4433_2211).unwrap();
        }
    }

    #[test]
    fn nothing_is_known_across_pages_or_for_ever() {
        let mut memory = memory();
        let behind = |pages: u64| BASE + pages * PAGE_BYTES;
        memory.store(behind(1) - 4, 8, 1).unwrap();
        assert!(memory.load_known(behind(1) - 4, 8).is_none() && !memory.store_known(behind(1) - 4, 8, 2));
        assert_eq!(memory.load_known(behind(1) - 4, 4), Some(1));
        memory.load(behind(RECENT_PAGES as u64), 8).unwrap();
        assert!(memory.load_known(behind(1) - 4, 4).is_none(), "another page has the place");
        assert_eq!(memory.load(behind(1) - 4, 8).unwrap(), 1);
    }

    #[test]
    fn a_page_that_was_only_read_before_is_changed() {
        let mut memory = memory();
        memory.load(BASE, 8).unwrap();
        assert!(memory.store_known(BASE + 8, 1, 7));
        let used = memory.finish().unwrap();
        let (words, page) = &used.changed[&(BASE / PAGE_BYTES)];
        assert_eq!((words.iter().collect::<Vec<_>>(), page.word(1)), (vec![1], 7));
    }
}

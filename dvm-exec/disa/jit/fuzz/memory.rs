//! A small memory that both engines run on.
//!
//! Owns its pages, its limit, and the comparison of two. Must not know instructions.

use dvm_disa::map::{self, PAGE_BYTES, Range};
use dvm_disa::memory::{Access, Born, Effects, Memory, Region, Spawn};
use dvm_disa::trap::TrapKind;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// The shared pages that may be accessed, the second of them not.
pub const SHARED: Range = Range::new(map::SR.base, 3 * PAGE_BYTES);
const HOLE: Range = Range::new(map::SR.base + PAGE_BYTES, PAGE_BYTES);

/// Private pages from the first on that lie behind each other here, too.
const TOGETHER: Range = Range::new(map::PR.base, 8 * PAGE_BYTES);

/// Bytes that may be stored to while others hold them.
type Bytes = Rc<[Cell<u8>]>;

/// Private pages, a few shared ones, and the text.
pub struct Pages {
    /// A page's bytes, and where it begins there; none: it begins there in `first`.
    pages: BTreeMap<u64, (Bytes, usize)>,
    together: Bytes,
    /// Shared pages as they begin. Such a page is read here until it is stored to.
    first: Vec<u8>,
    generation: u64,
    text: Vec<u8>,
    pages_max: usize,
}

impl Pages {
    /// Nothing accessed yet.
    pub fn new(text: &[u8], pages_max: usize) -> Self {
        let together = (0..TOGETHER.bytes).map(|_| Cell::new(0)).collect();
        let first = (0..SHARED.bytes).map(|offset| (offset % PAGE_BYTES * 7 % 251) as u8).collect();
        Self { pages: BTreeMap::new(), together, first, generation: 0, text: text.to_vec(), pages_max }
    }

    /// All pages accessed, with their bytes.
    pub fn contents(&self) -> BTreeMap<u64, Vec<u8>> {
        let bytes = |page: &u64| (0..PAGE_BYTES as usize).map(|offset| self.byte(*page, offset)).collect();
        self.pages.keys().map(|page| (*page, bytes(page))).collect()
    }

    /// A byte of a page that was accessed before.
    fn byte(&self, page: u64, offset: usize) -> u8 {
        match &self.pages[&page] {
            (own, at) if !own.is_empty() => own[at + offset].get(),
            (_, at) => self.first[at + offset],
        }
    }

    fn is_read_only(&self, page: u64) -> bool {
        self.pages.get(&page).is_some_and(|(own, _)| own.is_empty())
    }

    /// Bytes of one page that was stored to before, or is private.
    fn known(&self, address: u64, bytes: usize) -> Option<&[Cell<u8>]> {
        let offset = (address % PAGE_BYTES) as usize;
        let (own, at) = self.pages.get(&(address / PAGE_BYTES))?;
        own.get(*at..at + PAGE_BYTES as usize)?.get(offset..offset + bytes)
    }

    fn page(&mut self, page: u64, access: Access) -> Result<(), TrapKind> {
        let address = page * PAGE_BYTES;
        if !self.pages.contains_key(&page) {
            if self.pages.len() >= self.pages_max {
                return Err(TrapKind::Mem);
            }
            let fresh = if map::SR.contains(address) {
                (Rc::from([]), (address - SHARED.base) as usize)
            } else if TOGETHER.contains(address) {
                (Rc::clone(&self.together), (address - TOGETHER.base) as usize)
            } else {
                ((0..PAGE_BYTES).map(|_| Cell::new(0)).collect(), 0)
            };
            self.pages.insert(page, fresh);
        }
        if access == Access::Store && self.is_read_only(page) {
            let own = (0..PAGE_BYTES as usize).map(|offset| Cell::new(self.byte(page, offset))).collect();
            self.pages.insert(page, (own, 0));
            self.generation += 1;
        }
        Ok(())
    }

    /// The pages around one, as far as `is_alike`.
    fn around(&self, page: u64, is_alike: impl Fn(u64) -> bool) -> Range {
        let mut range = page..page + 1;
        while is_alike(range.start - 1) {
            range.start -= 1;
        }
        while is_alike(range.end) {
            range.end += 1;
        }
        Range::new(range.start * PAGE_BYTES, (range.end - range.start) * PAGE_BYTES)
    }
}

impl Memory for Pages {
    fn check(&mut self, range: Range, access: Access) -> Result<(), TrapKind> {
        let text = Range::new(map::TX.base, self.text.len() as u64);
        if range.bytes == 0 || map::PR.encloses(range) || access == Access::Load && text.encloses(range) {
            return Ok(());
        }
        if SHARED.encloses(range) && !HOLE.overlaps(range) {
            return Ok(());
        }
        Err(if map::SR.encloses(range) {
            TrapKind::Range(range.base)
        } else if access == Access::Store && map::TX.contains(range.base) {
            TrapKind::Text(range.base)
        } else {
            TrapKind::Addr(range.base)
        })
    }

    fn read(&mut self, address: u64, bytes: &mut [u8]) -> Result<(), TrapKind> {
        self.check(Range::new(address, bytes.len() as u64), Access::Load)?;
        for (at, byte) in (address..).zip(bytes) {
            *byte = match at.checked_sub(map::TX.base) {
                Some(offset) => self.text.get(offset as usize).copied().unwrap_or(0),
                None => {
                    self.page(at / PAGE_BYTES, Access::Load)?;
                    self.byte(at / PAGE_BYTES, (at % PAGE_BYTES) as usize)
                }
            };
        }
        Ok(())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), TrapKind> {
        self.check(Range::new(address, bytes.len() as u64), Access::Store)?;
        for at in (address..).take(bytes.len()) {
            self.page(at / PAGE_BYTES, Access::Load)?;
        }
        for (at, byte) in (address..).zip(bytes) {
            self.page(at / PAGE_BYTES, Access::Store)?;
            self.known(at, 1).expect("it can be stored to")[0].set(*byte);
        }
        Ok(())
    }

    fn load_known(&self, address: u64, bytes: usize) -> Option<u64> {
        let known = self.known(address, bytes)?.iter().rev();
        Some(known.fold(0, |value, byte| value << 8 | u64::from(byte.get())))
    }

    fn store_known(&mut self, address: u64, bytes: usize, value: u64) -> bool {
        let Some(known) = self.known(address, bytes) else { return false };
        known.iter().zip(value.to_le_bytes()).for_each(|(to, from)| to.set(from));
        true
    }

    fn grant(&mut self, _: Range) {}

    fn region(&mut self, range: Range, access: Access) -> Option<Region> {
        self.check(range, access).ok()?;
        let whole = Range::new(range.base / PAGE_BYTES * PAGE_BYTES, PAGE_BYTES);
        if map::TX.contains(range.base) || !whole.encloses(range) {
            return None;
        }
        let page = range.base / PAGE_BYTES;
        if access == Access::Store && (map::SR.contains(range.base) && self.known(range.base, 1).is_none()) {
            return None;
        }
        self.page(page, access).ok()?;
        if self.is_read_only(page) {
            let range = self.around(page, |page| self.is_read_only(page));
            let bytes = &self.first[(range.base - SHARED.base) as usize..];
            return Some(Region { range, host: bytes.as_ptr().cast_mut() });
        }
        if TOGETHER.encloses(range) {
            let is_used = |page: u64| TOGETHER.contains(page * PAGE_BYTES) && self.pages.contains_key(&page);
            let range = self.around(page, is_used);
            let cells = &self.together[(range.base - TOGETHER.base) as usize..];
            return Some(Region { range, host: cells.as_ptr().cast_mut().cast() });
        }
        let whole_page = self.known(whole.base, PAGE_BYTES as usize)?;
        Some(Region { range: whole, host: whole_page.as_ptr().cast_mut().cast() })
    }

    fn generation(&self) -> u64 {
        self.generation
    }
}

/// What a runner asked for, as text.
#[derive(Default)]
pub struct Asked(pub Vec<String>);

impl Effects for Asked {
    fn spawn(&mut self, spawn: Spawn) -> Result<Born, TrapKind> {
        self.0.push(format!("{spawn:?}"));
        Ok(Born { id: self.0.len() as u64, stack: Range::new(map::STACKS.base, PAGE_BYTES) })
    }
    fn print(&mut self, bytes: &[u8]) -> Result<(), TrapKind> {
        self.0.push(String::from_utf8_lossy(bytes).into_owned());
        Ok(())
    }
    fn log(&mut self, bytes: &[u8]) -> Result<(), TrapKind> {
        self.print(bytes)
    }
    fn input(&mut self, offset: u64, bytes: &mut [u8]) -> usize {
        bytes.fill(offset as u8);
        bytes.len().min(5)
    }
    fn open(&mut self, _: &[u8]) -> Option<Range> {
        None
    }
    fn allocate(&mut self, _: u64) -> Option<Range> {
        None
    }
    fn free(&mut self, _: u64) -> bool {
        true
    }
    fn time(&mut self) -> u64 {
        self.0.push("time".into());
        self.0.len() as u64
    }
    fn random(&mut self) -> u64 {
        0x9e37_79b9_7f4a_7c15
    }
    fn argument(&mut self, _: u64) -> Option<&[u8]> {
        None
    }
    fn touch(&mut self, range: Range) {
        self.0.push(format!("{range:?}"));
    }
    fn breakpoint(&mut self, pc: u64) {
        self.0.push(format!("{pc:x}"));
    }
}

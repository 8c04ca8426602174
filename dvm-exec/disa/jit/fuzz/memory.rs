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

/// Private pages, a few shared ones, and the text.
pub struct Pages {
    pages: BTreeMap<u64, Rc<[Cell<u8>]>>,
    text: Vec<u8>,
    pages_max: usize,
}

impl Pages {
    /// Nothing accessed yet.
    pub fn new(text: &[u8], pages_max: usize) -> Self {
        Self { pages: BTreeMap::new(), text: text.to_vec(), pages_max }
    }

    /// All pages accessed, with their bytes.
    pub fn contents(&self) -> BTreeMap<u64, Vec<u8>> {
        self.pages.iter().map(|(page, bytes)| (*page, bytes.iter().map(Cell::get).collect())).collect()
    }

    /// Bytes of one page that was accessed before.
    fn known(&self, address: u64, bytes: usize) -> Option<&[Cell<u8>]> {
        let offset = (address % PAGE_BYTES) as usize;
        self.pages.get(&(address / PAGE_BYTES))?.get(offset..offset + bytes)
    }

    fn page(&mut self, page: u64) -> Result<Rc<[Cell<u8>]>, TrapKind> {
        if !self.pages.contains_key(&page) && self.pages.len() >= self.pages_max {
            return Err(TrapKind::Mem);
        }
        // Shared pages begin with something in them.
        let first = |offset| if map::SR.contains(page * PAGE_BYTES) { (offset * 7 % 251) as u8 } else { 0 };
        let new = || (0..PAGE_BYTES).map(|offset| Cell::new(first(offset))).collect();
        Ok(Rc::clone(self.pages.entry(page).or_insert_with(new)))
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
                None => self.page(at / PAGE_BYTES)?[(at % PAGE_BYTES) as usize].get(),
            };
        }
        Ok(())
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), TrapKind> {
        self.check(Range::new(address, bytes.len() as u64), Access::Store)?;
        for at in (address..).take(bytes.len()) {
            self.page(at / PAGE_BYTES)?;
        }
        for (at, byte) in (address..).zip(bytes) {
            self.page(at / PAGE_BYTES)?[(at % PAGE_BYTES) as usize].set(*byte);
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
        let page = self.page(range.base / PAGE_BYTES).ok()?;
        Some(Region { range: whole, host: page.as_ptr().cast_mut().cast() })
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

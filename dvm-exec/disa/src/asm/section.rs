//! Where data goes: locations of the sections, pieces of shared memory.
//!
//! Owns that pieces lie where data may lie and do not overlap. Must not know symbols.

use super::diagnostic::{Position, Reason};
use super::syntax::SectionName;
use crate::limits::SECTION_BYTES_MAX;
use crate::map::{self, PAGE_BYTES, Range};
use crate::object::Segment;

/// The sections while a round lays them out.
#[derive(Debug)]
pub struct Sections {
    /// The one that statements go to.
    pub current: SectionName,
    /// Instructions so far.
    pub text: Vec<u8>,
    /// Constants so far.
    pub rodata: Vec<u8>,
    data: u64,
    bss: u64,
    pieces: Vec<(Segment, Position)>,
    zeros: Vec<(Range, Position)>,
}

impl Sections {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            current: SectionName::Text,
            text: Vec::new(),
            rodata: Vec::new(),
            data: map::SR.base,
            bss: map::BSS_BASE,
            pieces: Vec::new(),
            zeros: Vec::new(),
        }
    }

    /// The address of what comes next.
    #[must_use]
    pub fn here(&self) -> u64 {
        match self.current {
            SectionName::Text => map::TX.base + self.text.len() as u64,
            SectionName::Rodata => map::RODATA.base + self.rodata.len() as u64,
            SectionName::Data => self.data,
            SectionName::Bss => self.bss,
        }
    }

    /// Goes on at an address.
    ///
    /// # Errors
    /// No data may be there.
    pub fn move_to(&mut self, address: u64) -> Result<(), Reason> {
        let place = "the shared memory below the stacks";
        if !map::SHARED_DATA.contains(address) {
            return Err(Reason::BadAddress { address, bytes: 0, place });
        }
        match self.current {
            SectionName::Data => self.data = address,
            SectionName::Bss => self.bss = address,
            SectionName::Text | SectionName::Rodata => return Err(Reason::WrongSection("an address".into())),
        }
        Ok(())
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// The section has no contents, or no room.
    pub fn append(&mut self, bytes: &[u8], at: Position) -> Result<(), Reason> {
        self.check_room(bytes.len() as u64)?;
        match self.current {
            SectionName::Text | SectionName::Bss => return Err(Reason::WrongSection("data".into())),
            SectionName::Rodata => self.rodata.extend_from_slice(bytes),
            SectionName::Data => {
                match self.pieces.last_mut() {
                    Some((last, _)) if last.range().end() == Some(self.data) => last.bytes.extend_from_slice(bytes),
                    _ => self.pieces.push((Segment { address: self.data, bytes: bytes.to_vec() }, at)),
                }
                self.data += bytes.len() as u64;
            }
        }
        Ok(())
    }

    /// Leaves zeros.
    ///
    /// # Errors
    /// The section is the text, or has no room.
    pub fn skip(&mut self, bytes: u64, at: Position) -> Result<(), Reason> {
        self.check_room(bytes)?;
        let here = self.here();
        match self.current {
            SectionName::Text => return Err(Reason::WrongSection(".space".into())),
            SectionName::Rodata => self.rodata.resize(self.rodata.len() + bytes as usize, 0),
            SectionName::Data => self.data += bytes,
            SectionName::Bss => self.bss += bytes,
        }
        if self.current != SectionName::Rodata && bytes > 0 {
            self.zeros.push((Range::new(here, bytes), at));
        }
        Ok(())
    }

    /// Goes on at the next multiple of a power of two.
    ///
    /// # Errors
    /// The section is the text, or has no room.
    pub fn align(&mut self, to: u64) -> Result<(), Reason> {
        let padding = self.here().wrapping_neg() % to;
        match self.current {
            SectionName::Text => return Err(Reason::WrongSection(".page".into())),
            SectionName::Rodata => self.rodata.resize(self.rodata.len() + padding as usize, 0),
            SectionName::Data => self.data += padding,
            SectionName::Bss => self.bss += padding,
        }
        self.check_room(0)
    }

    /// Begins a page of its own for `bytes` bytes, and gives its address.
    ///
    /// # Errors
    /// As [`Self::skip`].
    pub fn standalone(&mut self, bytes: u64, at: Position) -> Result<u64, Reason> {
        self.align(PAGE_BYTES)?;
        let here = self.here();
        let whole = bytes.max(1).checked_next_multiple_of(PAGE_BYTES).unwrap_or(u64::MAX);
        self.skip(whole, at)?;
        Ok(here)
    }

    fn check_room(&self, bytes: u64) -> Result<(), Reason> {
        let address = self.here();
        let (place, room) = match self.current {
            SectionName::Text | SectionName::Rodata => ("1 GiB of text and 1 GiB of constants", None),
            SectionName::Data | SectionName::Bss => ("the shared memory below the stacks", Some(map::SHARED_DATA)),
        };
        let fits = match room {
            Some(range) => range.encloses(Range::new(address, bytes)),
            None => (address & (SECTION_BYTES_MAX - 1)).saturating_add(bytes) <= SECTION_BYTES_MAX,
        };
        if fits { Ok(()) } else { Err(Reason::BadAddress { address, bytes, place }) }
    }

    /// Data and zeros by address, and what overlaps.
    #[must_use]
    pub fn finish(&mut self) -> (Vec<Segment>, Vec<Range>, Vec<(Position, Reason)>) {
        let mut all: Vec<(Range, Position)> = self.pieces.iter().map(|(piece, at)| (piece.range(), *at)).collect();
        all.extend(&self.zeros);
        all.sort();
        let overlaps = |pair: &[(Range, Position)]| match pair {
            [(first, _), (second, at)] if first.overlaps(*second) => Some((*at, Reason::Overlap(second.base))),
            _ => None,
        };
        let wrong = all.windows(2).filter_map(overlaps).collect();
        let mut data: Vec<Segment> = self.pieces.drain(..).map(|(piece, _)| piece).collect();
        data.sort_by_key(|segment| segment.address);
        let mut zeros: Vec<Range> = self.zeros.drain(..).map(|(range, _)| range).collect();
        zeros.sort();
        (data, zeros, wrong)
    }
}

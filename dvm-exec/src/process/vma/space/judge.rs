//! Whether a memory call may be done, and where.
//!
//! Owns what is refused, with which error. Must not change anything.

use super::AddressSpace;
use crate::process::vma::place::Wish;
use crate::process::vma::{
    AREAS_MAX, ARENA_SOURCED_START, FileSource, MapError, MapRequest, PAGE_BYTES, Protection, RemapRequest, SOURCED_BYTES_MIN,
    SPACE_END, SPACE_START,
};
use std::ops::Range;

const MAP_SHARED: u64 = libc::MAP_SHARED as u64;
const MAP_PRIVATE: u64 = libc::MAP_PRIVATE as u64;
const MAP_SHARED_VALIDATE: u64 = libc::MAP_SHARED_VALIDATE as u64;
const MAP_TYPE: u64 = libc::MAP_TYPE as u64;
const MAP_FIXED: u64 = libc::MAP_FIXED as u64;
const MAP_FIXED_NOREPLACE: u64 = libc::MAP_FIXED_NOREPLACE as u64;
const MAP_32BIT: u64 = libc::MAP_32BIT as u64;
const MAP_HUGETLB: u64 = libc::MAP_HUGETLB as u64;
const MAP_STACK: u64 = libc::MAP_STACK as u64;
const MAP_SYNC: u64 = libc::MAP_SYNC as u64;
const MREMAP_MAYMOVE: u64 = libc::MREMAP_MAYMOVE as u64;
const MREMAP_FIXED: u64 = libc::MREMAP_FIXED as u64;
const MREMAP_DONTUNMAP: u64 = libc::MREMAP_DONTUNMAP as u64;

impl AddressSpace {
    /// Whether `bytes` more may be mapped.
    pub(super) fn judge_growth(&self, bytes: u64, is_promised: bool) -> Result<(), MapError> {
        if is_promised && self.promise_max.is_some_and(|most| bytes > most) {
            return Err(MapError::NoMemory("more than all hosts have"));
        }
        let mapped = || self.areas.entries().map(|entry| entry.area.range.end - entry.area.range.start).sum::<u64>();
        if self.limits.is_some_and(|(soft, _)| bytes > 0 && mapped().saturating_add(bytes) > soft) {
            return Err(MapError::NoMemory("above RLIMIT_AS"));
        }
        Ok(())
    }

    /// Where an mmap goes, and whether it replaces what is there.
    pub(super) fn judge_map(&self, request: &MapRequest) -> Result<(Range<u64>, bool), MapError> {
        let flags = request.flags;
        if !matches!(flags & MAP_TYPE, MAP_SHARED | MAP_PRIVATE | MAP_SHARED_VALIDATE) {
            return Err(MapError::Invalid("neither MAP_SHARED nor MAP_PRIVATE"));
        }
        if request.bytes == 0 {
            return Err(MapError::Invalid("length is 0"));
        }
        let bytes = page_up(request.bytes).filter(|&bytes| bytes <= SPACE_END).ok_or(MapError::NoMemory("length"))?;
        if let Some(source) = &request.file {
            if !is_aligned(source.offset) {
                return Err(MapError::Invalid("file offset is not page-aligned"));
            }
            if source.offset.checked_add(bytes).is_none_or(|end| end > i64::MAX as u64) {
                return Err(MapError::NoMemory("file offset"));
            }
            let writable = Protection::from_bits(request.protection).contains(Protection::WRITE);
            if flags & MAP_TYPE != MAP_PRIVATE && writable && !source.is_writable {
                return Err(MapError::Access("the descriptor cannot write"));
            }
            if flags & MAP_TYPE != MAP_PRIVATE && writable {
                return Err(MapError::Refused("a writable shared file mapping cannot span hosts"));
            }
            if flags & MAP_TYPE == MAP_SHARED_VALIDATE && flags & MAP_SYNC != 0 {
                return Err(MapError::NotSupported("MAP_SYNC"));
            }
        }
        let is_writable = Protection::from_bits(request.protection).contains(Protection::WRITE);
        self.judge_growth(bytes, is_writable && flags & (libc::MAP_NORESERVE as u64) == 0)?;
        if flags & MAP_HUGETLB != 0 {
            return Err(MapError::NoMemory("no huge pages here"));
        }
        if self.is_too_split() {
            return Err(MapError::NoMemory("too many areas"));
        }
        if flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) != 0 {
            let range = fixed_range(request.address, bytes)?;
            if flags & MAP_FIXED_NOREPLACE != 0 && !self.areas.is_free(&range) {
                return Err(MapError::Exists);
            }
            return Ok((range, true));
        }
        if let Some(hint) = self.suitable_hint(request.address, bytes, flags, is_sourced(request)) {
            return Ok((hint..hint + bytes, false));
        }
        let (low, own_extents) = (flags & MAP_32BIT != 0, flags & MAP_STACK != 0);
        let sourced = is_sourced(request) && !low;
        let start = self.find(Wish { bytes, alignment: PAGE_BYTES, low, own_extents, sourced })?;
        Ok((start..start + bytes, false))
    }

    fn suitable_hint(&self, address: u64, bytes: u64, flags: u64, is_sourced: bool) -> Option<u64> {
        let start = page_up(address).filter(|&start| start >= SPACE_START)?;
        let end = start.checked_add(bytes)?;
        let bound = if flags & MAP_32BIT != 0 { 1 << 31 } else { SPACE_END };
        // A hint need not be followed, and elsewhere a large file is not read at once.
        if is_sourced && start < ARENA_SOURCED_START {
            return None;
        }
        let in_heap = start < self.heap.limit && end > self.heap.start;
        (end <= bound && !in_heap && self.areas.is_free(&(start..end))).then_some(start)
    }

    /// The old range, in one area, and the new length.
    pub(super) fn judge_remap(&self, request: RemapRequest) -> Result<(Range<u64>, u64), MapError> {
        let flags = request.flags;
        if flags & !(MREMAP_MAYMOVE | MREMAP_FIXED) != 0 {
            let reason = if flags & MREMAP_DONTUNMAP != 0 { "MREMAP_DONTUNMAP is not done" } else { "unknown flags" };
            return Err(MapError::Invalid(reason));
        }
        if flags & MREMAP_FIXED != 0 && flags & MREMAP_MAYMOVE == 0 {
            return Err(MapError::Invalid("MREMAP_FIXED without MREMAP_MAYMOVE"));
        }
        let bytes = |bytes| page_up(bytes).filter(|&bytes| bytes > 0 && bytes <= SPACE_END);
        let new_bytes = bytes(request.new_bytes).ok_or(MapError::Invalid("new length"))?;
        let old_bytes = bytes(request.old_bytes).ok_or(MapError::Invalid("old length"))?;
        let old = whole_pages(request.old_address, old_bytes)?;
        let entry = self.areas.at(old.start).ok_or(MapError::BadAddress("nothing is mapped there"))?;
        let is_grown = new_bytes > old_bytes;
        if (is_grown || flags & MREMAP_FIXED != 0) && entry.area.range.end < old.end {
            return Err(MapError::BadAddress("the old range is not one area"));
        }
        self.judge_growth(new_bytes.saturating_sub(old_bytes), entry.area.protection.contains(Protection::WRITE))?;
        if self.is_too_split() {
            return Err(MapError::NoMemory("too many areas"));
        }
        if flags & MREMAP_FIXED != 0 {
            let new = fixed_range(request.new_address, new_bytes).map_err(|_| MapError::Invalid("new address"))?;
            if new.start < old.end && old.start < new.end {
                return Err(MapError::Invalid("old and new range overlap"));
            }
        }
        Ok((old, new_bytes))
    }

    /// Whether the next call could exceed the count: each makes at most two areas more.
    pub(super) fn is_too_split(&self) -> bool {
        self.areas.count() + 2 > AREAS_MAX
    }
}

/// Whether the file of `request` is large enough to be read by page.
pub fn is_sourced(request: &MapRequest) -> bool {
    let Some(FileSource { offset, bytes: Some(file_bytes), .. }) = request.file else { return false };
    request.bytes.min(file_bytes.saturating_sub(offset)) >= SOURCED_BYTES_MIN
}

/// Whether a page begins there.
pub const fn is_aligned(address: u64) -> bool {
    address.is_multiple_of(PAGE_BYTES)
}

/// Bytes of the pages that so many bytes need; `None`: more than there are.
pub const fn page_up(bytes: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(PAGE_BYTES)
}

/// The pages of an aligned address and a length.
pub fn whole_pages(address: u64, bytes: u64) -> Result<Range<u64>, MapError> {
    if !is_aligned(address) {
        return Err(MapError::Invalid("address is not page-aligned"));
    }
    let end = page_up(bytes).and_then(|bytes| address.checked_add(bytes));
    end.map(|end| address..end).ok_or(MapError::NoMemory("beyond the end of the address space"))
}

fn fixed_range(address: u64, bytes: u64) -> Result<Range<u64>, MapError> {
    let range = whole_pages(address, bytes)?;
    if range.start < SPACE_START {
        return Err(MapError::NotPermitted("below vm.mmap_min_addr"));
    }
    if range.end > SPACE_END {
        return Err(MapError::NoMemory("outside the program's space, which ends at 0x500000000000"));
    }
    Ok(range)
}

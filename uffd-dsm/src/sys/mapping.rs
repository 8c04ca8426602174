//! The one mapping of a space in the executor, or in a child that has a copy.
//!
//! Owns the address range and its protection. No reference into it is ever made: pages are named by number, and the few
//! words read or written from here go through atomics.
#![expect(unsafe_code, reason = "mapping fixed addresses and touching them has no safe form")]

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use dsm_wire::{PAGE_BYTES, PageRange};
use nix::errno::Errno;
use nix::libc::c_void;
use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap};

/// Pages of a space mapped at their addresses, until dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    range: PageRange,
}

impl Mapping {
    /// Maps `range` of `memfd` at its own addresses, inaccessible at first. Fails with EEXIST where anything is mapped.
    pub(crate) fn fixed(memfd: BorrowedFd<'_>, range: PageRange) -> Result<Self, Errno> {
        let address = NonZeroUsize::new(range.first.address() as usize).ok_or(Errno::EINVAL)?;
        let bytes = NonZeroUsize::new(range.count as usize * PAGE_BYTES).ok_or(Errno::EINVAL)?;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_NORESERVE | MapFlags::MAP_FIXED_NOREPLACE;
        // SAFETY: MAP_FIXED_NOREPLACE replaces no existing mapping, so no memory that Rust knows of changes.
        let found = unsafe { mmap(Some(address), bytes, ProtFlags::PROT_NONE, flags, memfd, address.get() as i64) }?;
        let mapping = Self { range };
        // A kernel older than 4.17 takes the address as a hint; such a mapping cannot be a view.
        if found.addr() != address {
            return Err(Errno::EEXIST);
        }
        Ok(mapping)
    }

    /// Maps `range` without a file, inaccessible at first. Fails with EEXIST where anything is mapped.
    pub(crate) fn anonymous(range: PageRange) -> Result<Self, Errno> {
        let address = NonZeroUsize::new(range.first.address() as usize).ok_or(Errno::EINVAL)?;
        let bytes = NonZeroUsize::new(range.count as usize * PAGE_BYTES).ok_or(Errno::EINVAL)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE | MapFlags::MAP_FIXED_NOREPLACE;
        // SAFETY: as in `fixed`.
        unsafe { mmap_anonymous(Some(address), bytes, ProtFlags::PROT_NONE, flags) }?;
        Ok(Self { range })
    }

    /// Forgets the bytes of `range`: they read as zero afterwards.
    ///
    /// # Panics
    /// When `range` is not inside the mapping.
    pub(crate) fn forget(&self, range: PageRange) -> Result<(), Errno> {
        self.assert_inside(range);
        // SAFETY: the range is inside this mapping, to which no reference exists.
        unsafe { madvise(self.pointer(range), self.bytes(range), MmapAdvise::MADV_DONTNEED) }
    }

    /// Keeps the mapping out of children, which the userfaultfd would not watch, and out of core dumps, which would walk
    /// its whole length.
    pub(crate) fn keep_private(&self) -> Result<(), Errno> {
        for advice in [MmapAdvise::MADV_DONTFORK, MmapAdvise::MADV_DONTDUMP] {
            // SAFETY: the range is this mapping; both kinds of advice leave its bytes as they are.
            unsafe { madvise(self.pointer(self.range), self.bytes(self.range), advice) }?;
        }
        Ok(())
    }

    /// Changes what this process may do with `range`.
    ///
    /// # Panics
    /// When `range` is not inside the mapping.
    pub(crate) fn protect(&self, range: PageRange, access: ProtFlags) -> Result<(), Errno> {
        self.assert_inside(range);
        // SAFETY: the range is inside this mapping, to which no reference exists; who touches it against the new
        // protection gets a signal, as the program it belongs to expects.
        unsafe { mprotect(self.pointer(range), self.bytes(range), access) }
    }

    /// Reads the word at `address`, waiting for its page if it is absent.
    ///
    /// # Panics
    /// When `address` is not aligned or not inside the mapping.
    pub(crate) fn load(&self, address: u64) -> u64 {
        self.word(address).load(Ordering::Relaxed)
    }

    /// Writes the word at `address`, waiting for its page if it is absent or protected.
    ///
    /// # Panics
    /// When `address` is not aligned or not inside the mapping.
    pub(crate) fn store(&self, address: u64, value: u64) {
        self.word(address).store(value, Ordering::Relaxed);
    }

    pub(crate) const fn range(&self) -> PageRange {
        self.range
    }

    fn word(&self, address: u64) -> &AtomicU64 {
        assert!(address.is_multiple_of(align_of::<AtomicU64>() as u64), "word at {address:#x} is not aligned");
        self.assert_inside(PageRange::new(dsm_wire::PageNumber::containing(address), 1));
        // SAFETY: aligned and inside the mapping (asserted), which outlives the reference because it is unmapped only by
        // drop; other threads and processes may change the word, which an atomic allows.
        unsafe { AtomicU64::from_ptr(std::ptr::with_exposed_provenance_mut(address as usize)) }
    }

    fn pointer(&self, range: PageRange) -> NonNull<c_void> {
        let address = NonZeroUsize::new(range.first.address() as usize).expect("a mapping does not start at 0");
        NonNull::with_exposed_provenance(address)
    }

    const fn bytes(&self, range: PageRange) -> usize {
        range.count as usize * PAGE_BYTES
    }

    fn assert_inside(&self, range: PageRange) {
        let is_inside = range.first >= self.range.first
            && range.first.0.checked_add(range.count).is_some_and(|end| end <= self.range.end().0);
        assert!(is_inside, "{} pages from {} are outside the view", range.count, range.first);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `fixed` and is unmapped once; references made by `word` ended with their borrow.
        let unmapped = unsafe { munmap(self.pointer(self.range), self.bytes(self.range)) };
        debug_assert!(unmapped.is_ok(), "the view was mapped: {unmapped:?}");
    }
}

//! Array maps in this process's memory.
//!
//! Owns the mapping of one array and every access to it, which is by atomic words, since kernel programs and other threads
//! change them at any time. Must not know what is in them.
#![expect(unsafe_code, reason = "mapping memory and pointing into it")]

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

const WORD_BYTES: usize = size_of::<u64>();

/// A mapping of a whole array map, until dropped; it outlives the map's descriptor.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is accessed through atomics only.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` gives out nothing but `&AtomicU64`, which are Sync.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `words` words of an array map that was made with BPF_F_MMAPABLE.
    pub(crate) fn of(map: impl AsFd, words: NonZeroUsize) -> io::Result<Self> {
        let bytes = words.checked_mul(NonZeroUsize::new(WORD_BYTES).ok_or(io::ErrorKind::InvalidInput)?);
        let bytes = bytes.ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: without an address the kernel picks a free range, so no memory that Rust knows of changes.
        let base = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { base: base.cast(), words: words.get() })
    }

    /// Address of the first word.
    pub(crate) fn base(&self) -> NonNull<AtomicU64> {
        self.base
    }

    /// `count` words from `first`; none if they do not all lie inside.
    pub(crate) fn words(&self, first: usize, count: usize) -> Option<&[AtomicU64]> {
        if first.checked_add(count)? > self.words {
            return None;
        }
        // SAFETY: the words lie inside the mapping, as was just compared, which is aligned to a page and stays until `self`
        // is dropped. The kernel changes them by word-sized accesses at most, which atomics allow for.
        Some(unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(first), count) })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping's own, and no reference into it outlives `self`.
        let unmapped = unsafe { munmap(self.base.cast(), self.words * WORD_BYTES) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours cannot be unmapped");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn words_lie_inside() {
        let file = tempfile().unwrap();
        file.set_len(64).unwrap();
        let mapping = Mapping::of(&file, NonZeroUsize::new(8).unwrap()).unwrap();
        mapping.words(7, 1).unwrap()[0].store(5, Ordering::Relaxed);
        assert_eq!(mapping.words(6, 2).unwrap()[1].load(Ordering::Relaxed), 5);
        assert!(mapping.words(8, 0).is_some_and(<[AtomicU64]>::is_empty));
        for (first, count) in [(8, 1), (7, 2), (0, 9), (usize::MAX, 1), (1, usize::MAX)] {
            assert!(mapping.words(first, count).is_none(), "{count} words from {first}");
        }
    }

    fn tempfile() -> io::Result<std::fs::File> {
        let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
        Ok(nix::sys::memfd::memfd_create("words", flags)?.into())
    }
}

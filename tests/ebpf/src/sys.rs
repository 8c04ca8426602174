//! The arrays of the kernel's programs in this process's memory.
//!
//! Owns the one mapping and its `unsafe`. Must not know what is in it.
#![expect(unsafe_code, reason = "mapping memory and pointing into it")]

use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicU64;

/// Maps the first `words` words of an array map that was made with BPF_F_MMAPABLE, for as long as the process lives.
///
/// # Errors
/// There are none, or the kernel refuses.
pub fn map_words(map: impl AsFd, words: usize) -> std::io::Result<&'static [AtomicU64]> {
    let bytes = words.checked_mul(size_of::<u64>()).and_then(NonZeroUsize::new).ok_or(std::io::ErrorKind::InvalidInput)?;
    // SAFETY: without an address the kernel picks a free range, so no memory that Rust knows of changes.
    let base = unsafe { mmap(None, bytes, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED, map, 0) }?;
    // SAFETY: the range is `words` words long, aligned to a page, and never unmapped. The programs change it by word-sized
    // accesses, which atomics allow for.
    Ok(unsafe { std::slice::from_raw_parts(base.cast::<AtomicU64>().as_ptr(), words) })
}

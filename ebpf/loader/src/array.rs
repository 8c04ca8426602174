//! An array map as memory: elements of words.
//!
//! Owns the arithmetic from elements to words. Must not know what an element means.

use crate::error::Error;
use crate::sys::Mapping;
use std::fmt;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

const WORD_BYTES: usize = size_of::<u64>();

/// An array map that kernel programs and this process both read and write, mapped until dropped.
///
/// It may outlive the [`crate::FastPath`] it came from; the programs then no longer look at it.
#[derive(Debug)]
pub struct MappedArray {
    mapping: Mapping,
    value_bytes: usize,
    entries: u32,
}

/// What a caller takes a map for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) value_bytes: usize,
    pub(crate) entries: u32,
}

impl MappedArray {
    pub(crate) fn map(name: &str, map: impl AsFd, shape: Shape) -> Result<Self, Error> {
        let Shape { value_bytes, entries } = shape;
        let failed = |source| Error::Mapping { name: name.into(), source };
        let words = words_of(value_bytes).checked_mul(entries as usize).and_then(NonZeroUsize::new);
        let words = words.ok_or_else(|| failed(std::io::ErrorKind::InvalidInput.into()))?;
        Ok(Self { mapping: Mapping::of(map, words).map_err(failed)?, value_bytes, entries })
    }

    /// The words of an element; none if there is no such element.
    #[must_use]
    pub fn element(&self, index: u32) -> Option<&[AtomicU64]> {
        let words = words_of(self.value_bytes);
        if index >= self.entries {
            return None;
        }
        self.mapping.words((index as usize).checked_mul(words)?, words)
    }

    /// All words, mapped for as long as the process lives.
    #[must_use]
    pub fn leak(self) -> &'static [AtomicU64] {
        let words = words_of(self.value_bytes) * self.entries as usize;
        let mapping: &'static Mapping = Box::leak(Box::new(self.mapping));
        mapping.words(0, words).unwrap_or_default()
    }

    /// One word of an element; none if there is no such word.
    #[must_use]
    pub fn word(&self, index: u32, word: usize) -> Option<&AtomicU64> {
        self.element(index)?.get(word)
    }

    /// Address of element 0; element `i` is `i * stride_bytes()` further on.
    ///
    /// For system calls that fill elements (`read`, io_uring); Rust code uses [`MappedArray::element`].
    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.mapping.base().cast()
    }

    /// Bytes from one element to the next.
    #[must_use]
    pub fn stride_bytes(&self) -> usize {
        words_of(self.value_bytes) * WORD_BYTES
    }

    /// Bytes of an element.
    #[must_use]
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    /// How many elements there are.
    #[must_use]
    pub fn entries(&self) -> u32 {
        self.entries
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} elements of {} bytes", self.entries, self.value_bytes)
    }
}

/// The kernel keeps elements of arrays aligned to eight bytes.
fn words_of(value_bytes: usize) -> usize {
    value_bytes.div_ceil(WORD_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn elements_do_not_overlap() {
        let flags = nix::sys::memfd::MFdFlags::MFD_CLOEXEC;
        let file: std::fs::File = nix::sys::memfd::memfd_create("array", flags).unwrap().into();
        file.set_len(48).unwrap();
        let array = MappedArray::map("x", &file, Shape { value_bytes: 12, entries: 3 }).unwrap();
        assert_eq!((array.stride_bytes(), array.value_bytes(), array.entries()), (16, 12, 3));
        for index in 0..3 {
            for word in 0..2 {
                array.word(index, word).unwrap().store(u64::from(index) * 2 + word as u64, Ordering::Relaxed);
            }
        }
        let read = |index| array.element(index).unwrap().iter().map(|word| word.load(Ordering::Relaxed)).collect::<Vec<_>>();
        assert_eq!([read(0), read(1), read(2)], [[0, 1], [2, 3], [4, 5]]);
        assert!(array.element(3).is_none());
        assert!(array.word(0, 2).is_none());
        assert!(MappedArray::map("x", &file, Shape { value_bytes: 8, entries: 0 }).is_err());
    }
}

//! `libdvm_alloc.so`: malloc and its family for programs over several hosts, loaded before the C library's by
//! `dvm-exec --page-allocator`.
//!
//! Owns the sizes and the arithmetic. Must not touch memory: that is for `sys`.
//!
//! A small block lies in a slab: 64 KiB, aligned to its size, of one thread and one size. No page ever holds blocks of two
//! threads, so that what threads allocate for themselves does not travel. A block freed by another thread goes onto its
//! slab's list of strangers, which the owner takes over when it needs blocks; the page is touched by both only then. Slabs of a
//! thread that has ended are taken over by the next one.

#[expect(unsafe_code, reason = "an allocator hands out raw memory")]
mod sys;

/// Bytes and alignment of a slab.
pub(crate) const SLAB_BYTES: usize = 64 * 1024;
/// What a slab keeps for itself at its start: one page, so that foreign frees do not touch a page of blocks.
pub(crate) const HEAD_BYTES: usize = 4096;
/// Longest small block; longer ones are mappings of their own.
pub(crate) const SMALL_BYTES_MAX: usize = 16 * 1024;
/// Alignment of every block.
pub(crate) const ALIGNMENT: usize = 16;
/// Sizes of small blocks: four a doubling.
pub(crate) const CLASSES: usize = 41;

/// The class of blocks that hold `bytes`, at most [`SMALL_BYTES_MAX`].
pub(crate) const fn class_of(bytes: usize) -> usize {
    let bytes = if bytes < ALIGNMENT { ALIGNMENT } else { bytes };
    if bytes <= 64 {
        return bytes.div_ceil(16) - 1;
    }
    let doubling = (usize::BITS - 1 - (bytes - 1).leading_zeros()) as usize;
    let quarter = ((bytes - 1) >> (doubling - 2)) & 3;
    4 + (doubling - 6) * 4 + quarter
}

/// Bytes of the blocks of a class.
pub(crate) const fn bytes_of(class: usize) -> usize {
    if class < 4 {
        return (class + 1) * 16;
    }
    let (doubling, quarter) = ((class - 4) / 4 + 6, (class - 4) % 4);
    (1 << doubling) + (quarter + 1) * (1 << (doubling - 2))
}

const _: () = assert!(class_of(SMALL_BYTES_MAX) < CLASSES && bytes_of(class_of(SMALL_BYTES_MAX)) == SMALL_BYTES_MAX);
const _: () = assert!(HEAD_BYTES + SMALL_BYTES_MAX <= SLAB_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_their_sizes() {
        for bytes in 0..=SMALL_BYTES_MAX {
            let class = class_of(bytes);
            assert!(bytes_of(class) >= bytes && bytes_of(class).is_multiple_of(ALIGNMENT), "{bytes}");
            assert!(class == 0 || bytes_of(class - 1) < bytes, "{bytes} fits a smaller class");
        }
    }

    #[test]
    fn blocks_of_threads_are_apart_and_survive_foreign_frees() {
        // This program's own allocator is the one under test: every Vec and Box of it goes through it.
        let (sender, receiver) = std::sync::mpsc::channel::<Vec<(usize, Vec<u8>)>>();
        let makers: Vec<_> = (0..4_usize)
            .map(|maker| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    for round in 0..300 {
                        let block = |at: usize| {
                            let bytes = (at * 37 + round * 11) % 20_000 + 1;
                            (maker * 60 + at, vec![(maker * 60 + at) as u8; bytes])
                        };
                        sender.send((0..60).map(block).collect()).expect("the other end waits");
                    }
                })
            })
            .collect();
        drop(sender);
        let mut pages = std::collections::BTreeMap::new();
        for blocks in receiver {
            for (stamp, block) in blocks {
                assert!(block.iter().all(|byte| *byte == stamp as u8), "a block was given twice");
                let (start, end) = (block.as_ptr() as usize, block.as_ptr() as usize + block.len());
                if block.len() <= SMALL_BYTES_MAX && makers.iter().any(|maker| !maker.is_finished()) {
                    for page in start / 4096..end.div_ceil(4096) {
                        assert_eq!(*pages.entry(page).or_insert(stamp / 60), stamp / 60, "page {page:#x} has two owners");
                    }
                }
            }
        }
        makers.into_iter().for_each(|maker| maker.join().expect("no maker panics"));
    }
}

//! Page buffers for bytes on their way between the network and a memfd.
//!
//! Owns aligned 4 KiB buffers, named by [`PageBuffer`]. Must not know which page a buffer is for.

use dsm_wire::PAGE_BYTES;

use crate::content::PageBytes;
use crate::limits::POOL_CHUNK_PAGES;

/// A bounded set of page buffers with a free list; it allocates as it is used, and never gives memory back.
#[derive(Debug)]
pub struct PagePool {
    chunks: Vec<Box<[Frame]>>,
    free: Vec<PageBuffer>,
    is_taken: Vec<bool>,
    count_max: u32,
}

/// The name of one buffer of a pool. Copies name the same buffer; whoever gave it back must not use it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageBuffer(pub u32);

#[derive(Clone, Debug)]
#[repr(C, align(4096))]
struct Frame(PageBytes);

impl PagePool {
    /// A pool of at most `count_max` buffers. Allocates nothing yet.
    #[must_use]
    pub const fn new(count_max: u32) -> Self {
        Self { chunks: Vec::new(), free: Vec::new(), is_taken: Vec::new(), count_max }
    }

    /// Takes a free buffer, whose bytes are whatever they were; `None` when all are taken.
    #[must_use]
    pub fn take(&mut self) -> Option<PageBuffer> {
        if self.free.is_empty() {
            self.grow();
        }
        let buffer = self.free.pop()?;
        self.is_taken[buffer.0 as usize] = true;
        Some(buffer)
    }

    /// Gives `buffer` back.
    ///
    /// # Panics
    /// When it is not taken: two owners of one buffer would mix two pages.
    pub fn give_back(&mut self, buffer: PageBuffer) {
        let taken = &mut self.is_taken[buffer.0 as usize];
        assert!(*taken, "page buffer {} given back twice", buffer.0);
        *taken = false;
        self.free.push(buffer);
    }

    /// The bytes of `buffer`.
    ///
    /// # Panics
    /// When it is not taken.
    #[must_use]
    pub fn bytes(&self, buffer: PageBuffer) -> &PageBytes {
        assert!(self.is_taken[buffer.0 as usize], "page buffer {} read while free", buffer.0);
        let (chunk, slot) = Self::place(buffer);
        &self.chunks[chunk][slot].0
    }

    /// The bytes of `buffer`, to write.
    ///
    /// # Panics
    /// When it is not taken.
    #[must_use]
    pub fn bytes_mut(&mut self, buffer: PageBuffer) -> &mut PageBytes {
        assert!(self.is_taken[buffer.0 as usize], "page buffer {} written while free", buffer.0);
        let (chunk, slot) = Self::place(buffer);
        &mut self.chunks[chunk][slot].0
    }

    /// Buffers taken now.
    #[must_use]
    pub fn taken_count(&self) -> usize {
        self.is_taken.len() - self.free.len()
    }

    /// Buffers that can still be taken.
    #[must_use]
    pub fn free_count(&self) -> usize {
        self.count_max as usize - self.taken_count()
    }

    const fn place(buffer: PageBuffer) -> (usize, usize) {
        (buffer.0 as usize / POOL_CHUNK_PAGES, buffer.0 as usize % POOL_CHUNK_PAGES)
    }

    fn grow(&mut self) {
        let first = self.is_taken.len();
        let count = POOL_CHUNK_PAGES.min(self.count_max as usize - first);
        if count == 0 {
            return;
        }
        self.chunks.push(vec![Frame([0; PAGE_BYTES]); count].into_boxed_slice());
        self.is_taken.resize(first + count, false);
        self.free.extend((first..first + count).rev().map(|index| PageBuffer(index as u32)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_and_reused() {
        let mut pool = PagePool::new(100);
        let buffers: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!((buffers.len(), pool.taken_count(), pool.free_count()), (100, 100, 0));
        for (index, buffer) in buffers.iter().enumerate() {
            assert_eq!(buffer.0 as usize, index);
            pool.bytes_mut(*buffer).fill(index as u8);
        }
        assert!(buffers.iter().enumerate().all(|(index, buffer)| pool.bytes(*buffer) == &[index as u8; PAGE_BYTES]));
        pool.give_back(buffers[7]);
        assert_eq!(pool.free_count(), 1);
        assert_eq!(pool.take(), Some(buffers[7]));
    }

    #[test]
    fn buffers_are_page_aligned() {
        let mut pool = PagePool::new(3);
        let buffer = pool.take().unwrap();
        assert!(pool.bytes(buffer).as_ptr().addr().is_multiple_of(PAGE_BYTES));
    }

    #[test]
    #[should_panic(expected = "given back twice")]
    fn double_give_back_is_refused() {
        let mut pool = PagePool::new(3);
        let buffer = pool.take().unwrap();
        pool.give_back(buffer);
        pool.give_back(buffer);
    }
}

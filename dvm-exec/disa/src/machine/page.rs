//! A page as values: copies share what they have not changed.
//!
//! Owns blocks and the comparison by words. Must not know addresses beyond one page.

use crate::map::{PAGE_BYTES, WORD_BYTES};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes of the unit that copies share.
const BLOCK_BYTES: usize = 512;
const BLOCKS: usize = PAGE_BYTES as usize / BLOCK_BYTES;
/// Words of a page.
pub const WORDS: usize = (PAGE_BYTES / WORD_BYTES) as usize;
const WORD: usize = WORD_BYTES as usize;

/// 4096 bytes.
#[derive(Clone, Debug)]
pub struct Page(Form);

#[derive(Clone, Debug)]
enum Form {
    /// Blocks that were never written are zero and take no room.
    Blocks([Option<Arc<[u8; BLOCK_BYTES]>>; BLOCKS]),
    /// The bytes from this place on of many that lie behind each other: there are as many.
    Part(Arc<[u8]>, usize),
}

impl Default for Page {
    fn default() -> Self {
        Self(Form::Blocks(Default::default()))
    }
}

impl Page {
    /// The page from byte `at` on of many that lie behind each other; `None`: there are not as many.
    #[must_use]
    pub fn part(of: &Arc<[u8]>, at: usize) -> Option<Self> {
        of.get(at..at.checked_add(PAGE_BYTES as usize)?)?;
        Some(Self(Form::Part(Arc::clone(of), at)))
    }

    /// Of which bytes that lie behind each other this is the part from where on.
    #[must_use]
    pub const fn as_part(&self) -> Option<(&Arc<[u8]>, usize)> {
        match &self.0 {
            Form::Part(of, at) => Some((of, *at)),
            Form::Blocks(_) => None,
        }
    }

    fn block(&self, index: usize) -> &[u8; BLOCK_BYTES] {
        match &self.0 {
            Form::Blocks(blocks) => blocks[index].as_deref().unwrap_or(&[0; BLOCK_BYTES]),
            Form::Part(of, at) => of[at + index * BLOCK_BYTES..].first_chunk().expect("a part has all bytes of a page"),
        }
    }

    fn blocks(&mut self) -> &mut [Option<Arc<[u8; BLOCK_BYTES]>>; BLOCKS] {
        if matches!(self.0, Form::Part(..)) {
            self.0 = Form::Blocks(std::array::from_fn(|index| Some(Arc::new(*self.block(index)))));
        }
        match &mut self.0 {
            Form::Blocks(blocks) => blocks,
            Form::Part(..) => unreachable!("it has just been made blocks"),
        }
    }

    /// Reads bytes that all lie on the page.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) {
        let mut done = 0;
        while done < bytes.len() {
            let (block, at) = ((offset + done) / BLOCK_BYTES, (offset + done) % BLOCK_BYTES);
            let count = (bytes.len() - done).min(BLOCK_BYTES - at);
            bytes[done..done + count].copy_from_slice(&self.block(block)[at..at + count]);
            done += count;
        }
    }

    /// Writes bytes that all lie on the page.
    pub fn write(&mut self, offset: usize, bytes: &[u8]) {
        let blocks = self.blocks();
        let mut done = 0;
        while done < bytes.len() {
            let (block, at) = ((offset + done) / BLOCK_BYTES, (offset + done) % BLOCK_BYTES);
            let count = (bytes.len() - done).min(BLOCK_BYTES - at);
            let to = blocks[block].get_or_insert_with(|| Arc::new([0; BLOCK_BYTES]));
            Arc::make_mut(to)[at..at + count].copy_from_slice(&bytes[done..done + count]);
            done += count;
        }
    }

    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> [u8; PAGE_BYTES as usize] {
        let mut bytes = [0; PAGE_BYTES as usize];
        self.read(0, &mut bytes);
        bytes
    }

    /// A copy of all bytes that can be changed in place.
    #[must_use]
    pub fn cells(&self) -> Rc<[Cell<u8>]> {
        self.bytes().map(Cell::new).into()
    }

    /// A page of these bytes, which shares what is the same with this one.
    #[must_use]
    pub fn with(&self, bytes: &[Cell<u8>]) -> Self {
        let mut page = self.clone();
        for (index, new) in bytes.chunks_exact(BLOCK_BYTES).enumerate() {
            let new: [u8; BLOCK_BYTES] = std::array::from_fn(|at| new[at].get());
            if *self.block(index) != new {
                page.blocks()[index] = Some(Arc::new(new));
            }
        }
        page
    }

    /// One word.
    #[must_use]
    pub fn word(&self, index: usize) -> u64 {
        let mut bytes = [0; WORD];
        self.read(index * WORD, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// The words in which this page differs from another.
    #[must_use]
    pub fn changed(&self, other: &Self) -> Words {
        let mut words = Words::default();
        for block in 0..BLOCKS {
            let is_shared = match (&self.0, &other.0) {
                (Form::Blocks(own), Form::Blocks(others)) => match (&own[block], &others[block]) {
                    (Some(one), Some(two)) => Arc::ptr_eq(one, two),
                    (None, None) => true,
                    _ => false,
                },
                (Form::Part(of, at), Form::Part(others, other_at)) => Arc::ptr_eq(of, others) && at == other_at,
                _ => false,
            };
            if is_shared {
                continue;
            }
            let [one, two] = [self, other].map(|page| page.block(block).as_chunks::<WORD>().0);
            let first = block * BLOCK_BYTES / WORD;
            let differing = (first..).zip(one.iter().zip(two)).filter(|(_, (one, two))| one != two);
            differing.for_each(|(word, _)| words.insert(word));
        }
        words
    }
}

/// Some of the words of a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Words([u64; WORDS / 64]);

impl Words {
    /// All of them.
    pub const ALL: Self = Self([u64::MAX; WORDS / 64]);

    /// Those from `first` to `last`, both below the number of words.
    #[must_use]
    pub fn span(first: u64, last: u64) -> Self {
        let mut words = Self::default();
        for (lane, bits) in (0..).zip(&mut words.0) {
            let (begin, end) = (first.max(lane * 64), last.min(lane * 64 + 63));
            if begin <= end {
                *bits = u64::MAX << (begin % 64) & u64::MAX >> (63 - end % 64);
            }
        }
        words
    }

    /// Adds one.
    pub const fn insert(&mut self, word: usize) {
        self.0[word / 64] |= 1 << (word % 64);
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether one is in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        !self.common(other).is_empty()
    }

    /// Those in both.
    #[must_use]
    pub fn common(&self, other: &Self) -> Self {
        let mut words = *self;
        words.0.iter_mut().zip(&other.0).for_each(|(one, two)| *one &= two);
        words
    }

    /// Adds all of another.
    pub fn extend(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(one, two)| *one |= two);
    }

    /// Takes all of another away.
    pub fn remove(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(one, two)| *one &= !two);
    }

    /// Them, in order.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.0.into_iter().enumerate().flat_map(|(lane, mut bits)| {
            std::iter::from_fn(move || {
                let bit = bits.trailing_zeros();
                bits &= bits.checked_sub(1)?;
                Some(lane * 64 + bit as usize)
            })
        })
    }
}

//! What a node keeps of an extent: its home, its pages' local words, and at home the directory.
//!
//! Owns the compact form of an extent that only its home uses, and the split into words. Must not know frames.
//!
//! ```text
//!   Unknown --Located(other)--> Remote(home)                       pages: I, S, M, P with eras
//!      |                           |
//!      |                           +---- home dies ----> Lost
//!      +------Located(me)------> Whole <--merge-- Split             every page's directory word is here
//!                                  +-----split------^
//! ```

use crate::face::Frame;
use crate::plant;
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::sync::atomic::{AtomicU64, Ordering};
use dsm_fast::{DIRECTORY_WORDS, Directory, Sharers, State, Word};
use dsm_wire::{Era, NodeId, PAGES_PER_EXTENT};

const PAGES: usize = PAGES_PER_EXTENT as usize;
const WORDS: usize = PAGES / 64;
/// log2 of the pages of one extent: the ramp's end.
pub const RAMP_MAX: u8 = PAGES.ilog2() as u8;

/// What this node may do with a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LocalState {
    /// Nothing: not mapped.
    #[default]
    Invalid,
    /// Read: mapped read-only.
    Shared,
    /// Read and write.
    Modified,
    /// Nothing ever again, until a discard: poisoned.
    Poisoned,
}

/// A page as this node holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Local {
    /// Rights.
    pub state: LocalState,
    /// Highest era this node knows of; of its copy, if it has one.
    pub era: Era,
}

/// 512 bits, one a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageSet([u64; WORDS]);

impl PageSet {
    pub const fn contains(&self, index: usize) -> bool {
        self.0[index / 64] & 1 << (index % 64) != 0
    }

    pub fn insert_run(&mut self, first: usize, count: usize) {
        for index in first..first + count {
            self.0[index / 64] |= 1 << (index % 64);
        }
    }

    pub fn remove_run(&mut self, first: usize, count: usize) {
        for index in first..first + count {
            self.0[index / 64] &= !(1 << (index % 64));
        }
    }

    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The first and last member within `first..first + count`, as a run.
    pub fn span_within(&self, first: usize, count: usize) -> Option<(usize, usize)> {
        let low = (first..first + count).find(|index| self.contains(*index))?;
        let high = (low..first + count).rev().find(|index| self.contains(*index))?;
        Some((low, high - low + 1))
    }
}

/// An extent that nobody but its home has used: page `i` is here if `present` has it, and zero if not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whole {
    pub present: PageSet,
    /// log2 of the pages the next first touch installs.
    pub ramp: u8,
    /// Highest era any node may know of any of the pages.
    pub base: Era,
}

impl Whole {
    /// The absent pages to install around `index`: an aligned window of 2^ramp, and at most 2^`ramp_max`, cut to the absent run.
    pub fn first_touch_run(&self, index: usize, ramp_max: u8) -> (usize, usize) {
        let window = 1 << self.ramp.min(ramp_max).min(RAMP_MAX);
        let start = index & !(window - 1);
        let low = (start..index).rev().find(|page| self.present.contains(*page)).map_or(start, |page| page + 1);
        let end = start + window;
        let high = (index..end).find(|page| self.present.contains(*page)).unwrap_or(end);
        (low, high - low)
    }
}

/// The pages' words of an extent that several nodes use.
#[derive(Debug)]
pub struct Words {
    locals: [Local; PAGES],
    /// Shared pages that were Modified in their era: readers may be sent here.
    pub provides: PageSet,
}

impl Words {
    pub fn local(&self, index: usize) -> Local {
        self.locals[index]
    }

    pub fn local_mut(&mut self, index: usize) -> &mut Local {
        &mut self.locals[index]
    }
}

/// The directory entries of an extent, as memory: first the words, then the sharers.
pub type DirectoryWords = [AtomicU64; DIRECTORY_WORDS];

/// Where the entries of an extent are.
#[derive(Debug)]
pub enum DirectoryMemory {
    /// With the node.
    Own(Box<DirectoryWords>),
    /// Where the kernel programs see, and change, them too.
    Shared(&'static DirectoryWords),
}

impl DirectoryMemory {
    fn words(&self) -> &DirectoryWords {
        match self {
            DirectoryMemory::Own(words) => words,
            DirectoryMemory::Shared(words) => {
                plant::pause();
                words
            }
        }
    }
}

impl Directory for DirectoryMemory {
    fn word(&self, slot: usize) -> Word {
        self.words().word(slot)
    }

    fn sharers(&self, slot: usize) -> Sharers {
        self.words().sharers(slot)
    }

    fn exchange_word(&self, slot: usize, current: Word, new: Word) -> bool {
        self.words().exchange_word(slot, current, new)
    }

    fn exchange_sharers(&self, slot: usize, current: Sharers, new: Sharers) -> bool {
        self.words().exchange_sharers(slot, current, new)
    }
}

/// Where an extent's directory is, and what of it is here.
#[derive(Debug)]
pub enum Form {
    /// The home is not known; no page is here.
    Unknown,
    /// Home is here, and nobody else ever asked.
    Whole(Box<Whole>),
    /// Home is here.
    Split(Box<Words>, DirectoryMemory),
    /// Home is that node.
    Remote(NodeId, Box<Words>),
    /// Home is dead, with the directory.
    Lost,
}

/// All a node keeps of an extent.
#[derive(Debug)]
pub struct Extent {
    pub form: Form,
    /// Frames that wait for an operation on the whole extent.
    pub inbox: VecDeque<Frame>,
    /// Pages that came since the evictor last passed.
    pub young: PageSet,
    /// Sourced pages that are here and take no memory yet: nothing has read them since they became this node's.
    pub unread: PageSet,
}

impl Extent {
    pub const fn unknown() -> Self {
        Self { form: Form::Unknown, inbox: VecDeque::new(), young: PageSet([0; WORDS]), unread: PageSet([0; WORDS]) }
    }

    /// Makes `home` the home; only from Unknown.
    pub fn locate(&mut self, home: NodeId, me: NodeId, ramp: u8) {
        assert!(matches!(self.form, Form::Unknown), "an extent gets its home once");
        self.form = if home == me {
            Form::Whole(Box::new(Whole { ramp, ..Whole::default() }))
        } else {
            Form::Remote(home, Box::new(Words { locals: [Local::default(); PAGES], provides: PageSet::default() }))
        };
    }

    /// Whole becomes Split: present pages are owned by `me`, the others fresh, all of the era after `base`.
    pub fn split(&mut self, me: NodeId, is_wide: bool) {
        let Form::Whole(whole) = &self.form else { return };
        let era = Era(whole.base.0.saturating_add(1));
        let local_of = |index| {
            if whole.present.contains(index) {
                Local { state: LocalState::Modified, era }
            } else {
                Local { state: LocalState::Invalid, era: whole.base }
            }
        };
        let word_of = |index| {
            let is_present = index < PAGES && whole.present.contains(index);
            let word = if is_present { Word::owned(me, era, is_wide) } else { Word::fresh(era, is_wide) };
            AtomicU64::new(if index < PAGES { word.0 } else { 0 })
        };
        let words = Box::new(Words { locals: core::array::from_fn(local_of), provides: PageSet::default() });
        self.form = Form::Split(words, DirectoryMemory::Own(Box::new(core::array::from_fn(word_of))));
    }

    /// Moves the directory entries to `memory`. Returns false, and changes nothing, if there are none or they are shared already.
    pub fn share(&mut self, memory: &'static DirectoryWords) -> bool {
        let Form::Split(_, directory @ DirectoryMemory::Own(_)) = &mut self.form else { return false };
        for (new, old) in memory.iter().zip(directory.words()) {
            new.store(old.load(Ordering::SeqCst), Ordering::SeqCst);
        }
        *directory = DirectoryMemory::Shared(memory);
        true
    }

    /// Split becomes Whole if nobody has any page. Returns whether it did.
    pub fn merge(&mut self) -> bool {
        let Form::Split(words, directory) = &self.form else { return false };
        let is_free = |index: &usize| {
            let word = directory.word(*index);
            word.state() == State::Fresh && !word.is_busy() && words.local(*index).state == LocalState::Invalid
        };
        let is_mergeable = (0..PAGES).all(|index| is_free(&index));
        if is_mergeable {
            let base = (0..PAGES).map(|index| directory.word(index).era()).max().unwrap_or_default();
            self.form = Form::Whole(Box::new(Whole { base, ..Whole::default() }));
        }
        is_mergeable
    }

    pub fn words(&self) -> Option<&Words> {
        match &self.form {
            Form::Split(words, _) | Form::Remote(_, words) => Some(words),
            Form::Unknown | Form::Whole(_) | Form::Lost => None,
        }
    }

    pub fn words_mut(&mut self) -> Option<&mut Words> {
        match &mut self.form {
            Form::Split(words, _) | Form::Remote(_, words) => Some(words),
            Form::Unknown | Form::Whole(_) | Form::Lost => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ramp_never_covers_a_present_page() {
        let mut whole = Whole { ramp: 4, ..Whole::default() };
        whole.present.insert_run(3, 2);
        whole.present.insert_run(12, 1);
        assert_eq!(whole.first_touch_run(8, RAMP_MAX), (5, 7));
        assert_eq!(whole.first_touch_run(0, RAMP_MAX), (0, 3));
        assert_eq!(whole.first_touch_run(15, RAMP_MAX), (13, 3));
        assert_eq!(whole.first_touch_run(17, RAMP_MAX), (16, 16));
    }

    #[test]
    fn the_ramp_ends_with_the_extent() {
        let whole = Whole { ramp: RAMP_MAX, ..Whole::default() };
        assert_eq!(whole.first_touch_run(511, u8::MAX), (0, 512));
        assert_eq!(whole.first_touch_run(511, 2), (508, 4));
    }

    #[test]
    fn a_span_goes_from_first_to_last_member() {
        let mut pages = PageSet::default();
        pages.insert_run(70, 3);
        pages.insert_run(100, 1);
        assert_eq!(pages.span_within(0, 512), Some((70, 31)));
        assert_eq!(pages.span_within(73, 27), None);
        pages.remove_run(0, 101);
        assert_eq!(pages.len(), 0);
    }
}

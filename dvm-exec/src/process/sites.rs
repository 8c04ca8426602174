//! Who made which memory: threads' stacks and anonymous mappings, remembered for `--hot-pages`.
//!
//! Owns those notes and their maximum. Must not touch memory; what is mapped now is for [`super::vma`] to say.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Mappings, and threads, remembered; of more the oldest addresses are forgotten.
const NOTES_MAX: usize = 65_536;

/// The notes; empty for a job that does not ask.
#[derive(Debug)]
pub struct Sites {
    is_on: bool,
    notes: Mutex<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    /// First address, bytes and maker of each mapping.
    mappings: BTreeMap<u64, Mapping>,
    /// Host, and address just above the stack, of each thread.
    threads: BTreeMap<i32, (usize, u64)>,
}

/// A mapping as it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Its first address.
    pub start: u64,
    /// Its length.
    pub bytes: u64,
    /// The thread that made it.
    pub tid: i32,
}

impl Sites {
    /// No notes yet, and none later unless `is_on`.
    pub fn new(is_on: bool) -> Self {
        Self { is_on, notes: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody changes the notes while this is kept; for making a copy of the process.
    pub fn freeze(&self) -> impl Drop {
        self.lock()
    }

    /// Thread `tid` made a memory call that returned `value`.
    pub fn note_call(&self, tid: i32, number: i64, arguments: &[u64; 6], value: i64) {
        let is_anonymous = arguments[3] & libc::MAP_ANONYMOUS as u64 != 0;
        if !self.is_on || number != libc::SYS_mmap || value <= 0 || !is_anonymous {
            return;
        }
        let mut notes = self.lock();
        if notes.mappings.len() >= NOTES_MAX {
            notes.mappings.pop_first();
        }
        let start = value as u64;
        notes.mappings.insert(start, Mapping { start, bytes: arguments[1], tid });
    }

    /// Thread `tid` starts on `host` with the stack that ends at `stack_top`.
    pub fn note_thread(&self, tid: i32, host: usize, stack_top: u64) {
        if !self.is_on {
            return;
        }
        let mut notes = self.lock();
        if notes.threads.len() >= NOTES_MAX {
            notes.threads.pop_first();
        }
        notes.threads.insert(tid, (host, stack_top));
    }

    /// The last mapping made that covers `address`.
    pub fn mapping(&self, address: u64) -> Option<Mapping> {
        let notes = self.lock();
        let (_, mapping) = notes.mappings.range(..=address).next_back()?;
        (address - mapping.start < mapping.bytes).then_some(*mapping)
    }

    /// The last thread with its stack's top in these addresses, just above `address`.
    pub fn thread_with_stack(&self, mapping: &Mapping) -> Option<i32> {
        let end = mapping.start + mapping.bytes;
        let notes = self.lock();
        let found = notes.threads.iter().rev().find(|(_, (_, top))| *top > mapping.start && *top <= end);
        found.map(|(tid, _)| *tid)
    }

    /// Where thread `tid` was started; the first thread is at the root.
    pub fn host_of(&self, tid: i32) -> usize {
        self.lock().threads.get(&tid).map_or(0, |(host, _)| *host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_and_stacks_are_found() {
        let sites = Sites::new(true);
        let anonymous = [0, 0x9000, 3, libc::MAP_ANONYMOUS as u64 | 2, u64::MAX, 0];
        sites.note_call(5, libc::SYS_mmap, &anonymous, 0x10_0000);
        sites.note_call(5, libc::SYS_mmap, &anonymous, -12);
        sites.note_call(5, libc::SYS_munmap, &anonymous, 0x20_0000);
        let mapping = Mapping { start: 0x10_0000, bytes: 0x9000, tid: 5 };
        assert_eq!(sites.mapping(0x10_8fff), Some(mapping));
        assert_eq!((sites.mapping(0x10_9000), sites.mapping(0x0f_ffff), sites.mapping(0x20_0000)), (None, None, None));
        assert_eq!(sites.thread_with_stack(&mapping), None);
        sites.note_thread(6, 1, 0x10_8e00);
        assert_eq!(sites.thread_with_stack(&mapping), Some(6));
        assert_eq!((sites.host_of(6), sites.host_of(5)), (1, 0));
    }
}

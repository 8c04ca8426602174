//! Maps and the clock.
//!
//! Owns pointers into maps and the atomic accesses to their words. Must not know what a word means.

use crate::maps::Records;
use aya_ebpf::btf_maps::{HashMap, PerCpuArray};
use aya_ebpf::helpers::bpf_ktime_get_ns;
use core::intrinsics::{AtomicOrdering as Order, atomic_cxchg, atomic_xadd};
use dsm_fast::Cell;

/// Adds one to this processor's counter.
#[inline(always)]
pub fn count<const COUNT: usize>(counters: &PerCpuArray<u64, COUNT>, index: u32) {
    if let Some(count) = counters.get_ptr_mut(index) {
        // SAFETY: the map gave a valid pointer to this processor's own element.
        unsafe { *count += 1 };
    }
}

/// This processor's own element at `index`.
#[inline(always)]
pub fn scratch<T, const ELEMENTS: usize>(map: &PerCpuArray<T, ELEMENTS>, index: u32) -> Option<&'static mut T> {
    // SAFETY: the element belongs to this processor, on which no other program of the kind runs before this one has ended; each
    // program has an index and asks once.
    unsafe { map.get_ptr_mut(index)?.as_mut() }
}

/// A word in a map, inside it.
#[derive(Clone, Copy)]
pub struct Word(*mut u64);

/// The word of a record; none beyond the end.
#[inline(always)]
pub fn word<const WORDS: usize, const COUNT: usize>(map: &Records<WORDS, COUNT>, cell: Cell) -> Option<Word> {
    let record = map.get_ptr_mut(cell.record)?;
    if cell.word >= WORDS {
        return None;
    }
    // SAFETY: the record has WORDS words, and this is one of them.
    Some(Word(unsafe { record.cast::<u64>().add(cell.word) }))
}

impl Word {
    /// Reads it, before everything that comes after.
    #[inline(always)]
    pub fn load(self) -> u64 {
        // SAFETY: the word lies in a map, which stays as long as the program; volatile, since others change it. The JIT keeps the
        // order of reads, and so do the processors these agents run on.
        unsafe { self.0.read_volatile() }
    }

    /// Stores `new` if `current` is there; says whether it was.
    #[inline(always)]
    pub fn exchange(self, current: u64, new: u64) -> bool {
        // SAFETY: as above; others change the word atomically, too.
        let (before, _) = unsafe { atomic_cxchg::<u64, { Order::SeqCst }, { Order::SeqCst }>(self.0, current, new) };
        before == current
    }

    /// Adds `amount`; gives what was there before.
    #[inline(always)]
    pub fn add(self, amount: u64) -> u64 {
        // SAFETY: as above.
        unsafe { atomic_xadd::<u64, u64, { Order::SeqCst }>(self.0, amount) }
    }
}

/// The value of `key`.
#[inline(always)]
pub fn find<K, V: Copy, const COUNT: usize>(map: &HashMap<K, V, COUNT>, key: &K) -> Option<V> {
    // SAFETY: the value is copied out at once; a word that the agent replaces meanwhile is read before or after.
    unsafe { map.get(key) }.copied()
}

/// Nanoseconds of CLOCK_MONOTONIC.
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: takes nothing.
    unsafe { bpf_ktime_get_ns() }
}

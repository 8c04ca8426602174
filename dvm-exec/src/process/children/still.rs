//! What keeps the program's memory as it is, while a forked child gets its picture of it.
//!
//! Owns the guard that ends it, and the memory of which pages children touch. Must not know how the child gets its pages.
//!
//! A fork of the kernel copies page tables while nobody can change them. Here a child gets its pages one after the other: all at once,
//! or as it touches them. In both cases every page must stay as it was copied until the last one is, on all hosts, or the child finds a
//! list half changed. So whoever would write such a page waits, and memory calls wait, too, since the map goes with the pages.

use crate::process::memory::Space;
use crate::process::vma::{Found, PAGE_BYTES, Protection};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Pages that are given to a child before it touches them.
const USUAL_MAX: usize = 64;
/// Pages that children have touched, the latest first: what glibc's fork and the way to execve need are mostly the same.
static USUAL: Mutex<VecDeque<u64>> = Mutex::new(VecDeque::new());

/// While it lives, no memory call of the program begins, and what was pinned or stopped stays as it is. Only in the parent.
pub struct Still<'a> {
    space: &'a Space,
    _changes: MutexGuard<'a, ()>,
    has_pins: AtomicBool,
    has_stopped: AtomicBool,
}

impl<'a> Still<'a> {
    /// With memory calls held back already.
    pub const fn new(space: &'a Space, changes: MutexGuard<'a, ()>) -> Self {
        Self { space, _changes: changes, has_pins: AtomicBool::new(false), has_stopped: AtomicBool::new(false) }
    }

    /// Keeps the pages at `addresses` as they are; returns when they are at rest.
    ///
    /// # Errors
    /// The agent's reason.
    pub fn pin(&self, addresses: &[u64]) -> Result<(), String> {
        self.has_pins.store(true, Ordering::Relaxed);
        self.space.pin(addresses)
    }

    /// Keeps the page at `address`, which a child touches.
    ///
    /// # Errors
    /// The agent's reason.
    pub fn pin_touched(&self, address: u64) -> Result<(), String> {
        let mut usual = usual();
        usual.retain(|other| *other != address);
        usual.push_front(address);
        usual.truncate(USUAL_MAX);
        drop(usual);
        self.pin(&[address])
    }

    /// Keeps the pages that children mostly touch, and those of the thread that forks, `own`; returns which they are. They are pages that
    /// the program may read.
    ///
    /// # Errors
    /// The agent's reason.
    pub fn pin_usual(&self, own: [u64; 4]) -> Result<Vec<u64>, String> {
        let own = own.map(|address| address & !(PAGE_BYTES - 1));
        let mut addresses: Vec<u64> = usual().iter().copied().chain(own).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let map = self.space.map();
        addresses.retain(|address| {
            let found = map.look(*address);
            found.is_some_and(|found| found.found == Found::Area && found.protection.contains(Protection::READ))
        });
        drop(map);
        if !addresses.is_empty() {
            self.pin(&addresses)?;
        }
        Ok(addresses)
    }

    /// Keeps everything as it is, of a program at home; returns when nobody writes.
    ///
    /// # Errors
    /// The agent's reason.
    pub fn stop_writers(&self) -> Result<(), String> {
        self.has_stopped.store(true, Ordering::Relaxed);
        self.space.stop_writers()
    }
}

impl Drop for Still<'_> {
    fn drop(&mut self) {
        if *self.has_pins.get_mut() {
            self.space.unpin();
        }
        if *self.has_stopped.get_mut() {
            self.space.let_write();
        }
    }
}

fn usual() -> MutexGuard<'static, VecDeque<u64>> {
    USUAL.lock().unwrap_or_else(PoisonError::into_inner)
}

//! A place where processors wait for each other.
//!
//! Owns the counts.

use core::hint::spin_loop;
use core::sync::atomic::{AtomicUsize, Ordering};

/// A barrier for a fixed number of processors, again and again.
#[repr(C, align(4096))]
#[derive(Debug, Default)]
pub struct Barrier {
    arrived: AtomicUsize,
    round: AtomicUsize,
}

impl Barrier {
    /// A barrier nobody waits at.
    #[must_use]
    pub const fn new() -> Self {
        Self { arrived: AtomicUsize::new(0), round: AtomicUsize::new(0) }
    }

    /// Waits until `count` processors have come.
    pub fn wait(&self, count: usize) {
        let round = self.round.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == count {
            self.arrived.store(0, Ordering::Relaxed);
            self.round.store(round + 1, Ordering::Release);
            return;
        }
        while self.round.load(Ordering::Acquire) == round {
            spin_loop();
        }
    }
}

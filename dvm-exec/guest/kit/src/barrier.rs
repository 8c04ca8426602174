//! A place where processors wait for each other.
//!
//! Owns the counts. Must not know which hosts the processors are on.
//!
//! Who comes writes one page; who waits reads another one, which changes once: so nobody who waits takes a page from those who still
//! come. After a while it halts, since a processor that spins takes time from whatever else its host has to do.

use crate::interrupt::{self, WAKE};
use crate::{Page, processor, time};
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How long it spins, in microseconds: about what it costs to halt and to be woken from another host.
const SPIN_US: u64 = 1000;
/// Words of a set of processors.
const WORDS: usize = 4;

/// A barrier for a fixed number of processors, again and again. In interrupt handlers and where interrupts are off it only spins.
pub struct Barrier {
    come: Page<Come>,
    round: Page<AtomicUsize>,
}

struct Come {
    count: AtomicUsize,
    /// Who halts.
    halted: [AtomicU64; WORDS],
}

impl Barrier {
    /// A barrier nobody waits at.
    #[must_use]
    pub const fn new() -> Self {
        let come = Come { count: AtomicUsize::new(0), halted: [const { AtomicU64::new(0) }; WORDS] };
        Self { come: Page(come), round: Page(AtomicUsize::new(0)) }
    }

    /// Waits until `count` processors have come.
    pub fn wait(&self, count: usize) {
        let round = self.round.load(Ordering::Acquire);
        if self.come.count.fetch_add(1, Ordering::AcqRel) + 1 == count {
            self.come.count.store(0, Ordering::Relaxed);
            // Before it looks who halts, as those look again after they have said so.
            self.round.store(round + 1, Ordering::SeqCst);
            return self.wake();
        }
        let is_over = || self.round.load(Ordering::SeqCst) != round;
        let end = time::now() + time::ticks(SPIN_US);
        while !is_over() {
            if time::now() > end && interrupt::is_enabled() {
                return self.halt_until(is_over);
            }
            spin_loop();
        }
    }

    /// Who ends a round may find, and wake, those that halt in the next one already: they say again that they halt.
    fn halt_until(&self, is_over: impl Fn() -> bool) {
        let cpu = processor::number();
        let (halted, bit) = (&self.come.halted[cpu / 64], 1 << (cpu % 64));
        interrupt::halt_until(|| {
            halted.fetch_or(bit, Ordering::SeqCst);
            is_over()
        });
        halted.fetch_and(!bit, Ordering::SeqCst);
    }

    fn wake(&self) {
        for (word, halted) in (0..).zip(&self.come.halted) {
            let mut left = if halted.load(Ordering::SeqCst) == 0 { 0 } else { halted.swap(0, Ordering::SeqCst) };
            while left != 0 {
                interrupt::send(word * 64 + left.trailing_zeros() as usize, WAKE);
                left &= left - 1;
            }
        }
    }
}

impl Default for Barrier {
    fn default() -> Self {
        Self::new()
    }
}

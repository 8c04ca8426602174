//! The guest's time on this host.
//!
//! Owns what is made of the host's clocks, and the sleep of the thread that looks after timers. Must not know timers.

use super::rate::Counter;
use crate::sys::vm::timestamp;
use dvm_apic::{Deadline, Now};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long the clock's thread sleeps when no timer runs.
pub const IDLE: Duration = Duration::from_secs(3600);
/// [`Clock::held_at_ns`] of a clock that goes on.
const GOES_ON: u64 = u64::MAX;

/// The clock.
pub struct Clock {
    start: Instant,
    /// When it was held, since the start.
    held_at_ns: AtomicU64,
    /// How long it was held before.
    held_ns: AtomicU64,
    /// The guest's time-stamp counter; this host's own until it is set.
    counter: OnceLock<Counter>,
    tsc_khz: u64,
    is_changed: Mutex<bool>,
    changed: Condvar,
}

impl Clock {
    /// A clock that begins now, with a time-stamp counter of this rate.
    pub fn new(tsc_khz: u64) -> Self {
        Self {
            start: Instant::now(),
            held_at_ns: AtomicU64::new(GOES_ON),
            held_ns: AtomicU64::new(0),
            counter: OnceLock::new(),
            tsc_khz,
            is_changed: Mutex::new(false),
            changed: Condvar::new(),
        }
    }

    fn elapsed_ns(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// The guest's time. The time-stamp counter goes on while the clock is held: where guests read it natively nothing holds it.
    pub fn now(&self) -> Now {
        // Relaxed: processors are held when these change, and whoever releases them publishes it.
        let ns = self.elapsed_ns().min(self.held_at_ns.load(Ordering::Relaxed));
        let tsc = self.counter.get().copied().unwrap_or_default().ticks(timestamp());
        Now { ns: ns.saturating_sub(self.held_ns.load(Ordering::Relaxed)), tsc }
    }

    /// The guest's time-stamp counter is this. To be called once, before a processor runs.
    pub fn set_counter(&self, counter: Counter) {
        self.counter.get_or_init(|| counter);
    }

    /// Nanoseconds stand still.
    pub fn hold(&self) {
        self.held_at_ns.fetch_min(self.elapsed_ns(), Ordering::Relaxed);
    }

    /// They go on from where they stood.
    pub fn release(&self) {
        let held_at = self.held_at_ns.load(Ordering::Relaxed);
        if held_at != GOES_ON {
            self.held_ns.fetch_add(self.elapsed_ns().saturating_sub(held_at), Ordering::Relaxed);
            self.held_at_ns.store(GOES_ON, Ordering::Relaxed);
        }
        self.rewind();
    }

    /// A timer has changed.
    pub fn rewind(&self) {
        *self.is_changed.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Sleeps until a timer changes, at most `longest`.
    pub fn sleep(&self, longest: Duration) {
        let is_changed = self.is_changed.lock().unwrap_or_else(PoisonError::into_inner);
        let mut slept = self
            .changed
            .wait_timeout_while(is_changed, longest, |is_changed| !*is_changed)
            .unwrap_or_else(PoisonError::into_inner);
        *slept.0 = false;
    }

    /// How long it is until then.
    pub fn until(&self, deadline: Deadline, now: Now) -> Duration {
        match deadline {
            Deadline::Ns(at) => Duration::from_nanos(at.saturating_sub(now.ns)),
            Deadline::Tsc(at) => {
                let ticks = u128::from(at.saturating_sub(now.tsc));
                let ns = ticks * 1_000_000 / u128::from(self.tsc_khz.max(1));
                Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX)).min(IDLE)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_held_stands() {
        const PAUSE: Duration = Duration::from_millis(20);
        let clock = Clock::new(1_000_000);
        let before = clock.now();
        clock.hold();
        let held = clock.now();
        std::thread::sleep(PAUSE);
        clock.hold();
        let later = clock.now();
        assert!(held.ns >= before.ns && later.ns == held.ns && later.tsc > held.tsc, "{held:?} {later:?}");
        clock.release();
        clock.release();
        let gone = clock.now().ns - held.ns;
        std::thread::sleep(PAUSE);
        let more = clock.now().ns - held.ns;
        assert!(gone < more && more >= PAUSE.as_nanos() as u64, "{gone} {more}");
        assert!(clock.elapsed_ns() - clock.now().ns >= PAUSE.as_nanos() as u64);
    }
}

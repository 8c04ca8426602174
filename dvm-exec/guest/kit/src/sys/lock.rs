//! A lock that spins.
//!
//! Owns the word and the value. It does not touch interrupts: what handlers use, too, is locked with them off.

use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::ops::{Deref, DerefMut};
use core::sync::atomic::{AtomicBool, Ordering};

/// A value that one processor uses at a time. Word and value lie together, so that a page brings both.
#[derive(Debug)]
pub struct Lock<T> {
    is_taken: AtomicBool,
    value: UnsafeCell<T>,
}

/// The right to use the value.
pub struct Held<'a, T>(&'a Lock<T>);

// SAFETY: the value is only reached through `Held`, of which there is one at a time.
unsafe impl<T: Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// A lock nobody has.
    pub const fn new(value: T) -> Self {
        Self { is_taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Waits for the lock.
    pub fn lock(&self) -> Held<'_, T> {
        while self.is_taken.compare_exchange_weak(false, true, Ordering::Acquire, Ordering::Relaxed).is_err() {
            while self.is_taken.load(Ordering::Relaxed) {
                spin_loop();
            }
        }
        Held(self)
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: whoever holds the lock is alone.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: whoever holds the lock is alone.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Held<'_, T> {
    fn drop(&mut self) {
        self.0.is_taken.store(false, Ordering::Release);
    }
}

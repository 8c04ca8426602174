//! Time, by the time-stamp counter.
//!
//! Owns the conversion.

use crate::boot;
use crate::sys::cpu::timestamp;
use core::hint::spin_loop;

/// Ticks in so many microseconds.
#[must_use]
pub fn ticks(us: u64) -> u64 {
    us * boot::tsc_khz() / 1000
}

/// Nanoseconds of so many ticks.
#[must_use]
pub fn ns(ticks: u64) -> u64 {
    (u128::from(ticks) * 1_000_000 / u128::from(boot::tsc_khz().max(1))) as u64
}

/// Ticks now.
#[must_use]
pub fn now() -> u64 {
    timestamp()
}

/// Waits.
pub fn spin(us: u64) {
    let end = now() + ticks(us);
    while now() < end {
        spin_loop();
    }
}

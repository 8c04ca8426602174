//! Time, by the time-stamp counter.
//!
//! Owns the conversion.

use crate::boot;
use crate::processor::block;
use crate::sys::cpu::{timestamp, write_register};
use crate::sys::entry::WORDS;
use crate::sys::memory::{read, read_byte, read_half};
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

const WALL: u32 = 0x4b56_4d00;
const CLOCK: u32 = 0x4b56_4d01;
/// The processor's clock, among its words; behind it the date of its beginning.
const PLACE: u64 = WORDS + 0x840;
const WALL_PLACE: u64 = PLACE + 32;

/// Has the machine keep this processor's clock, as KVM does. To be called on each processor that asks [`clock_ns`].
pub fn set_up_clock() {
    write_register(CLOCK, (block() + PLACE) | 1);
    write_register(WALL, block() + WALL_PLACE);
}

/// Nanoseconds since the machine was made: one clock on all hosts, however their counters differ.
#[must_use]
pub fn clock_ns() -> u64 {
    let place = block() + PLACE;
    loop {
        let version = read_half(place);
        let (ticks, ns) = (read(place + 8), read(place + 16));
        let (multiplier, shift) = (read_half(place + 24), read_byte(place + 28) as i8);
        let passed = u128::from(now().saturating_sub(ticks));
        let shifted = if shift >= 0 { passed << shift } else { passed >> -shift };
        if version.is_multiple_of(2) && read_half(place) == version {
            return ns + ((shifted * u128::from(multiplier)) >> 32) as u64;
        }
    }
}

/// Seconds from 1970 until that clock began.
#[must_use]
pub fn began() -> u64 {
    u64::from(read_half(block() + WALL_PLACE + 4))
}

/// Waits.
pub fn spin(us: u64) {
    let end = now() + ticks(us);
    while now() < end {
        spin_loop();
    }
}

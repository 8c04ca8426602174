//! Pages that a processor's guest gave to its machine: its clock, and where it notes the end of an interrupt.
//!
//! Owns the registers by which they are given, which are KVM's, and what is written there. Only the processor's own thread comes here,
//! and the guest does not run meanwhile. Must not know APICs.

use super::pvclock::{self, Scale};
use crate::sys::vm::Memory;
use std::sync::atomic::Ordering;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend};

/// Takes the address where the date of the clock's beginning is to be written.
pub const WALL: u32 = 0x4b56_4d00;
/// Takes the address of the clock.
pub const CLOCK: u32 = 0x4b56_4d01;
/// Takes the address of the word of ends.
pub const ENDS: u32 = 0x4b56_4d04;
/// The address is in force.
const IS_ON: u64 = 1;
/// In the word of ends: the interrupt's end needs no write of a register; the guest clears it instead.
const OFFERED: u32 = 1;

/// The pages of one processor.
pub struct Given {
    memory: &'static Memory,
    /// When the clock began, in nanoseconds since 1970.
    began_ns: u64,
    wall: u64,
    clock: u64,
    clock_version: u32,
    ends: u64,
    is_offered: bool,
}

impl Given {
    /// None so far.
    pub fn new(memory: &'static Memory, began_ns: u64) -> Self {
        Self { memory, began_ns, wall: 0, clock: 0, clock_version: 0, ends: 0, is_offered: false }
    }

    /// What register `index` reads; none if it is not of those.
    pub fn read_register(&self, index: u32) -> Option<u64> {
        match index {
            WALL => Some(self.wall),
            CLOCK => Some(self.clock),
            ENDS => Some(self.ends),
            _ => None,
        }
    }

    /// The guest writes register `index`: whether it may; none if it is not of those.
    pub fn write_register(&mut self, index: u32, value: u64, scale: &Scale) -> Option<bool> {
        let bytes = match index {
            WALL => 12,
            CLOCK => pvclock::BYTES,
            ENDS => 4,
            _ => return None,
        };
        let place = GuestAddress(value & !IS_ON);
        let is_wanted = index == WALL || value & IS_ON != 0;
        if is_wanted && (!place.0.is_multiple_of(4) || !self.memory.check_range(place, bytes)) {
            return Some(false);
        }
        match index {
            WALL => {
                self.wall = value;
                self.write_wall();
            }
            CLOCK => {
                self.clock = value;
                self.write_clock(scale);
            }
            _ => (self.ends, self.is_offered) = (value, false),
        }
        Some(true)
    }

    /// Second and nanosecond behind a version.
    fn write_wall(&self) {
        let (seconds, ns) = (self.began_ns / 1_000_000_000, self.began_ns % 1_000_000_000);
        let words = [2, seconds as u32, ns as u32].map(u32::to_le_bytes);
        self.memory.write_slice(words.as_flattened(), GuestAddress(self.wall)).expect(JUDGED);
    }

    /// The clock is another from now on.
    pub fn write_clock(&mut self, scale: &Scale) {
        if self.clock & IS_ON != 0 {
            self.clock_version = self.clock_version.wrapping_add(2);
            let bytes = scale.bytes(self.clock_version);
            self.memory.write_slice(&bytes, GuestAddress(self.clock & !IS_ON)).expect(JUDGED);
        }
    }

    /// Whether the guest is to end the interrupt that it is in by the word.
    pub fn offer(&mut self, is_wanted: bool) {
        if self.ends & IS_ON != 0 && is_wanted != self.is_offered {
            self.is_offered = is_wanted;
            self.store(if is_wanted { OFFERED } else { 0 });
        }
    }

    /// Whether it has done so since.
    pub fn is_ended(&mut self) -> bool {
        let is_ended = self.is_offered && self.load() & OFFERED == 0;
        self.is_offered &= !is_ended;
        is_ended
    }

    /// As after a reset.
    pub fn forget(&mut self) {
        *self = Self { wall: self.wall, clock_version: self.clock_version, ..Self::new(self.memory, self.began_ns) };
    }

    fn place(&self) -> GuestAddress {
        GuestAddress(self.ends & !IS_ON)
    }

    fn store(&self, word: u32) {
        // Relaxed: only this thread and the processor that it runs use the word.
        self.memory.store(word, self.place(), Ordering::Relaxed).expect(JUDGED);
    }

    fn load(&self) -> u32 {
        self.memory.load(self.place(), Ordering::Relaxed).expect(JUDGED)
    }
}

/// Why an access cannot fail.
const JUDGED: &str = "the range was judged when it was given, and memory stays";

#[cfg(test)]
mod tests {
    use super::*;

    fn given() -> Given {
        let memory = Memory::from_ranges(&[(GuestAddress(0), 0x4000)]).expect("as it should be");
        Given::new(Box::leak(Box::new(memory)), 5_000_000_007)
    }

    #[test]
    fn addresses_are_judged() {
        let (mut given, scale) = (given(), Scale::new(0, 1_000_000));
        for (index, value, is_good) in [
            (CLOCK, 0x1001, true),
            (CLOCK, 0x3fe1, true),
            (CLOCK, 0x3fe5, false),
            (CLOCK, u64::MAX, false),
            (CLOCK, 0x1003, false),
            (CLOCK, u64::MAX - 1, true),
            (ENDS, 0x3ffd, true),
            (ENDS, 0x4001, false),
            (WALL, 0x3ff4, true),
            (WALL, 0x3ff8, false),
        ] {
            assert_eq!(given.write_register(index, value, &scale), Some(is_good), "{index:#x} {value:#x}");
            assert_eq!(given.read_register(index) == Some(value), is_good, "{index:#x} {value:#x}");
        }
        assert_eq!((given.write_register(1, 0, &scale), given.read_register(1)), (None, None));
        assert_eq!([0, 4, 8].map(|at| given.memory.read_obj::<u32>(GuestAddress(0x3ff4 + at)).expect("there")), [2, 5, 7]);
    }

    #[test]
    fn versions_of_the_clock_are_even_and_new() {
        let (mut given, scale) = (given(), Scale::new(9, 1_000_000));
        assert_eq!(given.write_register(CLOCK, 0x1001, &scale), Some(true));
        for version in [2_u32, 4, 6] {
            let bytes: [u8; pvclock::BYTES] = given.memory.read_obj(GuestAddress(0x1000)).expect("there");
            assert_eq!(bytes, scale.bytes(version));
            given.write_clock(&scale);
        }
    }

    #[test]
    fn ends_are_offered_and_taken_back() {
        let (mut given, scale) = (given(), Scale::new(0, 1_000_000));
        given.offer(true);
        assert!(!given.is_ended(), "there is no word");
        assert_eq!(given.write_register(ENDS, 0x2001, &scale), Some(true));
        given.offer(true);
        assert!(given.load() == OFFERED && !given.is_ended(), "it runs");
        given.store(0);
        assert!(given.is_ended() && !given.is_ended(), "once");
        given.offer(true);
        given.offer(false);
        assert!(given.load() == 0 && !given.is_ended(), "it was taken back");
        given.offer(true);
        given.forget();
        assert!(!given.is_ended() && given.read_register(ENDS) == Some(0));
    }
}

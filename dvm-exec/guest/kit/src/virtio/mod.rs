//! Virtio devices: their registers and queues (virtio 1.2, 4.2 and 2.7).
//!
//! Owns how a device is found, taken over, asked and answered. Must not know what it does. A queue is used by one processor at a
//! time: put what has it behind a [`Lock`](crate::Lock).

pub mod block;
pub mod console;

use crate::alloc;
use crate::sys::memory::{read_half, read_quarter, write, write_half, write_quarter};
use core::sync::atomic::{Ordering, fence};

const FIRST: u64 = 0xfeb0_0000;
const BYTES: u64 = 0x1000;
const SLOTS: u64 = 8;
const FIRST_PIN: u32 = 16;
const MAGIC: u32 = u32::from_le_bytes(*b"virt");
/// Registers.
const ID: u64 = 0x08;
const FEATURES_HALF: u64 = 0x24;
const FEATURES: u64 = 0x20;
const QUEUE: u64 = 0x30;
const QUEUE_SIZE: u64 = 0x38;
const QUEUE_READY: u64 = 0x44;
const NOTIFY: u64 = 0x50;
const REASONS: u64 = 0x60;
const ANSWER: u64 = 0x64;
const STATUS: u64 = 0x70;
const TABLE: u64 = 0x80;
const AVAILABLE: u64 = 0x90;
const USED: u64 = 0xa0;
/// The configuration of a device.
pub const CONFIGURATION: u64 = 0x100;
/// Status.
const DRIVER: u32 = 3;
const FEATURES_OK: u32 = 8;
const DRIVER_OK: u32 = 4;
const NEEDS_RESET: u32 = 64;
/// Descriptors of a queue.
pub const SIZE: u16 = 8;
/// A descriptor is not the last of its request.
pub const NEXT: u16 = 1;
/// The device writes what it describes.
pub const WRITE: u16 = 2;

/// A device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    slot: u64,
}

impl Device {
    /// The `nth` device, from 0 on, with this number in the standard.
    #[must_use]
    pub fn find(id: u32, nth: usize) -> Option<Self> {
        let devices = (0..SLOTS).map(|slot| Self { slot });
        devices.filter(|device| device.read(0) == MAGIC && device.read(ID) == id).nth(nth)
    }

    /// Its line.
    #[must_use]
    pub fn pin(self) -> u32 {
        FIRST_PIN + self.slot as u32
    }

    /// Reads a register.
    #[must_use]
    pub fn read(self, register: u64) -> u32 {
        read_half(FIRST + self.slot * BYTES + register)
    }

    fn write(self, register: u64, value: u32) {
        write_half(FIRST + self.slot * BYTES + register, value);
    }

    /// Resets it and takes it over; false if it is too old.
    #[must_use]
    pub fn take(self) -> bool {
        const MODERN: u32 = 1;
        self.write(STATUS, 0);
        self.write(STATUS, DRIVER);
        for (half, features) in [(0, 0), (1, MODERN)] {
            self.write(FEATURES_HALF, half);
            self.write(FEATURES, features);
        }
        self.write(STATUS, DRIVER | FEATURES_OK);
        self.read(STATUS) & FEATURES_OK != 0
    }

    /// Its queues are there: it may begin.
    pub fn begin(self) {
        self.write(STATUS, DRIVER | FEATURES_OK | DRIVER_OK);
    }

    /// Whether it does nothing more until it is taken over again.
    #[must_use]
    pub fn is_broken(self) -> bool {
        self.read(STATUS) & NEEDS_RESET != 0
    }

    /// Why it interrupts; it does so no more then.
    pub fn answer(self) -> u32 {
        let reasons = self.read(REASONS);
        self.write(ANSWER, reasons);
        reasons
    }
}

/// A queue: descriptors and requests in one page, answers in another, so that guest and device write to different ones.
#[derive(Debug)]
pub struct Queue {
    device: Device,
    index: u32,
    table: u64,
    available: u64,
    used: u64,
    /// Requests, and answers seen.
    made: u16,
    seen: u16,
}

impl Queue {
    /// Queue `index` of a device that was taken over; none if there is no memory, or the device does not want it.
    #[must_use]
    pub fn new(device: Device, index: u32) -> Option<Self> {
        let table = alloc::pages(8192)?;
        let queue = Self { device, index, table, available: table + 2048, used: table + 4096, made: 0, seen: 0 };
        queue.hand_over().then_some(queue)
    }

    /// Begins anew after a reset of the device.
    #[must_use]
    pub fn renew(&mut self) -> bool {
        (self.made, self.seen) = (0, 0);
        self.hand_over()
    }

    fn hand_over(&self) -> bool {
        (0..1024).for_each(|index| write(self.table + index * 8, 0));
        self.want_interrupts(false);
        self.device.write(QUEUE, self.index);
        self.device.write(QUEUE_SIZE, u32::from(SIZE));
        for (register, address) in [(TABLE, self.table), (AVAILABLE, self.available), (USED, self.used)] {
            self.device.write(register, address as u32);
            self.device.write(register + 4, (address >> 32) as u32);
        }
        self.device.write(QUEUE_READY, 1);
        self.device.read(QUEUE_READY) == 1
    }

    /// Whether the device is to interrupt for what it has done.
    pub fn want_interrupts(&self, is_wanted: bool) {
        write_quarter(self.available, u16::from(!is_wanted));
        // Before the answers are looked at again.
        fence(Ordering::SeqCst);
    }

    /// Descriptor `index` is `bytes` at `address`, and goes on with the one after it if `flags` has [`NEXT`].
    pub fn describe(&self, index: u16, address: u64, bytes: u32, flags: u16) {
        let place = self.table + u64::from(index) * 16;
        write(place, address);
        write_half(place + 8, bytes);
        write_quarter(place + 12, flags);
        write_quarter(place + 14, index + 1);
    }

    /// Asks for what begins with descriptor `head`.
    pub fn ask(&mut self, head: u16) {
        write_quarter(self.available + 4 + u64::from(self.made % SIZE) * 2, head);
        fence(Ordering::SeqCst);
        self.made = self.made.wrapping_add(1);
        write_quarter(self.available + 2, self.made);
        fence(Ordering::SeqCst);
        self.device.write(NOTIFY, self.index);
    }

    /// Whether there is an answer that was not seen yet.
    #[must_use]
    pub fn has_answer(&self) -> bool {
        read_quarter(self.used + 2) != self.seen
    }

    /// The next answer: the descriptor it was asked with, and how many bytes the device has written.
    pub fn poll(&mut self) -> Option<(u16, u32)> {
        if !self.has_answer() {
            return None;
        }
        fence(Ordering::SeqCst);
        let place = self.used + 4 + u64::from(self.seen % SIZE) * 8;
        self.seen = self.seen.wrapping_add(1);
        Some((read_half(place) as u16, read_half(place + 4)))
    }
}

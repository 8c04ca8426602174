//! Lines of devices: the I/O APIC.
//!
//! Owns its entries. Must not know the devices.

use crate::Lock;
use crate::sys::memory::write_half;

/// The pin of the serial line.
pub const SERIAL: u32 = 4;
const SELECT: u64 = 0xfec0_0000;
const WINDOW: u64 = 0xfec0_0010;
const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;

/// Two registers make one entry: one processor at a time.
static REGISTERS: Lock<()> = Lock::new(());

/// How a line tells that it wants something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Once, when it rises.
    Edge,
    /// As long as it is up.
    Level,
}

/// Line `pin` interrupts processor `cpu` with `vector` from now on.
pub fn route(pin: u32, cpu: usize, vector: u8, trigger: Trigger) {
    let mode = match trigger {
        Trigger::Edge => 0,
        Trigger::Level => LEVEL,
    };
    set(pin, (cpu as u32) << 24, u32::from(vector) | mode);
}

/// Line `pin` interrupts nobody.
pub fn mask(pin: u32) {
    set(pin, 0, MASKED);
}

fn set(pin: u32, high: u32, low: u32) {
    let _held = REGISTERS.lock();
    for (register, value) in [(0x10 + pin * 2, MASKED), (0x11 + pin * 2, high), (0x10 + pin * 2, low)] {
        write_half(SELECT, register);
        write_half(WINDOW, value);
    }
}

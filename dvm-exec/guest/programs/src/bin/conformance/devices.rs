//! The I/O APIC and the serial line, used by every processor wherever the devices are.
//!
//! Owns these cases. One processor at a time uses them.

use crate::{Outcome, check, meet, until};
use dvm_kit::interrupt::taken;
use dvm_kit::sys::memory::{read_half, write_half};
use dvm_kit::sys::port;
use dvm_kit::{processor, time};

const SELECT: u64 = 0xfec0_0000;
const WINDOW: u64 = 0xfec0_0010;
/// The entry of the serial line.
const ENTRY: u32 = 0x10 + 2 * 4;
const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;

fn write(register: u32, value: u32) {
    write_half(SELECT, register);
    write_half(WINDOW, value);
}

fn read(register: u32) -> u32 {
    write_half(SELECT, register);
    read_half(WINDOW)
}

/// Each processor in its turn.
fn in_turn(cpu: usize, case: impl Fn() -> Outcome) -> Outcome {
    let mut outcome = Ok(());
    for turn in 0..processor::count() {
        if turn == cpu {
            outcome = case();
        }
        meet();
    }
    outcome
}

/// What is written is read.
pub fn registers(cpu: usize) -> Outcome {
    in_turn(cpu, || {
        check(read(1) >> 16 == 23, "not 24 pins")?;
        let value = MASKED | (0x40 + cpu as u32);
        write(ENTRY + 4, value);
        write(ENTRY + 5, (cpu as u32) << 24);
        check(read(ENTRY + 4) == value && read(ENTRY + 5) == (cpu as u32) << 24, "an entry is not what was written")
    })
}

/// The serial line interrupts each processor, as an edge.
pub fn edge(cpu: usize) -> Outcome {
    in_turn(cpu, || interrupts(cpu, 0xd5, 0))
}

/// The same as a level, which comes again only after the end of the one before was told.
pub fn level(cpu: usize) -> Outcome {
    in_turn(cpu, || interrupts(cpu, 0xd6, LEVEL))
}

fn interrupts(cpu: usize, vector: u8, trigger: u32) -> Outcome {
    write(ENTRY + 1, (cpu as u32) << 24);
    write(ENTRY, u32::from(vector) | trigger);
    port::loop_back(true);
    let mut came = Ok(());
    for round in 1..=10 {
        let byte = b'a' + round as u8;
        port::put(byte);
        came = came.and(until(|| taken(vector) >= round, "none came")).and(check(port::take() == byte, "another byte came"));
        // The end of this one is on its way to the I/O APIC.
        time::spin(2000);
        came = came.and(check(taken(vector) == round, "more than one came"));
    }
    port::loop_back(false);
    write(ENTRY, MASKED);
    came
}

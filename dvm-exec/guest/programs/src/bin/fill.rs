//! Memory that one processor writes, all others check, and the last one writes again: as many MiB as the command line says.
//!
//! Owns what is written.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};
use dvm_kit::sys::memory::{read, write};
use dvm_kit::{Barrier, Page, alloc, boot, guest, print, processor};

/// A word of so many bytes is written.
const STEP: u64 = 512;

static TOGETHER: Barrier = Barrier::new();
static PLACE: Page<AtomicU64> = Page(AtomicU64::new(0));
static WRONG: Page<AtomicU64> = Page(AtomicU64::new(0));

guest!(main);

fn value(round: u64, offset: u64) -> u64 {
    (offset + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ round
}

fn put(round: u64, place: u64, bytes: u64) {
    (0..bytes).step_by(STEP as usize).for_each(|offset| write(place + offset, value(round, offset)));
}

fn check(round: u64, place: u64, bytes: u64) {
    let wrong = (0..bytes).step_by(STEP as usize).filter(|offset| read(place + offset) != value(round, *offset)).count();
    WRONG.fetch_add(wrong as u64, Ordering::AcqRel);
}

fn main(cpu: usize) -> u8 {
    let mib: u64 = boot::command_line().split(' ').find_map(|word| word.parse().ok()).unwrap_or(16);
    let (bytes, cpus) = (mib << 20, processor::count());
    if cpu == 0 {
        match alloc::pages(bytes) {
            Some(place) => PLACE.store(place, Ordering::Release),
            None => {
                print!("fill: no {mib} MiB: raise --mem\n");
                dvm_kit::shutdown(2);
            }
        }
    }
    TOGETHER.wait(cpus);
    let place = PLACE.load(Ordering::Acquire);
    for (round, writer) in [(1, 0), (2, cpus - 1)] {
        if cpu == writer {
            put(round, place, bytes);
        }
        TOGETHER.wait(cpus);
        check(round, place, bytes);
        TOGETHER.wait(cpus);
    }
    let wrong = WRONG.load(Ordering::Acquire);
    if cpu == 0 {
        print!("{mib} MiB, {wrong} words wrong\n");
    }
    u8::from(wrong != 0)
}

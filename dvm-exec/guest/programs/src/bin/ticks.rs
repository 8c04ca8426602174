//! A guest that is seen to go on: each processor says so every 50 ms, as often as the command line wants.
//!
//! Owns nothing. It waits by its timer, halted.

#![no_std]
#![no_main]

use dvm_kit::interrupt::{Timer, halt_until, set_timer, taken};
use dvm_kit::{Barrier, boot, guest, print, processor};

const VECTOR: u8 = 0x62;
const PERIOD_NS: u32 = 50_000_000;

static DONE: Barrier = Barrier::new();

guest!(main);

fn main(cpu: usize) -> u8 {
    let wanted: u32 = boot::command_line().split(' ').find_map(|word| word.parse().ok()).unwrap_or(20);
    for tick in 1..=wanted {
        set_timer(VECTOR, Timer::OneShot(PERIOD_NS));
        halt_until(|| taken(VECTOR) >= tick);
        print!("tick {tick} of processor {cpu}\n");
    }
    DONE.wait(processor::count());
    0
}

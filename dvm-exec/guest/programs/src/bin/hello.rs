//! Says that every processor is there.
//!
//! Owns nothing.

#![no_std]
#![no_main]

use dvm_kit::{Barrier, boot, guest, print, processor};

static DONE: Barrier = Barrier::new();

guest!(main);

fn main(cpu: usize) -> u8 {
    let mode = if processor::is_native() { "native" } else { "ordinary" };
    print!("processor {cpu} of {} on host {}: {mode}\n", processor::count(), boot::here());
    DONE.wait(processor::count());
    0
}

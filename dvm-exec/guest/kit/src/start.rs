//! The start of the guest: the boot processor sets itself up and starts the others, one after the other.
//!
//! Owns the order. Must not know the program.

use crate::sys::entry;
use crate::sys::port::{self, shutdown};
use crate::{Page, boot, interrupt, print, processor, time};
use core::hint::spin_loop;
use core::sync::atomic::{AtomicUsize, Ordering};

const PROTECTION: u64 = 13;
/// How long a processor may take to come, in microseconds.
const PATIENCE_US: u64 = 5_000_000;
const INIT: u32 = 0x4500;
const STARTUP: u32 = 0x4600;

/// Processors that have come.
static UP: Page<AtomicUsize> = Page(AtomicUsize::new(0));

pub(crate) fn begin(cpu: usize) -> ! {
    let block = entry::block(cpu);
    // On a software KVM everything is slow until the processor is native: no more than that needs comes before.
    entry::set_gate(block, PROTECTION);
    entry::load_tables(block);
    processor::go_native();
    for vector in 0..256 {
        entry::set_gate(block, vector);
    }
    interrupt::set_up();
    UP.fetch_add(1, Ordering::AcqRel);
    if cpu != 0 {
        interrupt::enable();
        entry::main(cpu);
        interrupt::halt_until(|| false);
    }
    port::mask_old();
    (1..boot::cpus()).for_each(start);
    interrupt::enable();
    shutdown(entry::main(0))
}

fn start(cpu: usize) {
    entry::prepare_start(cpu);
    interrupt::command(cpu as u32, INIT);
    interrupt::command(cpu as u32, STARTUP | entry::START_PAGE as u32);
    let end = time::now() + time::ticks(PATIENCE_US);
    while UP.load(Ordering::Acquire) != cpu + 1 {
        if time::now() > end {
            print!("processor {cpu} does not start\n");
            shutdown(103);
        }
        spin_loop();
    }
}

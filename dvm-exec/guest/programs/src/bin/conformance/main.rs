//! What a guest may rely on, tried on every processor: a line for each case, and their number that failed as status.
//!
//! Owns the order of the cases. Lines that begin with `figure` are measurements, all others are the same in every run.

#![no_std]
#![no_main]

mod devices;
mod interrupts;
mod memory;
mod timers;
mod virtio;

use core::hint::spin_loop;
use core::sync::atomic::{AtomicU32, Ordering};
use dvm_kit::{Barrier, Page, guest, print, processor, time};

/// How a case ends on one processor.
pub type Outcome = Result<(), &'static str>;

/// A case: every processor runs it.
type Case = fn(usize) -> Outcome;

const CASES: &[(&str, Case)] = &[
    ("ipi/physical", interrupts::physical),
    ("ipi/shorthands", interrupts::shorthands),
    ("ipi/self", interrupts::oneself),
    ("ipi/logical", interrupts::logical),
    ("ipi/clusters", interrupts::clusters),
    ("ipi/lowest-priority", interrupts::lowest_priority),
    ("ipi/nmi", interrupts::nmi),
    ("ipi/illegal-vector", interrupts::illegal_vector),
    ("ipi/none-lost", interrupts::none_lost),
    ("priority/order", interrupts::order),
    ("priority/task", interrupts::task_priority),
    ("halt/wake", interrupts::wake),
    ("timer/one-shot", timers::one_shot),
    ("timer/periodic", timers::periodic),
    ("timer/deadline", timers::deadline),
    ("timer/halt", timers::halt),
    ("clock/processor", timers::clock),
    ("clock/hosts", timers::clocks),
    ("device/registers", devices::registers),
    ("device/edge", devices::edge),
    ("device/level", devices::level),
    ("memory/atomics", memory::atomics),
    ("memory/lock", memory::lock),
    ("memory/barrier", memory::barrier),
    ("memory/late-to-barrier", memory::late_to_barrier),
    ("memory/false-sharing", memory::false_sharing),
    ("memory/transfer", memory::transfer),
    ("virtio/console", virtio::console),
];

/// Where there is a disk.
const DISK_CASES: &[(&str, Case)] = &[
    ("disk/find", virtio::find),
    ("disk/transfers", virtio::transfers),
    ("disk/interrupts", virtio::interrupts),
    ("disk/refusals", virtio::refusals),
    ("disk/broken", virtio::broken),
];

static TOGETHER: Barrier = Barrier::new();
static FAILED: Page<AtomicU32> = Page(AtomicU32::new(0));

guest!(main);

fn main(cpu: usize) -> u8 {
    let disk_cases = if virtio::has_disk() { DISK_CASES } else { &[] };
    let mut failed = 0;
    for (name, case) in CASES.iter().chain(disk_cases) {
        TOGETHER.wait(processor::count());
        if let Err(reason) = case(cpu) {
            FAILED.fetch_add(1, Ordering::AcqRel);
            print!("processor {cpu}: {name}: {reason}\n");
        }
        TOGETHER.wait(processor::count());
        if cpu == 0 {
            let is_failed = FAILED.swap(0, Ordering::AcqRel) != 0;
            failed += u8::from(is_failed);
            print!("{} {name}\n", if is_failed { "FAILED" } else { "ok" });
        }
    }
    TOGETHER.wait(processor::count());
    interrupts::measure(cpu);
    if cpu == 0 {
        let count = CASES.len() + disk_cases.len();
        print!("{count} cases, {failed} failed, {} processors\n", processor::count());
    }
    failed
}

/// All processors meet here.
pub fn meet() {
    TOGETHER.wait(processor::count());
}

/// The processor after this one.
pub fn next(cpu: usize) -> usize {
    (cpu + 1) % processor::count()
}

/// Waits until it is so, at most two seconds; `otherwise` says what was not.
pub fn until(is_so: impl Fn() -> bool, otherwise: &'static str) -> Outcome {
    let end = time::now() + time::ticks(2_000_000);
    while !is_so() {
        if time::now() > end {
            return Err(otherwise);
        }
        spin_loop();
    }
    Ok(())
}

/// That it is so.
pub fn check(is_so: bool, otherwise: &'static str) -> Outcome {
    if is_so { Ok(()) } else { Err(otherwise) }
}

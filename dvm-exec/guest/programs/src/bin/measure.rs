//! What a guest costs, measured from inside: lines `NAME NANOSECONDS`.
//!
//! Owns the access patterns. Words: a mode and a count.
//!
//! ```text
//! loop    the first processor computes COUNT steps: `loop`
//! exits   it writes to a port where nothing is: one `exit` each
//! read    the last processor reads pages that the first one wrote, in an odd order: one `latency` each
//! ipi     an interrupt goes to the last processor and one comes back: one `latency` each
//! read-only, local-write, global-write, mutex
//!         all processors at once, COUNT operations each: how long the slowest took for all of its own
//! fight   all processors want two pages, COUNT times each
//! ```

#![no_std]
#![no_main]

use core::hint::{black_box, spin_loop};
use core::sync::atomic::{AtomicU64, Ordering};
use dvm_kit::interrupt::{send, taken};
use dvm_kit::sys::memory::{read, write};
use dvm_kit::sys::port;
use dvm_kit::{Barrier, Lock, Page, alloc, boot, guest, print, processor, time};

const PAGE: u64 = 4096;
const VECTOR: u8 = 0x63;
/// Pages that are read, or written each by its own processor.
const TABLE_PAGES: u64 = 64;
/// Processors that have pages of their own to write.
const CPUS_MAX: u64 = 64;

static TOGETHER: Barrier = Barrier::new();
/// Where pages are, and where samples are kept until the end: printing takes a processor's time.
static PLACE: Page<AtomicU64> = Page(AtomicU64::new(0));
static SAMPLES: Page<AtomicU64> = Page(AtomicU64::new(0));
static COUNTER: Page<AtomicU64> = Page(AtomicU64::new(0));
static LOCKED: Page<Lock<u64>> = Page(Lock::new(0));

guest!(main);

fn main(cpu: usize) -> u8 {
    let mut words = boot::command_line().split(' ');
    let mode = words.next().unwrap_or("");
    let count: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(1000);
    if cpu == 0 {
        let (pages, samples) = match mode {
            "read" => (count, count),
            "exits" | "ipi" => (1, count),
            _ => (TABLE_PAGES * CPUS_MAX, CPUS_MAX),
        };
        let (Some(pages), Some(samples)) = (alloc::pages(pages * PAGE), alloc::pages(samples * 8)) else {
            print!("measure: no memory for {count} pages: raise --mem\n");
            dvm_kit::shutdown(2);
        };
        PLACE.store(pages, Ordering::Release);
        SAMPLES.store(samples, Ordering::Release);
    }
    meet();
    match mode {
        "loop" => compute(cpu, count),
        "exits" => exits(cpu, count),
        "read" => reads(cpu, count),
        "ipi" => interrupts(cpu, count),
        "fight" => fight(count),
        _ => operations(cpu, mode, count),
    }
    meet();
    0
}

fn meet() {
    TOGETHER.wait(processor::count());
}

fn keep(index: u64, ticks: u64) {
    write(SAMPLES.load(Ordering::Relaxed) + index * 8, time::ns(ticks));
}

fn tell(cpu: usize, name: &str, count: u64) {
    meet();
    if cpu == 0 {
        (0..count).for_each(|index| print!("{name} {}\n", read(SAMPLES.load(Ordering::Relaxed) + index * 8)));
    }
}

fn timed(once: impl FnOnce()) -> u64 {
    let start = time::now();
    once();
    time::now() - start
}

/// The same steps as benches/programs/loop.c has.
fn compute(cpu: usize, count: u64) {
    if cpu == 0 {
        let ticks = timed(|| {
            let mut z = black_box(1_u64);
            for _ in 0..count {
                z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^= z >> 31;
            }
            black_box(z);
        });
        print!("loop {}\n", time::ns(ticks));
    }
}

fn exits(cpu: usize, count: u64) {
    if cpu == 0 {
        (0..count).for_each(|index| keep(index, timed(port::touch_nothing)));
    }
    tell(cpu, "exit", count);
}

fn reads(cpu: usize, count: u64) {
    let place = PLACE.load(Ordering::Acquire);
    if cpu == 0 {
        (0..count).for_each(|index| write(place + index * PAGE, index));
    }
    meet();
    if cpu == processor::count() - 1 {
        for index in 0..count {
            // A step that has no divisor in common with powers of two; a count should be one.
            let page = index * 0x9e37_79b1 % count;
            let ticks = timed(|| {
                black_box(read(place + page * PAGE));
            });
            keep(index, ticks);
        }
    }
    tell(cpu, "latency", count);
}

fn interrupts(cpu: usize, count: u64) {
    let last = processor::count() - 1;
    let before = taken(VECTOR);
    meet();
    for index in 0..count {
        let wanted = before + index as u32 + 1;
        if cpu == 0 {
            let ticks = timed(|| {
                send(last, VECTOR);
                while taken(VECTOR) < wanted {
                    spin_loop();
                }
            });
            keep(index, ticks);
        } else if cpu == last {
            while taken(VECTOR) < wanted {
                spin_loop();
            }
            send(0, VECTOR);
        }
    }
    tell(cpu, "latency", count);
}

/// The microbenchmarks of GiantVM's table: nanoseconds for all operations of a processor, the slowest one's.
fn operations(cpu: usize, mode: &str, count: u64) {
    let (place, own) = (PLACE.load(Ordering::Acquire), cpu as u64 % CPUS_MAX * TABLE_PAGES * PAGE);
    let at = |index: u64| index % TABLE_PAGES * PAGE + index % 512 * 8;
    match mode {
        "read-only" => slowest(cpu, mode, || {
            for index in 0..count {
                black_box(read(place + at(index)));
            }
        }),
        "local-write" => slowest(cpu, mode, || (0..count).for_each(|index| write(place + own + at(index), index))),
        "global-write" => slowest(cpu, mode, || {
            for _ in 0..count {
                COUNTER.fetch_add(1, Ordering::SeqCst);
            }
        }),
        "mutex" => slowest(cpu, mode, || (0..count).for_each(|_| *LOCKED.lock() += 1)),
        _ => dvm_kit::shutdown(2),
    }
}

fn fight(count: u64) {
    for _ in 0..count {
        COUNTER.fetch_add(1, Ordering::SeqCst);
        *LOCKED.lock() += 1;
    }
}

fn slowest(cpu: usize, name: &str, work: impl FnOnce()) {
    meet();
    let ticks = timed(work);
    write(SAMPLES.load(Ordering::Relaxed) + cpu as u64 % CPUS_MAX * 8, ticks);
    meet();
    if cpu == 0 {
        let all = (0..CPUS_MAX.min(processor::count() as u64)).map(|cpu| read(SAMPLES.load(Ordering::Relaxed) + cpu * 8));
        print!("{name} {}\n", time::ns(all.max().unwrap_or(0)));
    }
    meet();
}

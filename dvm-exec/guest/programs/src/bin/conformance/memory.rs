//! Shared memory: atomic operations, locks, barriers, pages that all write, and much of it at once.
//!
//! Owns these cases.

use crate::{Outcome, check, meet};
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use dvm_kit::sys::memory::{read, write};
use dvm_kit::{Lock, Page, alloc, processor, time};

/// Megabytes that travel.
const TRANSFER: u64 = 64 << 20;

static COUNTER: Page<AtomicU64> = Page(AtomicU64::new(0));
static EXCHANGED: Page<AtomicU64> = Page(AtomicU64::new(0));

/// Additions and exchanges: none is lost.
pub fn atomics(_: usize) -> Outcome {
    const ROUNDS: u64 = 20_000;
    for _ in 0..ROUNDS {
        COUNTER.fetch_add(1, Ordering::SeqCst);
        EXCHANGED.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |value| Some(value + 3)).map_err(|_| "no exchange")?;
    }
    meet();
    let all = ROUNDS * processor::count() as u64;
    check(COUNTER.load(Ordering::SeqCst) == all, "additions were lost")?;
    check(EXCHANGED.load(Ordering::SeqCst) == 3 * all, "exchanges were lost")
}

static LOCKED: Page<Lock<[u64; 8]>> = Page(Lock::new([0; 8]));

/// What is behind a lock is changed by one at a time.
pub fn lock(_: usize) -> Outcome {
    const ROUNDS: u64 = 2000;
    for _ in 0..ROUNDS {
        let mut words = LOCKED.lock();
        let first = words[0];
        check(words.iter().all(|word| *word == first), "somebody was between")?;
        words.iter_mut().for_each(|word| *word += 1);
    }
    meet();
    check(LOCKED.lock()[0] == ROUNDS * processor::count() as u64, "additions were lost")
}

static ROUND: Page<[AtomicU32; 256]> = Page([const { AtomicU32::new(0) }; 256]);

/// Nobody passes before all have come.
pub fn barrier(cpu: usize) -> Outcome {
    for round in 1..=200 {
        ROUND[cpu].store(round, Ordering::Release);
        meet();
        let mut all = ROUND.iter().take(processor::count());
        check(all.all(|other| other.load(Ordering::Acquire) == round), "somebody passed too early")?;
        meet();
    }
    Ok(())
}

/// One comes when the others have just halted, or are about to.
pub fn late_to_barrier(cpu: usize) -> Outcome {
    for round in 0..100 {
        if round % processor::count() == cpu {
            let end = time::now() + time::ticks(900 + 40 * (round as u64 % 8));
            while time::now() < end {
                spin_loop();
            }
        }
        meet();
    }
    Ok(())
}

static STORM: Page<[AtomicU64; 256]> = Page([const { AtomicU64::new(0) }; 256]);

/// Words of one page, each written by one processor.
pub fn false_sharing(cpu: usize) -> Outcome {
    const ROUNDS: u64 = 20_000;
    for round in 0..ROUNDS {
        check(STORM[cpu].load(Ordering::Relaxed) == round, "a store was lost")?;
        STORM[cpu].store(round + 1, Ordering::Relaxed);
    }
    meet();
    check(STORM.iter().take(processor::count()).all(|word| word.load(Ordering::Acquire) == ROUNDS), "others' stores were lost")
}

static PLACE: Page<AtomicU64> = Page(AtomicU64::new(0));

/// One writes 64 MiB, all others read it; a quarter of free memory where there is not so much.
pub fn transfer(cpu: usize) -> Outcome {
    let (first, end) = dvm_kit::boot::free();
    let bytes = TRANSFER.min(((end - first) / 4) & !4095);
    let writer = processor::count() - 1;
    if cpu == writer {
        let place = alloc::pages(bytes).ok_or("no memory")?;
        (0..bytes / 8).for_each(|index| write(place + index * 8, value(index)));
        PLACE.store(place, Ordering::Release);
    }
    meet();
    let place = PLACE.load(Ordering::Acquire);
    check(place != 0, "nobody wrote it")?;
    check((0..bytes / 8).all(|index| read(place + index * 8) == value(index)), "what was read is not what was written")
}

fn value(index: u64) -> u64 {
    index.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5bd1
}

//! The timer of the APIC, in all modes, and the clock.
//!
//! Owns these cases. Nothing may come too early; how late it comes is for the machine, within a second.

use crate::{Outcome, check, meet, until};
use core::sync::atomic::{AtomicU64, Ordering};
use dvm_kit::interrupt::{Timer, halt_until, set_timer, taken};
use dvm_kit::{Page, processor, time};

const MS: u32 = 1_000_000;
/// What clocks of two hosts may differ, in nanoseconds (docs/kvm.md).
const APART: u64 = 300_000;

/// Whose turn it is, and what was read last.
static TURN: Page<AtomicU64> = Page(AtomicU64::new(0));
static LAST: Page<AtomicU64> = Page(AtomicU64::new(0));

/// Once, not again.
pub fn one_shot(_: usize) -> Outcome {
    let start = time::now();
    set_timer(0xe0, Timer::OneShot(5 * MS));
    until(|| taken(0xe0) == 1, "it did not come")?;
    // The two clocks may differ by a little.
    check(time::ns(time::now() - start) >= u64::from(MS) * 49 / 10, "it came too early")?;
    time::spin(15_000);
    check(taken(0xe0) == 1, "it came again")
}

/// Again and again, until it is stopped.
pub fn periodic(_: usize) -> Outcome {
    let start = time::now();
    set_timer(0xe1, Timer::Periodic(2 * MS));
    until(|| taken(0xe1) >= 10, "ten did not come")?;
    let lasted = time::ns(time::now() - start);
    set_timer(0xe1, Timer::OneShot(0));
    check(lasted >= u64::from(MS) * 19, "they came too early")?;
    let count = taken(0xe1);
    time::spin(10_000);
    check(taken(0xe1) <= count + 1, "it went on")
}

/// At a value of the time-stamp counter, which may be in the past.
pub fn deadline(_: usize) -> Outcome {
    let at = time::now() + time::ticks(3000);
    set_timer(0xe2, Timer::Deadline(at));
    until(|| taken(0xe2) == 1, "it did not come")?;
    check(time::now() >= at, "it came too early")?;
    set_timer(0xe2, Timer::Deadline(1));
    until(|| taken(0xe2) == 2, "one in the past did not come")?;
    // Far off: a machine that is busy may leave a processor waiting between both writes.
    set_timer(0xe2, Timer::Deadline(time::now() + time::ticks(200_000)));
    set_timer(0xe2, Timer::Deadline(0));
    time::spin(250_000);
    check(taken(0xe2) == 2, "one that was taken back came")?;
    set_timer(0xe2, Timer::Off);
    Ok(())
}

/// A processor that halted is woken by it.
pub fn halt(_: usize) -> Outcome {
    for round in 1..=5 {
        let start = time::now();
        set_timer(0xe3, Timer::OneShot(3 * MS));
        halt_until(|| taken(0xe3) == round);
        check(time::ns(time::now() - start) >= u64::from(MS) * 29 / 10, "it came too early")?;
    }
    Ok(())
}

/// A processor's clock never goes back, and at the rate of the counter.
pub fn clock(_: usize) -> Outcome {
    time::set_up_clock();
    check(time::began() > 1_700_000_000, "it began long ago")?;
    let read = || (time::now(), time::clock_ns(), time::now());
    let (before, start, behind) = read();
    let mut last = start;
    while time::now() < behind + time::ticks(30_000) {
        let now = time::clock_ns();
        check(now >= last, "it went back")?;
        last = now;
    }
    let (least, end, most) = read();
    // The processor may have waited between any two of them.
    let (least, passed, most) = (time::ns(least - behind), end - start, time::ns(most - before));
    check(passed >= least - least / 1000 && passed <= most + most / 1000, "it has another rate")
}

/// What one processor reads is not less than what another one read before, but for what hosts may differ.
pub fn clocks(cpu: usize) -> Outcome {
    const ROUNDS: u64 = 10;
    let cpus = processor::count() as u64;
    if cpu == 0 {
        TURN.store(0, Ordering::Release);
        LAST.store(0, Ordering::Release);
    }
    meet();
    let mut outcome = Ok(());
    for round in 0..ROUNDS {
        // A processor that fails keeps its turns, or the others would wait for it.
        let turn = round * cpus + cpu as u64;
        outcome = outcome.and(until(|| TURN.load(Ordering::Acquire) >= turn, "no turn came"));
        let (before, now) = (LAST.load(Ordering::Acquire), time::clock_ns());
        outcome = outcome.and(check(now + APART >= before, "another processor was ahead"));
        LAST.store(now, Ordering::Release);
        TURN.store(turn + 1, Ordering::Release);
    }
    outcome
}

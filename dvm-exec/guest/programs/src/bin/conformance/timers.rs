//! The timer of the APIC, in all modes.
//!
//! Owns these cases. Nothing may come too early; how late it comes is for the machine, within a second.

use crate::{Outcome, check, until};
use dvm_kit::interrupt::{Timer, halt_until, set_timer, taken};
use dvm_kit::time;

const MS: u32 = 1_000_000;

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

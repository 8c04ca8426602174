//! Interrupts between processors, in all modes; priorities; halting.
//!
//! Owns these cases. Each uses vectors of its own.

use crate::{Outcome, check, meet, next, until};
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use dvm_kit::interrupt::{self, command, halt_until, is_page, read, send, taken, write};
use dvm_kit::{Page, print, processor, time};

const SELF: u32 = 0x4_0000;
const ALL: u32 = 0x8_0000;
const OTHERS: u32 = 0xc_0000;
const LOGICAL: u32 = 0x800;
const LOWEST: u32 = 0x100;
const NMI: u32 = 0x400;
const LOGICAL_REGISTER: u32 = 0xd0;
const FORMAT_REGISTER: u32 = 0xe0;
const TASK_PRIORITY: u32 = 0x80;
const ERRORS: u32 = 0x280;
const SELF_COMMAND: u32 = 0x3f0;
/// Longer than an interrupt needs: what has not come then does not come.
const LONG_US: u64 = 20_000;

/// Each to the next.
pub fn physical(cpu: usize) -> Outcome {
    for round in 1..=50 {
        send(next(cpu), 0x50);
        until(|| taken(0x50) >= round, "no interrupt came")?;
        meet();
        check(taken(0x50) == round, "more than one came")?;
        meet();
    }
    Ok(())
}

/// All, and all others.
pub fn shorthands(cpu: usize) -> Outcome {
    if cpu == 0 {
        command(0, ALL | 0x51);
        command(0, OTHERS | 0x52);
    }
    until(|| taken(0x51) == 1, "all: none came")?;
    until(|| taken(0x52) == u32::from(cpu != 0), "others: none came")?;
    time::spin(LONG_US);
    check(taken(0x51) == 1 && taken(0x52) == u32::from(cpu != 0), "more than one came, or the sender got it")
}

/// To oneself, by shorthand, by number, and by the register of x2APIC.
pub fn oneself(cpu: usize) -> Outcome {
    command(0, SELF | 0x53);
    until(|| taken(0x53) == 1, "by shorthand: none came")?;
    send(cpu, 0x53);
    until(|| taken(0x53) == 2, "by number: none came")?;
    if !is_page() {
        write(SELF_COMMAND, 0x53);
        until(|| taken(0x53) == 3, "by its register: none came")?;
    }
    Ok(())
}

static NAMES: Page<[AtomicU32; 256]> = Page([const { AtomicU32::new(0) }; 256]);

/// By logical numbers: the flat model, or those of x2APIC.
pub fn logical(cpu: usize) -> Outcome {
    if is_page() {
        if processor::count() > 8 {
            return Ok(());
        }
        write(FORMAT_REGISTER, u32::MAX);
        write(LOGICAL_REGISTER, 1 << (24 + cpu));
        NAMES[cpu].store(1 << cpu, Ordering::Release);
    } else {
        NAMES[cpu].store(read(LOGICAL_REGISTER), Ordering::Release);
    }
    meet();
    command(NAMES[next(cpu)].load(Ordering::Acquire), LOGICAL | 0x54);
    until(|| taken(0x54) == 1, "none came")?;
    meet();
    if cpu == 0 {
        let both = NAMES[0].load(Ordering::Acquire) | NAMES[next(0)].load(Ordering::Acquire);
        command(both, LOGICAL | 0x55);
    }
    let is_meant = cpu == 0 || cpu == next(0);
    until(|| taken(0x55) == u32::from(is_meant), "a set: none came")?;
    time::spin(LONG_US);
    check(taken(0x54) == 1 && taken(0x55) == u32::from(is_meant), "more than one came")
}

/// By clusters of four: xAPIC only.
pub fn clusters(cpu: usize) -> Outcome {
    if !is_page() {
        return Ok(());
    }
    let name = (cpu as u32 / 4) << 4 | 1 << (cpu % 4);
    write(FORMAT_REGISTER, 0x0fff_ffff);
    write(LOGICAL_REGISTER, name << 24);
    NAMES[cpu].store(name, Ordering::Release);
    meet();
    command(NAMES[next(cpu)].load(Ordering::Acquire), LOGICAL | 0x56);
    let came = until(|| taken(0x56) == 1, "none came");
    meet();
    write(FORMAT_REGISTER, u32::MAX);
    write(LOGICAL_REGISTER, 1 << (24 + cpu % 8));
    came
}

static SHARE: Page<AtomicU32> = Page(AtomicU32::new(0));

/// To one of several.
pub fn lowest_priority(cpu: usize) -> Outcome {
    const SENT: u32 = 40;
    interrupt::on(0x57, || {
        SHARE.fetch_add(1, Ordering::AcqRel);
    });
    meet();
    if cpu == 0 {
        for round in 1..=SENT {
            command(if is_page() { 0xff } else { u32::MAX }, LOGICAL | LOWEST | 0x57);
            until(|| SHARE.load(Ordering::Acquire) >= round, "nobody took it")?;
        }
        time::spin(LONG_US);
        check(SHARE.load(Ordering::Acquire) == SENT, "several took one")?;
    }
    Ok(())
}

/// Those that cannot be masked.
pub fn nmi(cpu: usize) -> Outcome {
    interrupt::disable();
    meet();
    command(next(cpu) as u32, 0x4000 | NMI);
    let came = until(|| taken(2) == 1, "none came");
    meet();
    interrupt::enable();
    came
}

/// Vectors that nobody accepts leave an error.
pub fn illegal_vector(_: usize) -> Outcome {
    write(ERRORS, 0);
    command(0, SELF | 5);
    write(ERRORS, 0);
    check(read(ERRORS) & 0x20 != 0, "no error was noted")
}

static GATHERED: Page<AtomicUsize> = Page(AtomicUsize::new(0));

/// Different vectors at once: each arrives, none twice.
pub fn none_lost(cpu: usize) -> Outcome {
    const VECTORS: u8 = 32;
    for vector in 0..VECTORS {
        interrupt::on(0x70 + vector, || {
            GATHERED.fetch_add(1, Ordering::AcqRel);
        });
    }
    meet();
    for vector in 0..VECTORS {
        send(next(cpu), 0x70 + vector);
    }
    let wanted = usize::from(VECTORS) * processor::count();
    until(|| GATHERED.load(Ordering::Acquire) >= wanted, "some did not come")?;
    time::spin(LONG_US);
    check(GATHERED.load(Ordering::Acquire) == wanted, "some came twice")?;
    check((0..VECTORS).all(|vector| taken(0x70 + vector) == 1), "some came to others")
}

static ORDER: Page<AtomicU32> = Page(AtomicU32::new(0));

/// What came while interrupts were off is taken from the highest down.
pub fn order(cpu: usize) -> Outcome {
    fn note(vector: u32) {
        ORDER.store(ORDER.load(Ordering::Acquire) << 8 | vector, Ordering::Release);
    }
    if cpu != 0 {
        return Ok(());
    }
    interrupt::on(0xa1, || note(0xa1));
    interrupt::on(0xb1, || note(0xb1));
    interrupt::on(0xc1, || note(0xc1));
    interrupt::disable();
    for vector in [0xb1, 0xa1, 0xc1] {
        send(0, vector);
    }
    time::spin(1000);
    let early = ORDER.load(Ordering::Acquire);
    interrupt::enable();
    check(early == 0, "taken while interrupts were off")?;
    until(|| ORDER.load(Ordering::Acquire) >> 16 != 0, "some did not come")?;
    check(ORDER.load(Ordering::Acquire) == 0xc1_b1_a1, "not from the highest down")
}

/// The task priority holds back what is not above it.
pub fn task_priority(cpu: usize) -> Outcome {
    write(TASK_PRIORITY, 0x60);
    send(cpu, 0x69);
    send(cpu, 0xd1);
    let above = until(|| taken(0xd1) == 1, "what is above did not come");
    time::spin(1000);
    let early = taken(0x69);
    write(TASK_PRIORITY, 0);
    above?;
    check(early == 0, "what is not above came")?;
    until(|| taken(0x69) == 1, "it did not come later")
}

/// A processor that halted is woken, again and again.
pub fn wake(cpu: usize) -> Outcome {
    const ROUNDS: u32 = 40;
    for round in 1..=ROUNDS {
        if cpu == 0 {
            // Sometimes before it halts, sometimes after.
            time::spin(u64::from(round % 4) * 200);
            (1..processor::count()).for_each(|other| send(other, 0xd2));
        } else {
            halt_until(|| taken(0xd2) >= round);
            check(taken(0xd2) == round, "woken more often than called")?;
        }
        meet();
    }
    Ok(())
}

/// Figures: an interrupt to oneself, and one to the last processor and back.
pub fn measure(cpu: usize) {
    let last = processor::count() - 1;
    if cpu == 0 {
        figure("ipi_to_self_ns", || {
            let before = taken(0xd3);
            send(0, 0xd3);
            while taken(0xd3) == before {
                spin_loop();
            }
        });
    }
    meet();
    if last > 0 && cpu == last {
        for round in 1..=ROUNDS as u32 {
            while taken(0xd4) < round {
                spin_loop();
            }
            send(0, 0xd4);
        }
    }
    if last > 0 && cpu == 0 {
        figure("ipi_round_trip_ns", || {
            let before = taken(0xd4);
            send(last, 0xd4);
            while taken(0xd4) == before {
                spin_loop();
            }
        });
    }
    meet();
}

const ROUNDS: usize = 100;

fn figure(name: &str, mut once: impl FnMut()) {
    let mut times = [0; ROUNDS];
    for time in &mut times {
        let start = time::now();
        once();
        *time = time::now() - start;
    }
    times.sort_unstable();
    let at = |index: usize| time::ns(times[index]);
    print!("figure {name} p50 {} p99 {} max {}\n", at(ROUNDS / 2), at(ROUNDS - 2), at(ROUNDS - 1));
}

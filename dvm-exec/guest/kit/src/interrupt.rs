//! Interrupts: on, off, sent, taken, and the timer.
//!
//! Owns the APIC of this processor, in both modes, and the handlers. Must not be used before [`crate::start`] has set it up.

use crate::processor::{block, is_native};
use crate::sys::cpu::{self, write_register};
use crate::sys::entry::WORDS;
use crate::sys::memory::{read_byte, read_half, take_bit, write_byte, write_half};
use crate::{Page, boot};
use core::hint::spin_loop;
use core::sync::atomic::{AtomicUsize, Ordering, compiler_fence};

const BASE: u32 = 0x1b;
const X2APIC: u32 = 0x800;
const DEADLINE: u32 = 0x6e0;
const PAGE: u64 = 0xfee0_0000;
/// Registers, by their place in the page.
const END: u32 = 0xb0;
const SPURIOUS: u32 = 0xf0;
const COMMAND: u32 = 0x300;
const DESTINATION: u32 = 0x310;
/// The timer's entry, initial count and divisor.
const TIMER: u32 = 0x320;
const INITIAL: u32 = 0x380;
const DIVIDE: u32 = 0x3e0;
/// Counts of interrupts taken, by vector.
const COUNTS: u64 = WORDS + 0x400;
/// Where the machine says that the end of an interrupt needs no write, and where that end is noted instead.
const ENDED: u64 = WORDS + 0x800;
/// The register that takes its address, as KVM has it.
const ENDS: u32 = 0x4b56_4d04;
const NMI: u8 = 2;
/// Ends a halt and does nothing else: for [`crate::Barrier`].
pub(crate) const WAKE: u8 = 0xef;

/// On a page that is hardly ever written: every interrupt reads it.
static HANDLERS: Page<[AtomicUsize; 256]> = Page([const { AtomicUsize::new(0) }; 256]);

/// How the timer runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timer {
    /// Once, in so many nanoseconds.
    OneShot(u32),
    /// Each so many nanoseconds.
    Periodic(u32),
    /// When the time-stamp counter has this value.
    Deadline(u64),
    /// Not at all.
    Off,
}

/// Interrupts of this processor on.
pub fn enable() {
    if !is_native() {
        return cpu::set_flag();
    }
    write_byte(block(), 1);
    compiler_fence(Ordering::SeqCst);
    if read_byte(block() + 1) != 0 {
        // Any instruction of a kernel gives the machine an opportunity.
        cpu::set_flag();
    }
}

/// Interrupts of this processor off.
pub fn disable() {
    if is_native() { write_byte(block(), 0) } else { cpu::clear_flag() }
}

/// Whether interrupts of this processor are on.
#[must_use]
pub fn is_enabled() -> bool {
    if is_native() { read_byte(block()) != 0 } else { cpu::flag() }
}

/// Halts until `is_awaited`, which handlers make true; only spins if the command line has the word `spin`.
pub fn halt_until(is_awaited: impl Fn() -> bool) {
    if has_word("spin") {
        enable();
        while !is_awaited() {
            spin_loop();
        }
        return;
    }
    loop {
        disable();
        if is_awaited() {
            return enable();
        }
        if is_native() {
            cpu::halt();
            enable();
        } else {
            cpu::set_flag_and_halt();
        }
    }
}

/// How often this processor has taken `vector`.
#[must_use]
pub fn taken(vector: u8) -> u32 {
    read_half(block() + COUNTS + u64::from(vector) * 4)
}

/// `handler` is called for each interrupt `vector`, on any processor.
pub fn on(vector: u8, handler: fn()) {
    HANDLERS[usize::from(vector)].store(handler as usize, Ordering::Release);
}

pub(crate) fn arrive(vector: u8) {
    let count = block() + COUNTS + u64::from(vector) * 4;
    write_half(count, read_half(count).wrapping_add(1));
    crate::sys::call(HANDLERS[usize::from(vector)].load(Ordering::Acquire));
    if vector != NMI && !(boot::has_ends() && take_bit(block() + ENDED)) {
        write(END, 0);
    }
}

/// Sets up the APIC: x2APIC, or xAPIC if the command line has the word `xapic`.
pub(crate) fn set_up() {
    if !is_page() {
        const ENABLED: u64 = 3 << 10;
        let base = cpu::read_register(BASE);
        write_register(BASE, base | ENABLED);
    }
    write(SPURIOUS, 0x1ff);
    write(DIVIDE, 0xb);
    if boot::has_ends() {
        write_half(block() + ENDED, 0);
        write_register(ENDS, (block() + ENDED) | 1);
    }
}

/// Whether the registers are those of the page.
#[must_use]
pub fn is_page() -> bool {
    has_word("xapic")
}

fn has_word(wanted: &str) -> bool {
    boot::command_line().split(' ').any(|word| word == wanted)
}

/// Writes a register of the APIC, by its place in the page.
pub fn write(register: u32, value: u32) {
    if is_page() {
        write_half(PAGE + u64::from(register), value);
    } else {
        write_register(X2APIC + (register >> 4), u64::from(value));
    }
}

/// Reads one.
#[must_use]
pub fn read(register: u32) -> u32 {
    if is_page() { read_half(PAGE + u64::from(register)) } else { cpu::read_register(X2APIC + (register >> 4)) as u32 }
}

/// Writes the command register: `command` has the mode, `destination` is a number or a set.
pub fn command(destination: u32, command: u32) {
    if is_page() {
        write_half(PAGE + u64::from(DESTINATION), destination << 24);
        write_half(PAGE + u64::from(COMMAND), command);
    } else {
        write_register(X2APIC + (COMMAND >> 4), u64::from(destination) << 32 | u64::from(command));
    }
}

/// Interrupts processor `cpu`.
pub fn send(cpu: usize, vector: u8) {
    command(cpu as u32, 0x4000 | u32::from(vector));
}

/// Sets the timer, which then interrupts with `vector`.
pub fn set_timer(vector: u8, timer: Timer) {
    const PERIODIC: u32 = 1 << 17;
    const BY_DEADLINE: u32 = 2 << 17;
    const MASKED: u32 = 1 << 16;
    let vector = u32::from(vector);
    match timer {
        Timer::OneShot(ns) => {
            write(TIMER, vector);
            write(INITIAL, ns);
        }
        Timer::Periodic(ns) => {
            write(TIMER, vector | PERIODIC);
            write(INITIAL, ns);
        }
        Timer::Deadline(tsc) => {
            write(TIMER, vector | BY_DEADLINE);
            write_register(DEADLINE, tsc);
        }
        Timer::Off => write(TIMER, vector | MASKED),
    }
}

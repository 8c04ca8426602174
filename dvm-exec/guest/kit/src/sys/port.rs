//! Ports: the serial line and the end.
//!
//! Owns their numbers.

use core::arch::asm;

const SERIAL: u16 = 0x3f8;
const SHUTDOWN: u16 = 0xf4;

fn out(port: u16, value: u8) {
    // SAFETY: these ports change nothing of this program's memory.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags)) }
}

/// Has the serial line hear what it says and interrupt for it, or speak to the console again.
pub fn loop_back(is_wanted: bool) {
    out(SERIAL + 4, u8::from(is_wanted) << 4);
    out(SERIAL + 1, u8::from(is_wanted));
}

fn input(port: u16) -> u8 {
    let value: u8;
    // SAFETY: reading these ports changes nothing of this program's memory.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags)) }
    value
}

/// A byte that was heard.
#[must_use]
pub fn take() -> u8 {
    input(SERIAL)
}

/// Whether a byte was heard.
#[must_use]
pub fn has_heard() -> bool {
    input(SERIAL + 5) & 1 != 0
}

/// Has the serial line interrupt for each byte it hears.
pub fn listen() {
    out(SERIAL + 1, 1);
}

/// Silences the old interrupt controllers, where a machine has them.
pub fn mask_old() {
    out(0x21, 0xff);
    out(0xa1, 0xff);
}

/// Writes to a port where nothing is: what it costs to leave the guest.
pub fn touch_nothing() {
    out(0x80, 0);
}

/// Writes a byte to the console.
pub fn put(byte: u8) {
    out(SERIAL, byte);
}

/// Ends the guest with this status.
pub fn shutdown(status: u8) -> ! {
    loop {
        out(SHUTDOWN, status);
    }
}

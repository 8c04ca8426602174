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

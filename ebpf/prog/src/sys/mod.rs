//! Raw memory and the kernel's helpers.
//!
//! Owns all `unsafe` of the programs: packets in [`packet`], maps in [`words`]. Must not decide anything.
#![expect(unsafe_code, reason = "packets, maps and helpers are raw pointers")]

mod packet;
mod words;

pub use packet::{
    is_joined, tc_link, tc_read, tc_resize, tc_route, tc_send_back, tc_send_copy, tc_write, tc_write_page, xdp_read, xdp_write,
};
pub use words::{Word, count, find, now, scratch, word};

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

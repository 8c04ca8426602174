//! Started by the protocol of PVH: tells what it was handed over, then that every processor is there.
//!
//! Owns the reading of the start information, version 1 (xen/include/public/arch-x86/hvm/start_info.h).

#![no_std]
#![no_main]

use dvm_kit::sys::memory::{read, read_byte, read_half};
use dvm_kit::sys::pvh::start_information;
use dvm_kit::{Barrier, boot, guest, print, processor, pvh};

const MAGIC: u32 = 0x336e_c578;
const RAM: u32 = 1;
/// Longest command line that is shown.
const TEXT_MAX: u64 = 4096;

static DONE: Barrier = Barrier::new();

guest!(main);
pvh!();

fn main(cpu: usize) -> u8 {
    if cpu == 0 && !tell() {
        return 1;
    }
    DONE.wait(processor::count());
    print!("processor {cpu} on host {}\n", boot::here());
    DONE.wait(processor::count());
    0
}

/// False if it was handed over nothing of that kind.
fn tell() -> bool {
    let start = start_information();
    if read_half(start) != MAGIC {
        print!("pvh: no start information at {start:#x}\n");
        return false;
    }
    let (version, text, map, entries) = (read_half(start + 4), read(start + 24), read(start + 40), read_half(start + 48));
    print!("pvh: version {version}, command line `");
    let bytes = (text..text + TEXT_MAX).map(read_byte).take_while(|byte| *byte != 0);
    bytes.for_each(|byte| print!("{}", char::from(byte)));
    print!("`\n");
    for entry in (0..u64::from(entries)).map(|index| map + index * 24).filter(|entry| read_half(entry + 16) == RAM) {
        print!("pvh: memory from {:#x} on, {} KiB\n", read(entry), read(entry + 8) >> 10);
    }
    true
}

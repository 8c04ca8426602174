//! A guest that lost its way: it has the disk interrupt and never asks it why.
//!
//! Owns nothing. The machine ends it.

#![no_std]
#![no_main]

use dvm_kit::line::{self, Trigger};
use dvm_kit::virtio::block::Disk;
use dvm_kit::{alloc, guest, print};

guest!(main);

fn main(cpu: usize) -> u8 {
    if cpu != 0 {
        return 0;
    }
    let (Some(mut disk), Some(buffer)) = (Disk::find(0), alloc::pages(4096)) else {
        print!("storm: give it a disk\n");
        return 2;
    };
    line::route(disk.device().pin(), 0, 0x70, Trigger::Level);
    disk.queue().want_interrupts(true);
    disk.begin_read(0, buffer, 512);
    dvm_kit::interrupt::halt_until(|| false);
    0
}

//! The virtio console, and a disk if there is one, used by every processor.
//!
//! Owns these cases. The disk loses what it had in its first megabyte.

use crate::{Outcome, check, meet, next, until};
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicUsize, Ordering};
use dvm_kit::interrupt::{self, halt_until, taken};
use dvm_kit::line::{self, Trigger};
use dvm_kit::sys::memory::{read, write};
use dvm_kit::virtio::block::{Disk, Refusal, SECTOR};
use dvm_kit::virtio::console::Console;
use dvm_kit::virtio::{Device, NEXT, WRITE};
use dvm_kit::{Lock, Page, alloc, processor, time};

/// What a processor writes and reads at once.
const BYTES: u32 = 8 * SECTOR;
const ROUNDS: u64 = 4;
const BLOCK: u32 = 2;

static DISK: Page<Lock<Option<Disk>>> = Page(Lock::new(None));
static CONSOLE: Page<Lock<Option<Console>>> = Page(Lock::new(None));

/// Whether there is a disk.
pub fn has_disk() -> bool {
    Device::find(BLOCK, 0).is_some()
}

/// Text of a processor, as it is shown.
struct Line {
    bytes: [u8; 80],
    length: usize,
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.length..self.length + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length += text.len();
        Ok(())
    }
}

/// Each processor shows a line.
pub fn console(cpu: usize) -> Outcome {
    if cpu == 0 {
        *CONSOLE.lock() = Some(Console::find().ok_or("there is no console")?);
    }
    meet();
    let mut line = Line { bytes: [0; 80], length: 0 };
    writeln!(line, "shown by processor {cpu} on the virtio console").map_err(|_| "too long")?;
    let text = core::str::from_utf8(&line.bytes[..line.length]).map_err(|_| "no text")?;
    let mut console = CONSOLE.lock();
    let console = console.as_mut().ok_or("there is no console")?;
    console.show(text);
    check(!console.device().is_broken(), "the device is broken")
}

/// The disk, for the cases below.
pub fn find(cpu: usize) -> Outcome {
    if cpu == 0 {
        *DISK.lock() = Some(Disk::find(0).ok_or("it cannot be taken over")?);
        let sectors = with(|disk| Ok(disk.sectors()))?;
        check(sectors >= 2048, "the disk is smaller than a megabyte")?;
    }
    Ok(())
}

fn with<T>(use_it: impl FnOnce(&mut Disk) -> Result<T, Refusal>) -> Result<T, &'static str> {
    let mut disk = DISK.lock();
    use_it(disk.as_mut().ok_or("there is no disk")?).map_err(|refusal| match refusal {
        Refusal::Failed => "the disk failed",
        Refusal::Unknown => "the disk does not know that",
        Refusal::Broken => "the device is broken",
        Refusal::Late => "no answer came",
    })
}

fn value(cpu: usize, round: u64, index: u64) -> u64 {
    (cpu as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(round << 32 | index)
}

fn sector(cpu: usize) -> u64 {
    (cpu as u64 % 255 + 1) * u64::from(BYTES / SECTOR)
}

/// Every processor writes what is its own and reads what the next one wrote, all at once.
pub fn transfers(cpu: usize) -> Outcome {
    let buffer = alloc::pages(u64::from(BYTES)).ok_or("no memory")?;
    for round in 0..ROUNDS {
        (0..u64::from(BYTES) / 8).for_each(|index| write(buffer + index * 8, value(cpu, round, index)));
        with(|disk| disk.write(sector(cpu), buffer, BYTES))?;
        with(Disk::flush)?;
        meet();
        with(|disk| disk.read(sector(next(cpu)), buffer, BYTES))?;
        let mut words = 0..u64::from(BYTES) / 8;
        check(words.all(|index| read(buffer + index * 8) == value(next(cpu), round, index)), "another content was read")?;
        meet();
    }
    Ok(())
}

static ANSWERED: Page<AtomicUsize> = Page(AtomicUsize::new(0));

/// The disk interrupts each processor in its turn, as a level, and a processor that halted is woken by it.
pub fn interrupts(cpu: usize) -> Outcome {
    const VECTOR: u8 = 0xd7;
    let buffer = alloc::pages(4096).ok_or("no memory")?;
    interrupt::on(VECTOR, || {
        if let Some(device) = Device::find(BLOCK, 0) {
            device.answer();
            ANSWERED.fetch_add(1, Ordering::AcqRel);
        }
    });
    let mut outcome = Ok(());
    for turn in 0..processor::count() {
        if turn == cpu {
            outcome = take_interrupts(cpu, VECTOR, buffer);
        }
        meet();
    }
    outcome
}

fn take_interrupts(cpu: usize, vector: u8, buffer: u64) -> Outcome {
    let mut held = DISK.lock();
    let disk = held.as_mut().ok_or("there is no disk")?;
    line::route(disk.device().pin(), cpu, vector, Trigger::Level);
    disk.queue().want_interrupts(true);
    let mut outcome = Ok(());
    for round in 1..=10 {
        disk.begin_read(sector(cpu), buffer, SECTOR);
        halt_until(|| taken(vector) >= round);
        outcome = outcome.and(disk.finish().map_err(|_| "an interrupt without an answer"));
        time::spin(1000);
        outcome = outcome.and(check(taken(vector) == round, "more than one came"));
    }
    disk.queue().want_interrupts(false);
    line::mask(disk.device().pin());
    outcome
}

/// What the disk cannot do is answered so, and changes nothing.
pub fn refusals(cpu: usize) -> Outcome {
    let buffer = alloc::pages(4096).ok_or("no memory")?;
    let mut held = DISK.lock();
    let disk = held.as_mut().ok_or("there is no disk")?;
    let end = disk.sectors();
    check(disk.read(end, buffer, SECTOR) == Err(Refusal::Failed), "read behind the end")?;
    check(disk.write(end - 1, buffer, 2 * SECTOR) == Err(Refusal::Failed), "written over the end")?;
    check(disk.write(u64::MAX, buffer, SECTOR) == Err(Refusal::Failed), "written far behind the end")?;
    check(disk.read(sector(cpu), buffer, 100) == Err(Refusal::Failed), "a part of a sector was read")?;
    check(disk.read(sector(cpu), buffer, SECTOR).is_ok(), "good requests are refused, too")
}

/// Descriptors that are none break the device, which a reset mends: each processor in its turn.
pub fn broken(cpu: usize) -> Outcome {
    let page = alloc::pages(4096).ok_or("no memory")?;
    let mut held = DISK.lock();
    let disk = held.as_mut().ok_or("there is no disk")?;
    // Nowhere, where each host has its own, half outside, in a circle.
    let bad = [(1 << 46, 16, NEXT), (0xd000_0000, 16, NEXT), (u64::MAX - 7, 16, NEXT), (page, 0, WRITE), (page, 1, WRITE | NEXT)];
    for (address, bytes, flags) in bad {
        (0..8).for_each(|index| disk.queue().describe(index, address, bytes, flags));
        disk.queue().ask(0);
        let device = disk.device();
        until(|| device.is_broken(), "the device goes on")?;
        check(disk.queue().poll().is_none(), "the request was answered")?;
        check(disk.renew(), "it cannot be taken over again")?;
        check(disk.read(sector(cpu), page, SECTOR).is_ok(), "it does not go on after a reset")?;
    }
    Ok(())
}

//! A key-value service: commands on a console, data on a disk.
//!
//! Owns the commands. The first processor reads them; each key belongs to a processor, which alone uses its part of the disk. With
//! the word `virtio` on the command line the console is the virtio one, else the serial line.
//!
//! ```text
//! put KEY VALUE -> ok            get KEY -> value VALUE, none      del KEY -> ok, none
//! count -> count N               end -> the guest ends             anything else -> error and the reason
//! ```
//!
//! Answers begin with the number of the processor that gave them.

#![no_std]
#![no_main]

mod console;
mod store;
mod text;

use console::Console;
use core::sync::atomic::{AtomicU32, Ordering};
use dvm_kit::interrupt::{self, halt_until};
use dvm_kit::virtio::block::Disk;
use dvm_kit::{Lock, Page, guest, processor};
use store::Part;
use text::Text;

/// Most processors.
const CPUS_MAX: usize = 64;
const VECTOR: u8 = 0x61;
const IDLE: u32 = 0;
const ASKED: u32 = 1;
const ANSWERED: u32 = 2;

/// A command for a processor, and its answer.
struct Desk {
    state: AtomicU32,
    text: Lock<Text>,
}

static DISK: Page<Lock<Option<Disk>>> = Page(Lock::new(None));
static DESKS: [Page<Desk>; CPUS_MAX] =
    [const { Page(Desk { state: AtomicU32::new(IDLE), text: Lock::new(Text::new()) }) }; CPUS_MAX];

guest!(main);

fn main(cpu: usize) -> u8 {
    if cpu == 0 {
        return serve();
    }
    let Some(desk) = DESKS.get(cpu) else { return 1 };
    loop {
        halt_until(|| desk.state.load(Ordering::Acquire) == ASKED);
        let answer = obey(cpu, &desk.text.lock());
        *desk.text.lock() = answer;
        desk.state.store(ANSWERED, Ordering::Release);
        interrupt::send(0, VECTOR);
    }
}

/// The first processor: reads commands until the end.
fn serve() -> u8 {
    let mut console = match Console::find() {
        Ok(console) => console,
        Err(reason) => {
            dvm_kit::print!("kv: {reason}\n");
            return 2;
        }
    };
    let Some(disk) = Disk::find(0) else {
        console.show("kv: there is no disk: give one with --disk\n");
        return 2;
    };
    *DISK.lock() = Some(disk);
    console.show("kv: ready\n");
    loop {
        let line = console.line();
        match line.words().next() {
            None => {}
            Some("end") => return 0,
            Some("count") => count(&mut console),
            Some(_) => {
                let cpu = line.words().nth(1).map_or(0, |key| store::owner(key, processor::count()));
                console.show(ask(cpu, &line).as_str());
            }
        }
    }
}

/// Asks every processor for its part.
fn count(console: &mut Console) {
    let mut sum = 0;
    for cpu in 0..processor::count() {
        let answer = ask(cpu, &Text::of(format_args!("count")));
        let Some(count) = answer.words().nth(2).and_then(|word| word.parse::<u64>().ok()) else {
            return console.show(answer.as_str());
        };
        sum += count;
    }
    console.show(Text::of(format_args!("0 count {sum}\n")).as_str());
}

/// Has a processor obey a command.
fn ask(cpu: usize, line: &Text) -> Text {
    if cpu == 0 {
        return obey(0, line);
    }
    let Some(desk) = DESKS.get(cpu) else { return Text::of(format_args!("0 error too many processors\n")) };
    *desk.text.lock() = line.clone();
    desk.state.store(ASKED, Ordering::Release);
    interrupt::send(cpu, VECTOR);
    halt_until(|| desk.state.load(Ordering::Acquire) == ANSWERED);
    desk.state.store(IDLE, Ordering::Release);
    desk.text.lock().clone()
}

fn obey(cpu: usize, line: &Text) -> Text {
    let mut disk = DISK.lock();
    let Some(disk) = disk.as_mut() else { return Text::of(format_args!("{cpu} error no disk\n")) };
    let done = Part::new(disk, cpu, processor::count()).and_then(|mut part| answer(&mut part, line));
    match done {
        Ok(answer) => Text::of(format_args!("{cpu} {}\n", answer.as_str())),
        Err(reason) => Text::of(format_args!("{cpu} error {reason}\n")),
    }
}

fn answer(part: &mut Part<'_>, line: &Text) -> Result<Text, &'static str> {
    let mut words = line.words();
    let none = || Ok(Text::of(format_args!("none")));
    match (words.next(), words.next(), words.next(), words.next()) {
        (Some("put"), Some(key), Some(value), None) => part.put(key, value).map(|()| Text::of(format_args!("ok"))),
        (Some("get"), Some(key), None, None) => match part.get(key)? {
            Some(value) => Ok(Text::of(format_args!("value {}", value.as_str()))),
            None => none(),
        },
        (Some("del"), Some(key), None, None) => match part.remove(key)? {
            true => Ok(Text::of(format_args!("ok"))),
            false => none(),
        },
        (Some("count"), None, None, None) => part.count().map(|count| Text::of(format_args!("count {count}"))),
        _ => Err("put KEY VALUE, get KEY, del KEY, count or end is understood"),
    }
}

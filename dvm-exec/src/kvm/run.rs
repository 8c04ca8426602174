//! `dvm-exec kvm run`: one guest, from its image to its status.
//!
//! Owns the order in which a machine is made, started and ended. Must not know registers or devices.

use super::boot::{self, Shape};
use super::devices::Devices;
use super::failure::Failure;
use super::image::{self, Loaded};
use super::layout::{self, MEMORY_MAX, MEMORY_MIN, PRIVATE, PRIVATE_BYTES};
use super::machine::Machine;
use super::processor::Carrier;
use super::setup::{self, Board, Start};
use crate::sys::vm::{self, Memory};
use clap::Args;
use dvm_apic::limits::PROCESSORS_MAX;
use kvm_ioctls::VcpuFd;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use vm_memory::GuestAddress;

/// Exit status: the guest's own, or one of those that docs/kvm.md lists.
#[derive(Args, Debug)]
pub struct Options {
    /// On this host alone, without an agent.
    #[arg(long)]
    local: bool,
    /// Processors of the guest.
    #[arg(long, default_value_t = 1)]
    cpus: usize,
    /// Its memory: a number with K, M or G.
    #[arg(long, default_value = "64M", value_parser = bytes)]
    mem: u64,
    /// Show at the end what each processor did, on stderr.
    #[arg(long)]
    stat: bool,
    /// Flat image, ELF file, or bzImage.
    image: PathBuf,
    /// The guest's command line.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command_line: Vec<String>,
}

/// Runs the guest; gives its status.
///
/// # Errors
/// Why it could not be run, or was ended.
pub fn run(options: &Options) -> Result<u8, Failure> {
    judge(options)?;
    vm::install_kick().map_err(|source| Failure::Host { what: "catch a signal", source, fix: "report it" })?;
    let memory: &'static Memory = Box::leak(Box::new(memory(options.mem)?));
    let loaded = load(options, memory)?;
    let board = Board::new(memory)?;
    let vcpus = (0..options.cpus).map(|cpu| board.processor(cpu)).collect::<Result<Vec<_>, _>>()?;
    let shape = Shape {
        hosts: vec![0; options.cpus],
        here: 0,
        bytes: options.mem,
        tsc_khz: setup::tsc_khz(&vcpus[0])?,
        command_line: options.command_line.join(" "),
        image_end: loaded.end,
    };
    boot::prepare_private(memory, &shape).map_err(Failure::Settings)?;
    boot::prepare_protocol(memory, &loaded, &shape).map_err(Failure::Settings)?;
    let machine = Arc::new(Machine::new(options.cpus, Devices::new(Box::new(Console)), shape.tsc_khz));
    machine.set_tsc_offset(vm::tsc_offset(&vcpus[0]));
    let mut start = Some(setup::start(&vcpus[0], &loaded.entry)?);
    for (cpu, vcpu) in vcpus.into_iter().enumerate() {
        let (machine, start) = (Arc::clone(&machine), start.take());
        spawn(format!("cpu {cpu}"), move || carry(&machine, cpu, vcpu, start))?;
    }
    attend(&machine)?;
    machine.life.run();
    let ended = machine.life.wait_for_end();
    if options.stat {
        tell(&machine);
    }
    ended
}

fn judge(options: &Options) -> Result<(), Failure> {
    if !options.local {
        return Err(Failure::Settings("a guest over several hosts is not there yet: say --local".to_owned()));
    }
    if !(1..=PROCESSORS_MAX).contains(&options.cpus) {
        return Err(Failure::Settings(format!("{} processors: 1 to {PROCESSORS_MAX} are possible", options.cpus)));
    }
    if !(MEMORY_MIN..=MEMORY_MAX).contains(&options.mem) || !options.mem.is_multiple_of(1 << 20) {
        let (least, most) = (MEMORY_MIN >> 20, MEMORY_MAX >> 20);
        let message = format!("a memory of {} bytes: whole MiB from {least} to {most} are possible", options.mem);
        return Err(Failure::Settings(message));
    }
    Ok(())
}

/// The memory of the guest and, last, what each host has of its own.
fn memory(bytes: u64) -> Result<Memory, Failure> {
    let pieces = layout::pieces(bytes).into_iter().chain([(PRIVATE, PRIVATE_BYTES)]);
    let mut ranges: Vec<_> = pieces.map(|(first, bytes)| (GuestAddress(first), bytes as usize)).collect();
    ranges.sort();
    Memory::from_ranges(&ranges).map_err(|error| Failure::Host {
        what: "map the guest's memory",
        source: io::Error::other(error.to_string()),
        fix: "ask for less",
    })
}

fn load(options: &Options, memory: &Memory) -> Result<Loaded, Failure> {
    let refused = |reason| Failure::Image { name: options.image.display().to_string(), reason };
    let file = std::fs::read(&options.image).map_err(|error| refused(error.to_string()))?;
    image::load(&file, memory, options.mem).map_err(|error| refused(error.to_string()))
}

/// The thread of one processor.
fn carry(machine: &Machine, cpu: usize, vcpu: VcpuFd, start: Option<Start>) {
    match Carrier::new(machine, cpu, vcpu, start) {
        Ok(carrier) => carrier.run(),
        Err(error) => machine.fail(Failure::Kvm { cpu, reason: format!("an error at start: {error}"), state: String::new() }),
    }
}

/// Starts what a running guest needs beside its processors: a clock and someone who types.
fn attend(machine: &Arc<Machine>) -> Result<(), Failure> {
    let clock = Arc::clone(machine);
    spawn("clock".to_owned(), move || clock.keep_time())?;
    let keyboard = Arc::clone(machine);
    spawn("console".to_owned(), move || {
        let mut bytes = [0; 256];
        // An input that cannot be read is as good as none.
        while let Ok(count @ 1..) = io::stdin().lock().read(&mut bytes) {
            keyboard.type_in(bytes.get(..count).unwrap_or_default());
        }
    })
}

fn spawn(name: String, body: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    match thread::Builder::new().name(name).spawn(body) {
        Ok(_) => Ok(()),
        Err(source) => Err(Failure::Host { what: "start a thread", source, fix: "raise the limit of processes" }),
    }
}

/// Standard output, byte by byte as the guest writes.
struct Console;

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn tell(machine: &Machine) {
    for (cpu, processor) in machine.processors.iter().enumerate() {
        let figures = &processor.figures;
        let [exits, ports, addresses, registers, halts, interrupts, sent] = [
            &figures.exits,
            &figures.ports,
            &figures.addresses,
            &figures.registers,
            &figures.halts,
            &figures.interrupts,
            &figures.sent,
        ]
        .map(|figure| figure.load(Ordering::Relaxed));
        eprintln!(
            "cpu {cpu} exits {exits} ports {ports} addresses {addresses} registers {registers} halts {halts} interrupts {interrupts} \
             sent {sent}"
        );
    }
}

/// A number of bytes as users write it.
fn bytes(text: &str) -> Result<u64, String> {
    let (number, shift) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (text.get(..at), 10),
        Some((at, 'M' | 'm')) => (text.get(..at), 20),
        Some((at, 'G' | 'g')) => (text.get(..at), 30),
        _ => (Some(text), 0),
    };
    let number = number.and_then(|number| number.parse::<u64>().ok());
    let scaled = number.and_then(|number| number.checked_mul(1 << shift));
    scaled.ok_or_else(|| format!("`{text}` is no number of bytes: write 512M or 4G"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, size) in [("64M", Some(64 << 20)), ("4G", Some(4 << 30)), ("4096", Some(4096)), ("8k", Some(8192))] {
            assert_eq!(bytes(text).ok(), size, "{text}");
        }
        for text in ["", "G", "4T", "-1", "99999999999999G"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}

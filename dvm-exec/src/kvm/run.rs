//! `dvm-exec kvm run`: one guest, from its image to its status.
//!
//! Owns the order in which a machine is made, started and ended. Must not know registers or devices.

use super::boot::{self, Shape};
use super::devices::{Devices, Outside};
use super::failure::Failure;
use super::hosts::Job;
use super::image::{self, Loaded};
use super::layout::{MEMORY_MAX, MEMORY_MIN};
use super::machine::Machine;
use super::part::{self, Part};
use super::setup::{self, Board};
use crate::sys::vm::{self, Memory};
use clap::{Args, ValueEnum};
use dvm_apic::limits::PROCESSORS_MAX;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// Exit status: the guest's own, or one of those that docs/kvm.md lists.
#[derive(Args, Debug)]
pub struct Options {
    /// On this host alone, without an agent.
    #[arg(long)]
    local: bool,
    /// Hosts by name, separated by commas [default: all of the cluster].
    #[arg(long, value_delimiter = ',', conflicts_with = "local")]
    pub hosts: Vec<String>,
    /// The agent's control socket [default: $DVM_SOCKET, or the only one in /run/dvm].
    #[arg(long, conflicts_with = "local")]
    pub socket: Option<PathBuf>,
    /// Where processors go: one host after the other, or the first ones to the first host and so on.
    #[arg(long, default_value = "rr")]
    place: Place,
    /// Processors of the guest.
    #[arg(long, default_value_t = 1)]
    cpus: usize,
    /// Its memory: a number with K, M or G.
    #[arg(long, default_value = "64M", value_parser = bytes)]
    pub mem: u64,
    /// Use the kernel's interrupt controllers, to compare ours with them.
    #[arg(long, hide = true, requires = "local")]
    kernel_apic: bool,
    /// Show at the end what each processor did, on stderr.
    #[arg(long)]
    stat: bool,
    /// Flat image, ELF file, or bzImage.
    pub image: PathBuf,
    /// The guest's command line.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command_line: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Place {
    /// One host after the other.
    Rr,
    /// Equal shares, in order.
    Block,
}

impl Place {
    fn host_of(self, cpu: usize, cpus: usize, hosts: usize) -> u16 {
        let host = match self {
            Self::Rr => cpu % hosts,
            Self::Block => cpu * hosts / cpus,
        };
        host as u16
    }
}

/// Runs the guest; gives its status.
///
/// # Errors
/// Why it could not be run, or was ended.
pub fn run(options: &Options) -> Result<u8, Failure> {
    judge(options)?;
    let job = if options.local { None } else { Some(Job::open(options)?) };
    let memory = part::memory(options.mem, job.is_some())?;
    let loaded = load(options, memory)?;
    let hosts = job.as_ref().map_or(1, Job::hosts);
    let mut shape = Shape {
        hosts: (0..options.cpus).map(|cpu| options.place.host_of(cpu, options.cpus, hosts)).collect(),
        here: 0,
        bytes: options.mem,
        tsc_khz: 0,
        command_line: options.command_line.join(" "),
        image_end: loaded.end,
    };
    let board = Arc::new(Board::new(memory, options.kernel_apic)?);
    let part = Part::make(&board, &mut shape)?;
    boot::prepare_private(memory, &shape).map_err(Failure::Settings)?;
    boot::prepare_protocol(memory, &loaded, &shape).map_err(Failure::Settings)?;
    let start = setup::start(part.first()?, &loaded.entry)?;
    let elsewhere = job.as_ref().map(Job::elsewhere);
    let outside = options.kernel_apic.then(|| -> Outside {
        let board = Arc::clone(&board);
        Box::new(move |pin| board.pulse(pin))
    });
    let machine = Arc::new(Machine::new(&shape, Some(Devices::new(Box::new(Console), outside)), elsewhere));
    machine.set_tsc_offset(vm::tsc_offset(part.first()?));
    part.start(&machine, Some(start), options.kernel_apic)?;
    listen(&machine)?;
    if let Some(job) = &job {
        job.gather(&machine, &shape)?;
    }
    machine.life.run();
    let ended = machine.life.wait_for_end();
    let figures =
        job.map_or_else(Vec::new, |job| job.end(options.stat, ended.as_ref().map_or_else(Failure::status, |status| *status)));
    if options.stat {
        eprint!("{}{}", part::figures(&machine), figures.concat());
    }
    ended
}

fn judge(options: &Options) -> Result<(), Failure> {
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

fn load(options: &Options, memory: &Memory) -> Result<Loaded, Failure> {
    let refused = |reason| Failure::Image { name: options.image.display().to_string(), reason };
    let file = std::fs::read(&options.image).map_err(|error| refused(error.to_string()))?;
    image::load(&file, memory, options.mem).map_err(|error| refused(error.to_string()))
}

/// Starts a thread for who types.
fn listen(machine: &Arc<Machine>) -> Result<(), Failure> {
    let machine = Arc::clone(machine);
    part::spawn("console".to_owned(), move || {
        let mut bytes = [0; 256];
        // An input that cannot be read is as good as none.
        while let Ok(count @ 1..) = io::stdin().lock().read(&mut bytes) {
            machine.type_in(bytes.get(..count).unwrap_or_default());
        }
    })
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

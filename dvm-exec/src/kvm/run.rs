//! `dvm-exec kvm run`: one guest, from its image to its status.
//!
//! Owns the order in which a machine is made, started and ended. Must not know registers or devices.

use super::boot::{self, Shape};
use super::control::{self, Control, Description, Guest};
use super::devices::{Devices, Outside};
use super::failure::Failure;
use super::hosts::Job;
use super::image::{self, Entry, Loaded};
use super::layout::{MEMORY_MAX, MEMORY_MIN, VIRTIO_SLOTS};
use super::machine::Machine;
use super::part::{self, Memories, Part};
use super::rate::Counter;
use super::setup::{self, Board, Kind};
use super::virtio::block::{Disk, DiskName};
use super::virtio::{self, Bus, Device};
use crate::sys::vm::{self, Memory};
use clap::{Args, ValueEnum};
use dvm_apic::limits::PROCESSORS_MAX;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

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
    /// Hide what only a software KVM offers, to try how images do without.
    #[arg(long, hide = true, requires = "local", conflicts_with = "kernel_apic")]
    plain: bool,
    /// A disk, FILE or FILE,ro; up to seven.
    #[arg(long = "disk", value_name = "FILE[,ro]")]
    disks: Vec<DiskName>,
    /// Which console gets standard input; both show what they are given on standard output.
    #[arg(long, default_value = "serial")]
    console: Console,
    /// What `ps`, `pause`, `resume` and `stat` call it [default: the number of its process].
    #[arg(long, value_parser = control::judge_name)]
    name: Option<String>,
    /// Show at the end what each processor did, and what the agents counted, on stderr.
    #[arg(long)]
    stat: bool,
    /// Flat image, ELF file, or bzImage.
    pub image: PathBuf,
    /// The guest's command line.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command_line: Vec<String>,
}

impl Options {
    fn kind(&self) -> Kind {
        match (self.kernel_apic, self.plain) {
            (true, _) => Kind::KernelApic,
            (false, true) => Kind::Plain,
            (false, false) => Kind::Ours,
        }
    }
}

/// The place of the virtio console.
const CONSOLE_SLOT: usize = 0;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Console {
    /// The serial line.
    Serial,
    /// The virtio console.
    Virtio,
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
    let started = Instant::now();
    let control = Control::open(options.name.as_deref())?;
    let job = if options.local { None } else { Some(Job::open(options)?) };
    let Memories { all: memory, shared } = part::memory(options.mem, job.is_some())?;
    let loaded = load(options, memory)?;
    let hosts = job.as_ref().map_or(1, Job::hosts);
    let mut shape = Shape {
        hosts: (0..options.cpus).map(|cpu| options.place.host_of(cpu, options.cpus, hosts)).collect(),
        here: 0,
        bytes: options.mem,
        tsc_khz: 0,
        clock_tsc: 0,
        began_ns: 0,
        has_ends: !options.kernel_apic,
        command_line: options.command_line.join(" "),
        image_end: loaded.end,
    };
    let board = Arc::new(Board::new(memory, options.kind())?);
    let part = Part::make(&board, &mut shape)?;
    shape.clock_tsc = vm::timestamp().wrapping_add(vm::tsc_offset(part.first()?));
    shape.began_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    boot::prepare_private(memory, &shape).map_err(Failure::Settings)?;
    boot::prepare_protocol(memory, &loaded, &shape).map_err(Failure::Settings)?;
    let start = setup::start(part.first()?, &loaded.entry)?;
    let elsewhere = job.as_ref().map(Job::elsewhere);
    let outside = options.kernel_apic.then(|| -> Outside {
        let board = Arc::clone(&board);
        Box::new(move |pin, is_asserted| board.set_line(pin, is_asserted))
    });
    let devices = (Devices::new(Box::new(Screen), outside), bus(options, shared)?);
    let machine = Arc::new(Machine::new(&shape, Some(devices), elsewhere));
    machine.set_counter(Counter { offset: vm::tsc_offset(part.first()?), ..Counter::default() });
    part.start(&machine, Some(start), options.kernel_apic)?;
    for slot in machine.slots() {
        let machine = Arc::clone(&machine);
        part::spawn(format!("device {slot}"), move || machine.serve(slot))?;
    }
    let typed_to = match options.console {
        Console::Serial => None,
        Console::Virtio => Some(CONSOLE_SLOT),
    };
    listen(&machine, typed_to)?;
    if let Some(control) = &control {
        let description = describe(options, &control.name, job.as_ref());
        control.serve(Guest { machine: Arc::clone(&machine), members: job.as_ref().map(Job::members), description, started })?;
    }
    if let Some(job) = &job {
        let mut shadowing = job.gather(&machine, &shape)?;
        if setup::has_shadow_tables() {
            shadowing.splice(..0, job.members().names().first().cloned());
        }
        warn(&loaded.entry, &shadowing);
    }
    machine.life.run();
    let ended = machine.life.wait_for_end();
    finish(&machine, job.as_ref(), options.stat, &ended);
    ended
}

/// Ends the job, and shows what was done if that is wanted.
fn finish(machine: &Machine, job: Option<&Job>, has_figures: bool, ended: &Result<u8, Failure>) {
    let (mut rows, mut pages) = (machine.figures(), Vec::new());
    if let Some(job) = job {
        // After a loss the agent has other things to do.
        if has_figures && ended.is_ok() {
            pages = job.pages();
        }
        let told = job.end(has_figures, ended.as_ref().map_or_else(Failure::status, |status| *status));
        rows.extend(told.rows);
        pages.extend(told.clocks.iter().map(|(host, ns)| format!("clock of {host} within {ns} ns")));
    }
    if has_figures {
        rows.iter().for_each(|row| eprintln!("{row}"));
        pages.iter().for_each(|line| eprintln!("{line}"));
    }
}

/// Kernels that are started by a boot protocol have their page tables in shared memory; the kit's are private.
fn warn(entry: &Entry, shadowing: &[String]) {
    let is_private = matches!(entry, Entry::Native(_));
    if !is_private && !shadowing.is_empty() {
        let hosts = shadowing.join(", ");
        eprintln!(
            "dvm-exec: KVM shadows page tables on {hosts}: what another host changes in them is not followed there; \
             use hosts with EPT or NPT (docs/kvm.md)"
        );
    }
}

fn describe(options: &Options, name: &str, job: Option<&Job>) -> Description {
    // A host without a name is still one.
    let own = || vec![std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "localhost".to_owned(), trimmed)];
    Description {
        name: name.to_owned(),
        pid: std::process::id(),
        stage: String::new(),
        cpus: options.cpus,
        hosts: job.map_or_else(own, |job| job.members().names()),
        memory_bytes: options.mem,
        uptime_s: 0,
        image: options.image.display().to_string(),
    }
}

fn trimmed(text: String) -> String {
    text.trim().to_owned()
}

fn judge(options: &Options) -> Result<(), Failure> {
    if !(1..=PROCESSORS_MAX).contains(&options.cpus) {
        return Err(Failure::Settings(format!("{} processors: 1 to {PROCESSORS_MAX} are possible", options.cpus)));
    }
    if options.disks.len() >= VIRTIO_SLOTS {
        return Err(Failure::Settings(format!("{} disks: {} are possible", options.disks.len(), VIRTIO_SLOTS - 1)));
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

/// The virtio devices: the console, then the disks.
fn bus(options: &Options, memory: &'static Memory) -> Result<Bus, Failure> {
    let mut devices: Vec<Box<dyn Device>> = vec![Box::new(virtio::console::Console::new(Box::new(Screen)))];
    for disk in &options.disks {
        devices.push(Box::new(Disk::open(disk).map_err(Failure::Disk)?));
    }
    Ok(Bus::new(devices, memory))
}

/// Starts a thread for who types.
fn listen(machine: &Arc<Machine>, typed_to: Option<usize>) -> Result<(), Failure> {
    let machine = Arc::clone(machine);
    part::spawn("console".to_owned(), move || {
        let mut bytes = [0; 256];
        // An input that cannot be read is as good as none.
        while let Ok(count @ 1..) = io::stdin().lock().read(&mut bytes) {
            machine.type_in(bytes.get(..count).unwrap_or_default(), typed_to);
        }
    })
}

/// Standard output, byte by byte as the guest writes.
struct Screen;

impl Write for Screen {
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

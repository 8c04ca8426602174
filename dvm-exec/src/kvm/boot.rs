//! What is in the guest's memory before its first instruction: private memory of a host, and what the boot protocols want.
//!
//! Owns the words that a native image is told, the page tables, and the structures of Linux and PVH. Must not know registers.

use super::image::{Entry, Loaded};
use super::layout::{
    self, BASE_END, BOOT, COMMAND_LINE, COMMAND_LINE_BYTES, DESCRIPTORS, HIGH, IMAGE, LINUX_COMMAND_LINE, LOW_END, MEMORY_MAP,
    PAGE, PRIVATE, PROCESSOR_BYTES, PROCESSORS, START_INFO, TABLES, ZERO_PAGE,
};
use crate::sys::vm::Memory;
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_start_info};
use vm_memory::{Bytes, GuestAddress};

/// The first word that a native image is told: `DVMBOOT1`.
const MAGIC: u64 = u64::from_le_bytes(*b"DVMBOOT1");
/// Where the numbers of the processors' hosts lie, a byte for each.
const HOSTS: u64 = BOOT + 0x800;
/// Code and data segments for 64-bit mode, at the selectors that the boot protocol of Linux asks for.
pub const GLOBAL_DESCRIPTORS: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
const E820_RAM: u32 = 1;

/// What a guest is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Host of each processor.
    pub hosts: Vec<u16>,
    /// This host.
    pub here: u16,
    /// Size of its memory.
    pub bytes: u64,
    /// Rate of the time-stamp counter.
    pub tsc_khz: u64,
    /// Where the counter was when the guest's clock began.
    pub clock_tsc: u64,
    /// When that was, in nanoseconds since 1970.
    pub began_ns: u64,
    /// Whether ends of interrupts can be noted in a word.
    pub has_ends: bool,
    /// Its command line.
    pub command_line: String,
    /// First byte behind the image.
    pub image_end: u64,
}

/// Writes private memory, which each host does for itself.
///
/// # Errors
/// What does not fit.
pub fn prepare_private(memory: &Memory, shape: &Shape) -> Result<(), String> {
    let text = shape.command_line.as_bytes();
    if text.len() as u64 >= COMMAND_LINE_BYTES || text.contains(&0) {
        return Err(format!("a command line of {} bytes: at most {} without a zero", text.len(), COMMAND_LINE_BYTES - 1));
    }
    let low_end = shape.bytes.min(LOW_END);
    let words = [
        MAGIC,
        shape.hosts.len() as u64,
        shape.bytes,
        shape.tsc_khz,
        PRIVATE,
        PROCESSORS,
        PROCESSOR_BYTES,
        TABLES,
        COMMAND_LINE,
        text.len() as u64,
        shape.hosts.iter().max().map_or(1, |last| u64::from(*last) + 1),
        u64::from(shape.here),
        low_end,
        HIGH,
        shape.image_end.next_multiple_of(PAGE),
        u64::from(shape.has_ends),
    ];
    let write = || -> Result<(), vm_memory::GuestMemoryError> {
        for (index, word) in (0..).zip(words) {
            memory.write_obj(word, GuestAddress(BOOT + index * 8))?;
        }
        for (cpu, host) in (0..).zip(&shape.hosts) {
            memory.write_obj(*host as u8, GuestAddress(HOSTS + cpu))?;
        }
        for (index, descriptor) in (0..).zip(GLOBAL_DESCRIPTORS) {
            memory.write_obj(descriptor, GuestAddress(DESCRIPTORS + index * 8))?;
        }
        memory.write_slice(text, GuestAddress(COMMAND_LINE))?;
        write_tables(memory, shape.bytes)
    };
    write().map_err(|error| format!("private memory: {error}"))
}

/// Maps every address to itself by pages of 2 MiB, for user mode too: a kernel that a software KVM runs natively is there.
fn write_tables(memory: &Memory, bytes: u64) -> Result<(), vm_memory::GuestMemoryError> {
    const PRESENT: u64 = 7;
    const LARGE: u64 = 1 << 7;
    let gigabytes = 4 + bytes.saturating_sub(LOW_END).div_ceil(1 << 30);
    let second = TABLES + PAGE;
    memory.write_obj(second | PRESENT, GuestAddress(TABLES))?;
    for gigabyte in 0..gigabytes {
        let third = second + PAGE * (1 + gigabyte);
        memory.write_obj(third | PRESENT, GuestAddress(second + gigabyte * 8))?;
        for index in 0..512 {
            let page = (gigabyte << 30) | (index << 21);
            memory.write_obj(page | LARGE | PRESENT, GuestAddress(third + index * 8))?;
        }
    }
    Ok(())
}

/// Writes what the image's own boot protocol wants, once for the guest.
///
/// # Errors
/// What does not fit.
pub fn prepare_protocol(memory: &Memory, loaded: &Loaded, shape: &Shape) -> Result<(), String> {
    let text = [shape.command_line.as_bytes(), &[0]].concat();
    match &loaded.entry {
        Entry::Native(_) => return Ok(()),
        Entry::Pvh(_) => prepare_pvh(memory, shape)?,
        Entry::Linux(_, header) => prepare_linux(memory, shape, header)?,
    }
    memory.write_slice(&text, GuestAddress(LINUX_COMMAND_LINE)).map_err(|error| format!("the command line: {error}"))
}

/// Memory as Linux is told of it: without the old holes of a PC.
fn usable(bytes: u64) -> Vec<(u64, u64)> {
    let mut pieces = layout::pieces(bytes);
    let low_end = pieces[0].1;
    pieces[0] = (0, BASE_END);
    pieces.insert(1, (IMAGE, low_end - IMAGE));
    pieces
}

fn prepare_linux(memory: &Memory, shape: &Shape, header: &setup_header) -> Result<(), String> {
    let mut params = boot_params { hdr: *header, ..boot_params::default() };
    params.hdr.type_of_loader = 0xff;
    params.hdr.cmd_line_ptr = LINUX_COMMAND_LINE as u32;
    params.hdr.cmdline_size = shape.command_line.len() as u32;
    for (entry, (addr, size)) in params.e820_table.iter_mut().zip(usable(shape.bytes)) {
        *entry = boot_e820_entry { addr, size, r#type: E820_RAM };
        params.e820_entries += 1;
    }
    LinuxBootConfigurator::write_bootparams(&BootParams::new(&params, GuestAddress(ZERO_PAGE)), memory)
        .map_err(|error| format!("the boot parameters of linux: {error}"))
}

fn prepare_pvh(memory: &Memory, shape: &Shape) -> Result<(), String> {
    const MAGIC: u32 = 0x336e_c578;
    let map: Vec<_> = usable(shape.bytes)
        .into_iter()
        .map(|(addr, size)| hvm_memmap_table_entry { addr, size, type_: E820_RAM, reserved: 0 })
        .collect();
    let start = hvm_start_info {
        magic: MAGIC,
        version: 1,
        cmdline_paddr: LINUX_COMMAND_LINE,
        memmap_paddr: MEMORY_MAP,
        memmap_entries: map.len() as u32,
        ..hvm_start_info::default()
    };
    let mut params = BootParams::new(&start, GuestAddress(START_INFO));
    params.set_sections(&map, GuestAddress(MEMORY_MAP));
    PvhBootConfigurator::write_bootparams(&params, memory).map_err(|error| format!("the start information of PVH: {error}"))
}

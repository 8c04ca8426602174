//! Images: which kind one is, whether it can run here, and how it gets into the guest's memory.
//!
//! Owns the judgement of files, which come from anywhere: nothing in them may make this process panic. Must not know processors.

use super::layout::{self, IMAGE};
use crate::sys::vm::Memory;
use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::{BzImage, Elf, KernelLoader};
use std::io::Cursor;
use std::ops::Range;
use thiserror::Error;
use vm_memory::{Bytes, GuestAddress};

/// An image in memory.
#[derive(Debug)]
pub struct Loaded {
    /// How it wants to be started.
    pub entry: Entry,
    /// First byte behind it.
    pub end: u64,
}

/// How an image wants to be started.
#[derive(Debug)]
pub enum Entry {
    /// In 64-bit mode, with the address of what [`super::boot`] tells.
    Native(u64),
    /// By the boot protocol of PVH, in 32-bit mode.
    Pvh(u64),
    /// By the 64-bit boot protocol of Linux.
    Linux(u64, Box<setup_header>),
}

/// What is wrong with an image.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ImageError {
    /// Nothing in it.
    #[error("the image is empty")]
    Empty,
    /// An ELF header or table that is cut off.
    #[error("the ELF file is cut off: {what} ends at byte {end}, the file has {bytes}")]
    CutOff {
        /// What does not fit.
        what: &'static str,
        /// Where it would end.
        end: u64,
        /// Length of the file.
        bytes: u64,
    },
    /// 32-bit or big-endian.
    #[error("the ELF file is not a 64-bit little-endian one")]
    Class,
    /// For another processor.
    #[error("the image is for machine {0}, not for x86-64 (62)")]
    Machine(u16),
    /// A kernel in the format of another architecture.
    #[error("the image is a kernel for {0}, not for x86-64")]
    Foreign(&'static str),
    /// Neither an executable nor a position-independent one.
    #[error("the ELF file is of type {0}, not an executable (2)")]
    Type(u16),
    /// A Linux image without the 64-bit entry.
    #[error("the bzImage has no 64-bit entry: it is for another architecture or older than linux 3.8")]
    NoLongEntry,
    /// Does not fit.
    #[error("bytes {first:#x} to {end:#x} of the image are not in the guest's memory of {memory} MiB: raise --mem")]
    NoRoom {
        /// First address.
        first: u64,
        /// Address after the last.
        end: u64,
        /// Size of the memory, in MiB.
        memory: u64,
    },
    /// Its entry lies in none of its segments.
    #[error("the entry {0:#x} is in no segment of the image")]
    Entry(u64),
    /// What the loader says.
    #[error("{0}")]
    Loader(String),
}

/// Where the kernels of other architectures have their mark: Linux, Documentation/arch; arch/s390/boot/head.S.
const FOREIGN: [(&str, usize, &[u8]); 4] =
    [("s390", 0x1_0008, b"S390EP"), ("arm64", 56, b"ARM\x64"), ("riscv", 56, b"RSC\x05"), ("arm", 36, b"\x18\x28\x6f\x01")];

/// Puts `file` into the memory of a guest, which has `bytes`.
///
/// # Errors
/// What is wrong with it.
pub fn load(file: &[u8], memory: &Memory, bytes: u64) -> Result<Loaded, ImageError> {
    if file.is_empty() {
        return Err(ImageError::Empty);
    }
    if file.starts_with(b"\x7fELF") {
        return load_elf(file, memory, bytes);
    }
    if file.get(0x202..0x206) == Some(b"HdrS") {
        return load_linux(file, memory, bytes);
    }
    if let Some((name, ..)) = FOREIGN.iter().find(|(_, at, mark)| file.get(*at..).is_some_and(|rest| rest.starts_with(mark))) {
        return Err(ImageError::Foreign(name));
    }
    let end = place(IMAGE, file.len() as u64, bytes)?;
    memory.write_slice(file, GuestAddress(IMAGE)).map_err(|error| ImageError::Loader(error.to_string()))?;
    Ok(Loaded { entry: Entry::Native(IMAGE), end })
}

fn place(first: u64, length: u64, memory: u64) -> Result<u64, ImageError> {
    let end = first.saturating_add(length);
    if length > 0 && !layout::is_memory(first, length, memory) {
        return Err(ImageError::NoRoom { first, end, memory: memory >> 20 });
    }
    Ok(end)
}

fn load_elf(file: &[u8], memory: &Memory, bytes: u64) -> Result<Loaded, ImageError> {
    let Judged { end, entry, segments } = judge_elf(file, bytes)?;
    let loaded = Elf::load(memory, None, &mut Cursor::new(file), None).map_err(|error| ImageError::Loader(error.to_string()))?;
    let entry = match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(address) => {
            if !segments.iter().any(|segment| segment.contains(&address.0)) {
                return Err(ImageError::Entry(address.0));
            }
            Entry::Pvh(address.0)
        }
        _ => Entry::Native(entry),
    };
    Ok(Loaded { entry, end })
}

/// What an ELF file says of itself, none of which is out of its bounds.
struct Judged {
    end: u64,
    entry: u64,
    /// Where its segments go.
    segments: Vec<Range<u64>>,
}

fn judge_elf(file: &[u8], memory: u64) -> Result<Judged, ImageError> {
    const HEADER: u64 = 64;
    const SEGMENT: u64 = 56;
    const LOADED: u64 = 1;
    const NOTE: u64 = 4;
    let length = file.len() as u64;
    let within = |what, end: Option<u64>| match end {
        Some(end) if end <= length => Ok(()),
        end => Err(ImageError::CutOff { what, end: end.unwrap_or(u64::MAX), bytes: length }),
    };
    within("the header", Some(HEADER))?;
    if file.get(4..6) != Some(&[2, 1]) {
        return Err(ImageError::Class);
    }
    match number(file, 18, 2) {
        62 => {}
        machine => return Err(ImageError::Machine(machine as u16)),
    }
    match number(file, 16, 2) {
        2 | 3 => {}
        kind => return Err(ImageError::Type(kind as u16)),
    }
    let (entry, table, size, count) = (number(file, 24, 8), number(file, 32, 8), number(file, 54, 2), number(file, 56, 2));
    if size != SEGMENT {
        return Err(ImageError::Loader(format!("segments are described by {size} bytes, not {SEGMENT}")));
    }
    within("the table of segments", table.checked_add(count * SEGMENT))?;
    let (mut end, mut has_entry, mut segments) = (0, false, Vec::new());
    for index in 0..count {
        let at = table + index * SEGMENT;
        let [offset, address, physical, in_file, in_memory] = [8, 16, 24, 32, 40].map(|field| number(file, at + field, 8));
        match number(file, at, 4) {
            LOADED => within("a segment", offset.checked_add(in_file))?,
            NOTE => {
                within("a note", offset.checked_add(in_file))?;
                continue;
            }
            _ => continue,
        }
        if in_memory < in_file {
            return Err(ImageError::Loader(format!("a segment has {in_file} bytes in the file and {in_memory} in memory")));
        }
        let behind = place(physical, in_memory, memory)?;
        segments.push(physical..behind);
        end = end.max(behind);
        has_entry |= [address, physical].iter().any(|start| entry.wrapping_sub(*start) < in_memory);
    }
    if !has_entry {
        return Err(ImageError::Entry(entry));
    }
    Ok(Judged { end, entry, segments })
}

fn number(file: &[u8], at: u64, bytes: usize) -> u64 {
    let field = file.get(at as usize..).unwrap_or_default().iter().take(bytes);
    field.rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn load_linux(file: &[u8], memory: &Memory, bytes: u64) -> Result<Loaded, ImageError> {
    const LONG_ENTRY: u64 = 0x200;
    const HAS_LONG_ENTRY: u64 = 1;
    if file.len() < 0x268 || number(file, 0x206, 2) < 0x020c || number(file, 0x236, 2) & HAS_LONG_ENTRY == 0 {
        return Err(ImageError::NoLongEntry);
    }
    // What the kernel needs while it unpacks itself, from where it is put.
    place(IMAGE, number(file, 0x260, 4).max(file.len() as u64), bytes)?;
    let loaded = BzImage::load(memory, None, &mut Cursor::new(file), Some(GuestAddress(IMAGE)))
        .map_err(|error| ImageError::Loader(error.to_string()))?;
    let Some(header) = loaded.setup_header else {
        return Err(ImageError::Loader("the bzImage has no setup header".to_owned()));
    };
    Ok(Loaded { entry: Entry::Linux(loaded.kernel_load.0 + LONG_ENTRY, Box::new(header)), end: loaded.kernel_end })
}

#[cfg(test)]
mod tests;

//! Reads an x86-64 ELF program, or recognises a `#!` script, and says what must be put where.
//!
//! Owns the judgement of program files. Must not know how bytes get into memory, or where free memory is.

use std::ops::Range;
use thiserror::Error;

use super::vma::{PAGE_BYTES, Protection, SPACE_END, SPACE_START};

/// Program headers a file may have.
pub const PROGRAM_HEADERS_MAX: usize = 128;
/// Longest path of an interpreter, with its terminating zero.
pub const INTERPRETER_BYTES_MAX: usize = 4096;
/// How much of a script's first line counts, as in the kernel.
pub const SCRIPT_LINE_BYTES_MAX: usize = 256;

const FILE_HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const PT_LOAD: u32 = 1;
const PT_INTERP: u32 = 3;
const PT_PHDR: u32 = 6;
const PT_GNU_STACK: u32 = 0x6474_e551;
const ET_EXEC: u16 = 2;
const ET_DYN: u16 = 3;
const EM_X86_64: u16 = 62;
const PF_X: u32 = 1;

/// Why a file cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ElfError {
    /// Neither ELF nor a script.
    #[error("not an ELF file and not a #! script: run a 64-bit x86-64 Linux program")]
    NotElf,
    /// A `#!` line without an interpreter.
    #[error("#! line names no interpreter within its first {SCRIPT_LINE_BYTES_MAX} bytes")]
    EmptyScript,
    /// ELFCLASS32.
    #[error("32-bit ELF program: only 64-bit x86-64 programs can run")]
    ThirtyTwoBit,
    /// Big-endian.
    #[error("big-endian ELF program: only x86-64 programs can run")]
    BigEndian,
    /// Another processor.
    #[error("ELF program for machine {0}: only x86-64 (62) can run")]
    OtherMachine(u16),
    /// Not EXEC or DYN.
    #[error("ELF type {0} is not a program: only executables (2) and position-independent ones (3) can run")]
    OtherType(u16),
    /// The file ends too early.
    #[error("ELF file is truncated: {what} needs bytes {offset:#x}..{end:#x}, the file has {file_bytes:#x}")]
    Truncated {
        /// What was to be read.
        what: &'static str,
        /// Its file offset.
        offset: u64,
        /// Its end in the file.
        end: u64,
        /// What the file has.
        file_bytes: u64,
    },
    /// A program header that cannot be.
    #[error("bad ELF program header {index}: {reason}")]
    BadHeader {
        /// Which one.
        index: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// The table of program headers itself.
    #[error("bad ELF program header table: {0}")]
    BadTable(&'static str),
    /// Nothing to load.
    #[error("ELF file has no loadable segment")]
    NothingToLoad,
    /// A segment lies where no program memory is.
    #[error("segment {start:#x}..{end:#x} lies outside the program's space {SPACE_START:#x}..{SPACE_END:#x}")]
    OutsideSpace {
        /// Its address.
        start: u64,
        /// Its end.
        end: u64,
    },
    /// Two segments claim one byte.
    #[error("segments overlap or are out of order at {0:#x}")]
    Overlap(u64),
    /// The base given does not fit the file.
    #[error("base {base:#x} does not suit the file: it needs a multiple of {alignment:#x}, or 0 if it is not relocatable")]
    BadBase {
        /// What was given.
        base: u64,
        /// What would do.
        alignment: u64,
    },
}

/// A file's bytes by offset. The caller reads; this module judges.
pub trait FileBytes {
    /// Length of the file.
    fn bytes(&self) -> u64;
    /// Fills `out` from `offset`; false if that cannot be done.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> bool;
}

impl FileBytes for [u8] {
    fn bytes(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> bool {
        let Ok(start) = usize::try_from(offset) else { return false };
        let Some(bytes) = start.checked_add(out.len()).and_then(|end| self.get(start..end)) else { return false };
        out.copy_from_slice(bytes);
        true
    }
}

/// What a program file is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProgramFile {
    /// An ELF program or shared object.
    Elf(Executable),
    /// A script: run `interpreter argument? script arguments...`.
    Script {
        /// Path of the interpreter.
        interpreter: Vec<u8>,
        /// The rest of the line, one argument, as the kernel takes it.
        argument: Option<Vec<u8>>,
    },
}

/// An ELF file, judged sound but not yet placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executable {
    relocatable: bool,
    entry: u64,
    headers: u64,
    header_count: u16,
    segments: Vec<Segment>,
    interpreter: Option<String>,
    executable_stack: bool,
    alignment: u64,
}

/// One piece of a program in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First byte in memory.
    pub address: u64,
    /// First byte in the file.
    pub file_offset: u64,
    /// Bytes that come from the file.
    pub file_bytes: u64,
    /// Bytes in memory; those beyond the file's are zero.
    pub memory_bytes: u64,
    /// Rights of the program.
    pub protection: Protection,
}

/// Pages of one protection, made of one or more segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentPages {
    /// Page-aligned addresses.
    pub range: Range<u64>,
    /// Rights of the program; the union where two segments share a page.
    pub protection: Protection,
    /// Offset in the file of the range's first byte, for `/proc/self/maps`; `None` for pages wholly zero.
    pub file_offset: Option<u64>,
}

/// Where everything of a file goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadPlan {
    /// What was added to the file's addresses (AT_BASE of an interpreter).
    pub bias: u64,
    /// Pieces, ascending.
    pub segments: Vec<Segment>,
    /// First instruction.
    pub entry: u64,
    /// Address of the program headers in memory (AT_PHDR), 0 if they are not loaded.
    pub headers: u64,
    /// How many (AT_PHNUM).
    pub header_count: u16,
    /// The dynamic loader wanted.
    pub interpreter: Option<String>,
    /// Page-aligned extent of all segments.
    pub span: Range<u64>,
    /// The program asks for an executable stack.
    pub executable_stack: bool,
}

impl ProgramFile {
    /// Reads and judges a file.
    ///
    /// # Errors
    /// [`ElfError`] names what is wrong with it. No content makes this panic.
    pub fn read(_file: &(impl FileBytes + ?Sized)) -> Result<Self, ElfError> {
        todo!()
    }
}

impl Executable {
    /// Whether the file may be placed anywhere (ET_DYN). If not, [`Executable::plan`] takes base 0.
    #[must_use]
    pub fn is_relocatable(&self) -> bool {
        self.relocatable
    }

    /// Bytes of address space it needs, a multiple of the page.
    #[must_use]
    pub fn span_bytes(&self) -> u64 {
        todo!()
    }

    /// What a base must be a multiple of.
    #[must_use]
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Places the file: its lowest page comes to `base` (0 for a program that is not relocatable).
    ///
    /// # Errors
    /// [`ElfError::BadBase`] and [`ElfError::OutsideSpace`].
    pub fn plan(&self, _base: u64) -> Result<LoadPlan, ElfError> {
        todo!()
    }
}

impl LoadPlan {
    /// The pages to map, ascending and disjoint.
    #[must_use]
    pub fn pages(&self) -> Vec<SegmentPages> {
        todo!()
    }
}

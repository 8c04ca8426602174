//! Reads an x86-64 ELF program, or recognises a `#!` script, and says what must be put where.
//!
//! Owns the judgement of program files. Must not know how bytes get into memory, or where free memory is.

use std::ops::Range;
use thiserror::Error;

use super::vma::{PAGE_BYTES, Protection, SPACE_END, SPACE_START};

#[cfg(test)]
mod tests;

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
    pub fn read(file: &(impl FileBytes + ?Sized)) -> Result<Self, ElfError> {
        let mut head = [0; SCRIPT_LINE_BYTES_MAX];
        let head = &mut head[..file.bytes().min(SCRIPT_LINE_BYTES_MAX as u64) as usize];
        if !file.read_at(0, head) {
            return Err(truncated("the first bytes", 0, head.len() as u64, file.bytes()));
        }
        if let Some(line) = head.strip_prefix(b"#!") {
            return read_script(line);
        }
        if !head.starts_with(b"\x7fELF") {
            return Err(ElfError::NotElf);
        }
        let Some(header) = head.first_chunk::<FILE_HEADER_BYTES>() else {
            return Err(truncated("the file header", 0, FILE_HEADER_BYTES as u64, file.bytes()));
        };
        read_elf(file, header).map(Self::Elf)
    }
}

impl Executable {
    /// Whether the file may be placed anywhere (ET_DYN). If not, [`Executable::plan`] takes base 0.
    #[must_use]
    pub fn is_relocatable(&self) -> bool {
        self.relocatable
    }

    /// The dynamic loader wanted.
    #[must_use]
    #[cfg(test)]
    pub fn interpreter(&self) -> Option<&str> {
        self.interpreter.as_deref()
    }

    /// Bytes of address space it needs, a multiple of the page.
    #[must_use]
    pub fn span_bytes(&self) -> u64 {
        let span = span(&self.segments);
        span.end - span.start
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
    pub fn plan(&self, base: u64) -> Result<LoadPlan, ElfError> {
        let linked = span(&self.segments);
        let fits = if self.relocatable { base.is_multiple_of(self.alignment) } else { base == 0 };
        if !fits {
            return Err(ElfError::BadBase { base, alignment: self.alignment });
        }
        // Wrapping: a library linked above its base has a bias below zero.
        let bias = if self.relocatable { base.wrapping_sub(linked.start) } else { 0 };
        let start = linked.start.wrapping_add(bias);
        let end = start.saturating_add(linked.end - linked.start);
        if start < SPACE_START || end > SPACE_END {
            return Err(ElfError::OutsideSpace { start, end });
        }
        let moved = |segment: &Segment| Segment { address: segment.address.wrapping_add(bias), ..*segment };
        Ok(LoadPlan {
            bias,
            segments: self.segments.iter().map(moved).collect(),
            entry: self.entry.wrapping_add(bias),
            headers: if self.headers == 0 { 0 } else { self.headers.wrapping_add(bias) },
            header_count: self.header_count,
            interpreter: self.interpreter.clone(),
            span: start..end,
            executable_stack: self.executable_stack,
        })
    }
}

impl LoadPlan {
    /// The pages to map, ascending and disjoint.
    #[must_use]
    pub fn pages(&self) -> Vec<SegmentPages> {
        let file_end = |segment: &Segment| page_up(segment.address + segment.file_bytes);
        let mut edges: Vec<u64> = self
            .segments
            .iter()
            .flat_map(|segment| {
                let pages = pages_of(segment);
                [pages.start, file_end(segment).clamp(pages.start, pages.end), pages.end]
            })
            .collect();
        edges.sort_unstable();
        edges.dedup();
        let mut out = Vec::new();
        for pair in edges.windows(2) {
            let range = pair[0]..pair[1];
            let here = || self.segments.iter().filter(|segment| pages_of(segment).contains(&range.start));
            let Some(protection) = here().map(|segment| segment.protection).reduce(Protection::union) else { continue };
            let file_offset = here()
                .find(|segment| segment.file_bytes > 0 && range.start < file_end(segment))
                .map(|segment| page_down(segment.file_offset) + (range.start - page_down(segment.address)));
            out.push(SegmentPages { range, protection, file_offset });
        }
        out
    }
}

/// One entry of the table.
struct ProgramHeader {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
    memory_bytes: u64,
    alignment: u64,
}

fn read_script(line: &[u8]) -> Result<ProgramFile, ElfError> {
    let end = line.iter().position(|&byte| byte == b'\n' || byte == 0).unwrap_or(line.len());
    let line = line[..end].trim_ascii();
    let split = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let (interpreter, rest) = line.split_at(split);
    if interpreter.is_empty() {
        return Err(ElfError::EmptyScript);
    }
    let argument = rest.trim_ascii();
    Ok(ProgramFile::Script { interpreter: interpreter.to_vec(), argument: (!argument.is_empty()).then(|| argument.to_vec()) })
}

fn read_elf(file: &(impl FileBytes + ?Sized), header: &[u8; FILE_HEADER_BYTES]) -> Result<Executable, ElfError> {
    let relocatable = judge_header(header)?;
    let headers = read_headers(file, header)?;
    let mut segments = Vec::new();
    let mut interpreter = None;
    // Without PT_GNU_STACK the kernel gives x86-64 programs a stack that is not executable.
    let mut executable_stack = false;
    let mut alignment = PAGE_BYTES;
    let mut headers_address = None;
    for (index, header) in headers.iter().enumerate() {
        match header.kind {
            PT_LOAD if header.memory_bytes > 0 => {
                segments.push(read_segment(file, header, index)?);
                alignment = alignment.max(header.alignment);
            }
            PT_INTERP if interpreter.is_none() => interpreter = Some(read_interpreter(file, header, index)?),
            PT_PHDR => headers_address = Some(header.address),
            PT_GNU_STACK => executable_stack = header.flags & PF_X != 0,
            _ => {}
        }
    }
    judge_order(&segments)?;
    let table_offset = u64_at(header, 32);
    let in_segment = segments
        .iter()
        .find(|segment| (segment.file_offset..segment.file_offset + segment.file_bytes).contains(&table_offset))
        .map(|segment| segment.address + (table_offset - segment.file_offset));
    Ok(Executable {
        relocatable,
        entry: u64_at(header, 24),
        headers: headers_address.or(in_segment).unwrap_or(0),
        header_count: headers.len() as u16,
        segments,
        interpreter,
        executable_stack,
        alignment,
    })
}

/// Judges identity, machine and type; whether the file is relocatable.
fn judge_header(header: &[u8; FILE_HEADER_BYTES]) -> Result<bool, ElfError> {
    match header[4] {
        2 => {}
        1 => return Err(ElfError::ThirtyTwoBit),
        _ => return Err(ElfError::NotElf),
    }
    match header[5] {
        1 => {}
        2 => return Err(ElfError::BigEndian),
        _ => return Err(ElfError::NotElf),
    }
    match u16_at(header, 18) {
        EM_X86_64 => {}
        machine => return Err(ElfError::OtherMachine(machine)),
    }
    match u16_at(header, 16) {
        ET_EXEC => Ok(false),
        ET_DYN => Ok(true),
        kind => Err(ElfError::OtherType(kind)),
    }
}

fn read_headers(file: &(impl FileBytes + ?Sized), header: &[u8; FILE_HEADER_BYTES]) -> Result<Vec<ProgramHeader>, ElfError> {
    if usize::from(u16_at(header, 54)) != PROGRAM_HEADER_BYTES {
        return Err(ElfError::BadTable("its entries are not 56 bytes"));
    }
    let count = usize::from(u16_at(header, 56));
    if count == 0 {
        return Err(ElfError::NothingToLoad);
    }
    if count > PROGRAM_HEADERS_MAX {
        return Err(ElfError::BadTable("it has more than 128 entries"));
    }
    let offset = u64_at(header, 32);
    let mut bytes = vec![0; count * PROGRAM_HEADER_BYTES];
    if !file.read_at(offset, &mut bytes) {
        let end = offset.saturating_add(bytes.len() as u64);
        return Err(truncated("the program header table", offset, end, file.bytes()));
    }
    let entry = |entry: &[u8]| ProgramHeader {
        kind: u32_at(entry, 0),
        flags: u32_at(entry, 4),
        offset: u64_at(entry, 8),
        address: u64_at(entry, 16),
        file_bytes: u64_at(entry, 32),
        memory_bytes: u64_at(entry, 40),
        alignment: u64_at(entry, 48),
    };
    Ok(bytes.chunks_exact(PROGRAM_HEADER_BYTES).map(entry).collect())
}

fn read_segment(file: &(impl FileBytes + ?Sized), header: &ProgramHeader, index: usize) -> Result<Segment, ElfError> {
    let bad = |reason| Err(ElfError::BadHeader { index, reason });
    if header.file_bytes > header.memory_bytes {
        return bad("more bytes in the file than in memory");
    }
    if header.alignment > 1 && !header.alignment.is_power_of_two() {
        return bad("alignment is no power of two");
    }
    if header.alignment > 1 << 30 {
        return bad("alignment is more than 1 GiB");
    }
    if header.file_bytes > 0 && header.offset % PAGE_BYTES != header.address % PAGE_BYTES {
        return bad("file offset and address differ within the page");
    }
    let file_end = header.offset.saturating_add(header.file_bytes);
    if header.file_bytes > 0 && file_end > file.bytes() {
        return Err(truncated("a segment", header.offset, file_end, file.bytes()));
    }
    let end = header.address.saturating_add(header.memory_bytes);
    if end > SPACE_END {
        return Err(ElfError::OutsideSpace { start: header.address, end });
    }
    let right = |bit: u32, right| if header.flags & bit != 0 { right } else { Protection::NONE };
    let protection = right(4, Protection::READ).union(right(2, Protection::WRITE)).union(right(PF_X, Protection::EXECUTE));
    Ok(Segment {
        address: header.address,
        file_offset: if header.file_bytes > 0 { header.offset } else { 0 },
        file_bytes: header.file_bytes,
        memory_bytes: header.memory_bytes,
        protection,
    })
}

fn read_interpreter(file: &(impl FileBytes + ?Sized), header: &ProgramHeader, index: usize) -> Result<String, ElfError> {
    let bad = |reason| ElfError::BadHeader { index, reason };
    if !(2..=INTERPRETER_BYTES_MAX as u64).contains(&header.file_bytes) {
        return Err(bad("interpreter path is not 2 to 4096 bytes long"));
    }
    let mut path = vec![0; header.file_bytes as usize];
    if !file.read_at(header.offset, &mut path) {
        let end = header.offset.saturating_add(header.file_bytes);
        return Err(truncated("the interpreter's path", header.offset, end, file.bytes()));
    }
    if path.pop() != Some(0) || path.contains(&0) {
        return Err(bad("interpreter path is not one terminated string"));
    }
    String::from_utf8(path).map_err(|_| bad("interpreter path is not UTF-8"))
}

/// Segments exist, ascend and share no byte.
fn judge_order(segments: &[Segment]) -> Result<(), ElfError> {
    if segments.is_empty() {
        return Err(ElfError::NothingToLoad);
    }
    for pair in segments.windows(2) {
        if pair[0].address + pair[0].memory_bytes > pair[1].address {
            return Err(ElfError::Overlap(pair[1].address));
        }
    }
    Ok(())
}

fn span(segments: &[Segment]) -> Range<u64> {
    let start = segments.first().map_or(0, |segment| page_down(segment.address));
    let end = segments.last().map_or(0, |segment| pages_of(segment).end);
    start..end
}

fn pages_of(segment: &Segment) -> Range<u64> {
    page_down(segment.address)..page_up(segment.address + segment.memory_bytes)
}

fn page_down(address: u64) -> u64 {
    address & !(PAGE_BYTES - 1)
}

/// Addresses here are at most `SPACE_END`: no overflow.
fn page_up(address: u64) -> u64 {
    page_down(address + PAGE_BYTES - 1)
}

fn truncated(what: &'static str, offset: u64, end: u64, file_bytes: u64) -> ElfError {
    ElfError::Truncated { what, offset, end, file_bytes }
}

fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes(*bytes[offset..].first_chunk().expect("the caller gives a whole header"))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(*bytes[offset..].first_chunk().expect("the caller gives a whole header"))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(*bytes[offset..].first_chunk().expect("the caller gives a whole header"))
}

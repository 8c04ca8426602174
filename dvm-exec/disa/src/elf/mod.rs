//! The file of a program: ELF64, little endian, machine 0xD15A.
//!
//! Owns the numbers of the format. Must not open files.
//!
//! ```text
//!   header | .text .rodata .data* (contents) .bss* (none) | .disa.line .symtab .strtab .shstrtab | section headers
//! ```
//! `e_flags` holds the program's rules. `.data` and `.bss` occur once for each piece of shared memory.

mod read;
pub mod unit;
mod write;

pub use read::{LoadError, read};
pub use write::write;

/// How every ELF file begins.
pub const MAGIC: [u8; 4] = *b"\x7fELF";
/// The machine.
pub const MACHINE: u16 = 0xD15A;
/// Rule in `e_flags`: conflicts are found by page.
pub const FLAG_PAGE_GRAIN: u32 = 1;
/// Rule in `e_flags`: commits validate the pages read.
pub const FLAG_SERIALIZABLE: u32 = 2;

const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const VERSION: u8 = 1;
const TYPE_EXECUTABLE: u16 = 2;

const HEADER_BYTES: usize = 64;
const SECTION_HEADER_BYTES: usize = 64;
const SYMBOL_BYTES: usize = 24;
const LINE_BYTES: usize = 16;

const KIND_CONTENTS: u32 = 1;
const KIND_SYMBOLS: u32 = 2;
const KIND_STRINGS: u32 = 3;
const KIND_ZEROS: u32 = 8;

const FLAG_WRITE: u64 = 1;
const FLAG_ALLOCATED: u64 = 2;
const FLAG_CODE: u64 = 4;

const SYMBOL_GLOBAL: u8 = 1;
const SYMBOL_NUMBER: u8 = 0;
const SYMBOL_ADDRESS: u8 = 1;
const INDEX_ABSOLUTE: u16 = 0xfff1;

const TEXT: &str = ".text";
const RODATA: &str = ".rodata";
const DATA: &str = ".data";
const BSS: &str = ".bss";
const LINES: &str = ".disa.line";
const SYMBOLS: &str = ".symtab";
const STRINGS: &str = ".strtab";
const NAMES: &str = ".shstrtab";

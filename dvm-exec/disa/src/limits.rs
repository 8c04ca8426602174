//! Every maximum, with the assertions that relate them.
//!
//! Owns the figures. Must not know what is counted with them.

use crate::instruction::OPERANDS_MAX;
use crate::map;

/// Most bytes of an instruction.
pub const INSTRUCTION_BYTES_MAX: usize = 64;
/// Operation and attribute, then for each operand its first byte, an address and a displacement.
const _: () = assert!(2 + OPERANDS_MAX * (1 + 8 + 4) <= INSTRUCTION_BYTES_MAX);

/// Most errors an assembly reports.
pub const DIAGNOSTICS_MAX: usize = 20;
/// Most rounds in which the lengths of instructions must settle.
pub const LAYOUT_ROUNDS_MAX: usize = 64;
/// Most bytes of a source.
pub const SOURCE_BYTES_MAX: usize = 64 << 20;
/// Most bytes of a section with contents.
pub const SECTION_BYTES_MAX: u64 = 1 << 30;
const _: () = assert!(SECTION_BYTES_MAX <= map::TEXT.bytes && SECTION_BYTES_MAX <= map::RODATA.bytes);

/// Most ranges of a list in a descriptor.
pub const RANGES_MAX: u64 = 4096;
/// Bytes that bulk instructions move for one instruction's fuel.
pub const BULK_BYTES_PER_FUEL: u64 = 64;
/// Bytes that bulk instructions move at once.
pub const BULK_CHUNK_BYTES: usize = 4096;
/// Most bytes that one system call moves.
pub const SYSTEM_BYTES_MAX: u64 = 1 << 20;

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

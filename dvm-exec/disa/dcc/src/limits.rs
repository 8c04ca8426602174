//! Every maximum.
//!
//! Owns the figures. Must not know what is counted with them.

use dvm_disa::map;

/// Most bytes of a source.
pub const SOURCE_BYTES_MAX: usize = 4 << 20;
/// Most errors that are reported.
pub const DIAGNOSTICS_MAX: usize = 20;
/// Deepest nesting of expressions and statements.
pub const DEPTH_MAX: u32 = 96;
/// Most stars and dimensions of a type.
pub const TYPE_DEPTH_MAX: usize = 12;
/// Most bytes of an object in memory.
pub const OBJECT_BYTES_MAX: u64 = 1 << 45;
/// Most bytes of an object with contents.
pub const CONTENTS_BYTES_MAX: u64 = 16 << 20;
/// Most bytes that the variables of one function take on the stack.
pub const FRAME_BYTES_MAX: u64 = 1 << 30;
/// Most parameters: each has a slot or a quad of the child's stack.
pub const PARAMETERS_MAX: usize = 8;
const _: () = assert!(PARAMETERS_MAX as u64 * 8 <= map::ARGUMENT_BYTES);
/// Most ranges that a runner uses, and most that it watches.
pub const RANGES_MAX: usize = 64;

/// Where `sys` blocks lie in private memory.
pub const SYSTEM_BLOCK: u64 = map::PR.base + 0x1800;
/// Where descriptors of runners lie: heap first, then watched.
pub const HEAP_BLOCK: u64 = map::PR.base + 0x2000;
/// The second list.
pub const WATCH_BLOCK: u64 = HEAP_BLOCK + 8 + 16 * RANGES_MAX as u64;
const _: () = assert!(WATCH_BLOCK + 8 + 16 * RANGES_MAX as u64 <= map::PRIVATE_DATA.base);
/// Where the stack of calls begins; it grows upwards.
pub const STACK_BASE: u64 = map::PRIVATE_DATA.base + map::PRIVATE_DATA.bytes;
/// Most bytes of private variables.
pub const PRIVATE_BYTES_MAX: u64 = map::PRIVATE_DATA.bytes;

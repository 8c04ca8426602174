//! DISA: the instruction set, its assembler and files, the interpreter that is the reference, and a machine of one host.
//!
//! Owns what a DISA program means. Must not do input or output, know hosts, pages of a kernel or clocks.
//!
//! ```text
//!   asm -> Object <-> elf            Object -> verify -> Code -> interpreter -> Memory, Effects (traits)
//!   disassemble <- decode <-> encode                             machine: Memory, Effects, versions, watchers, schedule
//! ```

#![forbid(unsafe_code)]

pub mod asm;
pub mod decode;
mod disassemble;
pub mod encode;
pub mod instruction;
pub mod isa;
pub mod limits;
pub mod map;
pub mod object;
pub mod types;
pub mod verify;

//! DISA: the instruction set, its assembler, and the interpreter that is the reference.
//!
//! Owns what a DISA program means. Must not do input or output, know hosts, pages of a kernel or clocks.
//!
//! ```text
//!   elf <-> Object; listing
//!   asm -> Object -> verify -> Code -> interpreter -> Memory, Effects (traits)      disassemble <- decode <-> encode
//!                                      engine: Processor, Engine (traits) of what runs faster
//! ```

#![forbid(unsafe_code)]

pub mod asm;
pub mod build;
pub mod code;
pub mod decode;
mod disassemble;
pub mod elf;
pub mod encode;
pub mod engine;
pub mod format;
pub mod instruction;
pub mod interpreter;
pub mod isa;
pub mod limits;
pub mod listing;
pub mod machine;
pub mod map;
pub mod memory;
pub mod object;
pub mod pages;
mod quick;
pub mod record;
pub mod trap;
pub mod types;
pub mod verify;

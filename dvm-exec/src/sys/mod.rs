//! Everything of the husk that needs `unsafe`: system calls, context switches, signal frames, mappings.
//!
//! Owns the machine-level mechanisms and turns them into safe types. Must not know what a system call means to the program.
#![expect(unsafe_code, reason = "the only place of this crate that talks to the kernel and the processor directly")]

pub mod asm;
pub mod call;
pub mod context;
pub mod cpu;
pub mod lanes;
pub mod mapping;
pub mod process;
pub mod signal;
pub mod startup;
pub mod user;
pub mod vm;

/// First address that belongs to the husk; everything below belongs to the program.
pub const LINE: u64 = 0x5000_0000_0000;
/// System calls of instructions below this are the program's: those of its space, and of the synthetic vdso above the line.
pub const TRAP_END: u64 = 0x5000_1000_2000;
/// Lowest address of the program's view.
pub const VIEW_FIRST: u64 = 0x1_0000;
/// End of the address space a husk may use.
pub const HUSK_END: u64 = 0x7fff_ffff_f000;

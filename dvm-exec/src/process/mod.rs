//! The process executor: an unmodified x86-64 Linux program over several hosts.
//!
//! Owns the parts below and how they meet. Must not know frames or pages' owners.

pub mod calls;
pub mod elf;
pub mod sigframe;
pub mod stack;
pub mod topology;
pub mod vdso;
pub mod vma;
pub mod wire;

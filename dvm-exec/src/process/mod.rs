//! The process executor: an unmodified x86-64 Linux program over several hosts.
//!
//! Owns the parts below and how they meet. Must not know frames or pages' owners.

pub mod affinity;
pub mod agent;
pub mod ask;
pub mod autoplace;
pub mod barrier;
pub mod calls;
pub mod check;
pub mod children;
pub mod clone;
pub mod connection;
pub mod descriptors;
pub mod dispatch;
pub mod elf;
pub mod execute;
pub mod features;
pub mod hotpages;
pub mod husk;
pub mod inherit;
pub mod interrupted;
pub mod limits;
pub mod load;
pub mod local;
pub mod member;
pub mod memberhusk;
pub mod memory;
pub mod moving;
pub mod placement;
pub mod preload;
pub mod say;
pub mod service;
pub mod shadow;
pub mod sharing;
pub mod sigframe;
pub mod signals;
pub mod sites;
pub mod stack;
pub mod stat;
pub mod symbols;
pub mod thread;
pub mod trace;
pub mod vdso;
pub mod view;
pub mod vma;
pub mod wire;

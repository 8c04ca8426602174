//! The shard's unsafe: kernel interfaces without a safe wrapper among our crates.
//!
//! Owns one file per interface, made safe. Must not know faults or pages beyond an address.

mod perf;
mod priority;
mod records;

pub use perf::{OpenError, Rings};
pub(super) use priority::raise_priority;
pub(super) use records::{Record, What};

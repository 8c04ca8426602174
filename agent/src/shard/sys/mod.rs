//! The shard's unsafe: kernel interfaces without a safe wrapper among our crates.
//!
//! Owns one file per interface, made safe. Must not know faults or pages beyond an address.

mod marks;
mod perf;
mod priority;
mod records;

pub(super) use marks::{dvm_mark_fault_read, dvm_mark_grant_in, dvm_mark_installed, dvm_mark_request_out};
pub use perf::{OpenError, Rings};
pub(super) use priority::raise_priority;
pub(super) use records::{Record, What};

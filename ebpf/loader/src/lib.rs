//! The fast path, seen from user space: the object with the kernel programs, loading and attaching it.
//!
//! Owns every call of aya. Must not know what the programs answer beyond the probe, nor agents and their spaces.

mod array;
mod error;
mod interface;
mod ladder;
mod load;
mod netlink;
mod probe;
mod responder;
mod sys;
mod tables;
mod trace;

pub use array::MappedArray;
pub use error::Error;
pub use interface::{Interface, has_tcx};
pub use ladder::{Attached, Passing, Rung, Wanted};
pub use load::{FastPath, PASS_PROGRAM, SMALL_MAPS, TC_PROGRAM, Verified, XDP_PROGRAM, verified};
pub use responder::{Responder, Responding, reply};
pub use tables::{EXTENTS_MAX, Seat, SharedDirectory, Tables};
pub use trace::{NotAttached, Trace};

pub use dsm_fast::{Bytes, LATENCY_BUCKETS, PROBE_PORT, SipKey, TraceKind, TraceRecord, VERDICT_NAMES};

/// The object with the programs; none if this was built without: `cargo xtask ebpf` first.
#[must_use]
pub fn object() -> Option<&'static [u8]> {
    #[cfg(has_object)]
    return Some(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/dvm-fast.o")));
    #[cfg(not(has_object))]
    None
}

/// The object with the programs of the trace; none if this was built without: `cargo xtask ebpf` first.
#[must_use]
pub fn trace_object() -> Option<&'static [u8]> {
    #[cfg(has_trace_object)]
    return Some(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/dvm-trace.o")));
    #[cfg(not(has_trace_object))]
    None
}

//! The fast path: the directory, the one function that changes it, and what becomes of a frame without waking anybody.
//!
//! Owns the layout of directory words and of everything the kernel programs read and write. Must not know pagers or timers; it
//! allocates nothing. The kernel programs compile this crate too.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(target_has_atomic = "64")]
mod acks;
mod admit;
mod classify;
mod directory;
mod envelope;
mod fan_out;
pub mod layout;
mod probe;
#[cfg(target_has_atomic = "64")]
mod publish;
mod sip;
mod tables;
mod trace;
mod verdicts;
mod word;

#[cfg(target_has_atomic = "64")]
pub use acks::{Acks, Opened};
pub use admit::{Addressing, Drop, check_addressing, check_length, is_transport};
pub use classify::{Copy, Means, Pass, Service, Verdict, classify};
pub use directory::{DIRECTORY_WORDS, Directory, SLOTS, load, step, try_step};
pub use envelope::{ENVELOPE_BYTES, Envelope};
pub use fan_out::{FanOut, Told};
pub use probe::{
    PROBE_ANSWERS_ELEMENTS, PROBE_BYTES, PROBE_ELEMENTS, PROBE_FILL, PROBE_FRAME_BYTES, PROBE_GROWN_BYTES, PROBE_MAGIC,
    PROBE_NONCE, PROBE_PORT, PROBE_TO_PORT, Probe, ProbeFrame, ProbeKind, ProbeProgram,
};
#[cfg(target_has_atomic = "64")]
pub use publish::{Arrays, Bytes, Publisher};
pub use sip::{SipKey, header_tag};
pub use tables::{Cell, DirectoryIn, Tables, cell};
pub use trace::{TRACE_LOST, TRACE_MARKS, TRACE_POINTS, TRACE_RECORDS, TraceKind, TraceRecord};
pub use verdicts::{LATENCY_BUCKETS, SERVE_FAILED, SERVED, VERDICT_NAMES};
pub use word::{Entry, NARROW_NODES_MAX, Refused, Sharers, State, Step, WIDE_NODES_MAX, Word, apply};

//! The directory: who owns a page, who shares it, and the one function that changes the answer.
//!
//! Owns the layout of a directory word and its transitions. Must not know frames, pagers or timers; it allocates
//! nothing. The kernel programs compile this crate too.
#![no_std]
#![forbid(unsafe_code)]

mod directory;
mod probe;
mod word;

pub use directory::{Directory, PlainDirectory, step};
pub use probe::{
    PROBE_ANSWERS_ELEMENTS, PROBE_BYTES, PROBE_ELEMENTS, PROBE_FILL, PROBE_FRAME_BYTES, PROBE_GROWN_BYTES, PROBE_MAGIC,
    PROBE_NONCE, PROBE_PORT, PROBE_TO_PORT, Probe, ProbeFrame, ProbeKind, ProbeProgram,
};
pub use word::{Entry, NARROW_NODES_MAX, Refused, Sharers, State, Step, WIDE_NODES_MAX, Word, apply};

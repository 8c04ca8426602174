//! The only unsafe of the crate: memory shared with the kernel, the ring, socket options, randomness, vector instructions.
//!
//! Owns the proof that each is used rightly; everything it gives out is safe to call. Must not know frames, peers or time.

mod buffers;
mod lanes;
mod region;
mod ring;
mod socket;

pub(crate) use lanes::sip_lanes;
pub(crate) use ring::{Completion, Patience, Ring, RingConfig};
pub(crate) use socket::{SocketOptions, bind, random, set_joined, set_segment};

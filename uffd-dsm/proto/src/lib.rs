//! The coherence protocol of one space on one host, as a pure state machine.
//!
//! Owns who may read and write which page, and every decision about it. Must not know clocks, sockets, threads,
//! page bytes or randomness: `now` is an argument, buffers are names, and everything it wants done it hands out.
//!
//! A driver calls `handle_*`, then drains `poll_page_op`, `poll_transmit` and `poll_event` (in this order) until
//! all three are empty, then arms a timer for `poll_timeout`. The same calls in the same order give the same result.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod adopt;
mod ahead;
mod anchor;
mod discard;
mod evict;
mod extent;
mod face;
mod hold;
mod holder;
mod home;
pub mod limits;
mod membership;
mod migratory;
mod node;
mod operation;
mod pin;
pub mod plant;
mod recent;
mod requester;
mod sense;
mod source;
mod stats;
mod timer;
mod transient;

pub use extent::DirectoryWords;
pub use face::{
    BufferId, Class, Config, Contents, Event, FaultKind, FaultStages, Frame, Memory, Nanos, OpId, OpResult, PageContent, PageOp,
    Transmit,
};
pub use node::Node;
pub use stats::{Counters, Tables};

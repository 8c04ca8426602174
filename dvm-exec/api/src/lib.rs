//! What husks, agents and operators say to each other beside the data path.
//!
//! Owns the control messages and their framing. Must not know how either side acts on them.
//!
//! * [`features`]: what processors can do, by name.
//! * [`local`]: husk or tool to the agent of its own host, over a Unix SOCK_SEQPACKET socket, one postcard
//!   message a packet, file descriptors beside it (SCM_RIGHTS).
//! * [`peer`]: agent to agent, over TCP inside a Noise session, length-prefixed postcard.
//! * [`socket`]: sending and receiving one packet with its descriptors.

pub mod features;
pub mod local;
pub mod peer;
pub mod socket;

/// From this address on extents have the root as their home, so that pages there can have a file as their first content.
pub const SOURCED_START: u64 = 0x4000_0000_0000;
mod sys;

//! Frames in, frames out: authenticated, credited, heart-beaten UDP through one io_uring per space.
//!
//! Owns the two sockets of a space (urgent and bulk), the ring they and the watched descriptors share, the handshake, the tags,
//! the replay windows, the byte credits, the split of pages over datagrams, and the leases of peers. Must not know what a message
//! makes a node do, what a page means, or what time it is: `now` is an argument.
//!
//! ```text
//!  send ──> slot ──> lane of the peer ──(session? credits?)──> stamp, tag ──> ring ──> socket
//!                    control | urgent pages | bulk pages
//!  socket ──> ring ──> checks ──> tag ──> replay window ──> fragments ──> Event
//! ```

mod config;
mod counters;
mod credit;
mod endpoint;
mod error;
mod faults;
mod framing;
mod handshake;
pub mod limits;
mod membership;
mod peer;
mod reassembly;
mod receive;
mod replay;
mod slots;
mod sys;
mod tags;
mod transmit;
mod watches;

pub use config::{EndpointConfig, FaultPlan, Nanos};
pub use counters::Counters;
pub use endpoint::{Class, Endpoint, Event, LostReason};
pub use error::{SendRefusal, TransportError};
pub use transmit::is_order;

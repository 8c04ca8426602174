//! What bytes mean: names of nodes, spaces and pages, the 64-byte frame header, and the typed messages.
//!
//! Owns every translation between bytes and types on the data path, and the golden frames. Must not know
//! sockets, clocks, keys or page contents; it allocates nothing and holds no `unsafe`. The kernel programs
//! compile this crate too.
#![no_std]
#![forbid(unsafe_code)]

mod header;
mod message;
mod names;

pub use header::{
    FLAG_COPY, FLAG_FRAGMENT, FLAG_WRITE, FLAG_ZERO, HEADER_BYTES, Header, HeaderError, Kind, PayloadShape, TAGGED_BYTES, VERSION,
};
pub use message::{GrantContent, Message, MessageError, Rights};
pub use names::{
    Epoch, Era, ExtentNumber, Line, NodeId, PAGE_BYTES, PAGE_SHIFT, PAGES_PER_EXTENT, PageNumber, PageRange, RequestId, SpaceId,
};

/// Most pages one message may carry or ask for.
pub const PAGES_PER_MESSAGE_MAX: u16 = 16;

//! Every maximum and interval of the transport, and how they hang together.
//!
//! Owns numbers. Must not know code.

use std::time::Duration;

/// Peers of one endpoint.
pub const PEERS_MAX: usize = 1024;
/// Descriptors watched at once.
pub const WATCHES_MAX: usize = 256;
/// Interval of pings to a peer.
pub const PING_INTERVAL: Duration = Duration::from_millis(500);
/// Without an authenticated frame for this long a peer is lost.
pub const LEASE: Duration = Duration::from_millis(2500);

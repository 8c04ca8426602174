//! The verdicts by name and number, as counters and histograms know them.
//!
//! Owns the order of the counters. Must not know how a verdict is reached.

use crate::admit::Drop;
use crate::classify::{Pass, Verdict};

/// Buckets of a verdict's histogram: bucket `i` counts runs of 2^i to 2^(i+1) - 1 nanoseconds.
pub const LATENCY_BUCKETS: usize = 32;

/// Names of the counters, in the order of [`Verdict::number`].
pub const VERDICT_NAMES: [&str; 25] = [
    "counted",
    "pong",
    "forward",
    "serve",
    "serve_failed",
    "drop_short",
    "drop_version",
    "drop_kind",
    "drop_length",
    "drop_cluster",
    "drop_destination",
    "drop_epoch",
    "drop_tag",
    "drop_replay",
    "pass_stranger",
    "pass_asleep",
    "pass_payload",
    "pass_no_session",
    "pass_agent",
    "pass_busy",
    "pass_unpublished",
    "pass_later",
    "pass_mtu",
    "pass_race",
    "pass_last_ack",
];

/// Number of a service that was carried out.
pub const SERVED: u32 = 3;
/// Number of a service that was begun and then left to the agent.
pub const SERVE_FAILED: u32 = 4;

impl Verdict {
    /// Place of this verdict in [`VERDICT_NAMES`].
    #[must_use]
    pub const fn number(&self) -> u32 {
        match self {
            Verdict::Counted => 0,
            Verdict::Pong { .. } => 1,
            Verdict::Forward { .. } => 2,
            Verdict::Serve(_) => SERVED,
            Verdict::Drop(drop) => match drop {
                Drop::Short => 5,
                Drop::Version => 6,
                Drop::Kind => 7,
                Drop::Length => 8,
                Drop::Cluster => 9,
                Drop::Destination => 10,
                Drop::Epoch => 11,
                Drop::Tag => 12,
                Drop::Replay => 13,
            },
            Verdict::Pass(pass) => match pass {
                Pass::Stranger => 14,
                Pass::Asleep => 15,
                Pass::Payload => 16,
                Pass::NoSession => 17,
                Pass::Agent => 18,
                Pass::Busy => 19,
                Pass::Unpublished => 20,
                Pass::Later => 21,
                Pass::Mtu => 22,
                Pass::Race => 23,
                Pass::LastAck => 24,
            },
        }
    }
}

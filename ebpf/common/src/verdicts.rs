//! The verdicts by name and number, as counters and histograms know them.
//!
//! Owns the order of the counters. Must not know how a verdict is reached.

use crate::admit::Drop;
use crate::classify::{Pass, Verdict};

/// Buckets of a verdict's histogram: bucket `i` counts runs of 2^i to 2^(i+1) - 1 nanoseconds.
pub const LATENCY_BUCKETS: usize = 32;

/// Names of the counters, in the order of [`Verdict::number`].
pub const VERDICT_NAMES: [&str; 26] = [
    "counted",
    "pong",
    "forward",
    "serve",
    "serve_failed",
    "fan_out",
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
            Verdict::FanOut(_) => 5,
            Verdict::Drop(drop) => match drop {
                Drop::Short => 6,
                Drop::Version => 7,
                Drop::Kind => 8,
                Drop::Length => 9,
                Drop::Cluster => 10,
                Drop::Destination => 11,
                Drop::Epoch => 12,
                Drop::Tag => 13,
                Drop::Replay => 14,
            },
            Verdict::Pass(pass) => match pass {
                Pass::Stranger => 15,
                Pass::Asleep => 16,
                Pass::Payload => 17,
                Pass::NoSession => 18,
                Pass::Agent => 19,
                Pass::Busy => 20,
                Pass::Unpublished => 21,
                Pass::Later => 22,
                Pass::Mtu => 23,
                Pass::Race => 24,
                Pass::LastAck => 25,
            },
        }
    }
}

//! Messages between agents, inside their Noise session.
//!
//! Owns the vocabulary of the control connection. Must not know sockets or sessions.

use crate::features::CpuFeatures;
use crate::local::{HostStatistics, Member, Purpose, Query};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// First message of a connection, from the side that opened it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Opening {
    /// The control connection of two agents; [`ToPeer`] follows in both directions.
    Control {
        /// The opener's node number.
        node: u16,
        /// Random number of the opener's start.
        incarnation: u64,
    },
    /// A husk-to-husk connection: after [`Opened`] the socket is handed to the husks.
    Husk {
        /// The opener's node number.
        node: u16,
        /// The job's space.
        space: u32,
        /// What it will carry.
        purpose: Purpose,
    },
}

/// Answer to [`Opening`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Opened {
    /// Go on.
    Ready {
        /// The answering node's number.
        node: u16,
        /// Random number of its start.
        incarnation: u64,
    },
    /// Not possible.
    Refused {
        /// What failed, on what, and what to do.
        reason: String,
    },
}

/// Between agents, either direction. Requests carry a `tag` that comes back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToPeer {
    /// Make the space: memfd, shard, endpoint. Answer: [`ToPeer::SpaceOpened`] or [`ToPeer::Refused`].
    OpenSpace {
        /// Comes back.
        tag: u32,
        /// The space and who is in it.
        space: SpaceSpec,
    },
    /// The space exists here.
    SpaceOpened {
        /// Tag of the request.
        tag: u32,
        /// Where this member listens.
        member: SpaceMember,
        /// Processors a job may use here.
        cpus: u16,
        /// What they can do.
        cpu: CpuFeatures,
    },
    /// Everybody's addresses; start handshakes and the husk. Answer: [`ToPeer::MemberReady`] or [`ToPeer::Refused`].
    StartMember {
        /// Comes back.
        tag: u32,
        /// The space.
        space: u32,
        /// Data addresses of all members.
        members: Vec<SpaceMember>,
        /// What the husk is told.
        husk_members: Vec<Member>,
    },
    /// The husk's view is attached.
    MemberReady {
        /// Tag of the request.
        tag: u32,
    },
    /// The request failed.
    Refused {
        /// Tag of the request.
        tag: u32,
        /// What failed, on what, and what to do.
        reason: String,
    },
    /// The job is over (or failed); everything of it goes.
    CloseSpace {
        /// The space.
        space: u32,
        /// Why, for the log.
        reason: String,
    },
    /// Figures of this member, please. Answer: [`ToPeer::Statistics`].
    AskStatistics {
        /// Comes back.
        tag: u32,
        /// The space.
        space: u32,
    },
    /// Answer to [`ToPeer::AskStatistics`].
    Statistics {
        /// Tag of the request.
        tag: u32,
        /// The figures.
        host: HostStatistics,
    },
    /// Heartbeat of the control connection; a lease runs out without it.
    Heartbeat,
    /// The root's husk was stopped or goes on (job control); the member's does the same. No answer.
    PauseSpace {
        /// The space.
        space: u32,
        /// Stopped.
        is_stopped: bool,
    },
    /// A member's husk or shard died.
    MemberLost {
        /// The space.
        space: u32,
        /// The host.
        node: u16,
        /// What was seen.
        reason: String,
    },
    /// What time is it there? Answer, at once: [`ToPeer::Clock`].
    AskClock {
        /// Comes back.
        tag: u32,
    },
    /// Answer to [`ToPeer::AskClock`].
    Clock {
        /// Tag of the request.
        tag: u32,
        /// CLOCK_MONOTONIC here when the request came in, in nanoseconds.
        received_ns: u64,
        /// CLOCK_MONOTONIC here when this was sent, in nanoseconds.
        monotonic_ns: u64,
    },
    /// A tool at the other host asks for this agent's state. Answer: [`ToPeer::Report`] or [`ToPeer::Refused`].
    AskReport {
        /// Comes back.
        tag: u32,
        /// What is asked.
        query: Query,
    },
    /// Answer to [`ToPeer::AskReport`].
    Report {
        /// Tag of the request.
        tag: u32,
        /// JSON.
        text: String,
    },
}

/// A space as its members must make it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpaceSpec {
    /// Its number.
    pub space: u32,
    /// Host where the job was started.
    pub root: u16,
    /// All members, root first.
    pub members: Vec<u16>,
    /// User the husk runs as.
    pub uid: u32,
    /// Group the husk runs as.
    pub gid: u32,
    /// The user's other groups.
    pub groups: Vec<u32>,
    /// The program's name.
    pub program: String,
    /// Key of the husk-to-husk message codes.
    pub job_key: [u8; 16],
    /// Whether the kernel's part in the stages of faults is measured, too.
    pub has_stages: bool,
    /// Whether the pages that threads fetch from other hosts are counted by thread.
    pub has_sketch: bool,
    /// Whether the job goes on without a host that is lost.
    pub outlives_members: bool,
    /// Whether it goes on without its root, too: its hosts agree who is lost.
    pub outlives_root: bool,
}

/// Where a member of a space listens for frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceMember {
    /// Node number.
    pub node: u16,
    /// Urgent socket.
    pub urgent: SocketAddr,
    /// Bulk socket.
    pub bulk: SocketAddr,
}

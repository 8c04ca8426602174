//! Messages between a husk (or a tool) and the agent of its own host.
//!
//! Owns the vocabulary of the control socket. Must not know the transport between agents.

use crate::features::CpuFeatures;
use dsm_wire::{NodeId, PageRange, SpaceId};
use serde::{Deserialize, Serialize};

/// Version of this vocabulary; both sides must speak the same.
pub const API_VERSION: u32 = 9;
/// Longest packet, in bytes.
pub const PACKET_BYTES_MAX: usize = 256 * 1024;
/// Most pages of one [`ToAgent::Pin`].
pub const PINS_MAX: usize = 256;

/// From a husk or tool to its agent. Every request carries a `tag` that comes back in the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToAgent {
    /// First packet of a root husk: start a job on these hosts. Answer: [`ToHusk::JobOpened`] or [`ToHusk::Refused`].
    OpenJob {
        /// [`API_VERSION`] of the sender.
        version: u32,
        /// What the job is.
        job: JobRequest,
    },
    /// First packet of a member husk, on the socket it inherited. Answer: [`ToHusk::JobOpened`].
    JoinJob {
        /// [`API_VERSION`] of the sender.
        version: u32,
    },
    /// The view is mapped and registered; one descriptor follows: the userfaultfd. Answer: [`ToHusk::ViewAccepted`].
    ViewReady,
    /// Forget the contents of these pages on all hosts. Answer: [`ToHusk::Completed`].
    Discard {
        /// Comes back.
        tag: u32,
        /// Pages to forget.
        range: PageSpan,
        /// Pages with a source have their first content then, not zeros.
        keeps_source: bool,
    },
    /// The first content of these pages, which are forgotten or were never touched and lie from
    /// [`SOURCED_START`](crate::SOURCED_START) on, is a file's; one descriptor follows: the file, open for reading. Only from the
    /// root's husk. Answer: [`ToHusk::Completed`] or [`ToHusk::Failed`].
    Source {
        /// Comes back.
        tag: u32,
        /// Pages.
        range: PageSpan,
        /// Offset in the file of the first page.
        offset: u64,
    },
    /// Open a connection to the husk on another host. Answer: [`ToHusk::Connection`] with one descriptor, or [`ToHusk::Failed`].
    Connect {
        /// Comes back.
        tag: u32,
        /// Host to connect to.
        node: u16,
        /// What it will carry.
        purpose: Purpose,
    },
    /// Whether every page of the space is on this host, as no page has ever been sent to another. Only from the root's husk.
    /// Answer: [`ToHusk::Completed`] or [`ToHusk::Failed`].
    AskHome {
        /// Comes back.
        tag: u32,
    },
    /// Keep these pages on this host, as they are, until [`ToAgent::Unpin`]: whoever would write one waits. Only from the root's husk.
    /// Answer: [`ToHusk::Completed`] when they are here and at rest, or [`ToHusk::Failed`].
    Pin {
        /// Comes back.
        tag: u32,
        /// Their numbers, [`PINS_MAX`] at most.
        pages: Vec<u64>,
    },
    /// Let go of every page of [`ToAgent::Pin`]. Pins that were not answered yet fail.
    Unpin,
    /// Have every thread of the view that writes, or touches a page for the first time, wait until [`ToAgent::LetWrite`]. Only from the
    /// root's husk, of a program at home. Answer: [`ToHusk::Completed`] when nobody writes any more, or [`ToHusk::Failed`].
    StopWriters {
        /// Comes back.
        tag: u32,
    },
    /// Ends [`ToAgent::StopWriters`].
    LetWrite,
    /// The husk on that host cannot be reached from here: the hosts of the job shall agree who goes on. Only in jobs that outlive
    /// their root. No answer but [`ToHusk::HostLost`].
    Unreachable {
        /// Host that cannot be reached.
        node: u16,
        /// What was seen.
        reason: String,
    },
    /// The job's figures, all hosts together. Answer: [`ToHusk::JobStatistics`].
    Statistics {
        /// Comes back.
        tag: u32,
    },
    /// First packet of a tool: lets it see a run of this host whose root is lost. Answer: [`ToHusk::Attached`] with one descriptor, a
    /// stream to the husk, or [`ToHusk::Refused`].
    Attach {
        /// The job's space.
        space: u32,
    },
    /// The job has ended with this wait status; everything of it may go.
    EndJob {
        /// The program's exit status as `dvm-exec` will return it.
        status: i32,
    },
    /// A tool asks for the agent's state. Answer: [`ToHusk::Report`] with JSON.
    Query(Query),
    /// A tool asks for the state of the agent of another host, or this one. Answer: [`ToHusk::Report`] with JSON, or
    /// [`ToHusk::Refused`].
    QueryOf {
        /// Name of the host.
        host: String,
        /// What is asked.
        query: Query,
    },
    /// Root wishes that a host takes no new jobs and leaves the cluster after its last one. Answer: [`ToHusk::Report`] with JSON, or
    /// [`ToHusk::Refused`].
    Drain {
        /// Name of the host; none: this one.
        host: Option<String>,
        /// False takes the wish back.
        is_wanted: bool,
    },
}

/// From the agent to a husk or tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToHusk {
    /// The job exists. Two descriptors follow: the space's memfd and an open /dev/userfaultfd (or userfaultfd capable fd).
    JobOpened(JobOpened),
    /// The agent serves the view's faults from now on.
    ViewAccepted,
    /// The request with this tag is done.
    Completed {
        /// Tag of the request.
        tag: u32,
    },
    /// The request with this tag failed.
    Failed {
        /// Tag of the request.
        tag: u32,
        /// What failed, on what, and what to do.
        reason: String,
    },
    /// The connection asked for, or (tag 0) one that a peer's husk opened to us. One descriptor follows.
    Connection {
        /// Tag of the request, 0 on the accepting side.
        tag: u32,
        /// Host at the other end.
        node: u16,
        /// What it carries.
        purpose: Purpose,
    },
    /// Answer to [`ToAgent::Statistics`].
    JobStatistics {
        /// Tag of the request.
        tag: u32,
        /// One entry per host.
        hosts: Vec<HostStatistics>,
    },
    /// A host of the job is lost; the job cannot go on, unless it said that it can ([`JobRequest::outlives_members`] and
    /// [`JobRequest::outlives_root`]).
    HostLost {
        /// Name of the host.
        host: String,
        /// What was seen.
        reason: String,
    },
    /// Answer to [`ToAgent::Attach`]. One descriptor follows.
    Attached,
    /// The job is over; a member husk exits.
    JobEnded,
    /// The first packet was refused.
    Refused {
        /// Exit code for the caller, one of `docs/operating.md`.
        code: u8,
        /// What failed, on what, and what to do.
        reason: String,
    },
    /// Answer to [`ToAgent::Query`], JSON.
    Report(String),
}

/// What a job needs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRequest {
    /// Hosts by name; empty: all of the cluster. The root need not be named.
    pub hosts: Vec<String>,
    /// The program's name, for `status`.
    pub program: String,
    /// Whether the kernel's part in the stages of faults is measured, too: every fault and switch then leaves a record.
    pub has_stages: bool,
    /// Whether the pages that threads fetch from other hosts are counted by thread.
    pub has_sketch: bool,
    /// Whether the job goes on without a host that is lost, as long as it is not the root: only for husks that hold nothing in the
    /// pages of their space.
    pub outlives_members: bool,
    /// Whether it goes on without its root, too, if the hosts can agree who is lost.
    pub outlives_root: bool,
}

/// A job as its husk sees it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobOpened {
    /// The space, which also names the job.
    pub space: u32,
    /// This host.
    pub me: u16,
    /// The host where the job was started.
    pub root: u16,
    /// The job's hosts, root first.
    pub members: Vec<Member>,
    /// Whether the job goes on without any one of them: then all are told of losses, in the same order.
    pub outlives_root: bool,
    /// Key of the husk-to-husk message codes.
    pub job_key: [u8; 16],
}

/// A host of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Node number.
    pub node: u16,
    /// Name in the cluster's configuration.
    pub name: String,
    /// Processors a job may use there.
    pub cpus: u16,
    /// CLOCK_MONOTONIC of that host less the root's, in nanoseconds.
    pub monotonic_offset_ns: i64,
    /// What its processors can do; the root's husk decides whether the program can run there.
    pub cpu: CpuFeatures,
}

/// What a husk-to-husk connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// Orders from the root: protections, kicks, the end.
    Service,
    /// One remote thread and its shadow.
    Thread,
    /// Runners of a DISA program.
    Runners,
    /// Somebody who wants to see a run whose root is lost; from the agent of the same host.
    Attach,
}

/// Figures of one host's part of a job.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HostStatistics {
    /// Name of the host.
    pub host: String,
    /// Counters by stable name, such as `faults`, `pages_in`, `pages_out`, `messages_out`.
    pub counters: Vec<(String, u64)>,
    /// Latency histograms by stable name, HdrHistogram V2 serialization, nanoseconds.
    pub histograms: Vec<(String, Vec<u8>)>,
    /// The pages fetched most from other hosts, in all and since the last time they were asked for; empty unless the job
    /// asked for it.
    pub pages: Vec<PageUse>,
    /// Answers to requests for pages that came in, by the node that gave them.
    pub sources: Vec<(u16, u64)>,
}

/// What a host's threads did to one page, counted since the job began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageUse {
    /// Number of the page.
    pub page: u64,
    /// Who fetched it from another host.
    pub threads: Vec<ThreadUse>,
}

/// How often one thread fetched a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadUse {
    /// The kernel's number of the thread on its host.
    pub thread: u32,
    /// To read it.
    pub reads: u32,
    /// To write it.
    pub writes: u32,
    /// The lines it wanted, bit by bit.
    pub lines: u64,
}

impl ThreadUse {
    /// Reads and writes.
    #[must_use]
    pub fn count(&self) -> u64 {
        u64::from(self.reads) + u64::from(self.writes)
    }
}

/// What a tool wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// Node, peers, jobs, counters.
    Status,
    /// Latency histograms of this host.
    Histograms,
    /// From which hosts pages came, and which came most.
    Fetches,
}

/// A run of pages as it stands in a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageSpan {
    /// First page number.
    pub first: u64,
    /// Number of pages.
    pub count: u64,
}

impl From<PageRange> for PageSpan {
    fn from(range: PageRange) -> Self {
        Self { first: range.first.0, count: range.count }
    }
}

impl JobOpened {
    /// The space's name on the data path.
    #[must_use]
    pub fn space(&self) -> SpaceId {
        SpaceId(self.space)
    }

    /// Whether this host is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.me == self.root
    }

    /// The member that is node `node`.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node.0)
    }
}

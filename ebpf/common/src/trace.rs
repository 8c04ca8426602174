//! What the programs of `dvm-agent trace` record.
//!
//! Owns the record's layout and the names of programs, maps and marks. Must not know what records are joined to.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Something that happened to a thread or a page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct TraceRecord {
    /// CLOCK_MONOTONIC, in nanoseconds.
    pub at_ns: u64,
    /// The page; 0 for switches.
    pub page: u64,
    /// The process that faulted; for marks the thread of the agent.
    pub by: u32,
    /// The thread of the husk; 0 where no thread is meant.
    pub thread: u32,
    /// A [`TraceKind`].
    pub kind: u32,
    /// What else the mark says: pages from `page` on, or whether the page came from another host.
    pub count: u32,
}

/// Kinds of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum TraceKind {
    /// A thread faults.
    Fault = 1,
    /// It leaves its processor.
    Out,
    /// It runs.
    In,
    /// The agent has read the event of its fault.
    Read,
    /// A request for pages is queued; with a count of 0 it may be on another host's behalf.
    Asked,
    /// An answer has come in.
    Answered,
    /// A fault is served.
    Installed,
}

impl TraceKind {
    /// All of them.
    pub const ALL: [Self; 7] = [Self::Fault, Self::Out, Self::In, Self::Read, Self::Asked, Self::Answered, Self::Installed];

    /// The kind of this number.
    #[must_use]
    pub fn of(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u32 == number)
    }
}

/// Programs on the kernel's raw tracepoints, and these.
pub const TRACE_POINTS: [(&str, &str); 4] = [
    ("dvm_trace_fault", "page_fault_user"),
    ("dvm_trace_fault", "page_fault_kernel"),
    ("dvm_trace_out", "sched_switch"),
    ("dvm_trace_in", "sched_exit_tp"),
];
/// Programs on functions of the agent, and these.
pub const TRACE_MARKS: [(&str, &str); 4] = [
    ("dvm_trace_read", "dvm_mark_fault_read"),
    ("dvm_trace_asked", "dvm_mark_request_out"),
    ("dvm_trace_answered", "dvm_mark_grant_in"),
    ("dvm_trace_installed", "dvm_mark_installed"),
];
/// The ring of records.
pub const TRACE_RECORDS: &str = "RECORDS";
/// Records that found the ring full, per processor.
pub const TRACE_LOST: &str = "LOST";

//! Runners over several hosts: versions at homes, commits in two phases, watchers, and who runs where.
//!
//! Owns the protocol as a pure state machine. Must not do input or output, know clocks, threads, sockets, or how a runner computes.
//!
//! ```text
//!   root    gives out timestamps, keeps the log, fires watchers, places runners           (head, ledger)
//!   backup  has the log and all that follows from it; the next root                       (follower, ledger)
//!   home    keeps versions of its pages, locks words of prepared commits                  (home)
//!   host    runs runners on snapshots, prepares and asks for commits, caches pages        (worker)
//!
//!   runner ends: worker -- Prepare --> homes -- Prepared --> worker -- Commit --> root: timestamp, log, output
//!                root -- Records --> backups -- Stored --> root: it stands
//!                root -- Apply --> homes -- Applied --> root -- Advance: snapshots may have it --> all
//! ```

#![forbid(unsafe_code)]

mod copies;
mod delta;
mod follower;
mod head;
mod home;
mod index;
mod ledger;
pub mod limits;
pub mod link;
pub mod message;
mod node;
mod output;
mod place;
pub mod plant;
mod program;
mod schedule;
mod worker;

pub use delta::Delta;
pub use ledger::Happened;
pub use message::{Host, Message};
pub use node::{Config, Event, Node};
pub use program::Program;
pub use worker::{Run, RunKey};

/// Nanoseconds of the caller's clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nanos(pub u64);

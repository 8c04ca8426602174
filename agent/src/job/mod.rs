//! Jobs: what runs over several hosts, and this host's part in it.
//!
//! Owns the list of jobs and what is common to both roles. Must not know sessions or sockets below their faces.
//!
//! ```text
//! root    OpenJob -> reach members -> OpenSpace* -> StartMember* -> JobOpened -> running -> ended
//! member  OpenSpace -> shard -> StartMember -> husk joins, view, data peers -> MemberReady -> running -> ended
//! ```
//! A job is one task with one inbox of [`JobNote`]s. Whatever ends it, the same `close` takes everything down.

pub mod attach;
mod choose;
mod connect;
mod figures;
pub mod member;
mod offset;
pub mod part;
pub mod root;

use crate::limits::JOB_NOTES_MAX;
use crate::local::channel::Channel;
use crate::net::link::Link;
use crate::shard::ShardEvent;
use dsm_wire::{NodeId, SpaceId};
use dvm_api::local::{HostStatistics, ToAgent};
use dvm_api::peer::ToPeer;
use dvm_api::socket::SocketError;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Something a job's task must look at.
#[derive(Debug)]
pub enum JobNote {
    /// The husk said this.
    Husk(ToAgent, Vec<OwnedFd>),
    /// The husk is gone, or its connection.
    HuskGone(String),
    /// The shard reports.
    Shard(ShardEvent),
    /// The shard's thread has ended.
    ShardEnded,
    /// Another agent said this.
    Peer(ToPeer),
    /// The link to a member is lost.
    LinkLost(NodeId, String),
    /// Somebody wants this host's figures.
    Figures(oneshot::Sender<HostStatistics>),
    /// A connection the husk asked for has been opened, or not.
    ConnectDone,
    /// The agent ends.
    AgentEnds,
    /// The others have given this host up, for this reason.
    Fenced(String),
    /// All hosts of the job agree that these are of it no more, in this order.
    GivenUp(Vec<NodeId>),
}

/// This host's role in a job.
#[derive(Clone)]
pub enum Role {
    /// It was started here.
    Root,
    /// It was started at the other end of this link.
    Member(Rc<Link>),
}

/// A job as the rest of the agent sees it.
pub struct Job {
    /// Its space.
    pub space: SpaceId,
    /// This host's role.
    pub role: Role,
    /// Where it was started.
    pub root: NodeId,
    /// All hosts, root first.
    pub members: Vec<NodeId>,
    /// The user it belongs to.
    pub uid: u32,
    /// The program's name.
    pub program: String,
    /// Whether the kernel's part in the stages of its faults is measured, too.
    pub has_stages: bool,
    /// Whether the pages its threads fetch are counted by thread.
    pub has_sketch: bool,
    /// Whether it goes on without a member that is lost.
    pub outlives_members: bool,
    /// Whether it goes on without its root, too: then the hosts agree, by the membership, who is of it no more.
    pub outlives_root: bool,
    /// Hosts that are of it no more, as all hosts have agreed: what they say of it does not count.
    pub given_up: RefCell<BTreeSet<NodeId>>,
    /// When it began here.
    pub started: Instant,
    /// Its task's inbox.
    pub notes: mpsc::Sender<JobNote>,
    /// The husk here, once its view is served: from then on it takes connections.
    pub husk: watch::Sender<Option<Rc<Channel>>>,
}

/// What a job's task receives.
pub type Inbox = mpsc::Receiver<JobNote>;

/// An inbox of the size all jobs have.
#[must_use]
pub fn inbox() -> (mpsc::Sender<JobNote>, Inbox) {
    mpsc::channel(JOB_NOTES_MAX)
}

/// Tasks that serve a job; they end with it.
#[derive(Default)]
pub struct Tasks(Vec<JoinHandle<()>>);

impl Tasks {
    /// Runs `task` until it or the job ends.
    pub fn run(&mut self, task: impl Future<Output = ()> + 'static) {
        self.0.retain(|task| !task.is_finished());
        self.0.push(tokio_uring::spawn(task));
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// Passes everything `channel` receives on to a job, until it ends. `on_malformed` is told of packets that are not ours.
pub async fn pump_husk(channel: Rc<Channel>, notes: mpsc::Sender<JobNote>, on_malformed: impl Fn()) {
    loop {
        let note = match channel.receive::<ToAgent>().await {
            Ok((packet, descriptors)) => JobNote::Husk(packet, descriptors),
            Err(error) => {
                if matches!(error, SocketError::Malformed { .. }) {
                    on_malformed();
                }
                JobNote::HuskGone(error.to_string())
            }
        };
        let is_last = matches!(note, JobNote::HuskGone(_));
        if notes.send(note).await.is_err() || is_last {
            return;
        }
    }
}

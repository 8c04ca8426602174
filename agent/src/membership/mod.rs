//! Who the hosts of the cluster are, and who says so: the list in cluster.toml, or etcd.
//!
//! Owns what both sources have in common. Must not know links or jobs: `follow` hands changes to the agent.
//!
//! ```text
//!  source --View--> members, dialling     a host that is in no view any more: its links are closed, its jobs end
//!         --Fenced--> all jobs here end   this host's lease ran out: the others have given it up
//!         --Trouble--> status, log        the source does not answer: the last view holds
//! ```

#[cfg(feature = "etcd")]
mod etcd;
mod follow;
mod list;
mod members;

pub use follow::follow;
pub use list::List;
pub use members::Members;

use crate::config::{ClusterConfig, NodeEntry};
use crate::exit::{Exit, Failure};
use dsm_wire::NodeId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use tokio::sync::oneshot;

/// The hosts of the cluster at one time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Grows: of two views of one source, the one with the larger number is the later one.
    pub epoch: u64,
    /// Who takes part.
    pub hosts: BTreeMap<NodeId, Host>,
    /// Jobs under way, by space, where the source keeps them.
    pub spaces: BTreeMap<u32, SpaceEntry>,
    /// Hosts that are of a job no more, by space, in the order in which that was decided. What was decided an hour ago is there no
    /// more.
    pub given_up: BTreeMap<u32, Vec<NodeId>>,
}

/// A host in a view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name and where it is.
    pub entry: NodeEntry,
    /// Random number of its agent's start; 0 where the source does not know.
    pub incarnation: u64,
    /// Whether it takes no new jobs.
    pub is_draining: bool,
}

/// A job in the space table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceEntry {
    /// The program's name.
    pub program: String,
    /// Its hosts, root first.
    pub hosts: Vec<String>,
}

/// What a source says.
#[derive(Debug)]
#[cfg_attr(not(feature = "etcd"), expect(dead_code, reason = "a list says nothing"))]
pub enum Change {
    /// These are the hosts now.
    View(View),
    /// The others have given this host up, for this reason: its jobs must end. It enters again once `done` has been sent.
    Fenced {
        /// What was seen.
        reason: String,
        /// To be sent when no job is left.
        done: oneshot::Sender<()>,
    },
    /// The source does not answer, for this reason; none: it does again.
    Trouble(Option<String>),
}

/// What is awaited on the agent's own thread.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Who says which hosts there are.
pub trait Membership {
    /// Its name, for status.
    fn source(&self) -> &'static str;

    /// The next change, when there is one. One caller at a time.
    fn changed(&self) -> Answer<'_, Change>;

    /// Enters a job that was started here into the space table, or strikes it out (no entry).
    fn note_space(&self, space: u32, entry: Option<SpaceEntry>);

    /// Whether [`Self::give_up`] is heard by anybody.
    fn agrees(&self) -> bool;

    /// Has all hosts of a job agree that `node` is of it no more, unless this host is none of it itself by then. Views tell.
    fn give_up(&self, space: u32, node: NodeId);

    /// Has the host called `name` take no new jobs and leave when its last one has ended; or not (`is_wanted`).
    ///
    /// # Errors
    /// Why not.
    fn drain(&self, name: &str, is_wanted: bool) -> Answer<'_, Result<(), String>>;

    /// Tells the others that this host goes; `is_for_good` if it is not to come back by itself.
    fn leave(&self, is_for_good: bool) -> Answer<'_, ()>;
}

/// This host as a member.
pub struct Joined {
    /// Its number.
    pub me: NodeId,
    /// The first view; it contains this host.
    pub view: View,
    /// Where the next ones come from.
    pub membership: Rc<dyn Membership>,
}

/// Enters this host, which is at `entry`, into the cluster. Its control address must be bound: nobody else is there.
///
/// # Errors
/// When the source cannot be reached or refuses.
pub async fn join(cluster: &ClusterConfig, entry: &NodeEntry, incarnation: u64) -> Result<Joined, Failure> {
    match &cluster.etcd {
        None => List::join(cluster, entry),
        Some(etcd) => join_etcd(cluster, etcd, entry, incarnation).await,
    }
    .map_err(|reason| Failure::new(Exit::Membership, anyhow::anyhow!(reason)))
}

#[cfg(feature = "etcd")]
async fn join_etcd(
    cluster: &ClusterConfig,
    config: &crate::config::EtcdConfig,
    entry: &NodeEntry,
    incarnation: u64,
) -> Result<Joined, String> {
    etcd::Etcd::join(config.clone(), &cluster.name, entry.clone(), incarnation).await
}

#[cfg(not(feature = "etcd"))]
async fn join_etcd(_: &ClusterConfig, _: &crate::config::EtcdConfig, _: &NodeEntry, _: u64) -> Result<Joined, String> {
    Err("this dvm-agent was built without etcd; build it with --features etcd (needs protoc), or list the hosts in [[nodes]]"
        .to_owned())
}

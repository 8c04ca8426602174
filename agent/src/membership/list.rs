//! The list in cluster.toml: one view, for ever.
//!
//! Owns nothing beyond it. Must not know etcd.

use super::{Answer, Change, Host, Joined, Membership, SpaceEntry, View};
use crate::config::{ClusterConfig, NodeEntry};
use dsm_wire::NodeId;
use std::future::{pending, ready};
use std::rc::Rc;

/// Hosts that never change.
pub struct List;

impl List {
    /// The list of `cluster` as a view; this host is the one at `entry`.
    pub(super) fn join(cluster: &ClusterConfig, entry: &NodeEntry) -> Result<Joined, String> {
        let numbered = cluster.nodes.iter().enumerate();
        let hosts = numbered.filter_map(|(place, entry)| Some((NodeId(u16::try_from(place).ok()?), entry)));
        let host = |entry: &NodeEntry| Host { entry: entry.clone(), incarnation: 0, is_draining: false };
        let view = View { epoch: 1, hosts: hosts.map(|(node, entry)| (node, host(entry))).collect(), ..View::default() };
        let me = view.hosts.iter().find(|(_, host)| host.entry == *entry).map(|(node, _)| *node);
        let me = me.ok_or_else(|| format!("host {} is not in the cluster's list", entry.name))?;
        Ok(Joined { me, view, membership: Rc::new(Self) })
    }
}

impl Membership for List {
    fn source(&self) -> &'static str {
        "list"
    }

    fn changed(&self) -> Answer<'_, Change> {
        Box::pin(pending())
    }

    fn note_space(&self, _: u32, _: Option<SpaceEntry>) {}

    fn agrees(&self) -> bool {
        false
    }

    fn give_up(&self, _: u32, _: NodeId) {}

    fn drain(&self, _: &str, _: bool) -> Answer<'_, Result<(), String>> {
        let reason = "the hosts are a fixed list in cluster.toml; only with [control] etcd can one be drained. End its jobs, stop its agent";
        Box::pin(ready(Err(reason.to_owned())))
    }

    fn leave(&self, _: bool) -> Answer<'_, ()> {
        Box::pin(ready(()))
    }
}

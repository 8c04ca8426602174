//! The figures of all hosts of a job, put together at its root.
//!
//! Owns whom to ask and how long to wait. Must not know what the figures mean.

use super::Job;
use crate::agent::Agent;
use crate::limits::STATISTICS_DEADLINE;
use crate::local::channel::Channel;
use crate::net::link::Link;
use dvm_api::local::{HostStatistics, ToHusk};
use dvm_api::peer::ToPeer;
use std::rc::Rc;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Who is asked.
pub struct Asked {
    /// This host's agent.
    pub agent: Rc<Agent>,
    /// The job.
    pub job: Rc<Job>,
    /// Where this host's figures come from.
    pub own: oneshot::Receiver<HostStatistics>,
    /// The members.
    pub links: Vec<Rc<Link>>,
}

/// Collects the figures and answers the husk's request with this tag.
pub async fn gather(Asked { agent, job, own, links }: Asked, channel: Rc<Channel>, tag: u32) {
    let mut asking = JoinSet::new();
    asking.spawn_local(own_figures(Rc::clone(&agent), own));
    for link in links {
        asking.spawn_local(peer_figures(Rc::clone(&agent), link, job.space.0));
    }
    let mut hosts = asking.join_all().await;
    let place = |name: &str| job.members.iter().position(|node| agent.members.name_of(*node) == name);
    hosts.sort_by_key(|host| place(&host.host));
    send_figures(&channel, tag, hosts).await;
}

async fn own_figures(agent: Rc<Agent>, own: oneshot::Receiver<HostStatistics>) -> HostStatistics {
    let figures = timeout(STATISTICS_DEADLINE, own).await.ok().and_then(Result::ok);
    figures.unwrap_or_else(|| unanswered(agent.name()))
}

async fn peer_figures(agent: Rc<Agent>, link: Rc<Link>, space: u32) -> HostStatistics {
    match link.ask(STATISTICS_DEADLINE, |tag| ToPeer::AskStatistics { tag, space }).await {
        Ok(ToPeer::Statistics { host, .. }) => host,
        Ok(_) | Err(_) => unanswered(&agent.members.name_of(link.peer)),
    }
}

/// What stands for a host that gave no figures.
fn unanswered(host: &str) -> HostStatistics {
    HostStatistics {
        host: host.to_owned(),
        counters: vec![("unanswered".to_owned(), 1)],
        histograms: Vec::new(),
        pages: Vec::new(),
        sources: Vec::new(),
    }
}

async fn send_figures(channel: &Channel, tag: u32, mut hosts: Vec<HostStatistics>) {
    let packet = ToHusk::JobStatistics { tag, hosts: hosts.clone() };
    if channel.send(&packet, &[]).await.is_ok() {
        return;
    }
    // Too long with many hosts: the counters alone always fit.
    for host in &mut hosts {
        host.histograms.clear();
        host.pages.clear();
    }
    // If the husk is gone, its own note ends the job.
    drop(channel.send(&ToHusk::JobStatistics { tag, hosts }, &[]).await);
}

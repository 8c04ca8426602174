//! What tools are told of this agent, and, through it, of its peers.
//!
//! Owns which report answers which query, and how many are made for peers at a time. Must not know what reports hold.

use crate::agent::Agent;
use crate::limits::{REPORTS_MAX, STATISTICS_DEADLINE};
use crate::net::link::Link;
use crate::status;
use dvm_api::local::Query;
use dvm_api::peer::ToPeer;
use std::rc::Rc;

/// This agent's answer to `query`, JSON.
///
/// # Errors
/// When it cannot be written, which does not happen.
pub async fn report(agent: &Agent, query: Query) -> Result<String, String> {
    let text = match query {
        Query::Status => serde_json::to_string(&status::status(agent).await),
        Query::Histograms => serde_json::to_string(&status::histograms(agent).await),
        Query::Fetches => serde_json::to_string(&status::fetches(agent).await),
    };
    text.map_err(|error| error.to_string())
}

/// The answer of the agent of `host`, which may be this one, to `query`.
///
/// # Errors
/// When there is no such host, or it does not answer.
pub async fn report_of(agent: &Agent, host: &str, query: Query) -> Result<String, String> {
    let members = &agent.members;
    let node =
        members.node(host).ok_or_else(|| format!("no host {host} in the cluster ({}); correct --hosts", members.names()))?;
    let Some(peer) = agent.peer(node) else { return report(agent, query).await };
    let link = peer.link().ok_or_else(|| peer.trouble().unwrap_or_else(|| "its agent is down".to_owned()))?;
    // The peer waits for its shards as long as we would for ours.
    match link.ask(2 * STATISTICS_DEADLINE, |tag| ToPeer::AskReport { tag, query }).await {
        Ok(ToPeer::Report { text, .. }) => Ok(text),
        Ok(_) => Err("its answer makes no sense; install the same release on all hosts".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Answers a peer beside the agent's other work.
pub fn answer_peer(agent: &Rc<Agent>, link: &Rc<Link>, tag: u32, query: Query) {
    let under_way = agent.reports_under_way.get();
    if under_way >= REPORTS_MAX {
        return link.send(ToPeer::Refused { tag, reason: format!("{REPORTS_MAX} reports are being made; ask less often") });
    }
    agent.reports_under_way.set(under_way + 1);
    let (agent, link) = (Rc::clone(agent), Rc::clone(link));
    tokio_uring::spawn(async move {
        let answer = match report(&agent, query).await {
            Ok(text) => ToPeer::Report { tag, text },
            Err(reason) => ToPeer::Refused { tag, reason },
        };
        link.send(answer);
        agent.reports_under_way.set(agent.reports_under_way.get() - 1);
    });
}

//! Which hosts take part in a job that is started here.
//!
//! Owns the choice, and why there is none. Must not know how they are asked.

use crate::agent::Agent;
use crate::exit::Refusal;
use dsm_wire::NodeId;

/// Why a job is not opened.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// Exit code of `dvm-exec`.
    pub code: Refusal,
    /// What it prints.
    pub reason: String,
}

/// A refusal with this code.
pub fn refuse(code: Refusal, reason: impl Into<String>) -> Refused {
    Refused { code, reason: reason.into() }
}

/// The job's hosts, this one first. No name means all that take new jobs.
pub fn choose(agent: &Agent, names: &[String]) -> Result<Vec<NodeId>, Refused> {
    let mut members = vec![agent.me];
    let draining = |node: NodeId| {
        let reason = format!("host {} is being drained and takes no new jobs; use others", agent.members.name_of(node));
        refuse(Refusal::Draining, reason)
    };
    if agent.members.is_draining(agent.me) {
        return Err(draining(agent.me));
    }
    if names.is_empty() {
        members.extend(agent.members.others().filter(|node| !agent.members.is_draining(*node)));
    }
    for name in names {
        let Some(node) = agent.members.node(name) else {
            let reason = format!("host `{name}` is not in the cluster; known hosts: {}", agent.members.names());
            return Err(refuse(Refusal::UnknownHost, reason));
        };
        if agent.members.is_draining(node) {
            return Err(draining(node));
        }
        if !members.contains(&node) {
            members.push(node);
        }
    }
    Ok(members)
}

//! Connections between husks of a job, opened at the wish of one of them.
//!
//! Owns the handing over. Must not know how a connection is opened, or what it carries.

use super::{Job, JobNote};
use crate::agent::Agent;
use crate::log::say;
use dsm_wire::NodeId;
use dvm_api::local::{Purpose, ToHusk};
use std::os::fd::AsFd;
use std::rc::Rc;

/// Opens a husk-to-husk connection and hands it over, beside the job's other work. Serves both roles.
pub async fn connect(agent: Rc<Agent>, job: Rc<Job>, tag: u32, node: NodeId, purpose: Purpose) {
    let opened = agent.open_husk_connection(&job, node, purpose).await;
    let husk = job.husk.borrow().clone();
    if let Some(channel) = husk {
        let sent = match &opened {
            Ok(socket) => channel.send(&ToHusk::Connection { tag, node: node.0, purpose }, &[socket.as_fd()]).await,
            Err(reason) => channel.send(&ToHusk::Failed { tag, reason: reason.clone() }, &[]).await,
        };
        if let Err(error) = sent {
            say(&agent.counters, format_args!("space {}: a connection could not be handed over: {error}", job.space));
        }
    }
    // Without a receiver the job has already ended.
    drop(job.notes.send(JobNote::ConnectDone).await);
}

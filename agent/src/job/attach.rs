//! Somebody wants to see a run whose root is lost: leads him to the husk here.
//!
//! Owns who may. Must not know what there is to see.

use crate::agent::Agent;
use crate::exit::Refusal;
use crate::local::channel::Channel;
use dsm_wire::SpaceId;
use dvm_api::local::{Purpose, ToHusk};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// Why there is nothing to see here, and where it is, if the cluster says so.
fn elsewhere(agent: &Agent, space: u32) -> String {
    match agent.members.view().spaces.get(&space) {
        Some(entry) => format!("job {space} is not on host {}, but on {}: ask there", agent.name(), entry.hosts.join(", ")),
        None => format!("no job {space} of yours on host {}; `dvm-agent status` lists them", agent.name()),
    }
}

/// Gives the caller, who is user `uid`, a stream to the husk of job `space`.
pub async fn attach(agent: &Agent, channel: &Channel, uid: u32, space: u32) {
    let packet = match lead(agent, uid, space).await {
        Ok(stream) => {
            // A caller that is gone needs no answer.
            return drop(channel.send(&ToHusk::Attached, &[stream.as_fd()]).await);
        }
        Err(reason) => ToHusk::Refused { code: Refusal::NotRequest.code(), reason },
    };
    drop(channel.send(&packet, &[]).await);
}

async fn lead(agent: &Agent, uid: u32, space: u32) -> Result<UnixStream, String> {
    // Another user's job is not there for anybody but root.
    let mine = |job: &std::rc::Rc<super::Job>| job.space == SpaceId(space) && (uid == 0 || uid == job.uid);
    let job = agent.jobs().into_iter().find(mine);
    let job = job.ok_or_else(|| elsewhere(agent, space))?;
    let husk = job.husk.borrow().clone().filter(|_| job.outlives_root && job.root != agent.me);
    let husk =
        husk.ok_or_else(|| format!("job {space} is shown where it was started, on {}", agent.members.name_of(job.root)))?;
    let (ours, theirs) = UnixStream::pair().map_err(|error| format!("no stream to the husk: {error}"))?;
    let packet = ToHusk::Connection { tag: 0, node: agent.me.0, purpose: Purpose::Attach };
    husk.send(&packet, &[theirs.as_fd()]).await.map_err(|error| format!("the husk of job {space}: {error}"))?;
    Ok(ours)
}

//! Brings what the source of members says to the agent.
//!
//! Owns the order of what follows from a change. Must not know where changes come from.

use super::members::gone;
use super::{Change, View};
use crate::agent::Agent;
use crate::limits::{DRAIN_CHECK, REAP_DEADLINE, ROOT_GRACE};
use crate::log::say;
use std::rc::Rc;
use tokio::time::{Instant, sleep, timeout};

/// Follows the source of members until this host has been drained: then the agent has left and is to end.
pub async fn follow(agent: Rc<Agent>) {
    let mut drained_at = None;
    loop {
        if let Ok(change) = timeout(DRAIN_CHECK, agent.membership.changed()).await {
            on_change(&agent, change).await;
        }
        if !agent.members.is_draining(agent.me) || !agent.jobs().is_empty() {
            drained_at = None;
        } else if *drained_at.get_or_insert_with(Instant::now) + DRAIN_CHECK < Instant::now() {
            // The others know of it by now: none of them is about to open a job here.
            agent.members.start_leaving();
            say(&agent.counters, "drained: no job is left here, leaving the cluster");
            return agent.membership.leave(true).await;
        }
    }
}

async fn on_change(agent: &Rc<Agent>, change: Change) {
    match change {
        Change::View(view) => on_view(agent, view),
        Change::Trouble(trouble) => {
            match &trouble {
                Some(reason) => {
                    agent.counters.etcd_lost.add();
                    say(&agent.counters, format_args!("etcd does not answer, jobs and the last list of hosts go on: {reason}"));
                }
                None => say(&agent.counters, "etcd answers again"),
            }
            agent.members.set_trouble(trouble);
        }
        Change::Fenced { reason, done } => {
            agent.counters.fenced.add();
            say(&agent.counters, format_args!("fenced: {reason}; all jobs here end"));
            agent.fence(&reason);
            let deadline = Instant::now() + ROOT_GRACE + 3 * REAP_DEADLINE;
            while !agent.jobs().is_empty() && Instant::now() < deadline {
                sleep(DRAIN_CHECK / 10).await;
            }
            // Without a receiver the source has ended.
            let _gone = done.send(());
        }
    }
}

/// Takes leave of hosts that are gone and gets to know those that are new.
fn on_view(agent: &Rc<Agent>, view: View) {
    let names = |view: &View| {
        let told = view.hosts.values().map(|host| match host.is_draining {
            true => format!("{} (draining)", host.entry.name),
            false => host.entry.name.clone(),
        });
        told.collect::<Vec<_>>().join(", ")
    };
    let (epoch, hosts) = (view.epoch, names(&view));
    let after = view.clone();
    let before = agent.members.replace(view);
    if names(&before) != hosts {
        say(&agent.counters, format_args!("hosts at epoch {epoch}: {hosts}"));
    }
    for (node, reason) in gone(&before, &after) {
        agent.part_from(node, reason);
    }
    for node in agent.members.others() {
        agent.get_to_know(node);
    }
    // After links have ended: who is in no view any more is a loss of which all hosts of a job are to agree.
    agent.tell_given_up(&after.given_up);
}

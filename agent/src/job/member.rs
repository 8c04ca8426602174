//! This host's part in a job that was started elsewhere: shard, husk, and their end.
//!
//! Owns the member's side of a job. Must not know how the root decides.

use super::connect::connect;
use super::part::{News, Part};
use super::{Inbox, Job, JobNote, Role, Tasks, inbox, pump_husk};
use crate::agent::Agent;
use crate::cpu;
use crate::limits::{
    CONNECTS_PENDING_MAX, GROUPS_MAX, HUSK_GRACE, LAST_WORDS, MEMBER_DEADLINE, PROGRAM_BYTES_MAX, REACH_DEADLINE, ROOT_SAYS_WHY,
    STATISTICS_DEADLINE, VIEW_DEADLINE,
};
use crate::local::channel::Channel;
use crate::local::husk::Husk;
use crate::log::say;
use crate::net::link::Link;
use crate::sys::Credentials;
use dsm_wire::{NodeId, SpaceId};
use dvm_api::local::{API_VERSION, JobOpened, Member, ToAgent, ToHusk};
use dvm_api::peer::{SpaceMember, SpaceSpec, ToPeer};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, sleep_until, timeout};

/// What has to happen between StartMember and MemberReady.
#[derive(Debug, Default, PartialEq, Eq)]
struct Progress {
    has_joined: bool,
    has_view: bool,
    has_peers: bool,
}

impl Progress {
    fn is_complete(&self) -> bool {
        self.has_joined && self.has_view && self.has_peers
    }

    /// What is missing, for the message of a deadline.
    fn missing(&self) -> String {
        let parts = [
            (self.has_joined, "its husk has not joined (see the agent's log there)"),
            (self.has_view, "its husk has not mapped its view"),
            (self.has_peers, "its data path to the other hosts is not up (is UDP let through?)"),
        ];
        parts.iter().filter(|part| !part.0).map(|part| part.1).collect::<Vec<_>>().join(", ")
    }
}

struct MemberJob {
    agent: Rc<Agent>,
    job: Rc<Job>,
    link: Rc<Link>,
    spec: SpaceSpec,
    part: Part,
    husk: Option<Rc<Husk>>,
    channel: Option<Rc<Channel>>,
    /// The husk's last line on stderr, and who listens.
    last_words: Rc<RefCell<String>>,
    listening: Option<JoinHandle<()>>,
    husk_members: Vec<Member>,
    start_tag: Option<u32>,
    deadline: tokio::time::Instant,
    progress: Progress,
    connects: usize,
    /// Why hosts are lost, as far as it was seen here.
    reasons: BTreeMap<NodeId, String>,
    /// The program has ended, at this host.
    ended: Option<String>,
    /// What was seen when the husk went, and how long the root may say why.
    dying: Option<String>,
    dying_until: Instant,
    tasks: Tasks,
}

/// Answers [`ToPeer::OpenSpace`]: starts this host's part, or refuses it. The root may know of a host that has just joined earlier
/// than this one does.
pub fn open(agent: &Rc<Agent>, link: &Rc<Link>, tag: u32, spec: SpaceSpec) {
    if knows_all(agent, &spec) {
        return open_now(agent, link, tag, spec);
    }
    let (agent, link) = (Rc::clone(agent), Rc::clone(link));
    agent.opening.borrow_mut().insert(spec.space);
    tokio_uring::spawn(async move {
        let deadline = Instant::now() + VIEW_DEADLINE;
        while !knows_all(&agent, &spec) && Instant::now() < deadline {
            sleep(VIEW_DEADLINE / 100).await;
        }
        // Unless the root has closed it meanwhile.
        if agent.opening.borrow_mut().remove(&spec.space) && link.lost_reason().is_none() {
            open_now(&agent, &link, tag, spec);
        }
    });
}

fn knows_all(agent: &Agent, spec: &SpaceSpec) -> bool {
    spec.members.iter().all(|node| agent.members.entry(NodeId(*node)).is_some())
}

fn open_now(agent: &Rc<Agent>, link: &Rc<Link>, tag: u32, spec: SpaceSpec) {
    let (notes, inbox) = inbox();
    match prepare(agent, link, spec, notes) {
        Ok(member) => {
            link.send(ToPeer::SpaceOpened { tag, member: member.part.listening(), cpus: agent.cpus(), cpu: cpu::features() });
            tokio_uring::spawn(member.run(inbox));
        }
        Err(reason) => {
            agent.counters.jobs_refused.add();
            say(&agent.counters, format_args!("part in a job of {} refused: {reason}", agent.members.name_of(link.peer)));
            link.send(ToPeer::Refused { tag, reason });
        }
    }
}

fn prepare(
    agent: &Rc<Agent>,
    link: &Rc<Link>,
    spec: SpaceSpec,
    notes: tokio::sync::mpsc::Sender<JobNote>,
) -> Result<MemberJob, String> {
    check(agent, link, &spec)?;
    let job = Rc::new(Job {
        space: SpaceId(spec.space),
        role: Role::Member(Rc::clone(link)),
        root: NodeId(spec.root),
        members: spec.members.iter().copied().map(NodeId).collect(),
        uid: spec.uid,
        program: spec.program.chars().take(PROGRAM_BYTES_MAX).collect(),
        has_stages: spec.has_stages,
        has_sketch: spec.has_sketch,
        outlives_members: spec.outlives_members,
        outlives_root: spec.outlives_root,
        given_up: RefCell::default(),
        started: Instant::now(),
        notes,
        husk: watch::Sender::new(None),
    });
    agent.admit_job(&job)?;
    let part = Part::start(agent, &job).map_err(|error| {
        agent.forget_job(job.space);
        format!("{error:#}")
    })?;
    let mut tasks = Tasks::default();
    let (watched, to_job) = (Rc::clone(link), job.notes.clone());
    tasks.run(async move {
        let reason = watched.lost().await;
        // Without a receiver the job has already ended.
        drop(to_job.send(JobNote::LinkLost(watched.peer, reason)).await);
    });
    if job.outlives_root {
        // Without the root nobody else would see that a member is lost.
        let others = job.members.iter().copied().filter(|node| *node != agent.me && *node != job.root);
        others.for_each(|node| tasks.run(watch_member(Rc::clone(agent), node, job.notes.clone())));
    }
    Ok(MemberJob {
        agent: Rc::clone(agent),
        job,
        link: Rc::clone(link),
        spec,
        part,
        husk: None,
        channel: None,
        last_words: Rc::default(),
        listening: None,
        husk_members: Vec::new(),
        start_tag: None,
        deadline: tokio::time::Instant::now(),
        progress: Progress::default(),
        connects: 0,
        reasons: BTreeMap::new(),
        ended: None,
        dying: None,
        dying_until: Instant::now(),
        tasks,
    })
}

/// Tells a job when the link to a member is lost, or does not come to be.
async fn watch_member(agent: Rc<Agent>, node: NodeId, notes: tokio::sync::mpsc::Sender<JobNote>) {
    let link = match agent.peer(node) {
        Some(peer) => peer.reach(REACH_DEADLINE).await,
        None => Err("not a peer".to_owned()),
    };
    let reason = match link {
        Ok(link) => link.lost().await,
        Err(reason) => reason,
    };
    // Without a receiver the job has already ended.
    drop(notes.send(JobNote::LinkLost(node, reason)).await);
}

/// Refuses what no agent of ours would send.
fn check(agent: &Agent, link: &Link, spec: &SpaceSpec) -> Result<(), String> {
    let mut sorted = spec.members.clone();
    sorted.sort_unstable();
    sorted.dedup();
    let is_sound = spec.root == link.peer.0
        && spec.members.first() == Some(&spec.root)
        && sorted.len() == spec.members.len()
        && spec.members.contains(&agent.me.0)
        && knows_all(agent, spec)
        && spec.groups.len() <= GROUPS_MAX
        && agent.is_space_of(SpaceId(spec.space), link.peer);
    if is_sound { Ok(()) } else { Err("the request contradicts itself; install the same release on all hosts".to_owned()) }
}

impl MemberJob {
    async fn run(mut self, mut inbox: Inbox) {
        self.agent.counters.jobs_joined.add();
        let root = self.agent.members.name_of(self.job.root);
        let (space, program, uid) = (self.job.space, &self.job.program, self.job.uid);
        say(&self.agent.counters, format_args!("space {space}: `{program}` of user {uid} from {root}"));
        let reason = loop {
            let note = tokio::select! {
                biased;
                note = inbox.recv() => note,
                // A husk also goes because the root's has gone; then the root has the word first.
                () = sleep_until(self.dying_until.into()), if self.dying.is_some() => {
                    let seen = self.dying.take().unwrap_or_default();
                    let why = self.why_gone(seen).await;
                    break self.report(self.agent.me, why);
                }
                () = sleep_until(self.deadline), if self.start_tag.is_some() => {
                    let missing = format!("not ready in {} s: {}", MEMBER_DEADLINE.as_secs(), self.progress.missing());
                    break self.report(self.agent.me, missing);
                }
            };
            if let Some(JobNote::HuskGone(reason)) = note {
                if self.dying.is_none() {
                    self.dying = Some(reason);
                    self.dying_until = Instant::now() + ROOT_SAYS_WHY;
                }
                continue;
            }
            if let Err((node, reason)) = self.on_note(note).await {
                break self.report(node, reason);
            }
            if let Some(reason) = self.ended.take() {
                break reason;
            }
        };
        self.close(&mut inbox, &reason).await;
    }

    /// Tells the root why this part ends, unless that was its own wish.
    fn report(&mut self, node: NodeId, reason: String) -> String {
        if node == self.job.root {
            return reason;
        }
        if self.can_agree() {
            self.agent.membership.give_up(self.job.space.0, node);
        }
        match self.start_tag.take() {
            Some(tag) => self.link.send(ToPeer::Refused { tag, reason: reason.clone() }),
            None => {
                let lost = ToPeer::MemberLost { space: self.job.space.0, node: node.0, reason: reason.clone() };
                self.link.send(lost);
            }
        }
        self.agent.counters.jobs_lost.add();
        format!("{}: {reason}", self.agent.members.name_of(node))
    }

    /// Looks at one note; an error ends the part: which host is to blame (the root: it ended the job) and why.
    async fn on_note(&mut self, note: Option<JobNote>) -> Result<(), (NodeId, String)> {
        let me = self.agent.me;
        let news = match note {
            Some(JobNote::Husk(packet, descriptors)) => {
                self.on_husk(packet, descriptors).await.map_err(|reason| (me, reason))?;
                News::None
            }
            // The loop has taken it.
            Some(JobNote::HuskGone(_)) => News::None,
            Some(JobNote::Shard(event)) => self.part.on_shard(event),
            Some(JobNote::ShardEnded) => self.part.on_ended(),
            Some(JobNote::Peer(message)) => return self.on_peer(message),
            Some(JobNote::LinkLost(node, reason)) if self.can_agree() => News::Lost(node, reason),
            // While the job is opened its root says who is missing.
            Some(JobNote::LinkLost(node, _)) if node != self.job.root => News::None,
            Some(JobNote::LinkLost(_, reason)) => return Err((self.job.root, format!("root is lost: {reason}"))),
            Some(JobNote::GivenUp(nodes)) => return self.on_given_up(nodes).await,
            Some(JobNote::Figures(sender)) => {
                self.part.tell_figures(sender);
                News::None
            }
            Some(JobNote::ConnectDone) => {
                self.connects = self.connects.saturating_sub(1);
                News::None
            }
            Some(JobNote::Fenced(reason)) => News::Lost(me, reason),
            Some(JobNote::AgentEnds) | None => News::Lost(me, "its agent is ending".to_owned()),
        };
        match news {
            News::None => Ok(()),
            News::PeersReady => {
                self.progress.has_peers = true;
                self.tell_ready();
                Ok(())
            }
            News::Completed(tag) => self.tell(&ToHusk::Completed { tag }).await.map_err(|reason| (me, reason)),
            News::Refused(tag, reason) => self.tell(&ToHusk::Failed { tag, reason }).await.map_err(|reason| (me, reason)),
            // When all hosts have agreed, the husk is told.
            News::Lost(node, reason) if self.can_agree() && node != me => {
                self.agent.membership.give_up(self.job.space.0, node);
                self.reasons.insert(node, reason);
                Ok(())
            }
            News::Lost(node, reason) if node == self.job.root => {
                // The control connection may be alive: the root must end the job all the same.
                Err((me, format!("the data path to the root is lost: {reason}")))
            }
            // The root will see it too, or else both go on.
            News::Lost(node, _) if self.job.outlives_members && node != me => Ok(()),
            News::Lost(node, reason) => Err((node, reason)),
        }
    }

    /// Whether a loss is for all hosts of the job to agree about: the job is open, and may go on without any of them.
    fn can_agree(&self) -> bool {
        self.job.outlives_root && self.progress.is_complete() && self.start_tag.is_none()
    }

    /// All hosts of the job agree that these are of it no more.
    async fn on_given_up(&mut self, nodes: Vec<NodeId>) -> Result<(), (NodeId, String)> {
        let me = self.agent.me;
        for node in nodes {
            let seen = self.reasons.get(&node).cloned();
            let reason = seen.unwrap_or_else(|| "other hosts cannot reach it".to_owned());
            if node == me {
                return Err((me, reason));
            }
            let is_new = self.job.given_up.borrow_mut().insert(node);
            if is_new {
                let host = self.agent.members.name_of(node);
                say(&self.agent.counters, format_args!("space {}: goes on without host {host}: {reason}", self.job.space));
                self.tell(&ToHusk::HostLost { host, reason }).await.map_err(|reason| (me, reason))?;
            }
        }
        Ok(())
    }

    /// The program has ended, at this host, which has taken over from the root: nothing of it stays anywhere.
    fn end_everywhere(&self, status: i32) {
        let given_up = self.job.given_up.borrow();
        for node in self.job.members.iter().filter(|node| **node != self.agent.me && !given_up.contains(node)) {
            if let Some(link) = self.agent.peer(*node).and_then(|peer| peer.link()) {
                let reason = format!("the program ended with status {status}");
                link.send(ToPeer::CloseSpace { space: self.job.space.0, reason });
            }
        }
    }

    /// Prefers how the husk ended over how its connection did.
    async fn why_gone(&mut self, reason: String) -> String {
        let reason = match &self.husk {
            Some(husk) => match timeout(HUSK_GRACE, husk.exited()).await {
                Ok(how) => format!("the husk {how}"),
                Err(_) => reason,
            },
            None => reason,
        };
        self.hear_last_words().await;
        let words = self.last_words.borrow();
        if words.is_empty() { reason } else { format!("{reason}: {words}") }
    }

    /// Waits a moment for what a husk that is gone has written.
    async fn hear_last_words(&mut self) {
        if let Some(listening) = self.listening.take() {
            let stop = listening.abort_handle();
            if timeout(LAST_WORDS, listening).await.is_err() {
                stop.abort();
            }
        }
    }

    fn on_peer(&mut self, message: ToPeer) -> Result<(), (NodeId, String)> {
        match message {
            ToPeer::StartMember { tag, members, husk_members, .. } if self.husk.is_none() => {
                self.start_tag = Some(tag);
                self.deadline = tokio::time::Instant::now() + MEMBER_DEADLINE;
                self.start(&members, husk_members).map_err(|error| (self.agent.me, format!("{error:#}")))
            }
            ToPeer::CloseSpace { reason, .. } => Err((self.job.root, reason)),
            ToPeer::PauseSpace { is_stopped, .. } => {
                if let Some(husk) = &self.husk {
                    husk.pause(is_stopped);
                }
                Ok(())
            }
            ToPeer::AskStatistics { tag, .. } => {
                let (figures, link) = (self.part.ask_figures(), Rc::clone(&self.link));
                self.tasks.run(async move {
                    // Without figures the root's own deadline answers.
                    if let Ok(Ok(host)) = timeout(STATISTICS_DEADLINE, figures).await {
                        link.send(ToPeer::Statistics { tag, host });
                    }
                });
                Ok(())
            }
            ToPeer::StartMember { .. }
            | ToPeer::OpenSpace { .. }
            | ToPeer::SpaceOpened { .. }
            | ToPeer::MemberReady { .. }
            | ToPeer::Refused { .. }
            | ToPeer::Statistics { .. }
            | ToPeer::AskClock { .. }
            | ToPeer::Clock { .. }
            | ToPeer::AskReport { .. }
            | ToPeer::Report { .. }
            | ToPeer::Heartbeat
            | ToPeer::MemberLost { .. } => {
                self.agent.counters.peer_messages_unexpected.add();
                Ok(())
            }
        }
    }

    fn start(&mut self, members: &[SpaceMember], husk_members: Vec<Member>) -> anyhow::Result<()> {
        let is_complete = members.len() == self.job.members.len()
            && self.job.members.iter().all(|node| members.iter().any(|member| member.node == node.0));
        anyhow::ensure!(is_complete, "the addresses do not fit the members; install the same release on all hosts");
        self.part.add_peers(members);
        self.husk_members = husk_members;
        let credentials = Credentials { uid: self.spec.uid, gid: self.spec.gid, groups: self.spec.groups.clone() };
        let (husk, channel, words) = Husk::start(&self.agent.node.exec, &credentials)?;
        let channel = Rc::new(channel);
        let counting = Rc::clone(&self.agent);
        let count = move || counting.counters.packets_malformed.add();
        self.tasks.run(pump_husk(Rc::clone(&channel), self.job.notes.clone(), count));
        let (watched, notes) = (Rc::clone(&husk), self.job.notes.clone());
        self.tasks.run(async move {
            let how = watched.exited().await;
            // Without a receiver the job has already ended.
            drop(notes.send(JobNote::HuskGone(format!("the husk {how}"))).await);
        });
        let (last_words, agent, space) = (Rc::clone(&self.last_words), Rc::clone(&self.agent), self.job.space);
        self.listening = Some(tokio_uring::spawn(words.listen(move |line| {
            say(&agent.counters, format_args!("space {space}: husk: {line}"));
            last_words.replace(line.to_owned());
        })));
        self.husk = Some(husk);
        self.channel = Some(channel);
        Ok(())
    }

    async fn on_husk(&mut self, packet: ToAgent, descriptors: Vec<OwnedFd>) -> Result<(), String> {
        match packet {
            ToAgent::JoinJob { version } if version != API_VERSION => {
                Err(format!("dvm-exec there speaks version {version}, dvm-agent {API_VERSION}; install the same release of both"))
            }
            ToAgent::JoinJob { .. } if !self.progress.has_joined => self.join().await,
            ToAgent::ViewReady => {
                let husk = self.husk.as_ref().map_or(0, |husk| husk.pid());
                self.part.attach(descriptors, husk)?;
                self.tell(&ToHusk::ViewAccepted).await?;
                self.job.husk.send_replace(self.channel.clone());
                self.progress.has_view = true;
                self.tell_ready();
                Ok(())
            }
            ToAgent::Discard { tag, range, keeps_source } => match self.part.discard(tag, range, keeps_source) {
                Ok(()) => Ok(()),
                Err(reason) => self.tell(&ToHusk::Failed { tag, reason }).await,
            },
            ToAgent::Source { tag, .. } => {
                self.tell(&ToHusk::Failed { tag, reason: "only the root's host gives pages a source".to_owned() }).await
            }
            ToAgent::AskHome { tag } => {
                self.tell(&ToHusk::Failed { tag, reason: "only the root's host is a program's home".to_owned() }).await
            }
            ToAgent::Pin { tag, .. } | ToAgent::StopWriters { tag } => {
                self.tell(&ToHusk::Failed { tag, reason: "only the root's host copies a program's memory".to_owned() }).await
            }
            ToAgent::Connect { tag, .. } if self.connects >= CONNECTS_PENDING_MAX => {
                self.tell(&ToHusk::Failed { tag, reason: format!("{CONNECTS_PENDING_MAX} connections are being opened") }).await
            }
            ToAgent::Connect { tag, node, purpose } => {
                self.connects += 1;
                self.tasks.run(connect(Rc::clone(&self.agent), Rc::clone(&self.job), tag, NodeId(node), purpose));
                Ok(())
            }
            ToAgent::Unreachable { node, reason } if self.job.outlives_root => {
                self.agent.membership.give_up(self.job.space.0, NodeId(node));
                self.reasons.insert(NodeId(node), reason);
                Ok(())
            }
            ToAgent::EndJob { status } if self.job.given_up.borrow().contains(&self.job.root) => {
                self.end_everywhere(status);
                self.ended = Some(format!("the program ended with status {status}"));
                Ok(())
            }
            ToAgent::Statistics { tag } => {
                self.tell(&ToHusk::Failed { tag, reason: "only the root husk can ask for the job's figures".to_owned() }).await
            }
            ToAgent::JoinJob { .. }
            | ToAgent::OpenJob { .. }
            | ToAgent::EndJob { .. }
            | ToAgent::Unpin
            | ToAgent::LetWrite
            | ToAgent::Unreachable { .. }
            | ToAgent::Attach { .. }
            | ToAgent::Query(_)
            | ToAgent::QueryOf { .. }
            | ToAgent::Drain { .. } => {
                self.agent.counters.packets_unexpected.add();
                Ok(())
            }
        }
    }

    async fn join(&mut self) -> Result<(), String> {
        let device = File::options().read(true).write(true).open("/dev/userfaultfd");
        let device = device.map_err(|error| {
            format!(
                "/dev/userfaultfd cannot be opened ({error}); it needs Linux 6.1 with CONFIG_USERFAULTFD and an agent run as root"
            )
        })?;
        let Some(channel) = self.channel.clone() else { return Err("the husk has no connection".to_owned()) };
        let opened = JobOpened {
            space: self.job.space.0,
            me: self.agent.me.0,
            root: self.job.root.0,
            members: self.husk_members.clone(),
            outlives_root: self.job.outlives_root,
            job_key: self.spec.job_key,
        };
        let sent = channel.send(&ToHusk::JobOpened(opened), &[self.part.backing(), device.as_fd()]).await;
        sent.map_err(|error| error.to_string())?;
        self.progress.has_joined = true;
        self.tell_ready();
        Ok(())
    }

    fn tell_ready(&mut self) {
        if self.progress.is_complete()
            && let Some(tag) = self.start_tag.take()
        {
            self.link.send(ToPeer::MemberReady { tag });
        }
    }

    async fn tell(&self, packet: &ToHusk) -> Result<(), String> {
        match &self.channel {
            Some(channel) => channel.send(packet, &[]).await.map_err(|error| format!("the husk: {error}")),
            None => Ok(()),
        }
    }

    async fn close(mut self, inbox: &mut Inbox, reason: &str) {
        let space = self.job.space;
        self.job.husk.send_replace(None);
        // A husk that is gone needs not be told.
        drop(self.tell(&ToHusk::JobEnded).await);
        if let Some(husk) = &self.husk {
            // A stopped one could not leave.
            husk.pause(false);
        }
        if let Some(husk) = self.husk.take()
            && timeout(HUSK_GRACE, husk.exited()).await.is_err()
        {
            self.agent.counters.husks_killed.add();
            if let Err(error) = husk.kill().await {
                say(&self.agent.counters, format_args!("space {space}: {error:#}"));
            }
        }
        self.hear_last_words().await;
        self.part.close(inbox).await;
        self.agent.forget_job(space);
        say(&self.agent.counters, format_args!("space {space}: ended: {reason}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_member_waits_for_is_named() {
        let mut progress = Progress { has_joined: true, ..Progress::default() };
        assert!(progress.missing().contains("view") && progress.missing().contains("UDP"));
        assert!(!progress.missing().contains("joined"));
        (progress.has_view, progress.has_peers) = (true, true);
        assert!(progress.is_complete() && progress.missing().is_empty());
    }
}

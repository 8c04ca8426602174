//! A job started on this host: opened on all members, served, taken down.
//!
//! Owns the root's side of a job. Must not know how members do their part.

use super::choose::{Refused, choose, refuse};
use super::connect::connect;
use super::figures::{Asked, gather};
use super::offset::clock_offset_ns;
use super::part::{News, Part};
use super::{Inbox, Job, JobNote, Role, Tasks, inbox, pump_husk};
use crate::agent::Agent;
use crate::exit::Refusal;
use crate::limits::{CONNECTS_PENDING_MAX, PROGRAM_BYTES_MAX, REACH_DEADLINE, ROOT_GRACE, STEP_DEADLINE, STOP_CHECK};
use crate::local::channel::{Caller, Channel};
use crate::log::say;
use crate::net::link::Link;
use crate::standstill::Standstill;
use crate::sys;
use dsm_wire::NodeId;
use dvm_api::features::CpuFeatures;
use dvm_api::local::{API_VERSION, JobOpened, JobRequest, Member, ToAgent, ToHusk};
use dvm_api::peer::{SpaceMember, SpaceSpec, ToPeer};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;
use tokio::io::Interest;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep_until, timeout};

/// The device that lets a husk make a userfaultfd without any capability.
const USERFAULTFD: &str = "/dev/userfaultfd";

/// Why a job has ended.
enum End {
    /// The husk said so, or is gone.
    Husk(String),
    /// A host was lost.
    Lost(String, String),
}

struct RootJob {
    agent: Rc<Agent>,
    job: Rc<Job>,
    channel: Rc<Channel>,
    caller: Caller,
    key: [u8; 16],
    part: Part,
    links: Vec<Rc<Link>>,
    members: Vec<Member>,
    connects: usize,
    /// The husk is stopped, and the members were told.
    is_stopped: bool,
    /// Why hosts are lost, as far as it was seen here.
    reasons: BTreeMap<NodeId, String>,
    tasks: Tasks,
}

/// Opens, serves and ends one job, or refuses it.
pub async fn run(agent: Rc<Agent>, channel: Rc<Channel>, caller: Caller, version: u32, request: JobRequest) {
    let (notes, mut inbox) = inbox();
    let refused = match prepare(&agent, &channel, caller, version, &request, notes) {
        Ok(mut root) => match root.open(&mut inbox).await {
            Ok(opened) => {
                root.serve(&mut inbox, opened).await;
                return;
            }
            Err(refused) => {
                root.close(&mut inbox, &refused.reason).await;
                refused
            }
        },
        Err(refused) => refused,
    };
    agent.counters.jobs_refused.add();
    say(&agent.counters, format_args!("job refused: {}", refused.reason));
    let packet = ToHusk::Refused { code: refused.code.code(), reason: refused.reason };
    // The caller may be gone: then nobody is left to be told.
    drop(channel.send(&packet, &[]).await);
}

fn prepare(
    agent: &Rc<Agent>,
    channel: &Rc<Channel>,
    caller: Caller,
    version: u32,
    request: &JobRequest,
    notes: tokio::sync::mpsc::Sender<JobNote>,
) -> Result<RootJob, Refused> {
    if version != API_VERSION {
        let reason = format!("dvm-exec speaks version {version}, dvm-agent {API_VERSION}; install the same release of both");
        return Err(refuse(Refusal::Version, reason));
    }
    let members = choose(agent, &request.hosts)?;
    let space = agent.new_space();
    let job = Rc::new(Job {
        space,
        role: Role::Root,
        root: agent.me,
        members,
        uid: caller.credentials.uid,
        program: request.program.chars().take(PROGRAM_BYTES_MAX).collect(),
        has_stages: request.has_stages,
        has_sketch: request.has_sketch,
        outlives_members: request.outlives_members,
        outlives_root: request.outlives_root && agent.membership.agrees(),
        given_up: RefCell::default(),
        started: Instant::now(),
        notes,
        husk: watch::Sender::new(None),
    });
    agent.admit_job(&job).map_err(|reason| refuse(Refusal::TooManyJobs, reason))?;
    let local = |error: anyhow::Error| refuse(Refusal::Local, format!("host {}: {error:#}", agent.name()));
    let made = agent.random().map_err(local).and_then(|key| Ok((key, Part::start(agent, &job).map_err(local)?)));
    let (key, part) = made.inspect_err(|_| agent.forget_job(space))?;
    let mut tasks = Tasks::default();
    let counting = Rc::clone(agent);
    tasks.run(pump_husk(Rc::clone(channel), job.notes.clone(), move || counting.counters.packets_malformed.add()));
    // A child of the caller may keep the connection open: the process itself is watched, too.
    if let Some(Ok(exited)) =
        caller.pidfd.as_ref().map(|pidfd| pidfd.try_clone().and_then(|fd| sys::watch(fd, Interest::READABLE)))
    {
        let notes = job.notes.clone();
        tasks.run(async move {
            // Readable or not watchable any more: the process is gone. Without a receiver the job has already ended.
            drop(exited.readable().await);
            drop(notes.send(JobNote::HuskGone("the caller's process has ended".to_owned())).await);
        });
    }
    Ok(RootJob {
        agent: Rc::clone(agent),
        job,
        channel: Rc::clone(channel),
        caller,
        key,
        part,
        links: Vec::new(),
        members: Vec::new(),
        connects: 0,
        is_stopped: false,
        reasons: BTreeMap::new(),
        tasks,
    })
}

impl RootJob {
    async fn open(&mut self, inbox: &mut Inbox) -> Result<JobOpened, Refused> {
        let _device = open_userfaultfd()?;
        self.reach_all(inbox).await?;
        let addresses = self.open_spaces(inbox).await?;
        self.start_members(inbox, addresses).await?;
        Ok(JobOpened {
            space: self.job.space.0,
            me: self.agent.me.0,
            root: self.agent.me.0,
            members: self.members.clone(),
            outlives_root: self.job.outlives_root,
            job_key: self.key,
        })
    }

    async fn reach_all(&mut self, inbox: &mut Inbox) -> Result<(), Refused> {
        let mut reaching = JoinSet::new();
        for node in self.job.members.iter().copied().filter(|node| *node != self.agent.me) {
            let agent = Rc::clone(&self.agent);
            reaching.spawn_local(async move {
                let link = match agent.peer(node) {
                    Some(peer) => peer.reach(REACH_DEADLINE).await,
                    None => Err("not a peer".to_owned()),
                };
                link.map_err(|reason| {
                    let name = agent.members.name_of(node);
                    refuse(Refusal::Unreachable, format!("host {name} cannot be reached: {reason}"))
                })
            });
        }
        while let Some(link) = self.next(inbox, &mut reaching).await? {
            let notes = self.job.notes.clone();
            self.links.push(Rc::clone(&link));
            self.tasks.run(async move {
                let reason = link.lost().await;
                // Without a receiver the job has already ended.
                drop(notes.send(JobNote::LinkLost(link.peer, reason)).await);
            });
        }
        Ok(())
    }

    async fn open_spaces(&mut self, inbox: &mut Inbox) -> Result<Vec<SpaceMember>, Refused> {
        let spec = SpaceSpec {
            space: self.job.space.0,
            root: self.agent.me.0,
            members: self.job.members.iter().map(|node| node.0).collect(),
            uid: self.caller.credentials.uid,
            gid: self.caller.credentials.gid,
            groups: self.caller.credentials.groups.clone(),
            program: self.job.program.clone(),
            job_key: self.key,
            has_stages: self.job.has_stages,
            has_sketch: self.job.has_sketch,
            outlives_members: self.job.outlives_members,
            outlives_root: self.job.outlives_root,
        };
        let mut opening = JoinSet::new();
        for link in self.links.iter().map(Rc::clone) {
            let (agent, space) = (Rc::clone(&self.agent), spec.clone());
            opening.spawn_local(async move {
                let refused = |reason: &str| member_refused(&agent, link.peer, reason);
                match link.ask(STEP_DEADLINE, |tag| ToPeer::OpenSpace { tag, space }).await {
                    Ok(ToPeer::SpaceOpened { member, cpus, cpu, .. }) => {
                        let offset = clock_offset_ns(&link).await.map_err(|reason| refused(&reason))?;
                        Ok((member, describe(&agent, link.peer, cpus, cpu, offset)))
                    }
                    Ok(_) => Err(refused("its answer makes no sense")),
                    Err(error) => Err(refused(&error.to_string())),
                }
            });
        }
        let mut addresses = vec![self.part.listening()];
        let mut members = vec![describe(&self.agent, self.agent.me, self.agent.cpus(), crate::cpu::features(), 0)];
        while let Some((address, member)) = self.next(inbox, &mut opening).await? {
            addresses.push(address);
            members.push(member);
        }
        // Every host must know them in the same order.
        let place = |node: u16| self.job.members.iter().position(|member| member.0 == node);
        members.sort_by_key(|member| place(member.node));
        addresses.sort_by_key(|address| place(address.node));
        self.members = members;
        Ok(addresses)
    }

    async fn start_members(&mut self, inbox: &mut Inbox, addresses: Vec<SpaceMember>) -> Result<(), Refused> {
        let mut starting = JoinSet::new();
        for link in self.links.iter().map(Rc::clone) {
            let (agent, space) = (Rc::clone(&self.agent), self.job.space.0);
            let (members, husk_members) = (addresses.clone(), self.members.clone());
            starting.spawn_local(async move {
                let request = |tag| ToPeer::StartMember { tag, space, members, husk_members };
                match link.ask(STEP_DEADLINE, request).await {
                    Ok(ToPeer::MemberReady { .. }) => Ok(()),
                    Ok(_) => Err(member_refused(&agent, link.peer, "its answer makes no sense")),
                    Err(error) => Err(member_refused(&agent, link.peer, &error.to_string())),
                }
            });
        }
        if self.links.is_empty() {
            return Ok(());
        }
        self.part.add_peers(&addresses);
        let mut is_ready = false;
        let deadline = tokio::time::Instant::now() + STEP_DEADLINE;
        while !is_ready {
            let note = tokio::select! {
                note = inbox.recv() => note,
                () = sleep_until(deadline) => {
                    let reason = format!("the data path between the hosts is not up in {} s; is UDP let through?", STEP_DEADLINE.as_secs());
                    return Err(refuse(Refusal::Unreachable, reason));
                }
                Some(Ok(Err(refused))) = starting.join_next() => return Err(refused),
            };
            is_ready = self.while_opening(note)? == News::PeersReady;
        }
        while self.next(inbox, &mut starting).await?.is_some() {}
        Ok(())
    }

    /// The next result of `set`, none after the last; notes that come meanwhile may end the opening.
    async fn next<T: 'static>(&mut self, inbox: &mut Inbox, set: &mut JoinSet<Result<T, Refused>>) -> Result<Option<T>, Refused> {
        loop {
            tokio::select! {
                result = set.join_next() => return match result {
                    None => Ok(None),
                    Some(Ok(result)) => result.map(Some),
                    Some(Err(error)) => Err(refuse(Refusal::Local, format!("a task of the agent failed: {error}"))),
                },
                note = inbox.recv() => {
                    self.while_opening(note)?;
                }
            }
        }
    }

    fn while_opening(&mut self, note: Option<JobNote>) -> Result<News, Refused> {
        let news = match note {
            Some(JobNote::Shard(event)) => self.part.on_shard(event),
            Some(JobNote::ShardEnded) => self.part.on_ended(),
            Some(JobNote::HuskGone(reason)) => return Err(refuse(Refusal::Local, format!("the caller is gone: {reason}"))),
            Some(JobNote::AgentEnds) | None => return Err(refuse(Refusal::AgentEnding, "the agent is ending")),
            Some(JobNote::LinkLost(node, reason)) => News::Lost(node, reason),
            Some(JobNote::Fenced(reason)) => News::Lost(self.agent.me, reason),
            Some(JobNote::Figures(sender)) => {
                self.part.tell_figures(sender);
                News::None
            }
            Some(JobNote::Peer(ToPeer::MemberLost { node, reason, .. })) => News::Lost(NodeId(node), reason),
            Some(JobNote::Husk(..) | JobNote::Peer(..)) => {
                self.agent.counters.packets_unexpected.add();
                News::None
            }
            Some(JobNote::ConnectDone | JobNote::GivenUp(_)) => News::None,
        };
        match news {
            News::Lost(node, reason) => {
                let name = self.agent.members.name_of(node);
                Err(refuse(Refusal::HostLost, format!("host {name} is lost: {reason}")))
            }
            other => Ok(other),
        }
    }

    async fn serve(mut self, inbox: &mut Inbox, opened: JobOpened) {
        let end = match self.announce(opened).await {
            Ok(()) => self.until_end(inbox).await,
            Err(reason) => End::Husk(reason),
        };
        let reason = match end {
            End::Husk(reason) => reason,
            End::Lost(host, reason) => {
                self.agent.counters.jobs_lost.add();
                if self.job.outlives_root {
                    // The others go on: it is not for this host to close it.
                    self.links.clear();
                }
                self.tell_lost(inbox, &host, &reason).await;
                format!("host {host} is lost: {reason}")
            }
        };
        self.close(inbox, &reason).await;
    }

    async fn announce(&mut self, opened: JobOpened) -> Result<(), String> {
        let device = open_userfaultfd().map_err(|refused| refused.reason)?;
        let packet = ToHusk::JobOpened(opened);
        let sent = self.channel.send(&packet, &[self.part.backing(), device.as_fd()]).await;
        sent.map_err(|error| error.to_string())?;
        self.agent.counters.jobs_rooted.add();
        let hosts = self.members.iter().map(|member| member.name.as_str()).collect::<Vec<_>>().join(", ");
        let (space, program, uid) = (self.job.space, &self.job.program, self.job.uid);
        say(&self.agent.counters, format_args!("space {space}: `{program}` of user {uid} on {hosts}"));
        Ok(())
    }

    async fn until_end(&mut self, inbox: &mut Inbox) -> End {
        let mut stop_check = interval(STOP_CHECK);
        stop_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut standstill = Standstill::new(Instant::now());
        loop {
            let note = tokio::select! {
                note = inbox.recv() => note,
                _ = stop_check.tick(), if !self.links.is_empty() => {
                    standstill.tick(Instant::now());
                    self.follow_stop();
                    continue;
                }
            };
            let news = match self.on_note(note).await {
                Ok(news) => news,
                Err(end) => return end,
            };
            let done = match news {
                News::None | News::PeersReady => Ok(()),
                News::Completed(tag) => {
                    let sent = self.channel.send(&ToHusk::Completed { tag }, &[]).await;
                    sent.map_err(|error| End::Husk(error.to_string()))
                }
                News::Refused(tag, reason) => self.fail(tag, reason).await.map_err(End::Husk),
                News::Lost(node, reason) => self.on_lost(node, reason, &standstill).await,
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    /// What a note means for the job, if it does not end it.
    async fn on_note(&mut self, note: Option<JobNote>) -> Result<News, End> {
        let news = match note {
            Some(JobNote::Husk(packet, descriptors)) => match self.on_husk(packet, descriptors).await {
                Ok(None) => News::None,
                Ok(Some(status)) => return Err(End::Husk(format!("the program ended with status {status}"))),
                Err(reason) => return Err(End::Husk(reason)),
            },
            Some(JobNote::HuskGone(reason)) => return Err(End::Husk(reason)),
            Some(JobNote::Shard(event)) => self.part.on_shard(event),
            Some(JobNote::ShardEnded) => self.part.on_ended(),
            Some(JobNote::LinkLost(node, reason)) => News::Lost(node, reason),
            Some(JobNote::Fenced(reason)) => News::Lost(self.agent.me, reason),
            Some(JobNote::Peer(ToPeer::MemberLost { node, reason, .. })) => News::Lost(NodeId(node), reason),
            Some(JobNote::Peer(..)) => {
                self.agent.counters.peer_messages_unexpected.add();
                News::None
            }
            Some(JobNote::Figures(sender)) => {
                self.part.tell_figures(sender);
                News::None
            }
            Some(JobNote::ConnectDone) => {
                self.connects = self.connects.saturating_sub(1);
                News::None
            }
            Some(JobNote::GivenUp(nodes)) => {
                self.on_given_up(nodes).await?;
                News::None
            }
            Some(JobNote::AgentEnds) | None => News::Lost(self.agent.me, "its agent is ending".to_owned()),
        };
        Ok(news)
    }

    /// A host cannot be reached, or this one is to end.
    async fn on_lost(&mut self, node: NodeId, reason: String, standstill: &Standstill) -> Result<(), End> {
        let (own, name) = (self.agent.name(), self.agent.members.name_of(node));
        let (host, reason) = standstill.explain(Instant::now(), own, &name, reason);
        let is_own = host != name || node == self.agent.me;
        if self.job.outlives_root {
            let lost = if is_own { self.agent.me } else { node };
            self.agent.membership.give_up(self.job.space.0, lost);
            self.reasons.insert(lost, reason.clone());
        }
        if !self.job.outlives_members || is_own {
            return Err(End::Lost(host, reason));
        }
        if self.job.outlives_root {
            // When all hosts have agreed, the husk is told.
            return Ok(());
        }
        self.go_on_without(node, host, reason).await.map_err(End::Husk)
    }

    /// All hosts of the job agree that these are of it no more.
    async fn on_given_up(&mut self, nodes: Vec<NodeId>) -> Result<(), End> {
        for node in nodes {
            let name = self.agent.members.name_of(node);
            let reason = self.reasons.get(&node).cloned().unwrap_or_else(|| "other hosts cannot reach it".to_owned());
            if node == self.agent.me {
                return Err(End::Lost(name, reason));
            }
            self.job.given_up.borrow_mut().insert(node);
            self.go_on_without(node, name, reason).await.map_err(End::Husk)?;
        }
        Ok(())
    }

    /// Stops the members' husks while the root's is stopped (^Z, SIGSTOP), and lets them go on with it.
    fn follow_stop(&mut self) {
        let Some(is_stopped) = is_stopped(self.caller.pid) else { return };
        if is_stopped == self.is_stopped {
            return;
        }
        self.is_stopped = is_stopped;
        for link in &self.links {
            link.send(ToPeer::PauseSpace { space: self.job.space.0, is_stopped });
        }
    }

    /// Does what the husk asks; gives its status once the program has ended.
    async fn on_husk(&mut self, packet: ToAgent, descriptors: Vec<OwnedFd>) -> Result<Option<i32>, String> {
        match packet {
            ToAgent::ViewReady => {
                self.part.attach(descriptors, self.caller.pid)?;
                self.channel.send(&ToHusk::ViewAccepted, &[]).await.map_err(|error| error.to_string())?;
                self.job.husk.send_replace(Some(Rc::clone(&self.channel)));
            }
            order @ (ToAgent::Discard { .. }
            | ToAgent::Source { .. }
            | ToAgent::AskHome { .. }
            | ToAgent::Pin { .. }
            | ToAgent::Unpin
            | ToAgent::StopWriters { .. }
            | ToAgent::LetWrite) => {
                if let Some((tag, reason)) = self.part.order(order, descriptors) {
                    self.fail(tag, reason).await?;
                }
            }
            ToAgent::Connect { tag, node, purpose } => {
                if self.connects >= CONNECTS_PENDING_MAX {
                    self.fail(tag, format!("{CONNECTS_PENDING_MAX} connections are being opened")).await?;
                } else {
                    self.connects += 1;
                    self.tasks.run(connect(Rc::clone(&self.agent), Rc::clone(&self.job), tag, NodeId(node), purpose));
                }
            }
            ToAgent::Unreachable { node, reason } if self.job.outlives_root => {
                self.agent.membership.give_up(self.job.space.0, NodeId(node));
                self.reasons.insert(NodeId(node), reason);
            }
            ToAgent::Statistics { tag } => self.gather(tag),
            ToAgent::EndJob { status } => return Ok(Some(status)),
            ToAgent::OpenJob { .. }
            | ToAgent::JoinJob { .. }
            | ToAgent::Unreachable { .. }
            | ToAgent::Attach { .. }
            | ToAgent::Query(_)
            | ToAgent::QueryOf { .. }
            | ToAgent::Drain { .. } => {
                self.agent.counters.packets_unexpected.add();
            }
        }
        Ok(None)
    }

    async fn fail(&self, tag: u32, reason: String) -> Result<(), String> {
        self.channel.send(&ToHusk::Failed { tag, reason }, &[]).await.map_err(|error| error.to_string())
    }

    /// Collects all hosts' figures beside the job's other work.
    fn gather(&mut self, tag: u32) {
        let own = self.part.ask_figures();
        let asked = Asked { agent: Rc::clone(&self.agent), job: Rc::clone(&self.job), own, links: self.links.clone() };
        self.tasks.run(gather(asked, Rc::clone(&self.channel), tag));
    }

    /// Tells the husk, once, that a member is lost, and that member, if it can be reached, that it is.
    async fn go_on_without(&mut self, node: NodeId, host: String, reason: String) -> Result<(), String> {
        let Some(place) = self.links.iter().position(|link| link.peer == node) else { return Ok(()) };
        let (space, link) = (self.job.space, self.links.swap_remove(place));
        say(&self.agent.counters, format_args!("space {space}: goes on without host {host}: {reason}"));
        link.send(ToPeer::CloseSpace { space: space.0, reason: format!("host {host} is lost: {reason}") });
        self.channel.send(&ToHusk::HostLost { host, reason }, &[]).await.map_err(|error| error.to_string())
    }

    /// Tells the husk that a host is lost, gives it time to say so, then ends it.
    async fn tell_lost(&mut self, inbox: &mut Inbox, host: &str, reason: &str) {
        let (space, counters) = (self.job.space, &self.agent.counters);
        say(counters, format_args!("space {space}: host {host} is lost: {reason}"));
        let packet = ToHusk::HostLost { host: host.to_owned(), reason: reason.to_owned() };
        let is_told = self.channel.send(&packet, &[]).await.is_ok();
        let leaves = async {
            loop {
                match inbox.recv().await {
                    Some(JobNote::HuskGone(_)) | None => return,
                    Some(JobNote::Shard(event)) => drop(self.part.on_shard(event)),
                    Some(JobNote::ShardEnded) => drop(self.part.on_ended()),
                    Some(_) => {}
                }
            }
        };
        if is_told && timeout(ROOT_GRACE, leaves).await.is_ok() {
            return;
        }
        let Some(pidfd) = &self.caller.pidfd else { return };
        counters.husks_killed.add();
        say(counters, format_args!("space {space}: process {} did not end, it is killed", self.caller.pid));
        if let Err(error) = sys::pidfd_kill(pidfd.as_fd()) {
            say(counters, format_args!("space {space}: process {} cannot be killed: {error}", self.caller.pid));
        }
    }

    async fn close(mut self, inbox: &mut Inbox, reason: &str) {
        let space = self.job.space;
        for link in self.links.drain(..) {
            link.send(ToPeer::CloseSpace { space: space.0, reason: reason.to_owned() });
        }
        self.job.husk.send_replace(None);
        self.part.close(inbox).await;
        self.agent.forget_job(space);
        say(&self.agent.counters, format_args!("space {space}: ended: {reason}"));
    }
}

/// Whether a process is stopped by a signal (not by a debugger); none if there is no such process.
fn is_stopped(pid: i32) -> Option<bool> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything, parentheses too.
    let state = stat.iter().rposition(|byte| *byte == b')').and_then(|end| stat.get(end + 2))?;
    Some(*state == b'T')
}

fn describe(agent: &Agent, node: NodeId, cpus: u16, cpu: CpuFeatures, monotonic_offset_ns: i64) -> Member {
    Member { node: node.0, name: agent.members.name_of(node), cpus, monotonic_offset_ns, cpu }
}

fn member_refused(agent: &Agent, node: NodeId, reason: &str) -> Refused {
    refuse(Refusal::MemberRefused, format!("host {}: {reason}", agent.members.name_of(node)))
}

fn open_userfaultfd() -> Result<File, Refused> {
    File::options().read(true).write(true).open(USERFAULTFD).map_err(|error| {
        let reason = format!(
            "{USERFAULTFD} cannot be opened ({error}); it needs Linux 6.1 with CONFIG_USERFAULTFD and an agent run as root"
        );
        refuse(Refusal::NoUserfaultfd, reason)
    })
}

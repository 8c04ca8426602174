//! What `status` and `histograms` report, as the agent writes it and the tools read it.
//!
//! Owns the JSON's form. Must not know sockets or terminals.

use crate::agent::Agent;
use crate::buckets;
use crate::fastpath::FastPathStatus;
use crate::figures::Figures;
use crate::job::{Job, JobNote, Role};
use crate::limits::STATISTICS_DEADLINE;
use crate::membership::SpaceEntry;
use dsm_wire::{NodeId, PAGE_BYTES};
use dvm_api::local::{HostStatistics, PageUse, ThreadUse};
use dvm_report::{HistogramRow, Page};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::rc::Rc;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// The agent's state.
#[derive(Debug, Serialize, Deserialize)]
pub struct Status {
    /// This node's name.
    pub node: String,
    /// Its number in the cluster.
    pub number: u16,
    /// Random number of this start, hexadecimal.
    pub incarnation: String,
    /// The cluster's name.
    pub cluster: String,
    /// The cluster's fingerprint, hexadecimal.
    pub fingerprint: String,
    /// Since the start, in seconds.
    pub uptime_s: f64,
    /// Who says which hosts there are, and what it said last.
    pub membership: MembershipStatus,
    /// The other nodes.
    pub peers: Vec<PeerStatus>,
    /// Jobs this host takes part in.
    pub jobs: Vec<JobStatus>,
    /// Memory that pages take here.
    pub memory: MemoryStatus,
    /// The fast path.
    pub fast_path: FastPathStatus,
    /// Counters of the control plane.
    pub counters: BTreeMap<String, u64>,
    /// Counters of all shards since the start, ended ones included.
    pub shards: BTreeMap<String, u64>,
}

/// The hosts of the cluster.
#[derive(Debug, Serialize, Deserialize)]
pub struct MembershipStatus {
    /// `list` or `etcd`.
    pub source: String,
    /// Grows with each change.
    pub epoch: u64,
    /// Why the source does not answer.
    pub trouble: Option<String>,
    /// All hosts, this one too, by number.
    pub hosts: Vec<String>,
    /// Those that take no new jobs.
    pub draining: Vec<String>,
    /// Jobs under way by space, where the source keeps them.
    pub spaces: BTreeMap<u32, SpaceEntry>,
}

/// Memory that pages take.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct MemoryStatus {
    /// Most that all jobs may take here, in bytes.
    pub limit_bytes: u64,
    /// What they take.
    pub used_bytes: u64,
}

/// Another node.
#[derive(Debug, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// Whether its agent answers.
    pub up: bool,
    /// Random number of its start, hexadecimal; none while it is down.
    pub incarnation: Option<String>,
    /// Since it was last heard, in milliseconds; none: never.
    pub last_seen_ms: Option<u64>,
    /// Why it is not up.
    pub trouble: Option<String>,
}

/// A job.
#[derive(Debug, Serialize, Deserialize)]
pub struct JobStatus {
    /// Its space.
    pub space: u32,
    /// Program's name.
    pub program: String,
    /// Its user.
    pub uid: u32,
    /// `root` or `member`.
    pub role: String,
    /// Where it was started.
    pub root: String,
    /// All its hosts, root first.
    pub members: Vec<String>,
    /// Since it began, in seconds.
    pub uptime_s: f64,
    /// Its shard's counters on this host.
    pub counters: BTreeMap<String, u64>,
}

/// All latency histograms of a host.
#[derive(Debug, Serialize, Deserialize)]
pub struct HistogramReport {
    /// This node's name.
    pub node: String,
    /// By name, over all shards since the start, ended ones included; then those of the fast path by verdict.
    pub histograms: Vec<HistogramRow>,
}

/// Where a host's pages came from.
#[derive(Debug, Serialize, Deserialize)]
pub struct FetchReport {
    /// This node's name.
    pub node: String,
    /// Random number of this start, hexadecimal.
    pub incarnation: String,
    /// Answers to requests for pages that came in, by the host that gave them.
    pub sources: BTreeMap<String, u64>,
    /// The pages fetched most, of jobs that count them.
    pub pages: Vec<Page>,
}

/// The figures of all shards.
pub struct Totals {
    /// Ended ones included.
    pub figures: Figures,
    /// Jobs here.
    pub jobs: usize,
    /// Whether a shard did not answer: sums are then smaller than they were.
    pub is_partial: bool,
}

/// Most pages told of.
const PAGES_MAX: usize = 64;

/// The agent's state now.
pub async fn status(agent: &Agent) -> Status {
    let mut total = agent.past.borrow().clone();
    let mut jobs = Vec::new();
    for (job, figures) in shard_figures(agent).await {
        let mut own = Figures::default();
        if let Some(figures) = &figures {
            own.add(figures);
            total.add(figures);
        }
        jobs.push(job_status(agent, &job, own.counters().clone()));
    }
    Status {
        node: agent.name().to_owned(),
        number: agent.me.0,
        incarnation: format!("{:016x}", agent.incarnation),
        cluster: agent.cluster.name.clone(),
        fingerprint: format!("{:08x}", agent.cluster.fingerprint),
        uptime_s: agent.started.elapsed().as_secs_f64(),
        membership: membership(agent),
        peers: peers(agent),
        jobs,
        memory: MemoryStatus { limit_bytes: agent.memory.limit_bytes(), used_bytes: agent.memory.used_bytes() },
        fast_path: agent.fast.status(),
        counters: agent.counters.list().into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
        shards: total.counters().clone(),
    }
}

/// The agent's histograms now.
pub async fn histograms(agent: &Agent) -> HistogramReport {
    let mut histograms = totals(agent).await.figures.rows();
    histograms.extend(buckets::rows(&agent.fast.latencies()));
    HistogramReport { node: agent.name().to_owned(), histograms }
}

/// The sums over all shards now.
pub async fn totals(agent: &Agent) -> Totals {
    let mut figures = agent.past.borrow().clone();
    let answers = shard_figures(agent).await;
    let is_partial = answers.iter().any(|(_, own)| own.is_none());
    answers.iter().filter_map(|(_, own)| own.as_ref()).for_each(|own| figures.add(own));
    Totals { figures, jobs: answers.len(), is_partial }
}

/// Where pages came from until now.
pub async fn fetches(agent: &Agent) -> FetchReport {
    let mut total = agent.past.borrow().clone();
    let mut pages = Vec::new();
    for (job, figures) in shard_figures(agent).await {
        if let Some(figures) = &figures {
            total.add(figures);
            pages.extend(figures.pages.iter().map(|used| page(&job, used)));
        }
    }
    pages.sort_by_key(|page| std::cmp::Reverse(page.fetches()));
    pages.truncate(PAGES_MAX);
    FetchReport {
        node: agent.name().to_owned(),
        incarnation: format!("{:016x}", agent.incarnation),
        sources: sources(agent, &total),
        pages,
    }
}

/// Who gave pages, by name.
pub fn sources(agent: &Agent, figures: &Figures) -> BTreeMap<String, u64> {
    figures.sources().iter().map(|(node, count)| (agent.members.name_of(NodeId(*node)), *count)).collect()
}

fn page(job: &Job, used: &PageUse) -> Page {
    let sum = |part: fn(&ThreadUse) -> u32| used.threads.iter().map(|thread| u64::from(part(thread))).sum();
    Page {
        space: job.space.0,
        program: job.program.clone(),
        address: used.page.wrapping_mul(PAGE_BYTES as u64),
        reads: sum(|thread| thread.reads),
        writes: sum(|thread| thread.writes),
        lines: used.threads.iter().fold(0, |lines, thread| lines | thread.lines),
    }
}

fn membership(agent: &Agent) -> MembershipStatus {
    let view = agent.members.view();
    let draining = view.hosts.keys().filter(|node| agent.members.is_draining(**node));
    MembershipStatus {
        source: agent.membership.source().to_owned(),
        epoch: view.epoch,
        trouble: agent.members.trouble(),
        hosts: view.hosts.values().map(|host| host.entry.name.clone()).collect(),
        draining: draining.map(|node| agent.members.name_of(*node)).collect(),
        spaces: view.spaces.clone(),
    }
}

fn peers(agent: &Agent) -> Vec<PeerStatus> {
    let peer = |node| {
        let peer = agent.peer(node)?;
        let link = peer.link();
        let is_up = link.is_some();
        Some(PeerStatus {
            name: agent.members.name_of(node),
            up: is_up,
            incarnation: link.map(|link| format!("{:016x}", link.incarnation)),
            last_seen_ms: peer.heard_ago().map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
            trouble: peer.trouble().filter(|_| !is_up),
        })
    };
    agent.members.others().filter_map(peer).collect()
}

fn job_status(agent: &Agent, job: &Job, counters: BTreeMap<String, u64>) -> JobStatus {
    let name = |node| agent.members.name_of(node);
    JobStatus {
        space: job.space.0,
        program: job.program.clone(),
        uid: job.uid,
        role: match job.role {
            Role::Root => "root".to_owned(),
            Role::Member(_) => "member".to_owned(),
        },
        root: name(job.root),
        members: job.members.iter().copied().map(name).collect(),
        uptime_s: job.started.elapsed().as_secs_f64(),
        counters,
    }
}

/// Every job with its shard's figures; none where the shard does not answer in time.
async fn shard_figures(agent: &Agent) -> Vec<(Rc<Job>, Option<HostStatistics>)> {
    let until = Instant::now() + STATISTICS_DEADLINE;
    let ask = |job: Rc<Job>| {
        let (sender, receiver) = oneshot::channel();
        // A job too busy to be asked is reported without figures.
        drop(job.notes.try_send(JobNote::Figures(sender)));
        (job, receiver)
    };
    let asked: Vec<_> = agent.jobs().into_iter().map(ask).collect();
    let mut answered = Vec::with_capacity(asked.len());
    for (job, receiver) in asked {
        answered.push((job, timeout_at(until, receiver).await.ok().and_then(Result::ok)));
    }
    answered
}

//! `dvm-agent run`: from two files to a serving agent, and its orderly end.
//!
//! Owns start, the Unix connections' first packets, signals and shutdown. Must not know what jobs do.

use crate::agent::{self, Agent, Start};
use crate::config::{ClusterConfig, NodeConfig, NodeEntry};
use crate::exit::{Exit, Failure, Refusal};
use crate::job::part::{Shard, ShardMaker};
use crate::job::{attach, root};
use crate::limits::{
    BIND_DEADLINE, DIAL_PAUSE, FIRST_PACKET_DEADLINE, LOCAL_CONNECTIONS_MAX, LOCAL_CONNECTIONS_PER_USER_MAX, REAP_DEADLINE,
    ROOT_GRACE,
};
use crate::local::channel::Channel;
use crate::local::listener::Listener;
use crate::log::say;
use crate::net::peers;
use crate::shard::ShardHandle;
use crate::{fastpath, membership, metrics, observe, sys};
use anyhow::{Context, anyhow};
use dvm_api::local::{Query, ToAgent, ToHusk};
use dvm_api::socket::SocketError;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;
use std::time::Instant;
use tokio::io::Interest;
use tokio::time::{sleep, timeout};
use tokio_uring::net::TcpListener;

/// Runs the agent until a signal ends it.
///
/// # Errors
/// Each cause with its exit code.
pub fn run(cluster: &Path, node: &Path, metrics: Option<SocketAddr>) -> Result<(), Failure> {
    let mut node = NodeConfig::read(node)?;
    node.metrics = metrics.or(node.metrics);
    let cluster = ClusterConfig::read(cluster)?;
    if !node.exec.is_file() {
        let error = anyhow!("{} is not there; install dvm-exec or set `exec` in node.toml", node.exec.display());
        return Err(Failure::new(Exit::ConfigInvalid, error));
    }
    let signals = block_signals().map_err(|error| Failure::new(Exit::Internal, error))?;
    probe_ring()?;
    let own = node.entry_in(&cluster)?;
    let start = Start { cluster, node, own, incarnation: agent::incarnation()?, make_shard: real_shards() };
    tokio_uring::start(serve(start, signals))
}

fn real_shards() -> ShardMaker {
    Rc::new(|config| {
        let (shard, events) = ShardHandle::spawn(config)?;
        let shard: Box<dyn Shard> = Box::new(shard);
        Ok((shard, events))
    })
}

/// Before any other thread starts, so that all of them leave these signals to the descriptor.
fn block_signals() -> anyhow::Result<SignalFd> {
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    set.thread_block().context("cannot block signals")?;
    SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).context("cannot make a signalfd")
}

/// The runtime panics without io_uring; say it properly first.
fn probe_ring() -> Result<(), Failure> {
    let made = io_uring::IoUring::new(2).map(drop);
    made.map_err(|error| {
        let error = anyhow!(
            "io_uring is refused ({error}); set kernel.io_uring_disabled=0 or allow it in the container's seccomp profile"
        );
        Failure::new(Exit::Kernel, error)
    })
}

/// Serves until a signal comes or this host has been drained.
async fn serve(start: Start, signals: SignalFd) -> Result<(), Failure> {
    let signals = signals.as_fd().try_clone_to_owned().and_then(|signals| sys::watch(signals, Interest::READABLE));
    let signals = signals.map_err(|error| Failure::new(Exit::Internal, anyhow!("cannot watch signals: {error}")))?;
    let bound = Bound::new(&start.node, &start.own)?;
    let joined = membership::join(&start.cluster, &start.own, start.incarnation).await?;
    let agent = Agent::new(start, joined)?;
    let listener = begin(&agent, bound);
    say(
        &agent.counters,
        format_args!("{} of cluster {} serves {}", agent.name(), agent.cluster.name, agent.node.socket.display()),
    );
    let accepting = tokio_uring::spawn(accept_local(Rc::clone(&agent), Rc::clone(&listener)));
    tokio::select! {
        // Readable or not watchable: both mean the end.
        readable = signals.readable() => {
            drop(readable);
            agent.membership.leave(false).await;
        }
        () = membership::follow(Rc::clone(&agent)) => {}
    }
    say(&agent.counters, "ending");
    accepting.abort();
    drop(accepting.await);
    drop(listener);
    stop(&agent).await;
    Ok(())
}

/// Where others find this agent. Whoever holds it is alone: no other agent of this host runs.
struct Bound {
    listener: Listener,
    control: std::net::TcpListener,
    metrics: Option<std::net::TcpListener>,
}

impl Bound {
    /// Binds everything.
    ///
    /// # Errors
    /// When socket or address cannot be had.
    fn new(node: &NodeConfig, own: &NodeEntry) -> Result<Self, Failure> {
        // The socket first: its failure names the agent that is already here.
        let listener = Listener::bind(&node.socket)?;
        let control = own.control;
        let tcp = listen(control).map_err(|error| {
            let error = anyhow!("cannot listen at {control}: {error}; free the port or correct address and port in cluster.toml");
            Failure::new(Exit::Address, error)
        })?;
        let metrics = node.metrics.map(|address| {
            listen(address).map_err(|error| {
                let error =
                    anyhow!("cannot serve metrics at {address}: {error}; free the port or correct `metrics` in node.toml");
                Failure::new(Exit::Address, error)
            })
        });
        Ok(Self { listener, control: tcp, metrics: metrics.transpose()? })
    }
}

/// Starts the tasks that never end.
fn begin(agent: &Rc<Agent>, bound: Bound) -> Rc<Listener> {
    if let Some(tcp) = bound.metrics {
        tokio_uring::spawn(metrics::keep_serving(Rc::clone(agent), TcpListener::from_std(tcp)));
    }
    tokio_uring::spawn(peers::keep_accepting(Rc::clone(agent), TcpListener::from_std(bound.control)));
    for node in agent.members.others() {
        agent.get_to_know(node);
    }
    tokio_uring::spawn(fastpath::keep_attaching(Rc::clone(agent)));
    Rc::new(bound.listener)
}

/// Listens at `control`; waits a while for what a killed predecessor leaves behind.
fn listen(control: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let deadline = Instant::now() + BIND_DEADLINE;
    loop {
        match std::net::TcpListener::bind(control) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => std::thread::sleep(DIAL_PAUSE.0),
            other => return other,
        }
    }
}

/// Ends all jobs and links; bounded.
pub async fn stop(agent: &Rc<Agent>) {
    agent.end();
    let deadline = Instant::now() + ROOT_GRACE + 3 * REAP_DEADLINE;
    while !agent.jobs().is_empty() && Instant::now() < deadline {
        sleep(DIAL_PAUSE.0 / 2).await;
    }
    for job in agent.jobs() {
        say(&agent.counters, format_args!("space {}: did not end in time", job.space));
    }
    agent.hang_up();
}

/// How many connections each user has.
#[derive(Default)]
struct Callers {
    all: Cell<usize>,
    by_user: RefCell<BTreeMap<u32, usize>>,
}

/// One connection's place in [`Callers`].
struct Place {
    callers: Rc<Callers>,
    uid: u32,
}

impl Callers {
    fn admit(self: &Rc<Self>, uid: u32) -> Option<Place> {
        let mut by_user = self.by_user.borrow_mut();
        let own = by_user.entry(uid).or_default();
        if self.all.get() >= LOCAL_CONNECTIONS_MAX || uid != 0 && *own >= LOCAL_CONNECTIONS_PER_USER_MAX {
            return None;
        }
        *own += 1;
        self.all.set(self.all.get() + 1);
        Some(Place { callers: Rc::clone(self), uid })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_user = self.callers.by_user.borrow_mut();
        let left = by_user.get(&self.uid).map_or(0, |own| own.saturating_sub(1));
        if left == 0 {
            by_user.remove(&self.uid);
        } else {
            by_user.insert(self.uid, left);
        }
        self.callers.all.set(self.callers.all.get().saturating_sub(1));
    }
}

/// Accepts husks and tools, for ever.
pub async fn accept_local(agent: Rc<Agent>, listener: Rc<Listener>) {
    let callers = Rc::new(Callers::default());
    loop {
        match listener.accept().await {
            Ok(socket) => drop(tokio_uring::spawn(answer(Rc::clone(&agent), socket, Rc::clone(&callers)))),
            Err(error) => {
                say(&agent.counters, format_args!("cannot accept a connection: {error}"));
                sleep(DIAL_PAUSE.0).await;
            }
        }
    }
}

/// Looks at a connection's first packet and does what it asks.
async fn answer(agent: Rc<Agent>, socket: OwnedFd, callers: Rc<Callers>) {
    let made = Channel::new(socket).context("cannot prepare a connection");
    let caller = made.and_then(|channel| Ok((channel.caller().context("cannot tell who calls")?, channel)));
    let (caller, channel) = match caller {
        Ok((caller, channel)) => (caller, Rc::new(channel)),
        Err(error) => return say(&agent.counters, format_args!("{error:#}")),
    };
    let uid = caller.credentials.uid;
    let Some(_place) = callers.admit(uid) else {
        agent.counters.local_over_limit.add();
        return refuse(&channel, Refusal::TooManyJobs, format!("user {uid} has too many connections to the agent")).await;
    };
    match timeout(FIRST_PACKET_DEADLINE, channel.receive::<ToAgent>()).await {
        Ok(Ok((ToAgent::OpenJob { version, job }, _))) => root::run(agent, channel, caller, version, job).await,
        Ok(Ok((ToAgent::Query(query), _))) => report(&agent, &channel, observe::report(&agent, query).await).await,
        Ok(Ok((ToAgent::QueryOf { host, query }, _))) => {
            report(&agent, &channel, observe::report_of(&agent, &host, query).await).await;
        }
        Ok(Ok((ToAgent::Drain { host, is_wanted }, _))) => drain(&agent, &channel, uid, host, is_wanted).await,
        Ok(Ok((ToAgent::Attach { space }, _))) => attach::attach(&agent, &channel, uid, space).await,
        Ok(Ok((ToAgent::JoinJob { .. }, _))) => {
            agent.counters.packets_unexpected.add();
            let reason = "member husks are started by their agent; start a job with dvm-exec -- program".to_owned();
            refuse(&channel, Refusal::NotRequest, reason).await;
        }
        Ok(Ok(_)) => {
            agent.counters.packets_unexpected.add();
            refuse(&channel, Refusal::NotRequest, "the first packet must open a job or be a query".to_owned()).await;
        }
        Ok(Err(SocketError::Closed)) => {}
        Ok(Err(error)) => {
            agent.counters.packets_malformed.add();
            refuse(&channel, Refusal::NotRequest, error.to_string()).await;
        }
        Err(_) => agent.counters.local_late.add(),
    }
}

async fn refuse(channel: &Channel, code: Refusal, reason: String) {
    // A caller that does not wait for the reason needs none; the refusal has been counted.
    drop(channel.send(&ToHusk::Refused { code: code.code(), reason }, &[]).await);
}

/// Has a host drained, or not any more; the answer is this agent's state as it was before.
async fn drain(agent: &Agent, channel: &Channel, uid: u32, host: Option<String>, is_wanted: bool) {
    let host = host.unwrap_or_else(|| agent.name().to_owned());
    let done = match uid {
        0 => agent.membership.drain(&host, is_wanted).await,
        _ => Err(format!("only root may drain hosts, and user {uid} asks")),
    };
    match done {
        Ok(()) => report(agent, channel, observe::report(agent, Query::Status).await).await,
        Err(reason) => refuse(channel, Refusal::Draining, reason).await,
    }
}

async fn report(agent: &Agent, channel: &Channel, text: Result<String, String>) {
    let sent = match text {
        Ok(text) => channel.send(&ToHusk::Report(text), &[]).await.map_err(|error| error.to_string()),
        Err(reason) => return refuse(channel, Refusal::Unreachable, reason).await,
    };
    if let Err(error) = sent {
        say(&agent.counters, format_args!("a report could not be given: {error}"));
    }
}

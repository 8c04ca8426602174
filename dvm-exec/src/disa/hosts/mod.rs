//! `dvm-exec disa run` over hosts: a node on each, slots for runners on it, connections between husks.
//!
//! Owns how the parts of a run meet. Must not know the protocol (`dvm-runners` does) or what programs mean.
//!
//! ```text
//!   root husk: driver - node - slots, a thread for each processor          member husk: the same
//!        '---- one connection, opened and authenticated by the agents, for each member; members' words to each other go by the root
//!   where the run outlives its root, every husk has a connection with every other one
//! ```

mod driver;
mod kept;
mod member;
mod peers;
mod shared;
mod slot;
mod wire;

pub use kept::{Kind, see};
pub use member::{attach, lose, serve};

use super::{files, show};
use crate::exit::Failure;
use crate::process::agent::{self, Agent, Opened};
use crate::process::connection::{Connection, Cutter};
use crate::process::jobmemory::map_view;
use crate::process::limits;
use crate::process::wire::Side;
use driver::{Driver, End, Input, Shares, Show};
use dvm_api::local::{JobOpened, JobRequest, Purpose, ToAgent, ToHusk};
use dvm_disa::machine::report::Report;
use dvm_disa::machine::{File, Settings};
use dvm_disa::object::Object;
use dvm_runners::{Host, Program};
use peers::Peers;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, channel};
use std::sync::{Arc, OnceLock};
use wire::{Packet, Setup};

/// Hosts that have the log of a run unless it says otherwise.
const COPIES: usize = 2;

/// Where a program runs.
#[derive(Debug)]
pub struct Request<'a> {
    /// Hosts by name; empty: all.
    pub hosts: Vec<String>,
    /// The agent's socket, if it is not to be found.
    pub socket: Option<&'a Path>,
    /// The program's file, for `status`.
    pub program: &'a Path,
    /// Hosts that shall have the log; none: as many as [`COPIES`], where the run can outlive its root.
    pub copies: Option<usize>,
}

/// Runs a program over hosts; output is shown as it is released. What each host did for it comes with the report, in words.
pub fn run(request: Request<'_>, object: Object, settings: Settings) -> Result<(Report, Vec<String>), Failure> {
    limits::raise_files().map_err(|error| Failure::Unsupported(format!("cannot raise the limit of open files: {error}")))?;
    let agent = Agent::connect(&agent::find_socket(request.socket)?)?;
    let program = request.program.display().to_string();
    let outlives_root = request.copies.is_none_or(|copies| copies > 1);
    let job =
        JobRequest { hosts: request.hosts, program, has_stages: false, has_sketch: false, outlives_members: true, outlives_root };
    let Opened { job, space, device } = agent.open_job(job)?;
    // The agent connects husks as soon as each has its view; runners do not use it yet.
    let (view, userfaultfd) = map_view(&space, &device)?;
    // Its own descriptor is closed already: dropped, it would close whatever has that number then.
    std::mem::forget(view);
    agent.hand_over(userfaultfd.as_fd())?;
    let agent: &'static Agent = Box::leak(Box::new(agent));
    let (inputs, receiver) = channel();
    let names: Vec<String> = job.members.iter().map(|member| member.name.clone()).collect();
    let cutters = Arc::new(OnceLock::new());
    listen(agent, &job, Arc::clone(&cutters), inputs.clone())?;
    let copies = if job.outlives_root { request.copies.unwrap_or(COPIES).min(job.members.len()) } else { 1 };
    if !job.outlives_root && request.copies.is_some_and(|wanted| wanted > 1) {
        eprintln!("dvm-exec: the hosts are a fixed list, and cannot agree who is lost: the run ends with this host");
    }
    let slots: Vec<usize> = job.members.iter().map(|member| usize::from(member.cpus).max(1)).collect();
    let mut setup = Setup { me: Host(0), slots, copies, object: dvm_disa::elf::write(&object), settings };
    let mut connections = Vec::new();
    for member in job.members.iter().skip(1) {
        let refused = |reason: String| Failure::HostLost { host: member.name.clone(), reason };
        let socket = agent.connect_husk(member.node, Purpose::Runners).map_err(refused)?;
        let connection = Connection::start(socket, &job.job_key, Side::Root).map_err(|error| refused(error.to_string()))?;
        connections.push(connection);
    }
    // A connection that ends before is seen at its first use.
    drop(cutters.set(connections.iter().map(Connection::cutter).collect()));
    let peers = if copies > 1 {
        Peers::of_all((1..).map(Host).zip(connections).collect(), Vec::new(), &inputs)
    } else {
        Peers::of_root(connections, &inputs)
    };
    for member in 1..setup.slots.len() as u16 {
        setup.me = Host(member);
        peers.ways.send(Host(member), &[Packet::Setup(setup.clone())])?;
    }
    setup.me = Host(0);
    let program = Arc::new(Program::new(object, setup.settings.clone()));
    let mut terminal = Terminal { job: &job, names: &names, agent };
    let (report, shares) = match Driver::new(&setup, program, peers, inputs)?.run(&receiver, &mut terminal)? {
        End::Here(report, shares) => (*report, shares),
        End::Elsewhere => return Err(Failure::Internal("another host has ended the run".to_owned())),
    };
    agent.send(&ToAgent::EndJob { status: i32::from(report.exit_status()) }, &[]).unwrap_or(());
    Ok((report, told(&shares, &names)))
}

/// What hosts did for a run, in words: a line for each.
fn told(shares: &Shares, names: &[String]) -> Vec<String> {
    let mut told: Vec<String> =
        shares.ends.iter().map(|(host, count)| format!("ended on {} {count}", name_of(names, *host))).collect();
    for (host, took) in &shares.took {
        let mut sorted = took.clone();
        sorted.sort_unstable();
        let at = |per_mille: usize| sorted.get((sorted.len() * per_mille / 1000).min(sorted.len() - 1)).copied().unwrap_or(0);
        let [p50, p99, most] = [500, 990, 1000].map(|per_mille| at(per_mille) / 1000);
        told.push(format!(
            "commits of {} that asked others {}, us p50 {p50} p99 {p99} max {most}",
            name_of(names, *host),
            took.len()
        ));
    }
    told
}

fn name_of(names: &[String], host: Host) -> &str {
    names.get(usize::from(host.0)).map_or("", String::as_str)
}

/// Hears what the agent says of hosts: one that is lost gets nothing more, and is waited for no longer.
fn listen(
    agent: &'static Agent,
    job: &JobOpened,
    cutters: Arc<OnceLock<Vec<Cutter>>>,
    inputs: mpsc::Sender<Input>,
) -> Result<(), Failure> {
    let names: Vec<String> = job.members.iter().map(|member| member.name.clone()).collect();
    let goes_on =
        job.outlives_root.then(|| format!("; the run goes on: see it with `dvm-exec disa attach {}` on another host", job.space));
    spawn("agent", move || {
        let error = agent.listen(|packet, _| {
            let ToHusk::HostLost { host, reason } = packet else { return };
            let input = match names.iter().skip(1).position(|name| *name == host) {
                Some(place) => {
                    cutters.get().and_then(|cutters| cutters.get(place)).into_iter().for_each(Cutter::cut);
                    Input::Lost(Host(place as u16 + 1), reason)
                }
                None => Input::Failed(Failure::HostLost { host, reason: reason + goes_on.as_deref().unwrap_or_default() }),
            };
            // A driver that is gone has ended the run already.
            inputs.send(input).unwrap_or(());
        });
        inputs.send(Input::Failed(Failure::NoAgent(format!("the agent of this host is gone: {error}")))).unwrap_or(());
    })
}

/// The root's output and errors.
struct Terminal<'a> {
    job: &'a JobOpened,
    names: &'a [String],
    agent: &'a Agent,
}

impl Show for Terminal<'_> {
    fn output(&mut self, _: u64, bytes: &[u8]) -> Result<(), Failure> {
        // A reader that has gone is no error of the run.
        show(bytes).map_err(|error| Failure::Internal(format!("standard output: {error:#}")))
    }

    fn follow(&mut self, _: Host) {}

    fn lost(&mut self, host: Host, reason: &str) {
        eprintln!("dvm-exec: host {} lost: {reason}; its runners run again on others", name_of(self.names, host));
    }

    fn unreachable(&mut self, host: Host, reason: String) {
        report_unreachable(self.agent, self.job, host, reason);
    }
}

/// Has the hosts of a run agree whether one of them is gone.
fn report_unreachable(agent: &Agent, job: &JobOpened, host: Host, reason: String) {
    if let Some(member) = job.members.get(usize::from(host.0)) {
        // An agent that is gone has ended the run here.
        agent.send(&ToAgent::Unreachable { node: member.node, reason }, &[]).unwrap_or(());
    }
}

/// A thread of this run.
fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Failure> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(body);
    spawned.map(drop).map_err(|error| Failure::Internal(format!("cannot start a thread: {error}")))
}

/// The files a program may open, with their contents.
pub fn contents(paths: &[PathBuf]) -> anyhow::Result<Vec<File>> {
    use std::os::unix::ffi::OsStringExt;
    let named = |path: &PathBuf| Ok(File { name: path.clone().into_os_string().into_vec(), bytes: files::bytes(path)? });
    paths.iter().map(named).collect()
}

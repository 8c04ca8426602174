//! `dvm-exec disa run` over hosts: a node on each, slots for runners on it, connections between husks.
//!
//! Owns how the parts of a run meet. Must not know the protocol (`dvm-runners` does) or what programs mean.
//!
//! ```text
//!   root husk: driver - node - slots, a thread for each processor          member husk: the same
//!        '---- one connection, opened and authenticated by the agents, for each member; members' words to each other go by the root
//! ```

mod driver;
mod peers;
mod shared;
mod slot;
mod wire;

use super::{files, show};
use crate::exit::Failure;
use crate::process::agent::{self, Agent, Opened};
use crate::process::connection::{Connection, Cutter};
use crate::process::limits;
use crate::process::memory::map_view;
use crate::process::wire::Side;
use driver::{Driver, Input, Show};
use dvm_api::local::{JobRequest, Purpose, ToAgent, ToHusk};
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

/// Where a program runs.
#[derive(Debug)]
pub struct Request<'a> {
    /// Hosts by name; empty: all.
    pub hosts: Vec<String>,
    /// The agent's socket, if it is not to be found.
    pub socket: Option<&'a Path>,
    /// The program's file, for `status`.
    pub program: &'a Path,
}

/// Runs a program over hosts; output is shown as it is released. How many runners ended on each host comes with the report.
pub fn run(request: Request<'_>, object: Object, settings: Settings) -> Result<(Report, Vec<(String, u64)>), Failure> {
    limits::raise_files().map_err(|error| Failure::Unsupported(format!("cannot raise the limit of open files: {error}")))?;
    let agent = Agent::connect(&agent::find_socket(request.socket)?)?;
    let program = request.program.display().to_string();
    let job = JobRequest { hosts: request.hosts, program, has_stages: false, has_sketch: false, outlives_members: true };
    let Opened { job, space, device } = agent.open_job(job)?;
    // The agent connects husks as soon as each has its view; runners do not use it yet.
    let (_view, userfaultfd) = map_view(&space, &device)?;
    agent.hand_over(userfaultfd.as_fd())?;
    let agent: &'static Agent = Box::leak(Box::new(agent));
    let (inputs, receiver) = channel();
    let names: Vec<String> = job.members.iter().map(|member| member.name.clone()).collect();
    let cutters = Arc::new(OnceLock::new());
    listen(agent, names.clone(), Arc::clone(&cutters), inputs.clone())?;
    let slots: Vec<usize> = job.members.iter().map(|member| usize::from(member.cpus).max(1)).collect();
    let mut setup = Setup { me: Host(0), slots, object: dvm_disa::elf::write(&object), settings };
    let mut connections = Vec::new();
    for member in job.members.iter().skip(1) {
        let refused = |reason: String| Failure::HostLost { host: member.name.clone(), reason };
        let socket = agent.connect_husk(member.node, Purpose::Runners).map_err(refused)?;
        let connection = Connection::start(socket, &job.job_key, Side::Root).map_err(|error| refused(error.to_string()))?;
        connections.push(connection);
    }
    // A connection that ends before is seen at its first use.
    drop(cutters.set(connections.iter().map(Connection::cutter).collect()));
    let peers = Peers::of_root(connections, &inputs)?;
    for member in 1..setup.slots.len() as u16 {
        setup.me = Host(member);
        peers.send(Host(member), &[Packet::Setup(setup.clone())])?;
    }
    setup.me = Host(0);
    let program = Arc::new(Program::new(object, setup.settings.clone()));
    let (report, ends) = Driver::new(&setup, program, peers, inputs)?.run(&receiver, &mut Terminal(&names))?;
    agent.send(&ToAgent::EndJob { status: i32::from(report.exit_status()) }, &[]).unwrap_or(());
    Ok((report, ends.into_iter().map(|(host, count)| (name_of(&names, host).to_owned(), count)).collect()))
}

fn name_of(names: &[String], host: Host) -> &str {
    names.get(usize::from(host.0)).map_or("", String::as_str)
}

/// Hears what the agent says of hosts: one that is lost gets nothing more, and is waited for no longer.
fn listen(
    agent: &'static Agent,
    names: Vec<String>,
    cutters: Arc<OnceLock<Vec<Cutter>>>,
    inputs: mpsc::Sender<Input>,
) -> Result<(), Failure> {
    spawn("agent", move || {
        let error = agent.listen(|packet, _| {
            let ToHusk::HostLost { host, reason } = packet else { return };
            let input = match names.iter().skip(1).position(|name| *name == host) {
                Some(place) => {
                    cutters.get().and_then(|cutters| cutters.get(place)).into_iter().for_each(Cutter::cut);
                    Input::Lost(Host(place as u16 + 1), reason)
                }
                None => Input::Failed(Failure::HostLost { host, reason }),
            };
            // A driver that is gone has ended the run already.
            inputs.send(input).unwrap_or(());
        });
        inputs.send(Input::Failed(Failure::NoAgent(format!("the agent of this host is gone: {error}")))).unwrap_or(());
    })
}

/// The root's output and errors.
struct Terminal<'a>(&'a [String]);

impl Show for Terminal<'_> {
    fn output(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        // A reader that has gone is no error of the run.
        show(bytes).map_err(|error| Failure::Internal(format!("standard output: {error:#}")))
    }

    fn lost(&mut self, host: Host, reason: &str) {
        eprintln!("dvm-exec: host {} lost: {reason}; its runners run again on others", name_of(self.0, host));
    }
}

/// A member shows nothing.
struct Nobody;

impl Show for Nobody {
    fn output(&mut self, _: &[u8]) -> Result<(), Failure> {
        Ok(())
    }

    fn lost(&mut self, _: Host, _: &str) {}
}

/// Serves a run that was started elsewhere; returns when the root has ended it.
pub fn serve(connection: Connection) -> Result<(), Failure> {
    let (inputs, receiver) = channel();
    let (peers, setup) = Peers::of_member(connection, &inputs)?;
    let object = dvm_disa::elf::read(&setup.object).map_err(|error| Failure::Internal(format!("the root's program: {error}")))?;
    let program = Arc::new(Program::new(object, setup.settings.clone()));
    Driver::new(&setup, program, peers, inputs)?.run(&receiver, &mut Nobody).map(drop)
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

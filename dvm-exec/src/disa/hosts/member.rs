//! A run on a host where it was not started: meets the others, serves, and shows the run where its root is lost.
//!
//! Owns what a member husk knows of its run. Must not know the protocol, or what programs mean.

use super::driver::{Driver, End, Input, Show};
use super::kept::Kept;
use super::peers::{self, Peers};
use super::wire::{Packet, Setup};
use super::{report_unreachable, spawn};
use crate::disa::run::told;
use crate::exit::Failure;
use crate::process::agent::Agent;
use crate::process::connection::{Connection, ConnectionError};
use crate::process::wire::Side;
use dvm_api::local::{JobOpened, Purpose, ToAgent};
use dvm_runners::{Host, Program};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How long members wait for each other's connections. Who has not come then cannot be reached.
const MEETING_LATEST: Duration = Duration::from_secs(10);

/// Connections that other members have opened.
static MET: Mutex<BTreeMap<Host, Connection>> = Mutex::new(BTreeMap::new());
static CAME: Condvar = Condvar::new();
/// The way to the driver.
static DRIVER: OnceLock<Sender<Input>> = OnceLock::new();
static KEPT: Kept = Kept::new();

/// Serves a connection that another husk of the run has opened. The root's: returns when the run is over.
pub fn serve(agent: &Agent, job: &JobOpened, connection: Connection) -> Result<(), Failure> {
    let Connection { sender, mut receiver } = connection;
    let failed = |error: ConnectionError| Failure::Internal(format!("the root of the run: {error}"));
    let mut early = peers::receive(&mut receiver).map_err(failed)?;
    let first = if early.is_empty() { None } else { Some(early.remove(0)) };
    let connection = Connection { sender, receiver };
    match first {
        Some(Packet::Setup(setup)) => run(agent, job, &setup, connection, early),
        Some(Packet::Hello(from)) => {
            MET.lock().unwrap_or_else(PoisonError::into_inner).insert(from, connection);
            CAME.notify_all();
            Ok(())
        }
        Some(Packet::Message { .. } | Packet::Over) | None => {
            Err(Failure::Internal("the root of the run did not say what to run".to_owned()))
        }
    }
}

/// All hosts agree that this one is of the run no more.
pub fn lose(agent: &Agent, job: &JobOpened, host: &str, reason: String) {
    let place = job.members.iter().position(|member| member.name == host);
    let driver = DRIVER.get();
    let told = place.zip(driver).map(|(place, driver)| driver.send(Input::Lost(Host(place as u16), reason)));
    if told.is_none_or(|told| told.is_err()) {
        // The run is over, or has not begun, and who would close it is lost.
        agent.send(&ToAgent::EndJob { status: 0 }, &[]).unwrap_or(());
    }
}

/// Shows the run to one who has come to see it.
pub fn attach(socket: OwnedFd) -> Result<(), Failure> {
    spawn("attach", move || {
        // Who goes before the end needs no reason.
        KEPT.show(&mut UnixStream::from(socket)).unwrap_or(());
    })
}

fn run(agent: &Agent, job: &JobOpened, setup: &Setup, root: Connection, early: Vec<Packet>) -> Result<(), Failure> {
    let (inputs, receiver) = channel();
    // There is one run, and one root that begins it.
    DRIVER.set(inputs.clone()).unwrap_or(());
    let object = dvm_disa::elf::read(&setup.object).map_err(|error| Failure::Internal(format!("the root's program: {error}")))?;
    let program = Arc::new(Program::new(object, setup.settings.clone()));
    let peers = if setup.copies > 1 {
        let mut connections = meet(agent, job, setup, &inputs)?;
        connections.push((Host(0), root));
        Peers::of_all(connections, early, &inputs)
    } else {
        Peers::of_member(root, early, &inputs)
    };
    let mut watcher = Watcher { agent, job };
    match Driver::new(setup, program, peers, inputs)?.run(&receiver, &mut watcher)? {
        End::Elsewhere => Ok(()),
        End::Here(report, _) => {
            let status = report.exit_status();
            KEPT.end(told(&report, false), status);
            agent.send(&ToAgent::EndJob { status: i32::from(status) }, &[]).unwrap_or(());
            Ok(())
        }
    }
}

/// Opens connections to the members after this one, and waits for those before.
fn meet(agent: &Agent, job: &JobOpened, setup: &Setup, inputs: &Sender<Input>) -> Result<Vec<(Host, Connection)>, Failure> {
    let (me, count) = (setup.me, setup.slots.len() as u16);
    let mut connections = Vec::new();
    let miss = |host: Host, reason: String| {
        let failed = |_| Failure::Internal("the driver of the run is gone".to_owned());
        inputs.send(Input::Unreachable(host, reason)).map_err(failed)
    };
    for host in (me.0 + 1..count).map(Host) {
        match call(agent, job, me, host) {
            Ok(connection) => connections.push((host, connection)),
            Err(reason) => miss(host, reason)?,
        }
    }
    let latest = Instant::now() + MEETING_LATEST;
    for host in (1..me.0).map(Host) {
        let met = MET.lock().unwrap_or_else(PoisonError::into_inner);
        let left = latest.saturating_duration_since(Instant::now());
        let waited = CAME.wait_timeout_while(met, left, |met| !met.contains_key(&host));
        let (mut met, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match met.remove(&host) {
            Some(connection) => connections.push((host, connection)),
            None => miss(host, format!("it did not come within {} s", MEETING_LATEST.as_secs()))?,
        }
    }
    Ok(connections)
}

fn call(agent: &Agent, job: &JobOpened, me: Host, host: Host) -> Result<Connection, String> {
    let node = job.members.get(usize::from(host.0)).ok_or("the agent does not know it")?.node;
    let socket = agent.connect_husk(node, Purpose::Runners)?;
    let mut connection = Connection::start(socket, &job.job_key, Side::Root).map_err(|error| error.to_string())?;
    peers::send(&mut connection.sender, &[Packet::Hello(me)]).map_err(|error| error.to_string())?;
    Ok(connection)
}

/// A member shows nothing, unless it takes over from the root: then it keeps what there is to see.
struct Watcher<'a> {
    agent: &'a Agent,
    job: &'a JobOpened,
}

impl Show for Watcher<'_> {
    fn output(&mut self, begin: u64, bytes: &[u8]) -> Result<(), Failure> {
        KEPT.append(begin, bytes);
        Ok(())
    }

    fn follow(&mut self, root: Host) {
        KEPT.follow(self.job.members.get(usize::from(root.0)).map_or("", |member| &member.name));
    }

    fn lost(&mut self, _: Host, _: &str) {}

    fn unreachable(&mut self, host: Host, reason: String) {
        report_unreachable(self.agent, self.job, host, reason);
    }
}

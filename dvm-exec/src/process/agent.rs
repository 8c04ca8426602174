//! The husk's control connection to the agent of its host.
//!
//! Owns requests, their answers, and what the agent says by itself. Must not know what is done about it.

use super::vma::PAGE_BYTES;
use crate::exit::Failure;
use crate::sys::mapping;
use dvm_api::local::{API_VERSION, JobOpened, JobRequest, PageSpan, Purpose, ToAgent, ToHusk};
use dvm_api::socket::{self, SocketError};
use std::collections::BTreeMap;
use std::io::Error;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

const SOCKET_DIRECTORY: &str = "/run/dvm";
const SOCKET_VARIABLE: &str = "DVM_SOCKET";

/// Connections that are opened at the same moment; the threads of more wait. The agent has room for 256.
const OPENINGS_MAX: usize = 32;

type Packet = (ToHusk, Vec<OwnedFd>);

/// The connection; any thread may ask.
pub struct Agent {
    socket: OwnedFd,
    waiting: Mutex<Waiting>,
    openings: Mutex<usize>,
    opened: Condvar,
}

#[derive(Default)]
struct Waiting {
    tag: u32,
    answers: BTreeMap<u32, Sender<Packet>>,
    is_closed: bool,
}

/// A job as the agent opened it.
pub struct Opened {
    /// What it is.
    pub job: JobOpened,
    /// The space's memfd.
    pub space: OwnedFd,
    /// An open /dev/userfaultfd.
    pub device: OwnedFd,
}

/// Finds the agent's socket: as given, by environment, or the only one there is.
///
/// # Errors
/// [`Failure::NoAgent`] says what to do.
pub fn find_socket(given: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(path) = given {
        return Ok(path.to_owned());
    }
    if let Some(path) = std::env::var_os(SOCKET_VARIABLE) {
        return Ok(path.into());
    }
    let entries = std::fs::read_dir(SOCKET_DIRECTORY).into_iter().flatten().flatten();
    let mut sockets: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "sock")).collect();
    match (sockets.pop(), sockets.len()) {
        (Some(only), 0) => Ok(only),
        (None, _) => Err(Failure::NoAgent(format!(
            "no agent: {SOCKET_DIRECTORY} has no socket; start dvm-agent, or name its socket with --socket or {SOCKET_VARIABLE}"
        ))),
        (Some(_), more) => Err(Failure::NoAgent(format!(
            "{} agents' sockets in {SOCKET_DIRECTORY}: choose one with --socket or {SOCKET_VARIABLE}",
            more + 1
        ))),
    }
}

/// Asks the agent at `path` for a stream to the husk of a run that is to be seen.
///
/// # Errors
/// The agent's refusal.
pub fn attach(path: &Path, space: u32) -> Result<OwnedFd, Failure> {
    let agent = Agent::connect(path)?;
    agent.send(&ToAgent::Attach { space }, &[]).map_err(lost)?;
    match agent.receive().map_err(lost)? {
        (ToHusk::Attached, mut descriptors) if descriptors.len() == 1 => Ok(descriptors.remove(0)),
        (ToHusk::Refused { code, reason }, _) => Err(Failure::Refused { code, reason }),
        (other, _) => Err(Failure::Internal(format!("the agent answered {other:?}"))),
    }
}

impl Agent {
    /// Connects to the agent at `path`.
    ///
    /// # Errors
    /// [`Failure::NoAgent`].
    pub fn connect(path: &Path) -> Result<Self, Failure> {
        let refuse = |error: Error| {
            Failure::NoAgent(format!("no agent answers at {}: {error}; start dvm-agent or give --socket", path.display()))
        };
        let socket = mapping::connect_packets(path).map_err(refuse)?;
        Self::over(socket)
    }

    /// Uses a socket that is connected already.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn over(socket: OwnedFd) -> Result<Self, Failure> {
        let socket = super::descriptors::hide(socket).map_err(|error| Failure::Internal(format!("control socket: {error}")))?;
        Ok(Self { socket, waiting: Mutex::default(), openings: Mutex::default(), opened: Condvar::new() })
    }

    /// Starts a job.
    ///
    /// # Errors
    /// The agent's refusal.
    pub fn open_job(&self, job: JobRequest) -> Result<Opened, Failure> {
        self.open(&ToAgent::OpenJob { version: API_VERSION, job })
    }

    /// Joins the job this member husk was started for.
    ///
    /// # Errors
    /// The agent's refusal.
    pub fn join_job(&self) -> Result<Opened, Failure> {
        self.open(&ToAgent::JoinJob { version: API_VERSION })
    }

    fn open(&self, request: &ToAgent) -> Result<Opened, Failure> {
        self.send(request, &[]).map_err(lost)?;
        let (answer, descriptors) = self.receive().map_err(lost)?;
        match answer {
            ToHusk::JobOpened(job) => match <[OwnedFd; 2]>::try_from(descriptors) {
                Ok([space, device]) => Ok(Opened { job, space, device }),
                Err(other) => Err(Failure::Internal(format!("the agent sent {} descriptors instead of 2", other.len()))),
            },
            ToHusk::Refused { code, reason } => Err(Failure::Refused { code, reason }),
            other => Err(Failure::Internal(format!("the agent answered {other:?}"))),
        }
    }

    /// Hands the view's userfaultfd over and waits until the agent serves it.
    ///
    /// # Errors
    /// The agent's refusal.
    pub fn hand_over(&self, userfaultfd: BorrowedFd<'_>) -> Result<(), Failure> {
        self.send(&ToAgent::ViewReady, &[userfaultfd]).map_err(lost)?;
        match self.receive().map_err(lost)?.0 {
            ToHusk::ViewAccepted => Ok(()),
            ToHusk::Refused { code, reason } => Err(Failure::Refused { code, reason }),
            ToHusk::HostLost { host, reason } => Err(Failure::HostLost { host, reason }),
            other => Err(Failure::Internal(format!("the agent answered {other:?} to a view"))),
        }
    }

    /// Sends without waiting for an answer.
    ///
    /// # Errors
    /// The socket's error.
    pub fn send(&self, packet: &ToAgent, descriptors: &[BorrowedFd<'_>]) -> Result<(), SocketError> {
        socket::send(self.socket.as_fd(), packet, descriptors)
    }

    fn receive(&self) -> Result<Packet, SocketError> {
        socket::receive(self.socket.as_fd())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives until the agent is gone: answers go to those who wait, everything else to `on_packet`.
    pub fn listen(&self, mut on_packet: impl FnMut(ToHusk, Vec<OwnedFd>)) -> SocketError {
        loop {
            let (packet, descriptors) = match self.receive() {
                Ok(received) => received,
                Err(error @ SocketError::Malformed { .. }) | Err(error) => {
                    let mut waiting = self.lock();
                    waiting.is_closed = true;
                    waiting.answers.clear();
                    return error;
                }
            };
            let answered = tag_of(&packet).and_then(|tag| self.lock().answers.remove(&tag));
            match answered {
                // One who no longer waits needs no answer.
                Some(waiter) => waiter.send((packet, descriptors)).unwrap_or(()),
                None => on_packet(packet, descriptors),
            }
        }
    }

    fn ask(&self, request: impl FnOnce(u32) -> ToAgent) -> Result<Packet, String> {
        self.ask_with(&[], request)
    }

    fn ask_with(&self, descriptors: &[BorrowedFd<'_>], request: impl FnOnce(u32) -> ToAgent) -> Result<Packet, String> {
        let (sender, receiver) = channel();
        let tag = {
            let mut waiting = self.lock();
            if waiting.is_closed {
                return Err("the agent is gone".to_owned());
            }
            waiting.tag = waiting.tag.wrapping_add(1).max(1);
            let tag = waiting.tag;
            waiting.answers.insert(tag, sender);
            tag
        };
        self.send(&request(tag), descriptors).map_err(|error| error.to_string())?;
        match receiver.recv() {
            Ok((ToHusk::Failed { reason, .. }, _)) => Err(reason),
            Ok(packet) => Ok(packet),
            Err(_) => Err("the agent is gone".to_owned()),
        }
    }

    /// Forgets pages on all hosts, down to their source if they keep it; returns when it is done.
    ///
    /// # Errors
    /// The agent's reason.
    pub fn discard(&self, first: u64, bytes: u64, keeps_source: bool) -> Result<(), String> {
        self.ask(|tag| ToAgent::Discard { tag, range: span(first, bytes), keeps_source }).map(drop)
    }

    /// Lets `file`, from `offset` on, be the first content of pages.
    ///
    /// # Errors
    /// The agent's reason.
    pub fn source(&self, first: u64, bytes: u64, file: BorrowedFd<'_>, offset: u64) -> Result<(), String> {
        self.ask_with(&[file], |tag| ToAgent::Source { tag, range: span(first, bytes), offset }).map(drop)
    }

    /// Whether every page is on this host, and always was.
    pub fn is_home(&self) -> bool {
        self.ask(|tag| ToAgent::AskHome { tag }).is_ok()
    }

    /// Keeps the pages at `addresses`, 1 to [`PINS_MAX`](dvm_api::local::PINS_MAX), on this host as they are until [`Agent::unpin`];
    /// returns when they are at rest.
    ///
    /// # Errors
    /// The agent's reason.
    pub fn pin(&self, addresses: &[u64]) -> Result<(), String> {
        let pages = addresses.iter().map(|address| address / PAGE_BYTES).collect();
        self.ask(|tag| ToAgent::Pin { tag, pages }).map(drop)
    }

    /// Lets go of the pages that are kept.
    pub fn unpin(&self) {
        // Without an agent there is no program any more.
        self.send(&ToAgent::Unpin, &[]).unwrap_or(());
    }

    /// Has every thread of this host's view wait when it writes, until [`Agent::let_write`]; returns when nobody writes any more.
    ///
    /// # Errors
    /// The agent's reason.
    pub fn stop_writers(&self) -> Result<(), String> {
        self.ask(|tag| ToAgent::StopWriters { tag }).map(drop)
    }

    /// Lets them go on.
    pub fn let_write(&self) {
        // As for unpin.
        self.send(&ToAgent::LetWrite, &[]).unwrap_or(());
    }

    /// Opens a connection to the husk on `node`.
    ///
    /// # Errors
    /// The agent's reason.
    pub fn connect_husk(&self, node: u16, purpose: Purpose) -> Result<OwnedFd, String> {
        let openings = self.openings.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |openings: &mut usize| *openings >= OPENINGS_MAX;
        *self.opened.wait_while(openings, is_full).unwrap_or_else(PoisonError::into_inner) += 1;
        let answered = self.ask(|tag| ToAgent::Connect { tag, node, purpose });
        *self.openings.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.opened.notify_one();
        let (answer, mut descriptors) = answered?;
        descriptors.pop().ok_or_else(|| format!("the agent answered {answer:?} without a descriptor"))
    }

    /// The job's figures from all agents.
    ///
    /// # Errors
    /// The agent's reason.
    pub fn statistics(&self) -> Result<Vec<dvm_api::local::HostStatistics>, String> {
        match self.ask(|tag| ToAgent::Statistics { tag })?.0 {
            ToHusk::JobStatistics { hosts, .. } => Ok(hosts),
            other => Err(format!("the agent answered {other:?}")),
        }
    }
}

fn span(first: u64, bytes: u64) -> PageSpan {
    PageSpan { first: first / PAGE_BYTES, count: bytes.div_ceil(PAGE_BYTES) }
}

fn tag_of(packet: &ToHusk) -> Option<u32> {
    match packet {
        ToHusk::Completed { tag }
        | ToHusk::Failed { tag, .. }
        | ToHusk::Connection { tag, .. }
        | ToHusk::JobStatistics { tag, .. } => Some(*tag),
        ToHusk::JobOpened(_)
        | ToHusk::ViewAccepted
        | ToHusk::HostLost { .. }
        | ToHusk::JobEnded
        | ToHusk::Attached
        | ToHusk::Refused { .. }
        | ToHusk::Report(_) => None,
    }
}

fn lost(error: SocketError) -> Failure {
    Failure::NoAgent(format!("the agent of this host is gone: {error}"))
}

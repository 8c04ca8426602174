//! The other agents: who is up, how to reach them, and what they open to us.
//!
//! Owns dialling, accepting and the list of peers. Must not know jobs: openings and messages go to the agent.
//!
//! Each agent dials each other one and uses the link it dialled for its own jobs; the link a peer dialled serves that
//! peer's jobs. So a job hangs on exactly one connection per member, and no race between two dials needs deciding.

use super::link::Link;
use super::session::{Session, SessionError};
use crate::agent::Agent;
use crate::limits::{DIAL_PAUSE, DIAL_TRIES_MAX, DIALS_PER_PEER_MAX, HANDSHAKE_DEADLINE, STRANGERS_MAX};
use crate::log::say;
use crate::sys;
use dsm_wire::NodeId;
use dvm_api::peer::{Opened, Opening};
use std::cell::{Cell, RefCell};
use std::net::{Shutdown, SocketAddr};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::net::TcpSocket;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_uring::net::{TcpListener, TcpStream};

/// One other agent, or (unused) ourselves.
pub struct Peer {
    link: watch::Sender<Option<Rc<Link>>>,
    accepted: RefCell<Option<Rc<Link>>>,
    wanted: Notify,
    heard: Cell<Option<Instant>>,
    trouble: RefCell<Option<String>>,
    /// It is no member any more.
    has_left: Cell<bool>,
    /// Whose turn it is to open a husk's connection.
    dials: Semaphore,
}

impl Default for Peer {
    fn default() -> Self {
        Self {
            link: watch::Sender::new(None),
            accepted: RefCell::default(),
            wanted: Notify::new(),
            heard: Cell::default(),
            trouble: RefCell::default(),
            has_left: Cell::default(),
            dials: Semaphore::new(DIALS_PER_PEER_MAX),
        }
    }
}

impl Peer {
    /// The link to use, if it is up.
    #[must_use]
    pub fn link(&self) -> Option<Rc<Link>> {
        self.link.borrow().clone().filter(|link| link.lost_reason().is_none())
    }

    /// The link to use; waits for it at most `deadline`.
    ///
    /// # Errors
    /// Why the peer cannot be reached.
    pub async fn reach(&self, deadline: Duration) -> Result<Rc<Link>, String> {
        let mut link = self.link.subscribe();
        self.wanted.notify_one();
        let is_up = |link: &Option<Rc<Link>>| link.as_ref().is_some_and(|link| link.lost_reason().is_none());
        let up = timeout(deadline, link.wait_for(is_up)).await.ok().and_then(Result::ok).and_then(|link| link.clone());
        up.ok_or_else(|| self.trouble.borrow().clone().unwrap_or_else(|| format!("no connection in {} s", deadline.as_secs())))
    }

    /// How long ago the peer was last heard, on whichever link.
    #[must_use]
    pub fn heard_ago(&self) -> Option<Duration> {
        let links = [self.link.borrow().clone(), self.accepted.borrow().clone()];
        let heard = links.into_iter().flatten().map(|link| link.last_heard());
        heard.chain(self.heard.get()).max().map(|at| at.elapsed())
    }

    /// Why there is no link.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }

    /// Ends both links.
    pub fn close(&self, reason: &str) {
        for link in [self.link.borrow().clone(), self.accepted.borrow().clone()].into_iter().flatten() {
            link.close(reason);
        }
    }

    /// Ends both links, for ever.
    pub fn end(&self, reason: &str) {
        self.has_left.set(true);
        self.trouble.replace(Some(reason.to_owned()));
        self.close(reason);
        self.wanted.notify_one();
    }
}

/// Keeps the link to `node` up until it has left.
pub async fn keep_dialling(agent: Rc<Agent>, node: NodeId, peer: Rc<Peer>) {
    let Some(entry) = agent.members.entry(node) else { return };
    let mut pause = DIAL_PAUSE.0;
    while !peer.has_left.get() {
        match dial_control(&agent, node).await {
            Ok(link) if peer.has_left.get() => link.close("it left the cluster"),
            Ok(link) => {
                agent.counters.links_up.add();
                say(&agent.counters, format_args!("peer {} is up", entry.name));
                peer.trouble.replace(None);
                peer.link.send_replace(Some(Rc::clone(&link)));
                let reason = link.lost().await;
                peer.heard.set(Some(link.last_heard()));
                peer.link.send_replace(None);
                agent.counters.links_lost.add();
                say(&agent.counters, format_args!("peer {} is lost: {reason}", entry.name));
                peer.trouble.replace(Some(reason));
                pause = DIAL_PAUSE.0;
            }
            Err(reason) => {
                let is_news = peer.trouble.borrow().as_ref() != Some(&reason);
                if is_news {
                    say(&agent.counters, format_args!("peer {} cannot be reached: {reason}", entry.name));
                    peer.trouble.replace(Some(reason));
                }
            }
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = peer.wanted.notified() => sleep(DIAL_PAUSE.0).await,
        }
        pause = (pause * 2).min(DIAL_PAUSE.1);
    }
}

async fn dial_control(agent: &Rc<Agent>, node: NodeId) -> Result<Rc<Link>, String> {
    let opening = Opening::Control { node: agent.me.0, incarnation: agent.incarnation };
    let (session, incarnation) = dial(agent, node, &opening).await.map_err(|error| error.to_string())?;
    Ok(Link::start(session, node, incarnation, agent.peer_handler()))
}

/// Why a connection is not opened.
#[derive(Debug, thiserror::Error)]
enum DialError {
    /// For this reason.
    #[error("{0}")]
    Refused(String),
    /// Nothing came back in time.
    #[error("{0}")]
    Late(String),
}

/// Opens a connection to `node` for a husk, when it is its turn; tries again where packets may have got lost.
///
/// # Errors
/// Why it is not possible, naming address and cause.
pub async fn dial_for_husk(agent: &Agent, node: NodeId, opening: &Opening) -> Result<Session, String> {
    let peer = agent.peer(node).ok_or_else(|| format!("node {node} is not another node of the cluster"))?;
    let _turn = peer.dials.acquire().await.map_err(|error| error.to_string())?;
    let mut tries = 1;
    loop {
        match dial(agent, node, opening).await {
            Ok((session, _)) => return Ok(session),
            Err(DialError::Late(_)) if tries < DIAL_TRIES_MAX && peer.link().is_some() => tries += 1,
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Opens a connection to `node` for `opening`; gives the session and the peer's incarnation.
async fn dial(agent: &Agent, node: NodeId, opening: &Opening) -> Result<(Session, u64), DialError> {
    let refused = DialError::Refused;
    let entry = agent.members.entry(node).ok_or_else(|| refused(format!("node {node} is not in the cluster")))?;
    let stream = timeout(HANDSHAKE_DEADLINE, connect(agent.address(), entry.control)).await;
    let stream = stream
        .map_err(|_| DialError::Late(format!("{}: no answer in {} s", entry.control, HANDSHAKE_DEADLINE.as_secs())))?
        .map_err(|error| refused(format!("{}: {error}", entry.control)))?;
    let guard = HangUp::of(&stream).map_err(|error| refused(format!("{}: {error}", entry.control)))?;
    let shake = async {
        let session = Session::open(stream, agent.secret()).await?;
        session.send(opening).await?;
        let opened = session.receive::<Opened>().await?;
        Ok::<_, SessionError>((session, opened))
    };
    let late = || format!("{}: handshake not finished in {} s", entry.control, HANDSHAKE_DEADLINE.as_secs());
    let shaken = timeout(HANDSHAKE_DEADLINE, shake).await.map_err(|_| DialError::Late(late()))?;
    let (session, opened) = shaken.map_err(|error| refused(format!("{}: {error}", entry.control)))?;
    match opened {
        Opened::Ready { node: answered, incarnation } if answered == node.0 => {
            guard.disarm();
            Ok((session, incarnation))
        }
        Opened::Ready { node: answered, .. } => {
            Err(refused(format!("{}: node {answered} answered instead of {}; correct the addresses", entry.control, entry.name)))
        }
        Opened::Refused { reason } => Err(refused(reason)),
    }
}

/// Connects from our own address, by which the other side knows us.
async fn connect(from: std::net::IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if from.is_ipv4() == to.is_ipv4() {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    let stream = socket.connect(to).await?.into_std()?;
    stream.set_nodelay(true)?;
    // io_uring waits by itself; on a non-blocking socket it would answer EAGAIN.
    stream.set_nonblocking(false)?;
    Ok(TcpStream::from_std(stream))
}

/// Accepts connections of other agents, for ever.
pub async fn keep_accepting(agent: Rc<Agent>, listener: TcpListener) {
    let strangers = Rc::new(Cell::new(0_usize));
    loop {
        match listener.accept().await {
            Ok((stream, from)) if strangers.get() >= STRANGERS_MAX => {
                agent.counters.strangers_over_limit.add();
                say(&agent.counters, format_args!("{from}: closed, {STRANGERS_MAX} connections are in their handshake"));
                drop(stream);
            }
            Ok((stream, from)) => {
                strangers.set(strangers.get() + 1);
                let (agent, strangers) = (Rc::clone(&agent), Rc::clone(&strangers));
                tokio_uring::spawn(async move {
                    welcome(&agent, stream, from).await;
                    strangers.set(strangers.get() - 1);
                });
            }
            Err(error) => {
                say(&agent.counters, format_args!("cannot accept a peer's connection: {error}"));
                sleep(DIAL_PAUSE.0).await;
            }
        }
    }
}

async fn welcome(agent: &Rc<Agent>, stream: TcpStream, from: SocketAddr) {
    let guard = match HangUp::of(&stream) {
        Ok(guard) => guard,
        Err(error) => return say(&agent.counters, format_args!("{from}: {error}")),
    };
    let shake = async {
        let session = Session::accept(stream, agent.secret()).await?;
        let opening = session.receive::<Opening>().await?;
        Ok::<_, SessionError>((session, opening))
    };
    match timeout(HANDSHAKE_DEADLINE, shake).await {
        Ok(Ok((session, opening))) => {
            guard.disarm();
            admit(agent, session, opening, from).await;
        }
        Ok(Err(error)) => {
            count(agent, &error);
            say(&agent.counters, format_args!("connection from {from} refused: {error}"));
        }
        Err(_) => {
            agent.counters.handshakes_late.add();
            say(&agent.counters, format_args!("connection from {from} closed: handshake not finished in time"));
        }
    }
}

fn count(agent: &Agent, error: &SessionError) {
    let counters = &agent.counters;
    match error {
        SessionError::Key | SessionError::Forged => counters.handshakes_wrong_key.add(),
        SessionError::Version { .. } | SessionError::Cluster { .. } => counters.handshakes_wrong_cluster.add(),
        SessionError::Closed
        | SessionError::Rejected
        | SessionError::Call { .. }
        | SessionError::Garbage
        | SessionError::Malformed { .. } => counters.handshakes_garbage.add(),
    }
}

/// Lets in a connection that has proved to know the key.
async fn admit(agent: &Rc<Agent>, session: Session, opening: Opening, from: SocketAddr) {
    let (Opening::Control { node, .. } | Opening::Husk { node, .. }) = opening;
    let node = NodeId(node);
    let refusal = match (agent.members.entry(node), agent.peer(node)) {
        (Some(entry), Some(peer)) if entry.control.ip() == from.ip() => Ok(peer),
        (Some(entry), Some(_)) => Err(format!(
            "node {} has address {}, the connection came from {}; correct the addresses",
            entry.name,
            entry.control.ip(),
            from.ip()
        )),
        _ => Err(format!("node {node} is not another node of the cluster")),
    };
    let peer = match refusal {
        Ok(peer) => peer,
        Err(reason) => {
            agent.counters.openings_refused.add();
            say(&agent.counters, format_args!("connection from {from} refused: {reason}"));
            return refuse(&session, reason).await;
        }
    };
    match opening {
        Opening::Control { incarnation, .. } => {
            if let Err(error) = session.send(&agent.ready()).await {
                return say(&agent.counters, format_args!("connection from {from} lost: {error}"));
            }
            let link = Link::start(session, node, incarnation, agent.peer_handler());
            if let Some(old) = peer.accepted.replace(Some(link)) {
                peer.heard.set(Some(old.last_heard()));
                old.close("the peer opened a new connection");
            }
        }
        Opening::Husk { space, purpose, .. } => agent.accept_husk_connection(session, node, space, purpose).await,
    }
}

/// Answers an opening with a refusal.
pub async fn refuse(session: &Session, reason: String) {
    // The opener may be gone already; the refusal is counted where it was decided.
    drop(session.send(&Opened::Refused { reason }).await);
    session.shutdown();
}

/// Shuts a connection down unless told otherwise: an io_uring read in flight would keep it open after its task has gone.
struct HangUp(Option<std::net::TcpStream>);

impl HangUp {
    fn of(stream: &TcpStream) -> std::io::Result<Self> {
        Ok(Self(Some(std::net::TcpStream::from(sys::duplicate(stream)?))))
    }

    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for HangUp {
    fn drop(&mut self) {
        if let Some(stream) = &self.0 {
            // Already down is as good.
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

//! The control connection of two agents: requests with answers, heartbeats and a lease.
//!
//! Owns the connection's life. Must not know what the messages make happen: a handler is given those that are no answers.
//!
//! ```text
//!  start --> up --(silence of a lease | error | close)--> lost, for ever; a new connection is a new link
//! ```

use super::session::Session;
use crate::limits::{HEARTBEAT, LEASE, LEASE_CHECK, PEER_MESSAGES_MAX};
use dsm_wire::NodeId;
use dvm_api::peer::ToPeer;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

/// Why a request has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The link is lost, for this reason.
    #[error("{0}")]
    Lost(String),
    /// The peer did not answer in time.
    #[error("no answer in {} s", .0.as_secs())]
    Late(Duration),
    /// The peer refused, for this reason.
    #[error("{0}")]
    Refused(String),
}

/// Receives what is no answer.
pub type Handler = Rc<dyn Fn(&Rc<Link>, ToPeer)>;

/// A control connection.
pub struct Link {
    /// The other agent's node.
    pub peer: NodeId,
    /// Random number of the other agent's start.
    pub incarnation: u64,
    session: Session,
    outgoing: mpsc::Sender<ToPeer>,
    pending: RefCell<BTreeMap<u32, oneshot::Sender<ToPeer>>>,
    next_tag: Cell<u32>,
    last_heard: Cell<Instant>,
    lost: watch::Sender<Option<String>>,
}

impl Link {
    /// Starts the link on an established session.
    pub fn start(session: Session, peer: NodeId, incarnation: u64, handler: Handler) -> Rc<Self> {
        let (outgoing, queue) = mpsc::channel(PEER_MESSAGES_MAX);
        let link = Rc::new(Self {
            peer,
            incarnation,
            session,
            outgoing,
            pending: RefCell::default(),
            next_tag: Cell::new(1),
            last_heard: Cell::new(Instant::now()),
            lost: watch::Sender::new(None),
        });
        tokio_uring::spawn(Rc::clone(&link).read(handler));
        tokio_uring::spawn(Rc::clone(&link).write(queue));
        tokio_uring::spawn(Rc::clone(&link).watch_lease());
        link
    }

    /// Queues one message. A peer that takes none any more loses its link.
    pub fn send(&self, message: ToPeer) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.outgoing.try_send(message) {
            self.close(&format!("{PEER_MESSAGES_MAX} messages wait for it"));
        }
    }

    /// Sends a request and waits for its answer, at most `deadline`.
    ///
    /// # Errors
    /// When the peer refuses, is late or lost.
    pub async fn ask(&self, deadline: Duration, request: impl FnOnce(u32) -> ToPeer) -> Result<ToPeer, LinkError> {
        if let Some(reason) = self.lost_reason() {
            return Err(LinkError::Lost(reason));
        }
        let tag = self.next_tag.get();
        self.next_tag.set(tag.wrapping_add(1));
        let (sender, answer) = oneshot::channel();
        self.pending.borrow_mut().insert(tag, sender);
        let pending = Pending { link: self, tag };
        self.send(request(tag));
        let answer = timeout(deadline, answer).await;
        drop(pending);
        match answer {
            Ok(Ok(ToPeer::Refused { reason, .. })) => Err(LinkError::Refused(reason)),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(LinkError::Lost(self.lost_reason().unwrap_or_else(|| "connection lost".to_owned()))),
            Err(_) => Err(LinkError::Late(deadline)),
        }
    }

    /// Ends the link; everybody who waits on it is told `reason`.
    pub fn close(&self, reason: &str) {
        let is_first = self.lost.send_if_modified(|lost| {
            let is_first = lost.is_none();
            if is_first {
                *lost = Some(reason.to_owned());
            }
            is_first
        });
        if is_first {
            self.session.shutdown();
            self.pending.borrow_mut().clear();
        }
    }

    /// Waits until the link is lost; says why.
    pub async fn lost(&self) -> String {
        let mut lost = self.lost.subscribe();
        let reason = lost.wait_for(Option::is_some).await;
        reason.ok().and_then(|reason| reason.clone()).unwrap_or_else(|| "connection lost".to_owned())
    }

    /// Why the link is lost; none while it is up.
    #[must_use]
    pub fn lost_reason(&self) -> Option<String> {
        self.lost.borrow().clone()
    }

    /// When the peer was last heard.
    #[must_use]
    pub fn last_heard(&self) -> Instant {
        self.last_heard.get()
    }

    async fn read(self: Rc<Self>, handler: Handler) {
        loop {
            match self.session.receive::<ToPeer>().await {
                Ok(message) => {
                    self.last_heard.set(Instant::now());
                    self.dispatch(&handler, message);
                }
                Err(error) => return self.close(&error.to_string()),
            }
            if self.lost_reason().is_some() {
                return;
            }
        }
    }

    fn dispatch(self: &Rc<Self>, handler: &Handler, message: ToPeer) {
        let tag = match &message {
            ToPeer::SpaceOpened { tag, .. }
            | ToPeer::MemberReady { tag }
            | ToPeer::Refused { tag, .. }
            | ToPeer::Statistics { tag, .. }
            | ToPeer::Report { tag, .. }
            | ToPeer::Clock { tag, .. } => *tag,
            ToPeer::Heartbeat => return,
            ToPeer::OpenSpace { .. }
            | ToPeer::StartMember { .. }
            | ToPeer::CloseSpace { .. }
            | ToPeer::AskStatistics { .. }
            | ToPeer::PauseSpace { .. }
            | ToPeer::AskClock { .. }
            | ToPeer::AskReport { .. }
            | ToPeer::MemberLost { .. } => return handler(self, message),
        };
        let waiting = self.pending.borrow_mut().remove(&tag);
        // An answer nobody waits for any more was late; its deadline has already been reported.
        if let Some(waiting) = waiting {
            drop(waiting.send(message));
        }
    }

    async fn write(self: Rc<Self>, mut queue: mpsc::Receiver<ToPeer>) {
        loop {
            let message = tokio::select! {
                message = timeout(HEARTBEAT, queue.recv()) => match message {
                    Ok(Some(message)) => message,
                    Ok(None) => return,
                    Err(_) => ToPeer::Heartbeat,
                },
                _ = self.lost() => return,
            };
            // Not inside the select: half a message would end the session.
            if let Err(error) = self.session.send(&message).await {
                return self.close(&error.to_string());
            }
        }
    }

    async fn watch_lease(self: Rc<Self>) {
        loop {
            let before = Instant::now();
            tokio::select! {
                () = sleep(LEASE_CHECK) => {}
                _ = self.lost() => return,
            }
            // If this host itself stood still, what the peer sent meanwhile has not been read yet.
            let stood_still = before.elapsed() > 2 * LEASE_CHECK;
            let silence = self.last_heard.get().elapsed();
            if silence > LEASE && !stood_still {
                return self.close(&format!("no sign of life for {:.1} s", silence.as_secs_f64()));
            }
        }
    }
}

/// Forgets a request whose asker has gone.
struct Pending<'a> {
    link: &'a Link,
    tag: u32,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.link.pending.borrow_mut().remove(&self.tag);
    }
}

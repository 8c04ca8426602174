//! Membership on etcd: a thread of its own speaks to it, the agent's thread hears of changes.
//!
//! Owns the thread and the channels to it. Must not know keys (`table`) or requests (`store`, `session`).
//!
//! All decisions are etcd's: entries are transactions that compare revisions, and who lives is told by leases. What is lost when:
//!
//! ```text
//! etcd does not answer     last view, jobs go on; tried again, first after 0.1 s, then each second
//! this agent is killed     its lease runs out: the others drop it (its jobs ended before, with their links)
//! this host is cut off     its lease runs out: the others drop it; once it hears of that it ends its jobs and enters again
//! ```

mod session;
mod store;
mod table;

use super::{Answer, Change, Joined, Membership, SpaceEntry, View};
use crate::config::{EtcdConfig, NodeEntry};
use crate::limits::{ETCD_DEADLINE, JOIN_DEADLINE};
use dsm_wire::NodeId;
use session::Session;
use std::rc::Rc;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

/// What the agent's thread asks of etcd's.
enum Command {
    /// Enter a job, or strike it out.
    Space(u32, Option<SpaceEntry>),
    /// Have a host be of a job no more.
    GiveUp(u32, NodeId),
    /// Have a host drained, or not any more.
    Drain { name: String, is_wanted: bool, answer: oneshot::Sender<Result<(), String>> },
    /// Leave, for good or until the agent is started again.
    Leave { is_for_good: bool, answer: oneshot::Sender<()> },
}

/// Members as etcd has them.
pub struct Etcd {
    commands: mpsc::UnboundedSender<Command>,
    changes: Mutex<mpsc::UnboundedReceiver<Change>>,
}

/// How a first attempt to enter ends.
type First = Result<(NodeId, View), String>;

impl Etcd {
    /// Enters the host at `own` into the cluster of that name.
    ///
    /// # Errors
    /// When etcd cannot be reached or refuses.
    pub async fn join(config: EtcdConfig, cluster: &str, own: NodeEntry, incarnation: u64) -> Result<Joined, String> {
        let (commands, to_session) = mpsc::unbounded_channel();
        let (from_session, changes) = mpsc::unbounded_channel();
        let (first, joined) = oneshot::channel::<First>();
        let session = Session::new(config, cluster, own, incarnation, from_session);
        let run = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            match runtime {
                Ok(runtime) => runtime.block_on(session.run(first, to_session)),
                // Without a receiver the agent is ending.
                Err(error) => drop(first.send(Err(format!("no runtime for etcd: {error}")))),
            }
        };
        let thread = std::thread::Builder::new().name("etcd".into()).spawn(run);
        thread.map_err(|error| format!("no thread for etcd: {error}"))?;
        let joined = timeout(2 * JOIN_DEADLINE, joined).await.map_err(|_| "etcd's thread does not answer".to_owned())?;
        let (me, view) = joined.map_err(|_| "etcd's thread has ended".to_owned())??;
        let membership = Rc::new(Self { commands, changes: Mutex::new(changes) });
        Ok(Joined { me, view, membership })
    }

    fn send(&self, command: Command) {
        // Only after we have left: then nothing is to be said any more.
        drop(self.commands.send(command));
    }
}

impl Membership for Etcd {
    fn source(&self) -> &'static str {
        "etcd"
    }

    fn changed(&self) -> Answer<'_, Change> {
        Box::pin(async {
            match self.changes.lock().await.recv().await {
                Some(change) => change,
                // The thread ends when we have left; then nothing changes any more.
                None => std::future::pending().await,
            }
        })
    }

    fn note_space(&self, space: u32, entry: Option<SpaceEntry>) {
        self.send(Command::Space(space, entry));
    }

    fn agrees(&self) -> bool {
        true
    }

    fn give_up(&self, space: u32, node: NodeId) {
        self.send(Command::GiveUp(space, node));
    }

    fn drain(&self, name: &str, is_wanted: bool) -> Answer<'_, Result<(), String>> {
        let (answer, done) = oneshot::channel();
        self.send(Command::Drain { name: name.to_owned(), is_wanted, answer });
        Box::pin(async {
            let done = timeout(2 * ETCD_DEADLINE, done).await;
            done.ok().and_then(Result::ok).unwrap_or_else(|| Err("etcd does not answer; try again".to_owned()))
        })
    }

    fn leave(&self, is_for_good: bool) -> Answer<'_, ()> {
        let (answer, done) = oneshot::channel();
        self.send(Command::Leave { is_for_good, answer });
        Box::pin(async {
            // Late: the lease runs out by itself.
            drop(timeout(ETCD_DEADLINE, done).await);
        })
    }
}

//! What the thread of etcd does: enter, keep the lease, follow, come back.
//!
//! Owns when which request is made. Must not know how.
//!
//! ```text
//!  enter --(error)--> refused, at the agent's start
//!    |
//!  stay --(no answer, connection lost)--> come_back --(lease runs)--> stay
//!    | (left)                                 | (lease ran out)
//!   end                                     fence --> enter again --> stay
//! ```

use super::store::{Store, told};
use super::table::{self, Plan, Reading};
use super::{Command, First};
use crate::config::{EtcdConfig, NodeEntry};
use crate::limits::{ETCD_DEADLINE, ETCD_PAUSE, GIVEN_UP_KEPT, JOIN_DEADLINE, REAP_DEADLINE, ROOT_GRACE};
use crate::membership::{Change, SpaceEntry, View};
use dsm_wire::NodeId;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// For the agent to end its jobs when it is fenced.
const FENCE_DEADLINE: Duration = Duration::from_secs(2 * (ROOT_GRACE.as_secs() + 3 * REAP_DEADLINE.as_secs()));

/// Why a stay ends.
enum End {
    /// We have left.
    Left,
    /// etcd does not answer.
    Trouble(String),
    /// Our lease is gone.
    Fenced(String),
}

/// How an attempt to come back ends.
enum Back {
    /// As if nothing had been, from this revision on.
    Again(Box<Store>, i64),
    /// The lease is gone.
    Fenced(String),
}

/// The thread's state.
pub struct Session {
    config: EtcdConfig,
    prefix: String,
    own: NodeEntry,
    incarnation: u64,
    changes: mpsc::UnboundedSender<Change>,
    lease: Option<i64>,
    /// Jobs started here.
    spaces: BTreeMap<u32, SpaceEntry>,
    /// Hosts of jobs that are to be given up, until etcd has heard of it.
    wishes: BTreeSet<(u32, NodeId)>,
    me: NodeId,
    last: View,
}

impl Session {
    /// A session that has not begun.
    pub fn new(
        config: EtcdConfig,
        cluster: &str,
        own: NodeEntry,
        incarnation: u64,
        changes: mpsc::UnboundedSender<Change>,
    ) -> Self {
        let prefix = format!("/dvm/{cluster}/");
        Self {
            config,
            prefix,
            own,
            incarnation,
            changes,
            lease: None,
            spaces: BTreeMap::new(),
            wishes: BTreeSet::new(),
            me: NodeId(0),
            last: View::default(),
        }
    }

    /// Enters, tells so by `first`, and stays until a command says to leave.
    pub async fn run(mut self, first: oneshot::Sender<First>, mut commands: mpsc::UnboundedReceiver<Command>) {
        let entered = timeout(JOIN_DEADLINE, self.enter()).await;
        let entered = entered.unwrap_or_else(|_| Err(format!("no answer in {} s", JOIN_DEADLINE.as_secs())));
        let (mut store, mut revision) = match entered {
            Ok((store, me, reading)) => {
                self.last = reading.view();
                // Without a receiver the agent is ending.
                drop(first.send(Ok((me, self.last.clone()))));
                (store, reading.revision)
            }
            Err(reason) => {
                let etcd = self.config.endpoints.join(", ");
                let text = format!("cannot enter the cluster by etcd at {etcd}: {reason}");
                return drop(first.send(Err(text)));
            }
        };
        loop {
            let trouble = match self.stay(store, revision, &mut commands).await {
                End::Left => return,
                End::Trouble(reason) => {
                    self.tell(Change::Trouble(Some(reason)));
                    true
                }
                End::Fenced(reason) => {
                    self.fence(reason).await;
                    false
                }
            };
            let Some(back) = self.come_back(&mut commands).await else { return };
            (store, revision) = back;
            if trouble {
                self.tell(Change::Trouble(None));
            }
        }
    }

    fn tell(&self, change: Change) {
        // Without a receiver the agent is ending.
        drop(self.changes.send(change));
    }

    /// Connects, takes a lease and enters this host.
    async fn enter(&mut self) -> Result<(Store, NodeId, Reading), String> {
        let mut store = Store::connect(&self.config, &self.prefix).await?;
        let lease = store.grant(self.config.lease).await?;
        let (own, incarnation) = (&self.own, self.incarnation);
        let entered = store.change(lease, |reading| reading.enter(own, incarnation)).await;
        let me = match entered {
            Ok(me) => me,
            Err(reason) => {
                // Late: it runs out by itself.
                drop(store.revoke(lease).await);
                return Err(reason);
            }
        };
        (self.lease, self.me) = (Some(lease), me);
        let reading = store.read().await?;
        Ok((store, me, reading))
    }

    /// Keeps the lease and follows changes.
    async fn stay(&mut self, mut store: Store, revision: i64, commands: &mut mpsc::UnboundedReceiver<Command>) -> End {
        let Some(lease) = self.lease else { return End::Trouble("there is no lease".to_owned()) };
        let begun = async { Ok((store.keep(lease).await?, store.watch(revision).await?)) };
        let ((mut keeper, mut kept), mut watch) = match begun.await {
            Ok(begun) => begun,
            Err(reason) => return End::Trouble(reason),
        };
        let mut tick = interval(self.config.lease / 3);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            let trouble = tokio::select! {
                _ = tick.tick() => {
                    let silence = heard.elapsed();
                    match timeout(ETCD_DEADLINE, keeper.keep_alive()).await {
                        _ if silence > self.config.lease * 2 / 3 => Some(format!("silent for {:.1} s", silence.as_secs_f64())),
                        Ok(Ok(())) => None,
                        Ok(Err(error)) => Some(told(None, &error)),
                        Err(_) => Some("it takes no requests".to_owned()),
                    }
                }
                answer = kept.message() => match answer {
                    Ok(Some(answer)) if answer.ttl() > 0 => {
                        heard = Instant::now();
                        None
                    }
                    Ok(Some(_)) => return End::Fenced(self.expired()),
                    Ok(None) => Some("connection closed".to_owned()),
                    Err(error) => Some(told(None, &error)),
                },
                event = watch.message() => match event {
                    Ok(Some(event)) if !event.canceled() => match store.read().await {
                        Ok(reading) => match self.follow(&reading) {
                            Ok(()) => None,
                            Err(reason) => return End::Fenced(reason),
                        },
                        Err(reason) => Some(reason),
                    },
                    Ok(Some(event)) => Some(format!("the watch was cancelled: {}", event.cancel_reason())),
                    Ok(None) => Some("connection closed".to_owned()),
                    Err(error) => Some(told(None, &error)),
                },
                command = commands.recv() => match command {
                    Some(Command::Leave { is_for_good, answer }) => {
                        self.leave(&mut store, lease, is_for_good).await;
                        let _gone = answer.send(());
                        return End::Left;
                    }
                    Some(command) => self.carry_out(&mut store, lease, command).await.err(),
                    None => return End::Left,
                },
            };
            if let Some(reason) = trouble {
                return End::Trouble(reason);
            }
        }
    }

    fn expired(&self) -> String {
        format!("its lease of {} s at etcd ran out", self.config.lease.as_secs())
    }

    /// Tells of a new view, unless it says that we are out.
    fn follow(&mut self, reading: &Reading) -> Result<(), String> {
        match reading.lease_of(&self.own.name) {
            Some(lease) if Some(lease) == self.lease => {}
            Some(_) => return Err("another agent has entered etcd under its name".to_owned()),
            None => return Err(self.expired()),
        }
        let view = reading.view();
        let parts = |view: &View| (view.hosts.clone(), view.spaces.clone(), view.given_up.clone());
        if parts(&view) != parts(&self.last) {
            self.last = view.clone();
            self.tell(Change::View(view));
        }
        Ok(())
    }

    async fn carry_out(&mut self, store: &mut Store, lease: i64, command: Command) -> Result<(), String> {
        match command {
            Command::Space(space, Some(entry)) => {
                let value = table::json(&entry);
                self.spaces.insert(space, entry);
                store.put(&table::space(space), value, lease).await
            }
            Command::Space(space, None) => {
                self.spaces.remove(&space);
                store.delete(&table::space(space)).await
            }
            Command::Drain { name, is_wanted, answer } => {
                let plan = |reading: &Reading| reading.drain(&name, is_wanted).map(|plan| ((), plan));
                // Whoever asked may have stopped waiting.
                drop(answer.send(store.change(lease, plan).await));
                Ok(())
            }
            Command::GiveUp(space, node) => {
                self.wishes.insert((space, node));
                self.give_up(store).await
            }
            Command::Leave { .. } => Ok(()),
        }
    }

    /// Has hosts of jobs given up that are to be.
    async fn give_up(&mut self, store: &mut Store) -> Result<(), String> {
        while let Some((space, node)) = self.wishes.first().copied() {
            let (own, kept) = (self.me, store.grant(GIVEN_UP_KEPT).await?);
            store.change(kept, |reading| Ok(((), reading.give_up(space, own, node)))).await?;
            self.wishes.remove(&(space, node));
        }
        Ok(())
    }

    async fn leave(&self, store: &mut Store, lease: i64, is_for_good: bool) {
        if is_for_good {
            let name = &self.own.name;
            let plan = |reading: &Reading| match reading.lease_of(name) == Some(lease) {
                true => Ok(((), reading.leave(name))),
                false => Ok(((), Plan::default())),
            };
            // What stays is a dead host, which `drain` forgets.
            drop(store.change(lease, plan).await);
        }
        // Late: it runs out by itself.
        drop(store.revoke(lease).await);
    }

    /// Has the agent end its jobs.
    async fn fence(&mut self, reason: String) {
        self.lease = None;
        let (done, over) = oneshot::channel();
        self.tell(Change::Fenced { reason, done });
        // A job that does not end in time has been named in the log; its peers have ended it long since.
        drop(timeout(FENCE_DEADLINE, over).await);
        self.spaces.clear();
        self.wishes.clear();
    }

    /// Tries until etcd answers; none if we are to leave.
    async fn come_back(&mut self, commands: &mut mpsc::UnboundedReceiver<Command>) -> Option<(Store, i64)> {
        let mut pause = ETCD_PAUSE.0;
        loop {
            let deadline = Instant::now() + pause;
            while let Ok(command) = timeout(deadline.saturating_duration_since(Instant::now()), commands.recv()).await {
                match command? {
                    Command::Space(space, Some(entry)) => drop(self.spaces.insert(space, entry)),
                    Command::Space(space, None) => drop(self.spaces.remove(&space)),
                    Command::GiveUp(space, node) => drop(self.wishes.insert((space, node))),
                    Command::Drain { answer, .. } => drop(answer.send(Err("etcd does not answer; try again".to_owned()))),
                    Command::Leave { answer, .. } => {
                        let _gone = answer.send(());
                        return None;
                    }
                }
            }
            match timeout(JOIN_DEADLINE, self.try_back()).await {
                Ok(Ok(Back::Again(store, revision))) => return Some((*store, revision)),
                Ok(Ok(Back::Fenced(reason))) => self.fence(reason).await,
                Ok(Err(_)) | Err(_) => {}
            }
            pause = (pause * 2).min(ETCD_PAUSE.1);
        }
    }

    /// Goes on with the lease if it still runs; enters again if there is none.
    async fn try_back(&mut self) -> Result<Back, String> {
        let (mut store, lease, reading) = match self.lease {
            Some(lease) => {
                let mut store = Store::connect(&self.config, &self.prefix).await?;
                if !store.is_running(lease).await? {
                    return Ok(Back::Fenced(self.expired()));
                }
                let reading = store.read().await?;
                (store, lease, reading)
            }
            None => {
                let (store, _, reading) = self.enter().await?;
                (store, self.lease.unwrap_or_default(), reading)
            }
        };
        if let Err(reason) = self.follow(&reading) {
            // It is of no use without the key that was taken from it.
            drop(store.revoke(lease).await);
            return Ok(Back::Fenced(reason));
        }
        self.settle(&mut store, lease, &reading).await?;
        self.give_up(&mut store).await?;
        Ok(Back::Again(Box::new(store), reading.revision))
    }

    /// Makes the space table say what has happened while etcd did not hear.
    async fn settle(&self, store: &mut Store, lease: i64, reading: &Reading) -> Result<(), String> {
        let ours: BTreeMap<String, &SpaceEntry> =
            self.spaces.iter().map(|(space, entry)| (table::space(*space), entry)).collect();
        for key in reading.spaces_under(lease).filter(|key| !ours.contains_key(*key)) {
            store.delete(key).await?;
        }
        for (key, entry) in ours.iter().filter(|(key, _)| !reading.rows.contains_key(*key)) {
            store.put(key, table::json(entry), lease).await?;
        }
        Ok(())
    }
}

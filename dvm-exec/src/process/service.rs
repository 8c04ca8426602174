//! The root's service connections: one to the husk of each other host.
//!
//! Owns the broadcast of lost rights, answers about the map, and the pool of connections for threads. Must not touch
//! program memory: members' threads wait for these answers.

use super::agent::Agent;
use super::connection::{Connection, Sender};
use super::husk::{Root, root};
use super::limits;
use super::trace;
use super::vma::{Found, Lookup, Protection};
use super::wire::{Message, Question, Side, SignalOrder};
use dvm_api::local::Purpose;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::mpsc::{self, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Tag of a `Protect` that gives rights instead of taking them, and is not acknowledged.
pub const GRANT_TAG: u64 = 0;
/// Idle connections kept per host.
const POOL_MAX: usize = 256;
/// Kernel threads remembered per host.
const CARRIERS_MAX: usize = 16_384;
/// How long the end of a job waits for a host's figures.
const FIGURES_WAIT: Duration = Duration::from_millis(1500);
/// How long a call of the program waits for what members tell of their hosts.
const TOLD_WAIT: Duration = Duration::from_millis(1000);

/// The husk on another host, as the root sees it.
pub struct Member {
    /// Node number.
    pub node: u16,
    /// Name of the host.
    pub name: String,
    job_key: [u8; 16],
    agent: Arc<Agent>,
    sender: Mutex<Sender>,
    state: Mutex<State>,
    reported: Condvar,
    idle: Mutex<Vec<Connection>>,
}

#[derive(Default)]
struct State {
    tag: u64,
    acknowledgements: BTreeMap<u64, mpsc::Sender<()>>,
    questions: BTreeMap<u64, mpsc::Sender<Vec<u8>>>,
    granted: Granted,
    figures: Option<MemberFigures>,
    /// Thread of the program that ran last on each kernel thread there.
    threads: BTreeMap<i32, i32>,
    is_lost: bool,
}

/// What a member reports at the end.
#[derive(Clone, Debug, Default)]
pub struct MemberFigures {
    /// CPU time there in user mode.
    pub user_ns: u64,
    /// CPU time there in the kernel.
    pub system_ns: u64,
    /// Delegated calls: number, how many, nanoseconds in all.
    pub calls: Vec<(u32, u64, u64)>,
}

/// Ranges a member may have rights on, so that others need no broadcast.
#[derive(Debug, Default)]
pub struct Granted {
    ranges: BTreeMap<u64, u64>,
}

impl Granted {
    /// The member learns rights on `range`.
    pub fn insert(&mut self, range: &Range<u64>) {
        let (mut start, mut end) = (range.start, range.end);
        while let Some((&first, &last)) = self.ranges.range(..=end).next_back() {
            if last < start {
                break;
            }
            self.ranges.remove(&first);
            start = start.min(first);
            end = end.max(last);
        }
        self.ranges.insert(start, end);
    }

    /// Whether the member may have rights on some of `range`.
    pub fn overlaps(&self, range: &Range<u64>) -> bool {
        self.ranges.range(..range.end).next_back().is_some_and(|(_, last)| *last > range.start)
    }

    /// The member has lost all rights on `range`.
    pub fn remove(&mut self, range: &Range<u64>) {
        while let Some((&first, &last)) = self.ranges.range(..range.end).next_back() {
            if last <= range.start {
                break;
            }
            self.ranges.remove(&first);
            if last > range.end {
                self.ranges.insert(range.end, last);
            }
            if first < range.start {
                self.ranges.insert(first, range.start);
                break;
            }
        }
    }
}

impl Member {
    /// Opens the service connection and listens to it on a thread of its own.
    ///
    /// # Errors
    /// What the agent or the connection said.
    pub fn open(agent: &Arc<Agent>, node: u16, name: &str, job_key: [u8; 16]) -> Result<Arc<Self>, String> {
        let socket = agent.connect_husk(node, Purpose::Service)?;
        let connection = Connection::start(socket, &job_key, Side::Root).map_err(|error| error.to_string())?;
        let Connection { sender, mut receiver } = connection;
        let member = Arc::new(Self {
            node,
            name: name.to_owned(),
            job_key,
            agent: Arc::clone(agent),
            sender: Mutex::new(sender),
            state: Mutex::default(),
            reported: Condvar::new(),
            idle: Mutex::default(),
        });
        let listener = Arc::clone(&member);
        let body = move || loop {
            match receiver.receive(None) {
                Ok(message) => listener.handle(message),
                Err(error) => return listener.lose(&format!("its husk: {error}")),
            }
        };
        std::thread::Builder::new().name("service".to_owned()).spawn(body).map_err(|error| error.to_string())?;
        Ok(member)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lose(&self, reason: &str) {
        let mut state = self.lock();
        state.is_lost = true;
        state.acknowledgements.clear();
        state.questions.clear();
        self.reported.notify_all();
        drop(state);
        if let Some(root) = root() {
            root.lose_husk(&self.name, reason);
        }
    }

    fn send(&self, message: &Message) {
        let sent = self.sender.lock().unwrap_or_else(PoisonError::into_inner).send(message);
        if let Err(error) = sent {
            self.lose(&format!("its husk: {error}"));
        }
    }

    fn handle(&self, message: Message) {
        match message {
            Message::MapQuery { address } => self.answer_query(address),
            Message::ProtectDone { tag } => {
                let waiter = self.lock().acknowledgements.remove(&tag);
                if let Some(waiter) = waiter {
                    // One who no longer waits needs no acknowledgement.
                    waiter.send(()).unwrap_or(());
                }
            }
            Message::Told { tag, answer } => {
                let waiter = self.lock().questions.remove(&tag);
                if let Some(waiter) = waiter {
                    // One who no longer waits needs no answer.
                    waiter.send(answer).unwrap_or(());
                }
            }
            Message::Traced { line } => trace::print(&line),
            Message::Figures { user_ns, system_ns, calls, .. } => {
                self.lock().figures = Some(MemberFigures { user_ns, system_ns, calls });
                self.reported.notify_all();
            }
            Message::Carrier { tid, carrier } => {
                let threads = &mut self.lock().threads;
                if threads.len() >= CARRIERS_MAX {
                    threads.clear();
                }
                threads.insert(carrier, tid);
            }
            Message::Exit { status } => self.lose(&format!("its husk ended with status {status}")),
            other => self.lose(&format!("its husk sent {other:?}, which is out of place")),
        }
    }

    /// The answer leaves while the map is locked, so that it cannot overtake a later loss of rights.
    fn answer_query(&self, address: u64) {
        let Some(root) = root() else { return };
        let mut map = root.space.map();
        let found = map.lookup(address);
        if let Some(found) = found.as_ref().filter(|found| found.protection != Protection::NONE) {
            self.lock().granted.insert(&found.range);
        }
        self.send(&map_answer(address, found));
        drop(map);
    }

    /// Tells the member of rights it will need at once, because a thread there has just asked for the memory.
    pub fn grant(&self, address: u64) {
        let Some(root) = root() else { return };
        let mut map = root.space.map();
        let Some(found) = map.lookup(address).filter(|found| found.protection != Protection::NONE) else { return };
        self.lock().granted.insert(&found.range);
        self.send(&Message::Protect { tag: GRANT_TAG, range: found.range, protection: found.protection });
        drop(map);
    }

    /// Sends what `prepare` makes of a new tag, under which it keeps who waits; unless the member is lost or nothing is to be sent.
    fn order(&self, prepare: impl FnOnce(&mut State, u64) -> Option<Message>) -> Option<u64> {
        let mut state = self.lock();
        if state.is_lost {
            return None;
        }
        let tag = state.tag + 1;
        let message = prepare(&mut state, tag)?;
        state.tag = tag;
        drop(state);
        self.send(&message);
        Some(tag)
    }

    fn ask(&self, question: Question) -> Option<(u64, mpsc::Receiver<Vec<u8>>)> {
        let (sender, receiver) = channel();
        let tag = self.order(|state, tag| {
            state.questions.insert(tag, sender);
            Some(Message::Ask { tag, question })
        })?;
        Some((tag, receiver))
    }

    /// Interrupts thread `tid` there.
    pub fn kick(&self, tid: i32, signal: Option<SignalOrder>) {
        self.send(&Message::Kick { tid, signal });
    }

    /// Has thread `tid` there leave for another host.
    pub fn ask_to_move(&self, tid: i32) {
        self.send(&Message::Move { tid });
    }

    /// The thread of the program that ran last on kernel thread `carrier` there.
    pub fn thread_of(&self, carrier: i32) -> Option<i32> {
        self.lock().threads.get(&carrier).copied()
    }

    /// A connection to run a thread over.
    ///
    /// # Errors
    /// What the agent or the connection said.
    pub fn connection(&self) -> Result<Connection, String> {
        if let Some(idle) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop() {
            return Ok(idle);
        }
        let _room = limits::room();
        let socket = self.agent.connect_husk(self.node, Purpose::Thread)?;
        Connection::start(socket, &self.job_key, Side::Root).map_err(|error| error.to_string())
    }

    /// Takes back a connection whose thread has ended.
    pub fn give_back(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < POOL_MAX {
            idle.push(connection);
        }
    }

    /// Asks for this host's figures and waits a moment for them.
    pub fn figures(&self) -> Option<MemberFigures> {
        self.send(&Message::Exit { status: 0 });
        let state = self.lock();
        let waited = self
            .reported
            .wait_timeout_while(state, FIGURES_WAIT, |state| state.figures.is_none() && !state.is_lost)
            .unwrap_or_else(PoisonError::into_inner);
        waited.0.figures.clone()
    }
}

/// Takes rights from pages on every member that may have them; returns when all have done it.
pub fn protect_everywhere(members: &[Arc<Member>], range: &Range<u64>, protection: Protection) {
    acknowledged(members, |state, tag| {
        if !state.granted.overlaps(range) {
            return None;
        }
        if protection == Protection::NONE {
            state.granted.remove(range);
        }
        Some(Message::Protect { tag, range: range.clone(), protection })
    });
}

/// Has every member pass a memory barrier; returns when all have.
pub fn barrier_everywhere(members: &[Arc<Member>]) {
    acknowledged(members, |_, tag| Some(Message::Barrier { tag }));
}

/// Sends each member what `order` makes for it, if anything; returns when all have acknowledged.
fn acknowledged(members: &[Arc<Member>], order: impl Fn(&mut State, u64) -> Option<Message>) {
    let ask = |member: &Arc<Member>| {
        let (sender, receiver) = channel();
        member.order(|state, tag| {
            let message = order(state, tag)?;
            state.acknowledgements.insert(tag, sender);
            Some(message)
        })?;
        Some(receiver)
    };
    let receivers: Vec<_> = members.iter().filter_map(ask).collect();
    for receiver in receivers {
        // A member that is lost acknowledges by its end; the job ends then.
        receiver.recv().unwrap_or(());
    }
}

/// What each of `members` says; an answer that does not come in time is left empty.
pub fn ask(members: &[Arc<Member>], question: Question) -> Vec<Vec<u8>> {
    let asked: Vec<_> = members.iter().map(|member| member.ask(question)).collect();
    let deadline = Instant::now() + TOLD_WAIT;
    let told = asked.into_iter().zip(members).map(|(asked, member)| {
        let Some((tag, receiver)) = asked else { return Vec::new() };
        let left = deadline.saturating_duration_since(Instant::now());
        receiver.recv_timeout(left).unwrap_or_else(|_| {
            member.lock().questions.remove(&tag);
            Vec::new()
        })
    });
    told.collect()
}

/// What a member is told of `address`.
pub fn map_answer(address: u64, found: Option<Lookup>) -> Message {
    match found {
        Some(Lookup { range, protection, found, .. }) => Message::MapAnswer { range, protection, found },
        None => Message::MapAnswer { range: address..address + 1, protection: Protection::NONE, found: Found::Hole },
    }
}

/// The members of the job, for those who need one by host index (from 1).
pub fn of_host(root: &Root, host: usize) -> Option<&Arc<Member>> {
    root.members().get(host.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn granted_ranges_merge_and_split() {
        let mut granted = Granted::default();
        granted.insert(&(10..20));
        granted.insert(&(30..40));
        assert!(granted.overlaps(&(19..25)) && !granted.overlaps(&(20..30)));
        granted.insert(&(15..30));
        assert_eq!(granted.ranges, BTreeMap::from([(10, 40)]));
        granted.remove(&(12..14));
        granted.remove(&(35..50));
        assert_eq!(granted.ranges, BTreeMap::from([(10, 12), (14, 35)]));
        assert!(!granted.overlaps(&(12..14)) && granted.overlaps(&(0..100)));
    }
}

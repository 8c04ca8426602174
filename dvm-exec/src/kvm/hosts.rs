//! The other hosts of a guest, as the root sees them.
//!
//! Owns the job, a connection to each member, and what is under way between them. All that goes from one member to another goes
//! through here: so everything is in one order. Must not know registers or devices.

use super::boot::Shape;
use super::failure::Failure;
use super::figures::Row;
use super::layout;
use super::limits::AGENT_LATEST;
use super::machine::{Elsewhere, Machine};
use super::message::{Access, Message};
use super::part::{self, VIEW};
use super::run::Options;
use crate::exit;
use crate::process::agent::{self, Agent, Opened};
use crate::process::connection::{Connection, Receiver, Sender};
use crate::process::ear::Ear;
use crate::process::jobmemory::map_view;
use crate::process::wire::{Message as Envelope, Side};
use dvm_api::local::{HostStatistics, JobRequest, Purpose, ToAgent, ToHusk};
use dvm_apic::{Identity, Signal};
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// How long members may take until their processors are there.
const READY_LATEST: Duration = Duration::from_secs(30);
/// How long the end waits for a member's figures.
const FIGURES_LATEST: Duration = Duration::from_millis(500);

/// The job of a guest.
pub struct Job {
    agent: Arc<Agent>,
    members: Arc<Members>,
    key: [u8; 16],
}

/// The members of the job.
pub struct Members {
    /// Name of this host.
    root: String,
    /// Members by their place in the job, the root's own left out: 1 is the first.
    members: Vec<Member>,
    renames: Mutex<Renames>,
    /// Questions to hold processors, so far.
    holds: AtomicU64,
    events: mpsc::Sender<(usize, Event)>,
    seen: Mutex<mpsc::Receiver<(usize, Event)>>,
}

struct Member {
    node: u16,
    name: String,
    sender: Mutex<Option<Sender>>,
}

enum Event {
    /// Whether its KVM shadows page tables.
    Ready(bool),
    /// And how many nanoseconds its clock is from the root's at most.
    Figures(Vec<Row>, u64),
    Held(u64),
}

/// What members say of themselves.
#[derive(Default)]
pub struct Told {
    /// What their processors have done.
    pub rows: Vec<Row>,
    /// How many nanoseconds the clock of each is from the root's at most.
    pub clocks: Vec<(String, u64)>,
    /// Those that do not say.
    pub silent: Vec<String>,
}

#[derive(Default)]
struct Renames {
    tag: u64,
    under_way: BTreeMap<u64, Rename>,
}

/// A name that not all members know yet.
struct Rename {
    left: usize,
    asks: Asks,
}

enum Asks {
    /// A processor of the root.
    Root(mpsc::Sender<()>),
    /// One of this member, with its tag.
    Member(usize, u64),
}

impl Job {
    /// Opens the job and maps its memory.
    ///
    /// # Errors
    /// The agent refuses, or this host cannot.
    pub fn open(options: &Options) -> Result<Self, Failure> {
        let agent = Agent::connect(&agent::find_socket(options.socket.as_deref())?)?;
        let program = options.image.display().to_string();
        let request = JobRequest {
            hosts: options.hosts.clone(),
            program,
            has_stages: false,
            has_sketch: false,
            outlives_members: false,
            outlives_root: false,
        };
        let Opened { job, space, device } = agent.open_job(request)?;
        let (view, userfaultfd) = map_view(&space, &device)?;
        // Both are for the life of the process: processors would wake on zeros if the last descriptor were closed.
        let (view, userfaultfd) = (Box::leak(Box::new(view)), Box::leak(Box::new(userfaultfd)));
        agent.hand_over(userfaultfd.as_fd())?;
        for (first, bytes) in layout::pieces(options.mem) {
            let range = VIEW + first..VIEW + first + bytes;
            let opened = view.protect(&range, libc::PROT_READ | libc::PROT_WRITE);
            opened.map_err(|source| Failure::Host { what: "use the space", source, fix: "report it" })?;
        }
        let others = job.members.iter().skip(1);
        let member =
            |member: &dvm_api::local::Member| Member { node: member.node, name: member.name.clone(), sender: Mutex::new(None) };
        let (events, seen) = channel();
        let members = Members {
            root: job.members.first().map_or_else(String::new, |root| root.name.clone()),
            members: others.map(member).collect(),
            renames: Mutex::default(),
            holds: AtomicU64::new(0),
            events,
            seen: Mutex::new(seen),
        };
        Ok(Self { agent: Arc::new(agent), members: Arc::new(members), key: job.job_key })
    }

    /// How many hosts there are, this one with them.
    pub fn hosts(&self) -> usize {
        self.members.members.len() + 1
    }

    /// The members, for who asks them something.
    pub fn members(&self) -> Arc<Members> {
        Arc::clone(&self.members)
    }

    /// The other hosts, for the machine.
    pub fn elsewhere(&self) -> Box<dyn Elsewhere> {
        Box::new(Arc::clone(&self.members))
    }

    /// Makes every member a part of the guest, and has them run as soon as all are there; names those whose KVM shadows page tables.
    ///
    /// # Errors
    /// A member is lost, or cannot.
    pub fn gather(&self, machine: &Arc<Machine>, shape: &Shape) -> Result<Vec<String>, Failure> {
        let (agent, watched, root) = (Arc::clone(&self.agent), Arc::clone(machine), self.members.root.clone());
        part::spawn("agent".to_owned(), move || {
            let error = agent.listen(|packet, _| match packet {
                ToHusk::HostLost { host, reason } => watched.fail(Failure::HostLost { host, reason }),
                _ => watched.fail(exit::Failure::Internal("the agent sent what is out of place".to_owned()).into()),
            });
            watched.fail(exit::Failure::NoAgent(format!("the agent of this host, {root}, is gone: {error}")).into());
        })?;
        for (place, member) in (1..).zip(&self.members.members) {
            let lost = |reason| Failure::HostLost { host: member.name.clone(), reason };
            let socket = self.agent.connect_husk(member.node, Purpose::Service).map_err(lost)?;
            let connection = Connection::start(socket, &self.key, Side::Root).map_err(|error| lost(error.to_string()))?;
            let Connection { sender, receiver } = connection;
            *member.sender() = Some(sender);
            let (members, machine) = (Arc::clone(&self.members), Arc::clone(machine));
            part::spawn(format!("host {place}"), move || members.listen(place, receiver, &machine))?;
            self.members.send(place, &Message::Setup(Shape { here: place as u16, ..shape.clone() }));
        }
        let ready = |event| match event {
            Event::Ready(has_shadows) => Some(has_shadows),
            Event::Figures(..) | Event::Held(_) => None,
        };
        let (ready, silent) = self.members.collect(READY_LATEST, || machine.life.is_over(), ready);
        if !silent.is_empty() {
            machine.fail(Failure::HostLost { host: silent.join(", "), reason: format!("not ready within {READY_LATEST:?}") });
        }
        self.members.send_all(&Message::Run);
        let names = self.members.names();
        Ok(ready.iter().filter(|(_, has_shadows)| **has_shadows).filter_map(|(place, _)| names.get(*place).cloned()).collect())
    }

    /// What the agents have counted for the job, a line for each host; nothing of what an agent does not tell.
    pub fn pages(&self) -> Vec<String> {
        let line = |host: &HostStatistics| {
            let counted = host.counters.iter().filter(|(_, count)| *count > 0);
            counted.fold(format!("host {}", host.host), |line, (name, count)| format!("{line} {name} {count}"))
        };
        self.agent.statistics().unwrap_or_default().iter().map(line).collect()
    }

    /// Ends the job; gives the members' figures if they are wanted.
    pub fn end(&self, has_figures: bool, status: u8) -> Told {
        let figures = if has_figures { self.members.figures(FIGURES_LATEST, || false) } else { Told::default() };
        // An agent that is gone needs not be told.
        self.agent.send(&ToAgent::EndJob { status: i32::from(status) }, &[]).unwrap_or(());
        figures
    }
}

impl Member {
    fn sender(&self) -> MutexGuard<'_, Option<Sender>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Members {
    fn send(&self, place: usize, message: &Message) {
        self.send_or(place, message, &|| {});
    }

    /// Calls `before_wait` if this thread has to wait for that.
    fn send_or(&self, place: usize, message: &Message, before_wait: &dyn Fn()) {
        let Some(member) = place.checked_sub(1).and_then(|index| self.members.get(index)) else { return };
        if let Err(TryLockError::WouldBlock) = member.sender.try_lock() {
            before_wait();
        }
        if let Some(sender) = member.sender().as_mut() {
            // Who listens to a connection that is lost says so.
            sender.send_or(&Envelope::Guest(message.encode()), before_wait).unwrap_or(());
        }
    }

    fn send_all(&self, message: &Message) {
        (1..=self.members.len()).for_each(|place| self.send(place, message));
    }

    /// The thread that listens to member `place`.
    fn listen(&self, place: usize, receiver: Receiver, machine: &Machine) {
        let host = || self.members[place - 1].name.clone();
        let mut ear = Ear::new(receiver);
        let reason = loop {
            match ear.next() {
                Ok(Envelope::Guest(bytes)) => match Message::decode(&bytes) {
                    Ok(Message::Signal(cpu, signal)) => match machine.arrive_by(ear, cpu as usize, signal) {
                        Ok(back) => ear = back,
                        Err(error) => break format!("its husk: {error}"),
                    },
                    Ok(message) => {
                        ear.end_row();
                        self.handle(place, message, machine);
                    }
                    Err(error) => break error.to_string(),
                },
                Ok(other) => break format!("its husk sent {other:?}, which is out of place"),
                Err(error) => break format!("its husk: {error}"),
            }
        };
        // The agent may know better.
        std::thread::sleep(AGENT_LATEST);
        machine.fail(Failure::HostLost { host: host(), reason });
    }

    fn handle(&self, place: usize, message: Message, machine: &Machine) {
        match message {
            Message::EndOfInterrupt(vector) => machine.end_of_interrupt(vector),
            Message::Rename(tag, cpu, identity) => {
                machine.set_identity(cpu as usize, identity);
                self.spread(cpu, identity, Asks::Member(place, tag));
            }
            Message::Renamed(tag) => self.known(tag),
            Message::Access(tag, access) => {
                let (is_there, data) = machine.access(access);
                self.send(place, &Message::Answer(tag, is_there, data));
            }
            Message::AskClock(tag) => self.send(place, &Message::Clock(tag, machine.now().tsc)),
            // At the end nobody may wait any more.
            Message::Ready(has_shadows) => self.events.send((place, Event::Ready(has_shadows))).unwrap_or(()),
            Message::Figures(rows, clock_ns) => self.events.send((place, Event::Figures(rows, clock_ns))).unwrap_or(()),
            Message::Held(tag) => self.events.send((place, Event::Held(tag))).unwrap_or(()),
            Message::Failed(status, reason) => {
                machine.fail(Failure::Elsewhere { host: self.members[place - 1].name.clone(), status, reason });
            }
            // Signals are taken by who listens.
            Message::Setup(_)
            | Message::Signal(..)
            | Message::Run
            | Message::Answer(..)
            | Message::Clock(..)
            | Message::AskFigures
            | Message::Hold(..) => {
                let host = self.members[place - 1].name.clone();
                machine.fail(Failure::HostLost { host, reason: "it sent what only the root may send".to_owned() });
            }
        }
    }

    /// What all members say, as `take` picks it out, and the names of those that do not within `latest` or before it is over.
    fn collect<T>(
        &self,
        latest: Duration,
        is_over: impl Fn() -> bool,
        take: impl Fn(Event) -> Option<T>,
    ) -> (BTreeMap<usize, T>, Vec<String>) {
        const LOOK: Duration = Duration::from_millis(50);
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let end = Instant::now() + latest;
        let mut said = BTreeMap::new();
        while said.len() < self.members.len() && !is_over() && Instant::now() < end {
            if let Ok((place, event)) = seen.recv_timeout(LOOK)
                && let Some(answer) = take(event)
            {
                said.insert(place, answer);
            }
        }
        let silent = (1..).zip(&self.members).filter(|(place, _)| !said.contains_key(place));
        let silent = silent.map(|(_, member)| member.name.clone()).collect();
        (said, silent)
    }

    /// Names of all hosts, the root's first.
    pub fn names(&self) -> Vec<String> {
        std::iter::once(&self.root).chain(self.members.iter().map(|member| &member.name)).cloned().collect()
    }

    /// What members have done.
    pub fn figures(&self, latest: Duration, is_over: impl Fn() -> bool) -> Told {
        self.send_all(&Message::AskFigures);
        let figures = |event| match event {
            Event::Figures(rows, clock_ns) => Some((rows, clock_ns)),
            Event::Ready(_) | Event::Held(_) => None,
        };
        let (said, silent) = self.collect(latest, is_over, figures);
        let mut told = Told { silent, ..Told::default() };
        for (place, (rows, clock_ns)) in said {
            told.rows.extend(rows);
            told.clocks.push((self.members[place - 1].name.clone(), clock_ns));
        }
        told
    }

    /// Has the members hold their processors, or let them go on; gives those that have not.
    pub fn hold(&self, is_wanted: bool, latest: Duration, is_over: impl Fn() -> bool) -> Vec<String> {
        // Relaxed: the number only has to differ from those before.
        let asked = self.holds.fetch_add(1, Ordering::Relaxed) + 1;
        self.send_all(&Message::Hold(asked, is_wanted));
        self.collect(latest, is_over, |event| matches!(event, Event::Held(tag) if tag == asked).then_some(())).1
    }

    fn renames(&self) -> MutexGuard<'_, Renames> {
        self.renames.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells all members but the one that asks.
    fn spread(&self, cpu: u32, identity: Identity, asks: Asks) {
        let asking = match asks {
            Asks::Member(place, _) => place,
            Asks::Root(_) => 0,
        };
        let told: Vec<_> = (1..=self.members.len()).filter(|place| *place != asking).collect();
        let mut renames = self.renames();
        renames.tag += 1;
        let tag = renames.tag;
        renames.under_way.insert(tag, Rename { left: told.len() + 1, asks });
        drop(renames);
        for place in told {
            self.send(place, &Message::Rename(tag, cpu, identity));
        }
        self.known(tag);
    }

    /// One more knows.
    fn known(&self, tag: u64) {
        let mut renames = self.renames();
        let Some(rename) = renames.under_way.get_mut(&tag) else { return };
        rename.left -= 1;
        if rename.left > 0 {
            return;
        }
        let done = renames.under_way.remove(&tag);
        drop(renames);
        match done.map(|rename| rename.asks) {
            // One who no longer waits needs no answer.
            Some(Asks::Root(waiter)) => waiter.send(()).unwrap_or(()),
            Some(Asks::Member(place, tag)) => self.send(place, &Message::Renamed(tag)),
            None => {}
        }
    }
}

impl Elsewhere for Arc<Members> {
    fn deliver(&self, cpu: usize, host: u16, signal: Signal, before_wait: &dyn Fn()) {
        self.send_or(usize::from(host), &Message::Signal(cpu as u32, signal), before_wait);
    }

    fn rename(&self, cpu: usize, identity: Identity) {
        const LATEST: Duration = Duration::from_secs(5);
        let (sender, known) = channel();
        self.spread(cpu as u32, identity, Asks::Root(sender));
        // A member that does not answer is lost, and the guest with it.
        known.recv_timeout(LATEST).unwrap_or(());
    }

    fn end_of_interrupt(&self, _vector: u8) {}

    fn access(&self, _access: Access) -> (bool, Vec<u8>) {
        (false, Vec::new())
    }
}

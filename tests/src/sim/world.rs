//! One run: the agenda, and what each event does to hosts, network and threads.
//!
//! Owns the virtual clock. Must not decide what is right: see `checker`; frames: `network`; accesses: `program`.

use super::checker::{Truth, check_single_writer};
use super::fast::Fast;
use super::host::{Host, Thread};
use super::kernel::Arrival;
use super::memory::coming_by;
use super::pager::Stamp;
use super::plan::{Plan, Weather};
use super::rng::Rng;
use super::verdicts::{Count, Verdicts};
use dsm_proto::plant::{self, Plant};
use dsm_proto::{Event, FaultKind, OpId, OpResult, PageOp, limits};
use dsm_wire::{Epoch, Header, Kind, Line, Message, NodeId, PageNumber, PageRange};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;

/// Virtual time after healing within which everything must be over.
const LIVENESS_NS: u64 = 30_000_000_000;
pub(super) const FIRST_EPOCH: Epoch = Epoch(1);
/// While a host is dead and not everybody knows it, copies of what it was home of live on for a while.
const MOURNING_NS: u64 = 200_000_000;
const TRAIL_MAX: usize = 1_000_000;

/// A bug planted for the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// In the protocol.
    Protocol(Plant),
    /// In the driver: frames of a restarted host count as those of the one before.
    StaleRestart,
    /// In the driver: what is handed over for good is published in the era that begins, as if nobody wrote to it.
    PublishWhileGranted,
    /// In the programs: a reader is served without a second look at the directory word.
    ServeWithoutSecondLook,
    /// In the programs: a reader is served or forwarded that was not entered into the directory.
    ForwardWithoutEntry,
    /// In the programs: a page is sent without a look whether it is still the one that was granted.
    SendWithoutThirdLook,
    /// In the programs: whom to tell to drop a page is looked up before the page is locked.
    ReadersBeforeLock,
}

impl Sabotage {
    const OWN: [Sabotage; 6] = [
        Sabotage::StaleRestart,
        Sabotage::PublishWhileGranted,
        Sabotage::ServeWithoutSecondLook,
        Sabotage::ForwardWithoutEntry,
        Sabotage::SendWithoutThirdLook,
        Sabotage::ReadersBeforeLock,
    ];

    /// Every bug that can be planted.
    pub fn all() -> impl Iterator<Item = Sabotage> {
        Plant::ALL.into_iter().map(Sabotage::Protocol).chain(Self::OWN)
    }
}

impl fmt::Display for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sabotage::Protocol(plant) => write!(f, "{plant:?}"),
            Sabotage::StaleRestart
            | Sabotage::PublishWhileGranted
            | Sabotage::ServeWithoutSecondLook
            | Sabotage::ForwardWithoutEntry
            | Sabotage::SendWithoutThirdLook
            | Sabotage::ReadersBeforeLock => {
                write!(f, "{self:?}")
            }
        }
    }
}

/// What a run that passed showed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Hash of every event in order.
    pub trace_hash: u64,
    /// Events.
    pub events: u64,
    /// Accesses made.
    pub accesses: u64,
    /// Frames sent.
    pub frames: u64,
    /// Threads that died of a lost page.
    pub killed: u64,
    /// Discards carried out.
    pub discards: u64,
    /// Virtual nanoseconds.
    pub elapsed_ns: u64,
    /// Counters of all nodes that lived to the end, added up, in their order.
    pub counters: Vec<u64>,
    /// Extents split into words, at their homes and at those who use them.
    pub extents_split: u64,
    /// Extents in use.
    pub extents: u64,
    /// What the kernel programs did.
    pub verdicts: Verdicts,
    /// The hosts together had too little memory, and one of them said so.
    pub is_exhausted: bool,
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What a checker saw.
    pub reason: String,
    /// When, in virtual nanoseconds.
    pub at_ns: u64,
    /// The last events.
    pub trail: Vec<String>,
}

#[derive(Clone, Debug)]
pub(super) enum Happening {
    Deliver { to: usize, from: usize, incarnation: u64, header: Header, stamps: Vec<Stamp> },
    Fault { host: usize, page: PageNumber, kind: FaultKind },
    Effect { host: usize, op: OpId, work: PageOp, rest_ns: u64 },
    Done { host: usize, op: OpId, result: OpResult },
    Step { host: usize, thread: usize },
    Timer { host: usize },
    Partition { until_ns: u64, group: u64 },
    Open { host: usize, token: u64 },
    Crash,
    Bury { host: usize, dead: usize },
    Restart { host: usize },
    Program { host: usize, run: u64 },
    PictureTaken { host: usize },
}

#[derive(Debug)]
pub(super) struct Due {
    at: u64,
    order: u64,
    incarnation: u64,
    what: Happening,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.order) == (other.at, other.order)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// A discard on its way: pages are closed to threads, then forgotten, then open again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closing {
    pub(super) host: usize,
    pub(super) range: PageRange,
    pub(super) is_sent: bool,
}

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) sabotage: Option<Sabotage>,
    pub(super) now: u64,
    pub(super) agenda: BinaryHeap<Reverse<Due>>,
    pub(super) order: u64,
    pub(super) hosts: Vec<Host>,
    pub(super) truth: Truth,
    pub(super) network: Rng,
    /// Chance of pictures.
    pub(super) pictures: Rng,
    pub(super) partition: Option<(u64, u64)>,
    pub(super) mourning_until: u64,
    pub(super) closings: BTreeMap<u64, Closing>,
    pub(super) token_last: u64,
    pub(super) outcome: Outcome,
    pub(super) trail: std::collections::VecDeque<String>,
    pub(super) keeps_trail: bool,
}

/// Runs `plan` to its end.
///
/// # Errors
/// [`Failure`] when a checker saw what may never happen.
pub fn run(plan: &Plan, sabotage: Option<Sabotage>, keeps_trail: bool) -> Result<Outcome, Failure> {
    plant::set(match sabotage {
        Some(Sabotage::Protocol(plant)) => Some(plant),
        Some(
            Sabotage::StaleRestart
            | Sabotage::PublishWhileGranted
            | Sabotage::ServeWithoutSecondLook
            | Sabotage::ForwardWithoutEntry
            | Sabotage::SendWithoutThirdLook
            | Sabotage::ReadersBeforeLock,
        )
        | None => None,
    });
    let mut world = World::new(plan.clone(), sabotage, keeps_trail);
    let result = world.run();
    plant::set(None);
    match result {
        Ok(()) => Ok(world.outcome),
        Err(reason) => Err(Failure { reason, at_ns: world.now, trail: world.trail.into_iter().collect() }),
    }
}

impl World {
    fn new(plan: Plan, sabotage: Option<Sabotage>, keeps_trail: bool) -> Self {
        let mut rng = Rng::new(plan.seed ^ 0x5eed);
        let mut hosts: Vec<Host> = (0..plan.nodes).map(|node| new_host(node, &plan, &mut rng)).collect();
        for (index, host) in hosts.iter_mut().enumerate() {
            host.set_fast(new_fast(index, &plan, sabotage, Some(0)));
        }
        Self {
            network: Rng::new(rng.draw()),
            pictures: Rng::new(plan.seed ^ 0x9147),
            plan,
            sabotage,
            now: 0,
            agenda: BinaryHeap::new(),
            order: 0,
            hosts,
            truth: Truth::default(),
            partition: None,
            mourning_until: 0,
            closings: BTreeMap::new(),
            token_last: 0,
            outcome: Outcome { trace_hash: 0xcbf2_9ce4_8422_2325, ..Outcome::default() },
            trail: std::collections::VecDeque::new(),
            keeps_trail,
        }
    }

    fn run(&mut self) -> Result<(), String> {
        for host in 0..self.hosts.len() {
            for thread in 0..self.hosts[host].threads.len() {
                let at = self.network.below(100_000);
                self.plan_at(at, host, Happening::Step { host, thread });
            }
        }
        if let Some(crash) = self.plan.crash {
            self.plan_at(crash.at_ns, crash.host, Happening::Crash);
        }
        self.plan_partition();
        if self.plan.is_sourced {
            self.source_all()?;
        }
        while let Some(Reverse(due)) = self.agenda.pop() {
            if due.at > self.plan.heal_ns + LIVENESS_NS {
                break;
            }
            self.now = due.at;
            let host = subject(&due.what, self.plan.crash.map_or(0, |crash| crash.host));
            if due.incarnation != self.hosts[host].incarnation && !self.is_stale_taken(&due.what) {
                continue;
            }
            self.note(&due.what);
            self.happen(due.what)?;
            if self.outcome.is_exhausted {
                self.add_up();
                return Ok(());
            }
        }
        self.add_up();
        self.check_rest()
    }

    fn add_up(&mut self) {
        for host in self.hosts.iter().filter(|host| !host.is_fenced) {
            let counters = host.node.stats().iter().map(|(_, value)| value);
            self.outcome.counters.resize(host.node.stats().iter().count(), 0);
            self.outcome.counters.iter_mut().zip(counters).for_each(|(sum, value)| *sum += value);
            self.outcome.extents_split += host.node.tables().extents_split as u64;
            self.outcome.extents += host.node.stats().extents_homed;
        }
    }

    fn is_stale_taken(&self, what: &Happening) -> bool {
        self.sabotage == Some(Sabotage::StaleRestart) && matches!(what, Happening::Deliver { .. })
    }

    pub(super) fn weather(&self) -> Weather {
        if self.now < self.plan.heal_ns {
            self.plan.weather
        } else {
            Weather {
                delay_ns_min: self.plan.weather.delay_ns_min,
                delay_ns_max: self.plan.weather.delay_ns_max,
                ..Weather::fine()
            }
        }
    }

    pub(super) fn plan_at(&mut self, at: u64, host: usize, what: Happening) {
        self.order += 1;
        self.agenda.push(Reverse(Due { at, order: self.order, incarnation: self.hosts[host].incarnation, what }));
    }

    fn note(&mut self, what: &Happening) {
        self.outcome.events += 1;
        self.outcome.elapsed_ns = self.now;
        let text_hash = hash_of(what);
        self.outcome.trace_hash = (self.outcome.trace_hash ^ self.now ^ text_hash.rotate_left(17)).wrapping_mul(0x0100_0000_01b3);
        if self.keeps_trail {
            let text = match what {
                Happening::Deliver { to, from, header, stamps, .. } => {
                    let message = Kind::from_wire(header.kind).and_then(|kind| Message::decode(header, kind).ok());
                    format!("{} {from} -> {to} epoch {} {message:?} {stamps:?}", self.now, header.epoch.get())
                }
                other => format!("{} {other:?}", self.now),
            };
            self.note_text(text);
        }
    }

    pub(super) fn note_text(&mut self, text: String) {
        if self.keeps_trail {
            self.trail.push_back(text);
            if self.trail.len() > TRAIL_MAX {
                self.trail.pop_front();
            }
        }
    }

    pub(super) fn note_text_with(&mut self, text: impl FnOnce(u64) -> String) {
        if self.keeps_trail {
            self.note_text(text(self.now));
        }
    }

    fn happen(&mut self, what: Happening) -> Result<(), String> {
        match what {
            Happening::Deliver { to, from, incarnation, header, stamps } => {
                self.deliver(to, Arrival { from, incarnation, header, stamps })
            }
            Happening::Program { host, run } => self.resume(host, run),
            Happening::Fault { host, page, kind } => {
                // Half of the pages are shared truly, half because they are one page.
                let line = Line((page.0 % 2 * host as u64 % u64::from(Line::COUNT)) as u8);
                self.call(host, |node, now| node.handle_fault(now, page, kind, line))?;
                self.drain(host)
            }
            Happening::Effect { host, op, work, rest_ns } => self.effect(host, op, &work, rest_ns),
            Happening::Done { host, op, result } => {
                self.call(host, |node, now| node.handle_page_done(now, op, result))?;
                self.drain(host)
            }
            Happening::Step { host, thread } => self.step(host, thread),
            Happening::Timer { host } => {
                self.hosts[host].timer = None;
                self.call(host, |node, now| node.handle_timeout(now))?;
                self.drain(host)
            }
            Happening::Partition { until_ns, group } => {
                self.partition = Some((until_ns, group));
                self.plan_partition();
                Ok(())
            }
            Happening::Open { token, .. } => {
                self.open(token);
                Ok(())
            }
            Happening::Crash => {
                self.crash();
                Ok(())
            }
            Happening::Bury { host, dead } => self.bury(host, dead),
            Happening::Restart { host } => {
                self.restart(host);
                Ok(())
            }
            Happening::PictureTaken { host } => self.end_picture(host),
        }
    }

    /// Carries out everything the node of `host` wants done, as a driver does.
    pub(super) fn drain(&mut self, host: usize) -> Result<(), String> {
        self.drain_once(host)?;
        if let Some(plan) = self.plan.memory {
            self.tell_memory(host, plan)?;
            self.drain_once(host)?;
        }
        if let Some(fast) = &self.hosts[host].fast {
            fast.live(self.now);
        }
        self.set_timer(host);
        self.check_tables(host)
    }

    pub(super) fn drain_once(&mut self, host: usize) -> Result<(), String> {
        while let Some((op, work)) = self.hosts[host].node.poll_page_op() {
            self.begin(host, op, work);
        }
        while let Some(transmit) = self.hosts[host].node.poll_transmit() {
            self.transmit(host, &transmit)?;
        }
        while let Some(event) = self.hosts[host].node.poll_event() {
            match event {
                Event::FreeBuffer(buffer) => self.hosts[host].pager.free(buffer)?,
                Event::DiscardDone { token } => {
                    let at = self.now.max(self.mourning_until);
                    self.plan_at(at, host, Happening::Open { host, token });
                }
                Event::PageLost { page } if self.plan.crash.is_none() => {
                    return Err(format!("page {page} is lost without a crash"));
                }
                Event::DirectoryOpened(extent) => {
                    let Host { fast, node, .. } = &mut self.hosts[host];
                    if fast.as_mut().is_some_and(|fast| fast.open(node, extent)) {
                        self.outcome.verdicts.add(Count::Shared);
                    }
                }
                Event::DirectoryClosed(extent) => {
                    if let Some(fast) = &mut self.hosts[host].fast {
                        fast.close(extent);
                    }
                }
                Event::Pinned { page } => self.on_pinned(host, page)?,
                Event::MemoryExhausted if self.is_short() => self.outcome.is_exhausted = true,
                Event::MemoryExhausted => return Err(format!("host {host} finds no room, though there is some")),
                Event::FaultResolved { .. } | Event::PageLost { .. } => {}
            }
        }
        Ok(())
    }

    fn set_timer(&mut self, host: usize) {
        let wanted = self.hosts[host].node.poll_timeout();
        let armed = self.hosts[host].timer;
        if let Some(wanted) = wanted.filter(|wanted| armed.is_none_or(|armed| *wanted < armed)) {
            self.hosts[host].timer = Some(wanted);
            self.plan_at(wanted.0.max(self.now + 1), host, Happening::Timer { host });
        }
    }

    fn begin(&mut self, host: usize, op: OpId, work: PageOp) {
        let weather = self.weather();
        let rng = &mut self.hosts[host].rng;
        let slow = if rng.chance(weather.slow_operations) { rng.below(20_000_000) } else { 0 };
        self.hosts[host].coming += coming_by(&work, &self.hosts[host].pager);
        let rng = &mut self.hosts[host].rng;
        let begin_ns = rng.below(weather.operation_ns_max) + slow;
        let rest_ns = rng.below(weather.operation_ns_max);
        self.plan_at(self.now + begin_ns, host, Happening::Effect { host, op, work, rest_ns });
    }

    fn effect(&mut self, host: usize, op: OpId, work: &PageOp, rest_ns: u64) -> Result<(), String> {
        self.hosts[host].coming -= coming_by(work, &self.hosts[host].pager);
        let (result, woken) = self.hosts[host].pager.carry_out(work).map_err(|reason| format!("host {host}: {reason}"))?;
        self.check_memory(host)?;
        for page in work.range().pages() {
            self.check_page(page)?;
        }
        if let Some(range) = woken {
            self.wake(host, range);
        }
        self.plan_at(self.now + rest_ns, host, Happening::Done { host, op, result });
        Ok(())
    }

    fn wake(&mut self, host: usize, range: PageRange) {
        let mut woken = Vec::new();
        self.hosts[host].pager.parked.retain(|(thread, page, _)| {
            let is_woken = range.contains(*page);
            if is_woken {
                woken.push(*thread);
            }
            !is_woken
        });
        for thread in woken {
            let at = self.now + self.network.between(1, 3_000);
            self.plan_at(at, host, Happening::Step { host, thread });
        }
    }

    fn crash(&mut self) {
        let Some(crash) = self.plan.crash else { return };
        let host = &mut self.hosts[crash.host];
        host.is_up = false;
        host.incarnation += 1;
        host.timer = None;
        host.pager = super::pager::Pager::default();
        host.threads.clear();
        host.fast = None;
        host.picture = super::picture::Picture::default();
        host.is_fenced = true;
        self.mourning_until = self.now + crash.lease_ns + MOURNING_NS;
        for other in (0..self.hosts.len()).filter(|other| *other != crash.host) {
            let at = self.now + crash.lease_ns + self.network.below(5_000_000);
            self.plan_at(at, other, Happening::Bury { host: other, dead: crash.host });
        }
        if crash.restart_after_ns > 0 {
            let is_stale = self.sabotage == Some(Sabotage::StaleRestart);
            let after = if is_stale { crash.lease_ns / 4 } else { crash.restart_after_ns };
            self.plan_at(self.now + after, crash.host, Happening::Restart { host: crash.host });
        }
    }

    fn bury(&mut self, host: usize, dead: usize) -> Result<(), String> {
        if self.sabotage == Some(Sabotage::StaleRestart) && self.hosts[dead].is_up {
            return Ok(());
        }
        let members: Vec<NodeId> =
            (0..self.hosts.len()).filter(|other| *other != dead).map(|other| self.plan.node_of(other)).collect();
        let epoch = Epoch(FIRST_EPOCH.0 + 1);
        self.hosts[host].epoch = epoch;
        if let Some(fast) = &self.hosts[host].fast {
            fast.enter_epoch(epoch, Some(self.plan.node_of(dead)));
        }
        self.call(host, |node, now| node.handle_membership(now, epoch, &members))?;
        self.drain(host)?;
        let is_last = members.iter().all(|node| self.hosts[self.plan.host_of(*node)].epoch != FIRST_EPOCH);
        if is_last {
            // Nobody takes a frame of the dead any more: what it was about to give back, another gives back.
            let inherited = self.closings.values_mut().filter(|closing| closing.host == dead);
            inherited.for_each(|closing| *closing = Closing { host, is_sent: false, ..*closing });
            self.send_closings()?;
        }
        Ok(())
    }

    fn restart(&mut self, host: usize) {
        let mut rng = Rng::new(self.plan.seed ^ 0xdead ^ self.now);
        let incarnation = self.hosts[host].incarnation;
        self.hosts[host] = new_host(host as u64, &self.plan, &mut rng);
        self.hosts[host].incarnation = incarnation;
        let is_stale = self.sabotage == Some(Sabotage::StaleRestart);
        self.hosts[host].is_fenced = !is_stale;
        // It has no session with anybody; but if it passes for the one it was, all of them.
        let fast = new_fast(host, &self.plan, self.sabotage, is_stale.then_some(0));
        self.hosts[host].set_fast(fast);
        for thread in 0..self.hosts[host].threads.len() {
            self.plan_at(self.now + 1_000, host, Happening::Step { host, thread });
        }
    }

    pub(super) fn check_page(&self, page: PageNumber) -> Result<(), String> {
        let living = self.hosts.iter().enumerate().filter(|(_, host)| !host.is_fenced);
        check_single_writer(page, living.map(|(index, host)| (index, &host.pager)))
    }

    fn check_tables(&self, host: usize) -> Result<(), String> {
        let tables = self.hosts[host].node.tables();
        let is_within = tables.transients <= limits::TRANSIENTS_MAX && tables.operations <= limits::OPS_MAX;
        if is_within { Ok(()) } else { Err(format!("host {host} is above a limit: {tables:?}")) }
    }

    /// When nothing happens any more: everybody got through, and nothing is left in flight.
    fn check_rest(&self) -> Result<(), String> {
        for (index, host) in self.hosts.iter().enumerate().filter(|(_, host)| !host.is_fenced) {
            if let Some(thread) = host.threads.iter().find(|thread| thread.left > 0) {
                return Err(format!("host {index} hangs at {:?}, parked {:?}", thread.access, host.pager.parked));
            }
            let tables = host.node.tables();
            let in_flight = tables.transients
                + tables.operations
                + tables.searches
                + tables.discards
                + tables.jobs
                + tables.evictions
                + tables.pins;
            if in_flight > 0 || host.pager.buffers_in_use() > 0 {
                return Err(format!("host {index} is not at rest: {tables:?}, {} buffers", host.pager.buffers_in_use()));
            }
        }
        Ok(())
    }
}

fn new_host(node: u64, plan: &Plan, rng: &mut Rng) -> Host {
    let threads = (0..plan.threads)
        .map(|_| Thread { rng: Rng::new(rng.draw()), left: plan.accesses, access: None, scan: 0, scan_kind: FaultKind::Read })
        .collect();
    let members = (0..plan.nodes as usize).map(|host| plan.node_of(host)).collect();
    Host::new(plan.node_of(node as usize), members, FIRST_EPOCH, threads, Rng::new(rng.draw()))
}

/// What the host shares with its programs, if it has any; `salt`: whose sessions it has.
fn new_fast(host: usize, plan: &Plan, sabotage: Option<Sabotage>, salt: Option<u64>) -> Option<Fast> {
    let members: Vec<NodeId> = (0..plan.nodes as usize).map(|host| plan.node_of(host)).collect();
    plan.fast.is_on(host).then(|| {
        let rng = Rng::new(plan.seed ^ 0xfa57 ^ (host as u64 + 1) << 32);
        let mut fast = Fast::new(plan.node_of(host), FIRST_EPOCH, &members, salt, &plan.fast, rng);
        fast.shared.sabotage = sabotage;
        fast
    })
}

/// The host an event happens at.
fn subject(what: &Happening, crashing: usize) -> usize {
    match what {
        Happening::Deliver { to, .. } => *to,
        Happening::Fault { host, .. }
        | Happening::Effect { host, .. }
        | Happening::Done { host, .. }
        | Happening::Step { host, .. }
        | Happening::Timer { host }
        | Happening::Open { host, .. }
        | Happening::Bury { host, .. }
        | Happening::Restart { host }
        | Happening::PictureTaken { host }
        | Happening::Program { host, .. } => *host,
        Happening::Partition { .. } => 0,
        Happening::Crash => crashing,
    }
}

fn hash_of(what: &Happening) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    std::mem::discriminant(what).hash(&mut hasher);
    match what {
        Happening::Deliver { to, from, header, stamps, .. } => {
            (to, from, header.kind, header.flags.get(), header.page.get(), header.request.get(), stamps).hash(&mut hasher);
        }
        Happening::Fault { host, page, kind } => (host, page, kind).hash(&mut hasher),
        Happening::Effect { host, op, .. } | Happening::Done { host, op, .. } => (host, op).hash(&mut hasher),
        Happening::Step { host, thread } => (host, thread).hash(&mut hasher),
        Happening::Timer { host } | Happening::Restart { host } | Happening::PictureTaken { host } => host.hash(&mut hasher),
        Happening::Partition { until_ns, group } => (until_ns, group).hash(&mut hasher),
        Happening::Crash => {}
        Happening::Open { host, token } => (host, token).hash(&mut hasher),
        Happening::Bury { host, dead } => (host, dead).hash(&mut hasher),
        Happening::Program { host, run } => (host, run).hash(&mut hasher),
    }
    hasher.finish()
}

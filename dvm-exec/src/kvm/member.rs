//! A member's part of a guest, in a husk that would otherwise host threads of a program.
//!
//! Owns what is under way to the root. Must not know devices: they are at the root.

use super::boot::{self, Shape};
use super::failure::Failure;
use super::layout;
use super::limits::HELD_LATEST;
use super::machine::{Elsewhere, Machine};
use super::message::{Access, Message};
use super::part::{self, Part, VIEW};
use super::pvclock::{COMPARED_NS, Compared, Follower};
use super::rate::Counter;
use super::setup::{self, Board, Kind};
use crate::process::connection::ConnectionError;
use crate::process::ear::Ear;
use crate::process::memberhusk::MemberHusk;
use crate::process::wire::Message as Envelope;
use crate::sys::vm::{self, timestamp};
use dvm_apic::{Identity, Signal};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// How often the root is asked for the time; the quickest answer counts.
const CLOCK_ASKED: usize = 16;
/// Likewise, each time the clocks are compared while the guest runs.
const CLOCK_COMPARED: usize = 4;
/// Counters nearer to each other than this are taken to be one: a machine's own are, and a shift would only add an error.
const SKEW_US: u64 = 50;
/// Longest wait for an answer of the root: a root that is gone ends this husk sooner.
const ANSWER_LATEST: Duration = Duration::from_secs(30);

static MACHINE: OnceLock<Arc<Machine>> = OnceLock::new();
/// How many nanoseconds this host's clock was from the root's at most when they were last compared.
static CLOCK_NS: AtomicU64 = AtomicU64::new(0);
static ROOT: Root = Root { waiting: Mutex::new(Waiting { tag: 0, answers: BTreeMap::new() }), husk: OnceLock::new() };

struct Root {
    waiting: Mutex<Waiting>,
    husk: OnceLock<&'static MemberHusk>,
}

struct Waiting {
    tag: u64,
    answers: BTreeMap<u64, mpsc::Sender<Message>>,
}

/// What the root says, on the thread that listens to it: nothing here may wait for the root.
///
/// # Errors
/// The connection's, from a processor that listened meanwhile.
pub fn handle(husk: &'static MemberHusk, bytes: &[u8], mut ear: Ear) -> Result<Ear, ConnectionError> {
    ROOT.husk.get_or_init(|| husk);
    let message = match Message::decode(bytes) {
        Ok(message) => message,
        Err(error) => husk.fail(&error.to_string()),
    };
    let Message::Signal(cpu, signal) = message else {
        ear.end_row();
        obey(husk, message);
        return Ok(ear);
    };
    match MACHINE.get() {
        Some(machine) => machine.arrive_by(ear, cpu as usize, signal),
        None => husk.fail("the root sent an interrupt before there was a guest"),
    }
}

fn obey(husk: &'static MemberHusk, message: Message) {
    if let Message::Renamed(tag) | Message::Answer(tag, ..) | Message::Clock(tag, _) = message {
        return ROOT.answer(tag, message);
    }
    match (message, MACHINE.get()) {
        (Message::Setup(shape), None) => {
            let body = move || {
                let ended = take_part(husk, shape);
                ROOT.tell(&Message::Failed(ended.status(), ended.to_string()));
            };
            if let Err(failure) = part::spawn("guest".to_owned(), body) {
                husk.fail(&failure.to_string());
            }
        }
        (Message::Run, Some(machine)) => drop(machine.life.run()),
        (Message::Rename(tag, cpu, identity), Some(machine)) => {
            machine.set_identity(cpu as usize, identity);
            ROOT.tell(&Message::Renamed(tag));
        }
        (Message::AskFigures, Some(machine)) => {
            // Relaxed: a figure publishes nothing.
            ROOT.tell(&Message::Figures(machine.figures(), CLOCK_NS.load(Ordering::Relaxed)));
        }
        (Message::Hold(tag, true), Some(machine)) => hold(husk, machine, tag),
        (Message::Hold(tag, false), Some(machine)) => {
            machine.resume();
            ROOT.tell(&Message::Held(tag));
        }
        (other, _) => husk.fail(&format!("the root sent {other:?}, which is out of place")),
    }
}

/// Holds the processors and says so as soon as they are held: one may still wait for an answer that this thread has to hear.
fn hold(husk: &'static MemberHusk, machine: &'static Machine, tag: u64) {
    machine.pause();
    let body = move || {
        if machine.wait_for_held(HELD_LATEST) {
            ROOT.tell(&Message::Held(tag));
        }
    };
    if let Err(failure) = part::spawn("hold".to_owned(), body) {
        husk.fail(&failure.to_string());
    }
}

/// Makes this host's part and waits for what ends it here.
fn take_part(husk: &'static MemberHusk, mut shape: Shape) -> Failure {
    match make(husk, &mut shape) {
        Ok(machine) => {
            MACHINE.get_or_init(|| Arc::clone(&machine));
            ROOT.tell(&Message::Ready(setup::has_shadow_tables()));
            match machine.life.wait_for_end() {
                Err(failure) => failure,
                Ok(status) => Failure::Settings(format!("the guest ended with {status} where it has no devices")),
            }
        }
        Err(failure) => failure,
    }
}

fn make(husk: &'static MemberHusk, shape: &mut Shape) -> Result<Arc<Machine>, Failure> {
    for (first, bytes) in layout::pieces(shape.bytes) {
        let opened = husk.open(&(VIEW + first..VIEW + first + bytes));
        opened.map_err(|source| Failure::Host { what: "use the space", source, fix: "report it" })?;
    }
    let memory = part::memory(shape.bytes, true)?.all;
    let board = Board::new(memory, Kind::Ours)?;
    let part = Part::make(&board, shape)?;
    boot::prepare_private(memory, shape).map_err(Failure::Settings)?;
    let machine = Arc::new(Machine::new(shape, None, Some(Box::new(&ROOT))));
    if let Ok(first) = part.first() {
        let factor = part.match_rate(&board, shape.tsc_khz)?;
        let counter = Counter { factor, offset: vm::tsc_offset(first) };
        let offset = shift(counter, shape.tsc_khz);
        if let Some(offset) = offset {
            part.set_tsc_offset(offset)?;
        }
        machine.set_counter(Counter { offset: offset.unwrap_or(counter.offset), ..counter });
    }
    part.start(&machine, None, false)?;
    let clock = Arc::clone(&machine);
    part::spawn("compare".to_owned(), move || follow(&clock))?;
    Ok(machine)
}

/// The thread that keeps this host's clock near the root's.
fn follow(machine: &Machine) {
    let start = machine.scale();
    let mut follower = Follower::new(start);
    while !machine.life.is_over() {
        let compare = || {
            let before = machine.now().tsc;
            let answer = ROOT.ask(Message::AskClock);
            let after = machine.now().tsc;
            match answer {
                Some(Message::Clock(_, there)) => Some(Compared { before, after, ns_there: start.ns(there) }),
                _ => None,
            }
        };
        let quickest = (0..CLOCK_COMPARED).filter_map(|_| compare()).min_by_key(|compared| compared.after - compared.before);
        if let Some(scale) = quickest.and_then(|compared| follower.handle_compared(compared)) {
            machine.set_scale(scale);
        }
        CLOCK_NS.store(follower.error_ns, Ordering::Relaxed);
        std::thread::sleep(Duration::from_nanos(COMPARED_NS));
    }
}

/// What is to be added to this host's counter, after its factor, to have the root's; none if they are one already.
fn shift(counter: Counter, tsc_khz: u64) -> Option<u64> {
    let ask = || {
        let before = timestamp();
        let answer = ROOT.ask(Message::AskClock);
        let after = timestamp();
        match answer {
            Some(Message::Clock(_, there)) => {
                let between = counter.factor.ticks(before + (after - before) / 2);
                Some((after - before, there.wrapping_sub(between)))
            }
            _ => None,
        }
    };
    let (_, wanted) = (0..CLOCK_ASKED).filter_map(|_| ask()).min_by_key(|(round, _)| *round)?;
    let skew = (wanted.wrapping_sub(counter.offset) as i64).unsigned_abs();
    (skew > SKEW_US * tsc_khz / 1000).then_some(wanted)
}

impl Root {
    fn tell(&self, message: &Message) {
        self.tell_or(message, &|| {});
    }

    fn tell_or(&self, message: &Message, before_wait: &dyn Fn()) {
        if let Some(husk) = self.husk.get() {
            husk.tell_or(&Envelope::Guest(message.encode()), before_wait);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, question: impl FnOnce(u64) -> Message) -> Option<Message> {
        let (sender, receiver) = channel();
        let mut waiting = self.waiting();
        waiting.tag += 1;
        let tag = waiting.tag;
        waiting.answers.insert(tag, sender);
        drop(waiting);
        self.tell(&question(tag));
        receiver.recv_timeout(ANSWER_LATEST).ok()
    }

    fn answer(&self, tag: u64, message: Message) {
        let waiter = self.waiting().answers.remove(&tag);
        if let Some(waiter) = waiter {
            // One who no longer waits needs no answer.
            waiter.send(message).unwrap_or(());
        }
    }
}

impl Elsewhere for &'static Root {
    fn deliver(&self, cpu: usize, _host: u16, signal: Signal, before_wait: &dyn Fn()) {
        self.tell_or(&Message::Signal(cpu as u32, signal), before_wait);
    }

    fn rename(&self, cpu: usize, identity: Identity) {
        self.ask(|tag| Message::Rename(tag, cpu as u32, identity));
    }

    fn end_of_interrupt(&self, vector: u8) {
        self.tell(&Message::EndOfInterrupt(vector));
    }

    fn access(&self, access: Access) -> (bool, Vec<u8>) {
        match self.ask(|tag| Message::Access(tag, access)) {
            Some(Message::Answer(_, is_there, data)) => (is_there, data),
            _ => (false, Vec::new()),
        }
    }
}

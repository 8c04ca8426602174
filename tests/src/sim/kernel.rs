//! The kernel programs of a simulated host: what they do with a frame, word by word, while the agent goes on.
//!
//! Owns the interruption of a run: whatever a program has asked of its tables is logged; to go on, it begins anew and gets the
//! same answers, then some more, and gives up where it is to be interrupted again. Must not decide: see `dsm_fast::classify`.

use super::fast::{PORT, Shared};
use super::pager::Stamp;
use super::plan::FastPlan;
use super::rng::Rng;
use super::seal;
use super::verdicts::Count;
use super::world::{Happening, Sabotage, World};
use dsm_fast::layout::{Map, PAGE_WORDS};
use dsm_fast::{Cell as Place, Copy, FanOut, Means, Service, Tables, Verdict, classify};
use dsm_wire::{HEADER_BYTES, Header, Kind, NodeId, PAGE_BYTES};
use std::cell::{Cell, RefCell};

/// Interruptions of one run; then it goes through.
const PAUSES_MAX: u32 = 16;

/// A frame at the door of a host.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// Host that sent it.
    pub from: usize,
    /// Incarnation of that host.
    pub incarnation: u64,
    /// Header.
    pub header: Header,
    /// Pages.
    pub stamps: Vec<Stamp>,
}

impl Arrival {
    /// Where it came from: every host is reached by one interface.
    const fn link(&self) -> u64 {
        (self.from as u64 + 1) | 1 << 48
    }
}

/// A run that was interrupted.
#[derive(Debug)]
pub struct Run {
    arrival: Arrival,
    /// What the tables answered so far.
    log: Vec<Option<u64>>,
    /// Frames sent so far.
    sent: usize,
    pauses: u32,
    /// What it came to, if it is over: the frame has not gone up yet.
    end: Option<Conduct>,
}

/// A frame a program sends.
#[derive(Debug)]
pub struct Sent {
    header: Header,
    stamps: Vec<Stamp>,
}

/// What a run came to.
#[derive(Debug)]
struct Conduct {
    sent: Vec<Sent>,
    /// The frame goes up, as it came.
    is_up: bool,
    count: Count,
}

/// What a program can reach.
trait Machine: Tables {
    fn page_word(&self, copy: u32, word: usize) -> Option<u64>;

    /// Planted: whether to send what was copied without a last look.
    fn is_hasty(&self) -> bool;
}

impl Machine for Shared {
    fn page_word(&self, copy: u32, word: usize) -> Option<u64> {
        Shared::page_word(self, copy, word)
    }

    fn is_hasty(&self) -> bool {
        self.sabotage == Some(Sabotage::SendWithoutThirdLook)
    }
}

/// Where an interruption is most likely to do harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sore {
    Nothing,
    /// What is known of a directory entry may be wrong a moment later.
    Directory,
    /// Half of a page is copied.
    Page,
}

/// The tables of a run that is interrupted after some accesses.
struct Replay<'a> {
    shared: &'a Shared,
    log: RefCell<Vec<Option<u64>>>,
    cursor: Cell<usize>,
    left: Cell<u64>,
    /// Interrupted after the next look at one of these.
    sore: Sore,
    is_interrupted: Cell<bool>,
}

impl Replay<'_> {
    fn touch(&self, what: Sore) {
        if self.sore == what {
            self.left.set(0);
        }
    }

    fn ask(&self, access: impl FnOnce() -> Option<u64>) -> Option<u64> {
        if self.is_interrupted.get() {
            return None;
        }
        let mut log = self.log.borrow_mut();
        let cursor = self.cursor.get();
        if cursor == log.len() {
            if self.left.get() == 0 {
                self.is_interrupted.set(true);
                return None;
            }
            self.left.set(self.left.get() - 1);
            log.push(access());
        }
        self.cursor.set(cursor + 1);
        log[cursor]
    }
}

impl Tables for Replay<'_> {
    fn endpoint(&self, port: u16) -> Option<u32> {
        self.ask(|| self.shared.endpoint(port).map(u64::from)).map(|record| record as u32)
    }

    fn extent(&self, key: u64) -> Option<u64> {
        self.ask(|| self.shared.extent(key))
    }

    fn load(&self, cell: Place) -> Option<u64> {
        self.ask(|| {
            if cell.map == Map::Directory {
                self.touch(Sore::Directory);
            }
            self.shared.load(cell)
        })
    }

    fn exchange(&self, cell: Place, current: u64, new: u64) -> Option<bool> {
        self.ask(|| self.shared.exchange(cell, current, new).map(u64::from)).map(|is_done| is_done != 0)
    }

    fn add(&self, cell: Place, amount: u64) -> Option<u64> {
        self.ask(|| self.shared.add(cell, amount))
    }

    fn now(&self) -> u64 {
        self.ask(|| Some(self.shared.now())).unwrap_or_default()
    }

    fn link(&self) -> u64 {
        self.shared.link()
    }
}

impl Machine for Replay<'_> {
    fn page_word(&self, copy: u32, word: usize) -> Option<u64> {
        self.ask(|| {
            self.touch(Sore::Page);
            self.shared.page_word(copy, word)
        })
    }

    fn is_hasty(&self) -> bool {
        self.shared.is_hasty()
    }
}

/// The programs of one host, one after the other, on one frame.
fn execute(arrival: &Arrival, has_small: bool, machine: &impl Machine) -> Conduct {
    let bytes = HEADER_BYTES + arrival.stamps.len() * PAGE_BYTES;
    if has_small {
        let mut header = arrival.header;
        let verdict = classify(&mut header, bytes, PORT, Means::SameSize, machine);
        if !matches!(verdict, Verdict::Pass(_)) {
            return obey(header, verdict, machine);
        }
    }
    let mut header = arrival.header;
    let verdict = classify(&mut header, bytes, PORT, Means::Grow, machine);
    obey(header, verdict, machine)
}

fn obey(header: Header, verdict: Verdict, machine: &impl Machine) -> Conduct {
    let count = Count::Verdict(verdict);
    match verdict {
        Verdict::Pass(_) => Conduct { sent: Vec::new(), is_up: true, count },
        Verdict::Drop(_) | Verdict::Counted => Conduct { sent: Vec::new(), is_up: false, count },
        Verdict::Pong { .. } | Verdict::Forward { .. } => {
            Conduct { sent: vec![Sent { header, stamps: Vec::new() }], is_up: false, count }
        }
        Verdict::Serve(service) => serve(header, &service, machine),
        Verdict::FanOut(orders) => Conduct { sent: tell(header, orders, machine), is_up: true, count },
    }
}

fn tell(mut header: Header, mut orders: FanOut, machine: &impl Machine) -> Vec<Sent> {
    std::iter::from_fn(|| orders.take(&mut header, machine).map(|_| Sent { header, stamps: Vec::new() })).collect()
}

fn serve(mut header: Header, service: &Service, machine: &impl Machine) -> Conduct {
    let mut sent = Vec::new();
    for offset in 0..service.count {
        let stamps = service.grant(&mut header, offset, machine).and_then(|copy| read(&copy, machine));
        let Some(stamps) = stamps else { return Conduct { sent, is_up: true, count: Count::ServedPartly } };
        sent.push(Sent { header, stamps });
    }
    Conduct { sent, is_up: false, count: Count::Served }
}

/// The bytes of a copy, its first word first and its last one last, if it was there all the time.
fn read(copy: &Copy, machine: &impl Machine) -> Option<Vec<Stamp>> {
    let mut stamps = Vec::new();
    if !copy.is_zero {
        let first = machine.page_word(copy.index, 0)?;
        let last = machine.page_word(copy.index, PAGE_WORDS - 1)?;
        // A page of two halves has no stamp; its payload tag fits neither.
        stamps.push(if first == last { first } else { Stamp::MAX });
    }
    (machine.is_hasty() || copy.is_still_there(machine)).then_some(stamps)
}

impl Run {
    /// Goes on, perhaps to its end; returns what it sends meanwhile.
    pub fn advance(&mut self, shared: &Shared, rng: &mut Rng, plan: &FastPlan) -> Vec<Sent> {
        if self.end.is_some() {
            return Vec::new();
        }
        shared.link.set(self.arrival.link());
        let most = rng.pick(&[2, 8, 30]);
        let sore = rng.pick(&[Sore::Nothing, Sore::Directory, Sore::Page]);
        let may_pause = self.pauses < PAUSES_MAX;
        let replay = Replay {
            shared,
            log: RefCell::new(std::mem::take(&mut self.log)),
            cursor: Cell::new(0),
            left: Cell::new(if may_pause { rng.between(1, most) } else { u64::MAX }),
            sore: if may_pause { sore } else { Sore::Nothing },
            is_interrupted: Cell::new(false),
        };
        let mut conduct = execute(&self.arrival, plan.has_small, &replay);
        let fresh = conduct.sent.split_off(self.sent);
        self.sent += fresh.len();
        if replay.is_interrupted.get() {
            self.pauses += 1;
        } else {
            self.end = Some(conduct);
        }
        self.log = replay.log.into_inner();
        fresh
    }

    /// Whether it came to its end.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.end.is_some()
    }
}

impl World {
    /// A frame comes to a host with programs.
    pub(super) fn judge(&mut self, host: usize, arrival: Arrival) -> Result<(), String> {
        let plan = self.plan.fast;
        let Some(fast) = self.hosts[host].fast.as_mut() else { return self.take_up(host, &arrival) };
        fast.shared.now.set(self.now);
        // Of the others, programs only look at a few words before they pass them up.
        let is_changing =
            [Kind::Request, Kind::Forward, Kind::InvalidateAck].map(|kind| kind as u8).contains(&arrival.header.kind);
        if is_changing && fast.rng.chance(plan.interrupted) {
            let number = fast.next_run();
            return self.go_on(host, number, Run { arrival, log: Vec::new(), sent: 0, pauses: 0, end: None });
        }
        fast.shared.link.set(arrival.link());
        let conduct = execute(&arrival, plan.has_small, &fast.shared);
        self.conclude(host, &arrival, conduct)
    }

    /// An interrupted run goes on.
    pub(super) fn resume(&mut self, host: usize, number: u64) -> Result<(), String> {
        match self.hosts[host].fast.as_mut().and_then(|fast| fast.runs.remove(&number)) {
            Some(run) => self.go_on(host, number, run),
            None => Ok(()),
        }
    }

    fn go_on(&mut self, host: usize, number: u64, mut run: Run) -> Result<(), String> {
        let plan = self.plan.fast;
        let Some(fast) = self.hosts[host].fast.as_mut() else { return Ok(()) };
        fast.shared.now.set(self.now);
        let sent = run.advance(&fast.shared, &mut fast.rng, &plan);
        if let Some(end) = run.end.take() {
            return self.conclude(host, &run.arrival, Conduct { sent, ..end });
        }
        self.outcome.verdicts.add(Count::Interruption);
        if run.pauses == 1 {
            self.outcome.verdicts.add(Count::Interrupted);
        }
        let at = self.now + fast.rng.between(1, plan.pause_ns_max);
        fast.runs.insert(number, run);
        self.plan_at(at, host, Happening::Program { host, run: number });
        self.send_all(host, sent)
    }

    fn conclude(&mut self, host: usize, arrival: &Arrival, conduct: Conduct) -> Result<(), String> {
        self.outcome.verdicts.add(conduct.count);
        self.note_text_with(|now| {
            format!("{now} programs of {host}: {:?} of request {:#x}", conduct.count, arrival.header.request.get())
        });
        self.send_all(host, conduct.sent)?;
        if conduct.is_up { self.take_up(host, arrival) } else { Ok(()) }
    }

    pub(super) fn send_all(&mut self, host: usize, sent: Vec<Sent>) -> Result<(), String> {
        for Sent { header, stamps } in sent {
            let to = self.plan.host_of(NodeId(header.destination.get()));
            if to >= self.hosts.len() || to == host {
                return Err(format!("a program of host {host} sends to host {to}"));
            }
            if header.kind == Kind::Grant as u8 {
                self.outcome.verdicts.add(Count::PageServed);
            }
            self.outcome.frames += 1;
            self.route(host, to, header, stamps);
        }
        Ok(())
    }

    /// What programs sent is as the transport would have sent it.
    pub(super) fn check_seal(&self, to: usize, arrival: &Arrival) -> Result<(), String> {
        let (from, me) = (self.plan.node_of(arrival.from), self.plan.node_of(to));
        let is_ours = arrival.header.sequence.get() & dsm_fast::layout::SEQUENCE_KERNEL != 0;
        if is_ours && !seal::is_sound(&arrival.header, from, me, 0, &arrival.stamps) {
            return Err(format!("a program of host {} seals a frame wrongly: {:?}", arrival.from, arrival.header));
        }
        Ok(())
    }
}

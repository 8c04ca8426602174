//! The host's side: `classify` over plain memory, and what a program then does to a packet, once more.
//!
//! Owns the model of `ebpf/prog/src/fast.rs`. Must not look at the kernel. Faults can be planted in it, to see them found.

use crate::network::{Interface, Network};
use crate::state::{Ports, World};
use dsm_fast::layout::{ENDPOINT_ADDRESS, Map, PAGE_WORDS, PEER_ADDRESS, PEER_LINK, PEERS_PER_ENDPOINT};
use dsm_fast::{
    Arrays, Cell, ENVELOPE_BYTES, Envelope, FanOut, Means, SERVE_FAILED, SLOTS, Service, Tables, VERDICT_NAMES, Verdict, cell,
    classify,
};
use dsm_wire::{HEADER_BYTES, Header, PAGE_BYTES};
use std::cell::RefCell;
use std::sync::atomic::Ordering::Relaxed;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Envelope and header.
pub const FRAME_BYTES: usize = ENVELOPE_BYTES + HEADER_BYTES;
const NOW: u64 = 1 << 40;

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// `dvm_xdp`.
    Xdp,
    /// `dvm_tc`.
    Tc,
}

/// What programs return.
pub const XDP_DROP: i32 = 1;
/// See [`XDP_DROP`].
pub const XDP_PASS: i32 = 2;
const XDP_TX: i32 = 3;
const TC_UNSPEC: i32 = -1;
const TC_SHOT: i32 = 2;
const TC_REDIRECT: i32 = 7;

/// A fault planted here, for a disagreement to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Plant {
    /// A reader is not entered among the sharers.
    Sharers,
    /// A sequence that was seen is not noted.
    Window,
    /// A sequence is left out.
    Sequence,
    /// A served copy is not marked as used.
    Used,
    /// An acknowledgement is not taken out.
    Pending,
    /// What was counted is passed up.
    Action,
    /// A wrong byte in an answer.
    Header,
    /// A wrong byte in a page.
    Page,
    /// A page of several is not sent.
    Copy,
    /// The first reader is not told to drop its copy.
    Order,
    /// Where a peer's frames come from is not remembered.
    Link,
    /// A verdict is counted as another.
    Counter,
}

/// What a program did with a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// What it returned.
    pub action: i32,
    /// The packet afterwards.
    pub packet: Vec<u8>,
    /// What it sent besides, and out of which interface.
    pub sent: Vec<(u32, Vec<u8>)>,
}

/// The tables, in plain memory.
pub struct HostTables {
    /// Words.
    pub arrays: Arrays,
    ports: Ports,
    extents: std::collections::BTreeMap<u64, u64>,
    /// Words that were looked at since this was emptied.
    pub touched: RefCell<Vec<Cell>>,
    /// Where the frame came from.
    link: u64,
    plant: Option<Plant>,
}

/// The host's side of one lane.
pub struct Host {
    /// Tables.
    pub tables: HostTables,
    /// How often each verdict came, since ever.
    pub verdicts: [u64; VERDICT_NAMES.len()],
    /// The one that came last.
    pub last_verdict: Option<u32>,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Front {
    envelope: Envelope,
    header: Header,
}

impl Tables for HostTables {
    fn endpoint(&self, port: u16) -> Option<u32> {
        self.ports.get(&port).copied()
    }

    fn extent(&self, key: u64) -> Option<u64> {
        self.extents.get(&key).copied()
    }

    fn load(&self, cell: Cell) -> Option<u64> {
        self.touched.borrow_mut().push(cell);
        Some(self.arrays.at(cell)?.load(Relaxed))
    }

    fn exchange(&self, cell: Cell, current: u64, new: u64) -> Option<bool> {
        self.touched.borrow_mut().push(cell);
        let word = self.arrays.at(cell)?;
        let spoiled = match cell.map {
            Map::Directory if cell.word >= SLOTS => Plant::Sharers,
            Map::Peer if cell.word == PEER_LINK => Plant::Link,
            Map::Peer => Plant::Window,
            Map::Copy => Plant::Used,
            Map::Acks => Plant::Pending,
            Map::Endpoint | Map::Places | Map::Directory => {
                return Some(word.compare_exchange(current, new, Relaxed, Relaxed).is_ok());
            }
        };
        let new = if self.plant == Some(spoiled) { current } else { new };
        Some(word.compare_exchange(current, new, Relaxed, Relaxed).is_ok())
    }

    fn add(&self, cell: Cell, amount: u64) -> Option<u64> {
        self.touched.borrow_mut().push(cell);
        let amount = if self.plant == Some(Plant::Sequence) { amount + 1 } else { amount };
        Some(self.arrays.at(cell)?.fetch_add(amount, Relaxed))
    }

    fn now(&self) -> u64 {
        NOW
    }

    fn link(&self) -> u64 {
        self.link
    }
}

impl Host {
    /// A host with memory for tables of this many words each.
    #[must_use]
    pub fn new(words: [usize; Map::ALL.len()], pages: usize, plant: Option<Plant>) -> Self {
        let arrays = Arrays { maps: words.map(crate::state::memory), pages: crate::state::memory(pages) };
        let tables =
            HostTables { arrays, ports: Ports::new(), extents: Default::default(), touched: RefCell::default(), link: 0, plant };
        Self { tables, verdicts: [0; VERDICT_NAMES.len()], last_verdict: None }
    }

    /// Takes over the state of `world`.
    pub fn reset(&mut self, world: &World) {
        crate::state::copy(&world.arrays, &self.tables.arrays);
        self.tables.ports.clone_from(&world.ports);
        self.tables.extents.clone_from(&world.extents);
    }

    /// What `program` does with a frame that came in by interface number `interface` of `network`.
    pub fn run(&mut self, program: Program, frame: &[u8], interface: usize, is_joined: bool, network: &Network) -> Ran {
        self.tables.touched.borrow_mut().clear();
        self.last_verdict = None;
        let mut ran = Ran { action: 0, packet: frame.to_vec(), sent: Vec::new() };
        ran.action = match program {
            Program::Xdp => self.on_xdp(&mut ran.packet).unwrap_or(XDP_PASS),
            Program::Tc if is_joined => TC_UNSPEC,
            Program::Tc => self.on_tc(&mut ran, &network.interfaces[interface]).unwrap_or(TC_UNSPEC),
        };
        if self.has(Plant::Action) && self.last_verdict == Some(0) {
            ran.action = if program == Program::Xdp { XDP_PASS } else { TC_UNSPEC };
        }
        ran
    }

    fn has(&self, plant: Plant) -> bool {
        self.tables.plant == Some(plant)
    }

    fn note(&mut self, number: u32) {
        let number = if self.has(Plant::Counter) && number == 5 { 6 } else { number };
        self.verdicts[number as usize] += 1;
        self.last_verdict = Some(number);
    }

    fn on_xdp(&mut self, packet: &mut [u8]) -> Option<i32> {
        let mut frame = Front::read_from_prefix(packet).ok()?.0;
        if !frame.envelope.is_udp() {
            return None;
        }
        self.tables.link = 0;
        let verdict = self.classify(&mut frame, Means::SameSize);
        let action = match verdict {
            Verdict::Pass(_) | Verdict::Serve(_) | Verdict::Forward { .. } | Verdict::FanOut(_) => XDP_PASS,
            Verdict::Drop(_) | Verdict::Counted => XDP_DROP,
            Verdict::Pong { to } => {
                self.readdress(&mut frame.envelope, to, 0)?;
                frame.envelope.turn_round();
                packet[..FRAME_BYTES].copy_from_slice(frame.as_bytes());
                XDP_TX
            }
        };
        self.note(verdict.number());
        Some(action)
    }

    fn on_tc(&mut self, ran: &mut Ran, interface: &Interface) -> Option<i32> {
        let mut frame = Front::read_from_prefix(&ran.packet).ok()?.0;
        if !frame.envelope.is_udp_of(ran.packet.len()) {
            return None;
        }
        let original = frame;
        self.tables.link = frame.envelope.ethernet_sender() | u64::from(interface.index) << 48;
        let verdict = self.classify(&mut frame, Means::Grow);
        let mut number = verdict.number();
        let action = match verdict {
            Verdict::Pass(_) => None,
            Verdict::Drop(_) | Verdict::Counted => Some(TC_SHOT),
            Verdict::Pong { to } | Verdict::Forward { to } => {
                self.readdress(&mut frame.envelope, to, 0)?;
                ran.packet[..FRAME_BYTES].copy_from_slice(frame.as_bytes());
                Some(TC_REDIRECT)
            }
            Verdict::Serve(service) => {
                let action = self.serve(ran, &mut frame, &service, interface);
                if action.is_none() {
                    number = SERVE_FAILED;
                    ran.packet.resize(FRAME_BYTES, 0);
                    ran.packet[..FRAME_BYTES].copy_from_slice(original.as_bytes());
                }
                action
            }
            Verdict::FanOut(mut orders) => {
                self.fan_out(ran, &mut frame, &mut orders, interface);
                None
            }
        };
        self.note(number);
        action
    }

    fn serve(&self, ran: &mut Ran, frame: &mut Front, service: &Service, interface: &Interface) -> Option<i32> {
        let last = service.count - 1;
        if service.is_answer() {
            frame.envelope.turn_round();
        }
        for offset in 0..=last {
            let copy = service.grant(&mut frame.header, offset, &self.tables)?;
            let bytes = if copy.is_zero { 0 } else { PAGE_BYTES };
            self.readdress(&mut frame.envelope, service.to, bytes)?;
            ran.packet.resize(FRAME_BYTES + bytes, 0);
            ran.packet[..FRAME_BYTES].copy_from_slice(frame.as_bytes());
            if bytes > 0 {
                self.copy_page(copy.index, &mut ran.packet[FRAME_BYTES..])?;
            }
            if !copy.is_still_there(&self.tables) {
                return None;
            }
            if offset < last && !self.has(Plant::Copy) {
                ran.sent.push((interface.index, ran.packet.clone()));
            }
        }
        Some(TC_REDIRECT)
    }

    fn fan_out(&self, ran: &mut Ran, frame: &mut Front, orders: &mut FanOut, interface: &Interface) -> Option<()> {
        let here = frame.envelope.ethernet_destination;
        let mut is_first = true;
        loop {
            let told = orders.take(&mut frame.header, &self.tables)?;
            self.readdress(&mut frame.envelope, told.to, 0)?;
            frame.envelope.send_on(here, told.ethernet);
            if !(is_first && self.has(Plant::Order)) {
                ran.sent.push((interface.index, frame.as_bytes().to_vec()));
            }
            is_first = false;
        }
    }

    fn classify(&self, frame: &mut Front, means: Means) -> Verdict {
        classify(&mut frame.header, frame.envelope.payload_bytes(), frame.envelope.port(), means, &self.tables)
    }

    fn copy_page(&self, index: u32, to: &mut [u8]) -> Option<()> {
        let page = self.tables.arrays.pages.get(index as usize * PAGE_WORDS..)?.get(..PAGE_WORDS)?;
        for (bytes, word) in to.as_chunks_mut::<8>().0.iter_mut().zip(page) {
            *bytes = word.load(Relaxed).to_le_bytes();
        }
        if self.has(Plant::Page) {
            to[PAGE_BYTES - 1] ^= 1;
        }
        Some(())
    }

    fn readdress(&self, envelope: &mut Envelope, peer: u32, page_bytes: usize) -> Option<()> {
        let from = self.tables.load(cell(Map::Endpoint, peer / PEERS_PER_ENDPOINT, ENDPOINT_ADDRESS))?;
        let to = self.tables.load(cell(Map::Peer, peer, PEER_ADDRESS))?;
        envelope.readdress(from, to, HEADER_BYTES + page_bytes);
        if self.has(Plant::Header) {
            envelope.ip_source[3] ^= 1;
        }
        Some(())
    }
}

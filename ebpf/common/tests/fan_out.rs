//! Every interleaving of a program that begins a writer's transaction with readers, other programs and the agent, word by word.
//!
//! One directory entry and one record of acknowledgements are loom's; whatever else a program asks of its tables is constant. The
//! agent's side of the record is written out here, since its own is not made of loom's words.

use dsm_fast::layout::{
    ACK_CLAIMED, ACK_ERA, ACK_NODES, ACK_OPENED, ACK_PAGE, ACK_PENDING, ACK_REQUEST, ACK_UNTOLD, ENDPOINT_CLUSTER, ENDPOINT_LIVE,
    ENDPOINT_SPACE, Map, PEER_ADDRESS, PEER_LINK, PEER_LIVE, extent_value,
};
use dsm_fast::{Cell, DirectoryIn, Entry, Means, SLOTS, SipKey, State, Step, Tables, Verdict, Word};
use dsm_fast::{classify, header_tag, load, step, try_step};
use dsm_wire::{Era, FLAG_WRITE, HEADER_BYTES, Header, Kind, NodeId, RequestId, VERSION};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering::SeqCst};

const HOME: NodeId = NodeId(0);
const OWNER: NodeId = NodeId(1);
const READER: NodeId = NodeId(2);
const LATE: NodeId = NodeId(3);
const WRITERS: [NodeId; 2] = [NodeId(4), NodeId(5)];
const PAGE: u64 = 0;
const BITS: u64 = (1 << ACK_NODES) - 1;

struct Host {
    word: AtomicU64,
    sharers: AtomicU64,
    record: [AtomicU64; 4],
    /// Who cannot be told from here.
    strange: NodeId,
}

impl Host {
    fn at(&self, cell: Cell) -> Option<&AtomicU64> {
        match cell.map {
            Map::Directory if cell.word < SLOTS => Some(&self.word),
            Map::Directory => Some(&self.sharers),
            Map::Acks => Some(&self.record[cell.word]),
            Map::Endpoint | Map::Peer | Map::Places | Map::Copy => None,
        }
    }

    fn of_record(&self, word: usize) -> u64 {
        self.record[word].load(SeqCst)
    }
}

impl Tables for Host {
    fn endpoint(&self, _port: u16) -> Option<u32> {
        Some(0)
    }

    fn extent(&self, _key: u64) -> Option<u64> {
        Some(extent_value(Some(0), None))
    }

    fn load(&self, cell: Cell) -> Option<u64> {
        if let Some(word) = self.at(cell) {
            return Some(word.load(SeqCst));
        }
        Some(match (cell.map, cell.word) {
            (Map::Endpoint, ENDPOINT_CLUSTER) => 1 << 32,
            (Map::Endpoint, ENDPOINT_SPACE) => u64::from(HOME.0) << 32 | ENDPOINT_LIVE,
            (Map::Peer, PEER_ADDRESS) => PEER_LIVE,
            (Map::Peer, PEER_LINK) if cell.record != u32::from(self.strange.0) => self.link(),
            _ => 0,
        })
    }

    fn exchange(&self, cell: Cell, current: u64, new: u64) -> Option<bool> {
        Some(self.at(cell).is_none_or(|word| word.compare_exchange(current, new, SeqCst, SeqCst).is_ok()))
    }

    fn add(&self, _cell: Cell, _amount: u64) -> Option<u64> {
        Some(0)
    }

    fn now(&self) -> u64 {
        0
    }

    fn link(&self) -> u64 {
        1 << 48 | 1
    }
}

/// A page that two nodes read, and nothing awaited.
fn host(strange: NodeId) -> Arc<Host> {
    let owned = Entry { word: Word::owned(OWNER, Era(5), false), ..Entry::default() };
    let entry = dsm_fast::apply(owned, Step::Joined(READER)).expect("allowed");
    Arc::new(Host {
        word: AtomicU64::new(entry.word.0),
        sharers: AtomicU64::new(entry.sharers.0),
        record: [const { 0 }; 4].map(AtomicU64::new),
        strange,
    })
}

fn explore(run: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(run);
}

fn request_of(writer: NodeId) -> RequestId {
    RequestId::new(writer, 7)
}

/// The program on a writer's request: the nodes that are told.
fn fan_out(host: &Host, writer: NodeId) -> Option<Vec<u16>> {
    let mut header = Header { version: VERSION, kind: Kind::Request as u8, ..Header::default() };
    header.epoch.set(1);
    header.source.set(writer.0);
    header.destination.set(HOME.0);
    header.flags.set(FLAG_WRITE);
    header.page.set(PAGE);
    header.request.set(request_of(writer).0);
    header.sequence.set(1);
    header.header_tag.set(header_tag(SipKey(0, 0), &header));
    match classify(&mut header, HEADER_BYTES, 7000, Means::Grow, host) {
        Verdict::FanOut(mut orders) => {
            let mut told = Vec::new();
            while orders.take(&mut header, host).is_some() {
                assert_eq!((header.kind, header.page_version.get()), (Kind::Invalidate as u8, 6));
                told.push(header.destination.get());
            }
            Some(told)
        }
        Verdict::Pass(_) => None,
        verdict => panic!("{verdict:?}"),
    }
}

/// A program that enters a reader: whether it may be served.
fn enter(host: &Host, reader: NodeId) -> bool {
    let directory = DirectoryIn::new(host, 0);
    let entry = load(&directory, 0);
    let is_at_rest = !entry.word.is_busy() && entry.word.state() == State::Shared;
    is_at_rest && try_step(&directory, 0, entry, Step::Joined(reader)).expect("allowed").is_some()
}

/// The agent's look at the record of a page that is busy: request, era, who is pending, whether they were told.
fn opened(host: &Host) -> Option<(u64, u32, u64, bool)> {
    let request = host.of_record(ACK_REQUEST);
    let (page, era) = (host.of_record(ACK_PAGE), host.of_record(ACK_ERA));
    let is_opened = !matches!(request, 0 | ACK_CLAIMED) && page == PAGE && era & ACK_OPENED != 0;
    is_opened.then(|| (request, era as u32, host.of_record(ACK_PENDING) & BITS, era & ACK_UNTOLD == 0))
}

/// The agent begins to count for another page, whose record is the same.
fn begin(host: &Host) -> bool {
    if host.record[ACK_REQUEST].compare_exchange(0, ACK_CLAIMED, SeqCst, SeqCst).is_err() {
        return false;
    }
    let turn = (host.of_record(ACK_PENDING) | BITS).wrapping_add(1);
    host.record[ACK_PENDING].store(turn, SeqCst);
    host.record[ACK_PAGE].store(PAGE + 1, SeqCst);
    host.record[ACK_ERA].store(9, SeqCst);
    host.record[ACK_REQUEST].store(99, SeqCst);
    host.record[ACK_PENDING].store(turn | 0b110, SeqCst);
    true
}

#[test]
fn a_reader_that_is_served_is_pending() {
    for strange in [HOME, LATE] {
        explore(move || {
            let host = host(strange);
            let other = Arc::clone(&host);
            let program = loom::thread::spawn(move || fan_out(&other, WRITERS[0]));
            let is_served = enter(&host, LATE);
            let told = program.join().expect("allowed");
            let (request, era, pending, is_told) = opened(&host).unwrap_or_default();
            if told.is_some() || request != 0 {
                assert!(Word(host.word.load(SeqCst)).is_busy(), "named, so locked");
                assert_eq!((request, era, is_told), (request_of(WRITERS[0]).0, 6, told.is_some()));
            }
            let sharers = load(&DirectoryIn::new(&*host, 0), 0).sharers;
            let is_known = sharers.may_contain(LATE, false);
            assert!(!is_served || is_known, "who is served is a sharer");
            if let Some(told) = told {
                assert!(!is_served || told.contains(&LATE.0), "{LATE} was served and only {told:?} were told");
                assert_eq!(pending, told.iter().fold(0, |bits, node| bits | 1 << node), "each that was told is awaited");
                assert!(told.contains(&READER.0) && !told.contains(&OWNER.0), "the provider keeps its copy");
            }
        });
    }
}

#[test]
fn agent_and_program_do_not_both_begin() {
    explore(|| {
        let host = host(HOME);
        let other = Arc::clone(&host);
        let program = loom::thread::spawn(move || fan_out(&other, WRITERS[0]));
        let is_agents = step(&DirectoryIn::new(&*host, 0), 0, Step::Lock).is_ok();
        let seen = opened(&host);
        let told = program.join().expect("allowed");
        assert_ne!(is_agents, told.is_some(), "one of them");
        assert!(!is_agents || host.of_record(ACK_REQUEST) == 0, "the record is free again");
        // What is named is whole from the first moment on.
        assert!(seen.is_none() || seen == opened(&host) && told.is_some());
    });
}

#[test]
fn one_record_is_named_once() {
    explore(|| {
        let host = host(HOME);
        let (one, other) = (Arc::clone(&host), Arc::clone(&host));
        let programs =
            [loom::thread::spawn(move || fan_out(&one, WRITERS[0])), loom::thread::spawn(move || fan_out(&other, WRITERS[1]))];
        let is_agents = begin(&host);
        let opened_by: Vec<_> = programs.map(|program| program.join().expect("allowed")).into_iter().flatten().collect();
        assert!(usize::from(is_agents) + opened_by.len() <= 1, "one of them has the record");
        assert_eq!(opened(&host).is_some(), opened_by.len() == 1);
        if is_agents {
            assert_eq!(
                (host.of_record(ACK_PAGE), host.of_record(ACK_ERA), host.of_record(ACK_PENDING) & BITS),
                (PAGE + 1, 9, 0b110)
            );
            assert!(!Word(host.word.load(SeqCst)).is_busy(), "a program that has no record locks nothing");
        }
    });
}

//! Endpoints on the loopback address, stepped by one thread, and a wire tap between them.
//!
//! Owns set-up and the tests' clock. Must not know what a test checks.

#![expect(dead_code, reason = "each test file uses a part")]

use dsm_transport::{Class, Counters, Endpoint, EndpointConfig, Event, FaultPlan, LostReason, Nanos};
use dsm_wire::{Epoch, Era, GrantContent, Line, Message, NodeId, PAGE_BYTES, PageNumber, RequestId, Rights, SpaceId};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

pub type Page = [u8; PAGE_BYTES];

/// An event with its pages copied out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    Frame(u16, Message, Vec<Box<Page>>),
    Ready(u32),
    Up(u16),
    Lost(u16, LostReason),
}

pub fn config(me: u16) -> EndpointConfig {
    EndpointConfig {
        me: NodeId(me),
        space: SpaceId(7),
        epoch: Epoch(1),
        cluster: 0xc1a5_7e12,
        cluster_key: [42; 32],
        address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        mtu: 9000,
        faults: FaultPlan::NONE,
    }
}

/// Several endpoints and a clock. Each endpoint's events since the last look are kept.
pub struct Net {
    pub endpoints: Vec<Endpoint>,
    pub seen: Vec<Vec<Seen>>,
    start: Instant,
    skipped: Duration,
}

impl Net {
    /// Endpoints that know each other, not yet shaken hands.
    pub fn new(configs: Vec<EndpointConfig>) -> Net {
        let mut net = Net::strangers(configs);
        for a in 0..net.endpoints.len() {
            for b in 0..net.endpoints.len() {
                if a != b {
                    net.introduce(a, b, net.endpoints[b].listening());
                }
            }
        }
        net
    }

    pub fn strangers(configs: Vec<EndpointConfig>) -> Net {
        let endpoints: Vec<Endpoint> =
            configs.into_iter().map(|config| Endpoint::bind(config).expect("loopback works")).collect();
        let seen = endpoints.iter().map(|_| Vec::new()).collect();
        Net { endpoints, seen, start: Instant::now(), skipped: Duration::ZERO }
    }

    /// Endpoint `at` learns that node `of` listens at `address`.
    pub fn introduce(&mut self, at: usize, of: usize, address: (SocketAddr, SocketAddr)) {
        let now = self.now();
        self.endpoints[at].add_peer(now, NodeId(of as u16), address.0, address.1).expect("loopback works");
    }

    pub fn now(&self) -> Nanos {
        Nanos(1).after(self.start.elapsed() + self.skipped)
    }

    /// Lets `time` pass without waiting for it.
    pub fn skip(&mut self, time: Duration) {
        self.skipped += time;
    }

    pub fn step(&mut self) {
        for index in 0..self.endpoints.len() {
            self.step_one(index);
        }
    }

    pub fn step_one(&mut self, index: usize) {
        let now = self.now();
        let endpoint = &mut self.endpoints[index];
        endpoint.wait(now, Some(now)).expect("loopback works");
        while let Some(event) = endpoint.next_event(now) {
            self.seen[index].push(match event {
                Event::Frame { from, message, pages } => {
                    Seen::Frame(from.0, message, pages.iter().map(|page| Box::new(*page)).collect())
                }
                Event::Ready { token } => Seen::Ready(token),
                Event::Session { .. } | Event::Answered { .. } => continue,
                Event::PeerUp { node } => Seen::Up(node.0),
                Event::PeerLost { node, reason } => Seen::Lost(node.0, reason),
            });
        }
    }

    /// Steps until `done`, at most ten seconds of real time.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Net) -> bool) {
        let limit = Instant::now() + Duration::from_secs(10);
        while !done(self) {
            assert!(Instant::now() < limit, "{what}: not within ten seconds; {:#?}", self.counters());
            self.step();
        }
    }

    /// Steps for `time` of the tests' clock.
    pub fn run(&mut self, time: Duration) {
        let end = self.now().after(time);
        while self.now() < end {
            self.step();
        }
    }

    pub fn until_all_up(&mut self) {
        let others = self.endpoints.len() - 1;
        self.until("handshakes", |net| {
            net.seen.iter().all(|seen| seen.iter().filter(|seen| matches!(seen, Seen::Up(_))).count() == others)
        });
        self.seen.iter_mut().for_each(Vec::clear);
    }

    pub fn frames(&self, index: usize) -> usize {
        self.seen[index].iter().filter(|seen| matches!(seen, Seen::Frame(..))).count()
    }

    pub fn counters(&self) -> Vec<Counters> {
        self.endpoints.iter().map(|endpoint| endpoint.counters()).collect()
    }

    pub fn send(&mut self, at: usize, to: usize, message: &Message, pages: &[Page], class: Class) -> bool {
        let now = self.now();
        let pages: Vec<&Page> = pages.iter().collect();
        self.endpoints[at].send(now, NodeId(to as u16), message, &pages, class).is_ok()
    }
}

pub fn request(id: u64, page: u64) -> Message {
    Message::Request {
        request: RequestId(id),
        page: PageNumber(page),
        rights: Rights::Read,
        count: 1,
        copy: None,
        line: Line::default(),
    }
}

pub fn grant(id: u64, page: u64, count: u16) -> Message {
    let content = GrantContent::Bytes;
    Message::Grant { request: RequestId(id), page: PageNumber(page), rights: Rights::Read, era: Era(3), count, content }
}

pub fn contents(page: u64) -> Page {
    std::array::from_fn(|i| (i as u64 * 31 + page * 7 + (i as u64 >> 8)) as u8)
}

/// Stands between two endpoints on one socket of one direction: what the sender sends arrives here.
pub struct Tap {
    pub socket: UdpSocket,
    pub to: SocketAddr,
}

impl Tap {
    pub fn new(to: SocketAddr) -> Tap {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("loopback works");
        socket.set_nonblocking(true).expect("loopback works");
        Tap { socket, to }
    }

    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().expect("loopback works")
    }

    /// Everything that arrived, not yet passed on.
    pub fn take(&self) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        let mut buffer = [0; 65_536];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            frames.push(buffer[..length].to_vec());
        }
        frames
    }

    pub fn pass(&self, frame: &[u8]) {
        self.socket.send_to(frame, self.to).expect("loopback works");
    }
}

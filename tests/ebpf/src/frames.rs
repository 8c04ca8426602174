//! Frames by chance: most as a peer would send them, some of an enemy, some broken.
//!
//! Owns what is sent. Must not know what becomes of it: whatever a program has changed meanwhile, it looks at no table but the
//! first state.

use crate::rng::Rng;
use crate::state::{Endpoint, NODES, PAGE_LIMIT, Peer, World};
use dsm_fast::layout::{SEQUENCE_BULK, SEQUENCE_KERNEL, WINDOW_SLOTS};
use dsm_fast::{Envelope, SipKey, header_tag};
use dsm_wire::{
    FLAG_COPY, FLAG_FRAGMENT, FLAG_WRITE, FLAG_ZERO, HEADER_BYTES, Header, Kind, NodeId, PAGES_PER_EXTENT, RequestId,
};
use std::collections::BTreeMap;
use zerocopy::IntoBytes;

/// Interfaces a frame can come in by.
const INTERFACES: usize = 2;
/// Frames that are remembered, to be sent once more.
const REMEMBERED: usize = 64;
/// Shorter ones are no Ethernet frames, and the kernel runs no program on them.
const SHORTEST: usize = 15;
const ENVELOPE_FRONT: [u8; 14] = [2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
const UDP: u8 = 17;
const ETHERNET_BYTES: usize = 14;
const IP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;

/// A frame that comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Number of the interface.
    pub interface: usize,
    /// Whether it was joined from several.
    pub is_joined: bool,
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
}

/// The peers of one world, sending.
#[derive(Default)]
pub struct Senders {
    /// By endpoint, node and lane.
    sequences: BTreeMap<(u32, u16, bool), u64>,
    remembered: Vec<Frame>,
}

impl Senders {
    /// The next frame.
    pub fn send(&mut self, world: &World, rng: &mut Rng) -> Frame {
        if rng.chance(50_000) && !self.remembered.is_empty() {
            let again = rng.below(self.remembered.len() as u64) as usize;
            return self.remembered[again].clone();
        }
        let mut frame = self.whole(world, rng);
        if rng.chance(120_000) {
            mutate(&mut frame, rng);
        }
        if self.remembered.len() < REMEMBERED {
            self.remembered.push(frame.clone());
        } else {
            self.remembered[rng.below(REMEMBERED as u64) as usize] = frame.clone();
        }
        frame
    }

    fn whole(&mut self, world: &World, rng: &mut Rng) -> Frame {
        let number = if rng.chance(30_000) { 4 } else { rng.pick(&[0, 0, 0, 0, 0, 1, 1, 1, 2, 3]) };
        let endpoint = &world.endpoints[number];
        let stranger = Peer { node: rng.pick(&[endpoint.us.me, 0, 63, 64, 1000]), key: SipKey(1, 2), next: None };
        let peer = if endpoint.peers.is_empty() || rng.chance(10_000) { stranger } else { rng.pick(&endpoint.peers) };
        let mut header = self.header(world, endpoint, &peer, rng);
        let key = match (rng.below(100), peer.next) {
            (0, _) => SipKey(rng.draw(), rng.draw()),
            (1..10, Some(next)) => next,
            _ => peer.key,
        };
        header.header_tag.set(if rng.chance(10_000) { rng.draw() } else { header_tag(key, &header) });
        let payload = match rng.below(100) {
            0..94 => HEADER_BYTES as u64,
            94..96 => rng.below(HEADER_BYTES as u64),
            96..99 => rng.between(HEADER_BYTES as u64 + 1, HEADER_BYTES as u64 + 40),
            _ => rng.between(HEADER_BYTES as u64, 4200),
        } as usize;
        let padding = if rng.chance(50_000) { rng.below(20) as usize } else { 0 };
        let port = if rng.chance(10_000) { rng.pick(&[7100, 7101, 7200]) } else { endpoint.port };
        Frame {
            interface: if rng.chance(850_000) { 0 } else { INTERFACES - 1 },
            is_joined: rng.chance(3_000),
            bytes: enveloped(&header, payload, padding, port, rng),
        }
    }

    fn header(&mut self, world: &World, endpoint: &Endpoint, peer: &Peer, rng: &mut Rng) -> Header {
        let kind = match rng.below(100) {
            0..45 => Kind::Request,
            45..60 => Kind::Forward,
            60..78 => Kind::InvalidateAck,
            78..85 => Kind::Ping,
            _ => rng.pick(&Kind::ALL),
        };
        let rarely = |rng: &mut Rng| rng.chance(6_000);
        let mut header = Header { version: 1, kind: kind as u8, ..Header::default() };
        if rarely(rng) {
            header.kind = rng.draw() as u8;
        }
        header.cluster.set(endpoint.us.cluster ^ u32::from(rarely(rng)));
        header.epoch.set(endpoint.us.epoch + u32::from(rarely(rng)));
        header.source.set(peer.node);
        header.destination.set(endpoint.us.me ^ u16::from(rarely(rng)));
        header.space.set(endpoint.us.space ^ u32::from(rarely(rng)));
        let is_write = kind == Kind::Request && rng.chance(250_000);
        header.flags.set(if is_write { write_flags(rng) } else { flags(kind, rng) });
        header.page.set(page(endpoint, rng));
        header.page_version.set(rng.between(1, 5) as u32);
        if is_write && rng.chance(500_000) {
            header.page_version.set(known_era_at_home(world, endpoint, header.page.get()).unwrap_or(1));
        }
        let asker = if kind == Kind::Forward || rng.chance(10_000) { rng.pick(&NODES) } else { peer.node };
        header.request.set(RequestId::new(NodeId(asker), rng.below(1000)).0);
        match kind {
            Kind::Ping if rng.chance(900_000) => header.page.set(0),
            Kind::Forward if rng.chance(900_000) => {
                let found = known_era(world, endpoint, header.page.get());
                header.page_version.set(found.unwrap_or(1));
            }
            Kind::InvalidateAck if rng.chance(950_000) => acknowledge(&mut header, world, endpoint, peer.node, rng),
            _ => {}
        }
        header.sequence.set(self.sequence(endpoint.record, peer.node, rng));
        header.payload_tag.set(if rng.chance(50_000) { rng.draw() } else { 0 });
        header
    }

    fn sequence(&mut self, endpoint: u32, node: u16, rng: &mut Rng) -> u64 {
        let is_kernels = rng.chance(350_000);
        let next = self.sequences.entry((endpoint, node, is_kernels)).or_insert(4 * WINDOW_SLOTS);
        *next += if rng.chance(20_000) { rng.below(2 * WINDOW_SLOTS) } else { 1 };
        let number = match rng.below(200) {
            0..8 => next.saturating_sub(rng.below(2 * WINDOW_SLOTS)),
            8 => rng.draw() & !(SEQUENCE_BULK | SEQUENCE_KERNEL),
            _ => *next,
        };
        let bulk = if rng.chance(10_000) { SEQUENCE_BULK } else { 0 };
        number | bulk | if is_kernels { SEQUENCE_KERNEL } else { 0 }
    }
}

fn flags(kind: Kind, rng: &mut Rng) -> u16 {
    let count = if rng.chance(600_000) { 1 } else { rng.between(1, 16) as u16 };
    let mut bits = 0;
    for (flag, millionths) in [(FLAG_WRITE, 40_000), (FLAG_COPY, 20_000), (FLAG_ZERO, 20_000), (FLAG_FRAGMENT, 20_000)] {
        bits |= if rng.chance(millionths) { flag } else { 0 };
    }
    let line = if rng.chance(500_000) { rng.draw() as u16 & 0x30f0 } else { 0 };
    if kind == Kind::Ping { 0 } else { Header::flags_with_count(bits | line, count).get() }
}

fn write_flags(rng: &mut Rng) -> u16 {
    let copy = if rng.chance(400_000) { FLAG_COPY } else { 0 };
    let count = if rng.chance(980_000) { 1 } else { rng.between(1, 16) as u16 };
    Header::flags_with_count(FLAG_WRITE | copy | rng.draw() as u16 & 0x30f0, count).get()
}

/// The era of a page as its directory had it at first.
fn known_era_at_home(world: &World, endpoint: &Endpoint, page: u64) -> Option<u32> {
    use dsm_fast::layout::{Map, directory_of, extent_key};
    let directory = directory_of(*world.extents.get(&extent_key(endpoint.record, page / PAGES_PER_EXTENT))?)?;
    let place = dsm_fast::cell(Map::Directory, directory, (page % PAGES_PER_EXTENT) as usize);
    Some((world.arrays.at(place)?.load(std::sync::atomic::Ordering::Relaxed) >> 32) as u32)
}

fn page(endpoint: &Endpoint, rng: &mut Rng) -> u64 {
    match rng.below(100) {
        0..70 if !endpoint.blocks.is_empty() => {
            // Seldom over the end of a block of pages that are alike.
            let offset = if rng.chance(900_000) { rng.below(17) } else { rng.below(32) };
            rng.pick(&endpoint.blocks) + offset
        }
        70..95 if !endpoint.extents.is_empty() => rng.pick(&endpoint.extents) * PAGES_PER_EXTENT + rng.below(PAGES_PER_EXTENT),
        95..97 => PAGE_LIMIT + rng.below(512) * rng.below(1 << 40),
        97 => rng.draw(),
        _ => rng.below(200 * PAGES_PER_EXTENT),
    }
}

/// The era of a page as its directory, or whoever published it, had it at first.
fn known_era(world: &World, endpoint: &Endpoint, page: u64) -> Option<u32> {
    use dsm_fast::layout::{Map, extent_key, places_of};
    use std::sync::atomic::Ordering::Relaxed;
    let places = places_of(*world.extents.get(&extent_key(endpoint.record, page / PAGES_PER_EXTENT))?)?;
    let word = |map, record, word| Some(world.arrays.at(dsm_fast::cell(map, record, word))?.load(Relaxed));
    let index = (word(Map::Places, places, (page % PAGES_PER_EXTENT) as usize)? as u32).checked_sub(1)?;
    Some(word(Map::Copy, index, dsm_fast::layout::COPY_ERA)? as u32)
}

fn acknowledge(header: &mut Header, world: &World, endpoint: &Endpoint, node: u16, rng: &mut Rng) {
    let here = || world.awaited.iter().filter(|awaited| awaited.endpoint == endpoint.record);
    let is_asked = |nodes: u64| node < 64 && nodes & 1 << node != 0;
    let count = here().filter(|awaited| is_asked(awaited.nodes)).count() as u64;
    let found = match count {
        0 => here().nth(rng.below(10) as usize),
        _ => here().filter(|awaited| is_asked(awaited.nodes)).nth(rng.below(count) as usize),
    };
    if let Some(awaited) = found {
        header.page.set(awaited.page);
        header.request.set(awaited.request);
        header.page_version.set(awaited.era + u32::from(rng.chance(20_000)));
    }
}

fn enveloped(header: &Header, payload: usize, padding: usize, port: u16, rng: &mut Rng) -> Vec<u8> {
    let mut bytes = ENVELOPE_FRONT.to_vec();
    let total = (IP_BYTES + UDP_BYTES + payload) as u16;
    let fragment = if rng.chance(500_000) { 0x40 } else { 0 };
    bytes.extend([0x45, rng.pick(&[0, 0x10]), (total >> 8) as u8, total as u8, rng.draw() as u8, rng.draw() as u8, fragment, 0]);
    bytes.extend([64, UDP, rng.draw() as u8, rng.draw() as u8, 10, 78, 0, 2, 10, 78, 0, 1]);
    let udp = (UDP_BYTES + payload) as u16;
    bytes.extend(rng.pick(&[7000u16, 7001, 40_000]).to_be_bytes());
    bytes.extend(port.to_be_bytes());
    bytes.extend(udp.to_be_bytes());
    bytes.extend([rng.draw() as u8, rng.draw() as u8]);
    assert_eq!(bytes.len(), size_of::<Envelope>(), "the three headers");
    let begin = bytes.len();
    bytes.extend(header.as_bytes());
    bytes.resize(begin + payload, 0xa5);
    bytes.resize(bytes.len() + padding, 0);
    bytes
}

/// Spoils a frame after it was tagged.
fn mutate(frame: &mut Frame, rng: &mut Rng) {
    let bytes = &mut frame.bytes;
    let envelope = size_of::<Envelope>();
    match rng.below(11) {
        0..3 => {
            // In the header, if there is one.
            let from = envelope.min(bytes.len() - 1);
            for _ in 0..rng.between(1, 3) {
                flip(bytes, from, envelope + HEADER_BYTES, rng);
            }
        }
        3 => flip(bytes, 0, envelope, rng),
        4 => bytes.truncate(rng.between(SHORTEST as u64, bytes.len() as u64) as usize),
        5 => {
            set(bytes, ETHERNET_BYTES + IP_BYTES + 4, &(rng.pick(&[0, 7, 8, 71, 72, 73, 100, 4168, 65_535]) as u16).to_be_bytes())
        }
        6 => set(bytes, ETHERNET_BYTES + 2, &(rng.below(200) as u16).to_be_bytes()),
        7 => {
            // Options of IP: a word of no operations.
            set(bytes, ETHERNET_BYTES, &[0x46]);
            bytes.splice(ETHERNET_BYTES + IP_BYTES..ETHERNET_BYTES + IP_BYTES, [1; 4]);
        }
        8 => set(bytes, ETHERNET_BYTES + 6, &rng.pick(&[[0x20, 0], [0, 1], [0x1f, 0xff], [0x80, 0]])),
        9 => match rng.below(3) {
            0 => set(bytes, 12, &rng.pick(&[[0x86, 0xdd], [0x08, 0x06], [0, 0], [0x88, 0xcc]])),
            1 => set(bytes, ETHERNET_BYTES + 9, &[rng.pick(&[1, 6, 132])]),
            _ => drop(bytes.splice(12..12, rng.pick(&[[0x81, 0, 0, 5], [0x88, 0xa8, 0x20, 1]]))),
        },
        _ => bytes.iter_mut().skip(rng.below(60) as usize).for_each(|byte| *byte = rng.draw() as u8),
    }
}

fn flip(bytes: &mut [u8], from: usize, to: usize, rng: &mut Rng) {
    let at = rng.between(from as u64, to.min(bytes.len()) as u64 - 1) as usize;
    bytes[at] ^= 1 << rng.below(8);
}

fn set(bytes: &mut [u8], at: usize, values: &[u8]) {
    for (byte, value) in bytes.iter_mut().skip(at).zip(values) {
        *byte = *value;
    }
}

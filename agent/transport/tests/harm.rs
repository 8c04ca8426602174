//! Live: wrong keys, forged, damaged and replayed frames are counted and change nothing.
//!
//! Owns the cases where somebody means harm; a tap between two endpoints sees and sends what an attacker could. Needs no privilege.

mod common;

use common::{Net, Page, Seen, Tap, config, contents, grant, request};
use dsm_transport::{Class, Counters, EndpointConfig, LostReason};
use dsm_wire::{Kind, SpaceId};
use std::time::Duration;

/// Two endpoints; what node 0 sends to node 1 passes through taps, what node 1 sends goes straight.
struct Tapped {
    net: Net,
    urgent: Tap,
    bulk: Tap,
    recorded: Vec<Vec<u8>>,
}

impl Tapped {
    fn new() -> Tapped {
        let mut net = Net::strangers(vec![config(0), config(1)]);
        let (urgent, bulk) = net.endpoints[1].listening();
        let (urgent, bulk) = (Tap::new(urgent), Tap::new(bulk));
        let straight = net.endpoints[0].listening();
        net.introduce(0, 1, (urgent.address(), bulk.address()));
        net.introduce(1, 0, straight);
        let mut tapped = Tapped { net, urgent, bulk, recorded: Vec::new() };
        tapped.until("handshake", |net| net.seen.iter().all(|seen| seen.iter().any(|seen| matches!(seen, Seen::Up(_)))));
        tapped.run();
        tapped.net.seen.iter_mut().for_each(Vec::clear);
        tapped
    }

    fn pass_on(&mut self) {
        for tap in [&self.urgent, &self.bulk] {
            for frame in tap.take() {
                tap.pass(&frame);
                self.recorded.push(frame);
            }
        }
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&Net) -> bool) {
        let limit = std::time::Instant::now() + Duration::from_secs(10);
        while !done(&self.net) {
            assert!(std::time::Instant::now() < limit, "{what}; {:#?}", self.net.counters());
            self.net.step();
            self.pass_on();
        }
    }

    fn run(&mut self) {
        let end = self.net.now().after(Duration::from_millis(30));
        while self.net.now() < end {
            self.net.step();
            self.pass_on();
        }
    }

    /// Sends `frames` to node 1's urgent socket and returns what its counters gained. Nothing may come of them.
    fn attack(&mut self, frames: &[Vec<u8>]) -> Counters {
        let before = self.net.counters()[1];
        frames.iter().for_each(|frame| self.urgent.pass(frame));
        let end = self.net.now().after(Duration::from_millis(10));
        while self.net.now() < end {
            self.net.step();
            self.pass_on();
        }
        assert!(self.net.seen[1].is_empty(), "{:?}", self.net.seen[1]);
        let after = self.net.counters()[1];
        let mut gained = Counters::default();
        macro_rules! gain {
            ($($name:ident)*) => { $(gained.$name = after.$name - before.$name;)* };
        }
        gain!(dropped_short dropped_version dropped_kind dropped_length dropped_field dropped_cluster dropped_epoch dropped_destination
              dropped_unknown_peer dropped_header_tag dropped_payload_tag dropped_replay dropped_handshake handshakes_done peers_lost);
        // Still on speaking terms.
        assert!(self.net.send(0, 1, &request(99, 99), &[], Class::Urgent));
        self.until("still speaking", |net| net.frames(1) == 1);
        self.net.seen[1].clear();
        gained
    }
}

/// A request and a grant of a page from node 0 to node 1, as they were on the wire.
fn captured(tapped: &mut Tapped) -> (Vec<u8>, Vec<u8>) {
    tapped.recorded.clear();
    assert!(tapped.net.send(0, 1, &request(1, 5), &[], Class::Urgent));
    assert!(tapped.net.send(0, 1, &grant(2, 6, 1), &[contents(6)], Class::Urgent));
    tapped.until("both frames", |net| net.frames(1) == 2);
    tapped.net.seen[1].clear();
    let of_kind = |kind: Kind| tapped.recorded.iter().find(|frame| frame[1] == kind as u8).expect("it was sent").clone();
    (of_kind(Kind::Request), of_kind(Kind::Grant))
}

#[test]
fn replayed_frames_are_dropped() {
    let mut tapped = Tapped::new();
    let (request, grant) = captured(&mut tapped);
    let gained = tapped.attack(&[request.clone(), grant.clone(), request, grant]);
    assert_eq!(gained, Counters { dropped_replay: 4, ..Counters::default() });
}

#[test]
fn urgent_frame_replayed_to_the_bulk_socket_is_dropped() {
    let mut tapped = Tapped::new();
    let (request, _) = captured(&mut tapped);
    tapped.bulk.pass(&request);
    tapped.run();
    assert!(tapped.net.seen[1].is_empty());
    assert_eq!(tapped.net.counters()[1].dropped_field, 1);
}

#[test]
fn every_flipped_bit_of_a_frame_is_noticed() {
    let mut tapped = Tapped::new();
    let (request, grant) = captured(&mut tapped);
    let flipped = |frame: &[u8], byte: usize| {
        let mut frame = frame.to_vec();
        frame[byte] ^= 0x10;
        frame
    };
    let forged: Vec<Vec<u8>> = (0..64).map(|byte| flipped(&request, byte)).collect();
    let gained = tapped.attack(&forged);
    let dropped: u64 = gained.named().filter(|(name, _)| name.starts_with("dropped_")).map(|(_, value)| value).sum();
    assert_eq!(dropped, 64, "{gained:#?}");
    assert!(gained.dropped_header_tag >= 30 && gained.dropped_cluster == 4 && gained.dropped_epoch == 4, "{gained:#?}");
    // The payload is covered as well. These have an unseen sequence only if the tag lets them in.
    let forged: Vec<Vec<u8>> = [64, 1000, 64 + 4095].map(|byte| flipped(&grant, byte)).to_vec();
    let gained = tapped.attack(&forged);
    assert_eq!(gained.dropped_payload_tag + gained.dropped_replay, 3, "{gained:#?}");
}

#[test]
fn damaged_page_is_dropped_and_the_good_one_still_accepted() {
    let mut tapped = Tapped::new();
    assert!(tapped.net.send(0, 1, &grant(2, 6, 1), &[contents(6)], Class::Urgent));
    tapped.net.step_one(0);
    let frames = tapped.urgent.take();
    let good = frames.iter().find(|frame| frame[1] == Kind::Grant as u8).unwrap();
    let mut bad = good.clone();
    bad[3000] ^= 1;
    tapped.urgent.pass(&bad);
    tapped.run();
    assert!(tapped.net.seen[1].is_empty());
    assert_eq!(tapped.net.counters()[1].dropped_payload_tag, 1);
    tapped.urgent.pass(good);
    tapped.until("the good one", |net| net.frames(1) == 1);
}

#[test]
fn garbage_is_dropped() {
    let mut tapped = Tapped::new();
    let (request, grant) = captured(&mut tapped);
    // An empty datagram ends the kernel's receive: it must be armed again.
    let gained = tapped.attack(&[
        vec![],
        vec![1],
        vec![0; 63],
        vec![0xff; 64],
        vec![1; 9000],
        grant[..100].to_vec(),
        [request, vec![0; 9]].concat(),
    ]);
    // What follows a whole frame is taken for a datagram that the kernel joined to it: the 9000 bytes are 140 headers of a strange
    // cluster and a rest that is none, and so are the nine bytes.
    assert_eq!((gained.dropped_short, gained.dropped_version, gained.dropped_replay), (4, 1, 1), "{gained:#?}");
    assert_eq!((gained.dropped_length, gained.dropped_cluster), (1, 9000 / 64), "{gained:#?}");
}

#[test]
fn replayed_handshake_disturbs_nothing() {
    let mut tapped = Tapped::new();
    let greetings: Vec<Vec<u8>> = tapped.recorded.iter().filter(|frame| frame[1] >= Kind::HandshakeInit as u8).cloned().collect();
    assert!(greetings.iter().any(|frame| frame[1] == Kind::HandshakeInit as u8));
    assert!(greetings.iter().any(|frame| frame[1] == Kind::HandshakeFinish as u8));
    for _ in 0..3 {
        let gained = tapped.attack(&greetings);
        assert_eq!((gained.handshakes_done, gained.peers_lost), (0, 0), "{gained:#?}");
    }
    // Damaged ones never reach the curve arithmetic.
    let damaged: Vec<Vec<u8>> = greetings
        .iter()
        .map(|frame| {
            let mut frame = frame.clone();
            *frame.last_mut().unwrap() ^= 1;
            frame
        })
        .collect();
    let gained = tapped.attack(&damaged);
    assert_eq!(gained.dropped_payload_tag, damaged.len() as u64, "{gained:#?}");
}

#[test]
fn peer_restarted_at_the_same_address_is_lost_once_it_proves_itself() {
    let mut tapped = Tapped::new();
    tapped.net.endpoints[1] = dsm_transport::Endpoint::bind(config(1)).unwrap();
    (tapped.urgent.to, tapped.bulk.to) = tapped.net.endpoints[1].listening();
    let straight = tapped.net.endpoints[0].listening();
    tapped.net.introduce(1, 0, straight);
    tapped.until("restart noticed", |net| !net.seen[0].is_empty());
    assert_eq!(tapped.net.seen[0], [Seen::Lost(1, LostReason::Restarted)]);
    tapped.run();
    assert_eq!(tapped.net.seen[0].len(), 1, "said once");
}

#[test]
fn thousands_of_mutated_frames_change_nothing() {
    let mut tapped = Tapped::new();
    let mut seeds = tapped.recorded.clone();
    let (request, grant) = captured(&mut tapped);
    seeds.extend([request, grant]);
    let mut state = 0x5eed_u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as usize % below
    };
    for _ in 0..50 {
        let mutated: Vec<Vec<u8>> = (0..100)
            .map(|_| {
                let mut frame = seeds[next(seeds.len())].clone();
                for _ in 0..=next(4) {
                    let byte = next(frame.len().min(80));
                    frame[byte] = frame[byte].wrapping_add(1 + next(255) as u8);
                }
                let length = if next(4) == 0 { next(frame.len() + 1) } else { frame.len() };
                frame[..length].to_vec()
            })
            .collect();
        let gained = tapped.attack(&mutated);
        assert_eq!((gained.handshakes_done, gained.peers_lost), (0, 0), "{gained:#?}");
    }
}

fn check_stranger(stranger: EndpointConfig, counted: impl Fn(&Counters) -> u64) {
    let mut net = Net::new(vec![config(0), stranger]);
    net.send(1, 0, &request(1, 1), &[], Class::Urgent);
    net.until("a refusal", |net| counted(&net.counters()[0]) > 0);
    net.run(Duration::from_millis(300));
    assert!(net.seen.iter().all(Vec::is_empty), "{:?}", net.seen);
    assert_eq!(net.counters()[0].handshakes_done, 0);
}

#[test]
fn strangers_get_nothing() {
    check_stranger(EndpointConfig { cluster_key: [43; 32], ..config(1) }, |counters| counters.dropped_payload_tag);
    check_stranger(EndpointConfig { cluster: 5, ..config(1) }, |counters| counters.dropped_cluster);
    check_stranger(EndpointConfig { space: SpaceId(5), ..config(1) }, |counters| counters.dropped_destination);
}

#[test]
fn page_bytes_of_another_place_do_not_fit() {
    // The payload tag binds the bytes to their page: the payload of one grant behind the header of another is refused.
    let mut tapped = Tapped::new();
    let pages: [Page; 2] = [contents(1), contents(2)];
    assert!(tapped.net.send(0, 1, &grant(1, 1, 1), &pages[..1], Class::Urgent));
    assert!(tapped.net.send(0, 1, &grant(2, 2, 1), &pages[1..], Class::Urgent));
    tapped.net.step_one(0);
    let frames: Vec<Vec<u8>> = tapped.urgent.take().into_iter().filter(|frame| frame[1] == Kind::Grant as u8).collect();
    let gained = tapped.attack(&[[&frames[0][..64], &frames[1][64..]].concat()]);
    assert_eq!(gained.dropped_payload_tag, 1, "{gained:#?}");
}

//! Live: endpoints on the loopback address shake hands and exchange pages, whole, grouped and in pieces, also over a bad network.
//!
//! Owns the cases where nobody means harm. Needs no privilege.

mod common;

use common::{Net, Page, Seen, config, contents, grant, request};
use dsm_transport::{Class, EndpointConfig, FaultPlan, LostReason, SendRefusal};
use dsm_wire::{Epoch, Era, GrantContent, Message, NodeId, PageNumber, RequestId};
use std::collections::BTreeSet;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

#[test]
fn three_nodes_shake_hands_and_speak() {
    let mut net = Net::new(vec![config(0), config(1), config(2)]);
    net.until_all_up();
    for from in 0..3 {
        for to in (0..3).filter(|to| *to != from) {
            assert!(net.send(from, to, &request((from * 10 + to) as u64, 5), &[], Class::Urgent));
        }
    }
    net.until("two frames each", |net| (0..3).all(|index| net.frames(index) == 2));
    for (index, seen) in net.seen.iter().enumerate() {
        for seen in seen {
            let Seen::Frame(from, message, pages) = seen else { panic!("{seen:?}") };
            assert_eq!((*message, pages.len()), (request((*from as usize * 10 + index) as u64, 5), 0));
        }
    }
}

#[test]
fn frames_wait_for_the_handshake() {
    let mut net = Net::new(vec![config(0), config(1)]);
    assert!(net.send(1, 0, &request(1, 1), &[], Class::Urgent));
    net.until("frame after handshake", |net| net.frames(0) == 1);
    assert_eq!(net.seen[0][0], Seen::Up(1));
}

/// What is ready together may leave together; all of it comes, once and in order, whatever stands between.
#[test]
fn orders_that_leave_together_come_apart() {
    const FRAMES: u64 = 100;
    for mtu in [dsm_transport::limits::MTU_MIN, 1500, 9000] {
        let config = |me| EndpointConfig { mtu, ..config(me) };
        let mut net = Net::new(vec![config(0), config(1)]);
        net.until_all_up();
        let order = |number: u64| match number % 9 {
            8 => request(number, number),
            _ => Message::Invalidate { request: RequestId(number), page: PageNumber(number), era: Era(7) },
        };
        for number in 0..FRAMES {
            assert!(net.send(0, 1, &order(number), &[], Class::Urgent));
        }
        net.until("all frames", |net| net.frames(1) == FRAMES as usize);
        for (number, seen) in (0..FRAMES).zip(&net.seen[1]) {
            assert_eq!(*seen, Seen::Frame(0, order(number), Vec::new()), "mtu {mtu}");
        }
    }
}

fn check_echo(mtu: u16, count: u16, class: Class, frames: usize) {
    let config = |me| EndpointConfig { mtu, ..config(me) };
    let mut net = Net::new(vec![config(0), config(1)]);
    net.until_all_up();
    let pages: Vec<Page> = (0..u64::from(count)).map(|index| contents(100 + index)).collect();
    assert!(net.send(0, 1, &grant(9, 100, count), &pages, class));
    net.until("grants", |net| net.frames(1) == frames);
    let mut got = BTreeSet::new();
    for seen in std::mem::take(&mut net.seen[1]) {
        let Seen::Frame(0, message, pages) = seen else { panic!("{seen:?}") };
        let Message::Grant { request: RequestId(9), page, count, content: GrantContent::Bytes, .. } = message else {
            panic!("{message:?}")
        };
        assert_eq!(usize::from(count), pages.len());
        for (page, bytes) in (page.0..).zip(pages) {
            assert!(*bytes == contents(page), "page {page} over mtu {mtu}");
            assert!(got.insert(page));
        }
        // And back, as it came.
        assert!(
            net.send(1, 0, &message, &[contents(page.0), contents(page.0 + 1)][..usize::from(count).min(2)], class) || count > 2
        );
    }
    assert_eq!(got, (100..100 + u64::from(count)).collect());
}

#[test]
fn pages_travel_whole_grouped_and_in_pieces() {
    check_echo(9000, 1, Class::Urgent, 1);
    check_echo(9000, 2, Class::Bulk, 1);
    check_echo(9000, 5, Class::Bulk, 3);
    check_echo(9000, 16, Class::Bulk, 8);
    check_echo(1500, 1, Class::Urgent, 1);
    check_echo(1500, 16, Class::Bulk, 16);
    check_echo(4300, 16, Class::Bulk, 16);
    check_echo(576, 3, Class::Urgent, 3);
    check_echo(65_535, 16, Class::Bulk, 2);
}

/// Requests pages until each came, as the protocol would: the same id again after a while.
fn check_bad_network(mtu: u16, faults: FaultPlan) {
    const PAGES: u64 = 200;
    let config = |me| EndpointConfig { mtu, faults: FaultPlan { seed: faults.seed + u64::from(me), ..faults }, ..config(me) };
    let mut net = Net::new(vec![config(0), config(1)]);
    net.until_all_up();
    let mut missing: BTreeSet<u64> = (0..PAGES).collect();
    let limit = Instant::now() + Duration::from_secs(20);
    while !missing.is_empty() {
        assert!(Instant::now() < limit, "{} pages missing; {:#?}", missing.len(), net.counters());
        for page in &missing {
            net.send(0, 1, &request(*page, *page), &[], Class::Urgent);
        }
        for _ in 0..20 {
            net.run(Duration::from_micros(500));
            for seen in std::mem::take(&mut net.seen[1]) {
                if let Seen::Frame(0, Message::Request { request, page, .. }, _) = seen {
                    net.send(1, 0, &grant(request.0, page.0, 1), &[contents(page.0)], Class::Urgent);
                }
            }
            for seen in std::mem::take(&mut net.seen[0]) {
                if let Seen::Frame(1, Message::Grant { page, .. }, pages) = seen {
                    assert!(*pages[0] == contents(page.0));
                    missing.remove(&page.0);
                }
            }
        }
    }
    for counters in net.counters() {
        assert!(counters.injected_loss > 0, "{counters:#?}");
        assert_eq!(counters.dropped_header_tag + counters.dropped_payload_tag + counters.peers_lost, 0, "{counters:#?}");
    }
}

#[test]
fn ten_percent_loss() {
    let faults = FaultPlan { seed: 1, loss_permille: 100, ..FaultPlan::NONE };
    check_bad_network(9000, faults);
    check_bad_network(1500, faults);
}

#[test]
fn loss_doubles_and_reordering() {
    let delay_max = Duration::from_millis(3);
    let faults = FaultPlan { seed: 2, loss_permille: 100, duplicate_permille: 200, delay_permille: 200, delay_max };
    check_bad_network(9000, faults);
    check_bad_network(1500, faults);
}

#[test]
fn bulk_flood_is_held_by_credits_and_all_of_it_arrives() {
    const GRANTS: u64 = 400;
    for mtu in [1500, 9000] {
        let config = |me| EndpointConfig { mtu, ..config(me) };
        let mut net = Net::new(vec![config(0), config(1)]);
        net.until_all_up();
        let pages: Vec<Page> = (0..16).map(contents).collect();
        let (mut sent, mut refused) = (0, 0);
        let mut got = BTreeSet::new();
        net.until("the flood", |net| {
            // The receiver looks only now and then: without credits its socket would overflow.
            while sent < GRANTS && net.send(0, 1, &grant(sent, sent * 16, 16), &pages, Class::Bulk) {
                sent += 1;
            }
            refused += u64::from(sent < GRANTS);
            (0..50).for_each(|_| net.step_one(0));
            for seen in std::mem::take(&mut net.seen[1]) {
                if let Seen::Frame(0, Message::Grant { page, count, .. }, _) = seen {
                    got.extend(page.0..page.0 + u64::from(count));
                }
            }
            got.len() as u64 == GRANTS * 16
        });
        let counters = net.counters();
        assert!(refused > 0 && counters[0].refused_queue_full > 0 && counters[0].no_credit > 0, "{counters:#?}");
        assert_eq!(counters[1].fragments_expired + counters[1].dropped_replay, 0, "{counters:#?}");
    }
}

#[test]
fn flood_between_three_nodes_with_faults_everywhere() {
    const GRANTS: u64 = 60;
    let delay_max = Duration::from_millis(1);
    let config = |me: u16| {
        let faults = FaultPlan { seed: u64::from(me), loss_permille: 50, duplicate_permille: 50, delay_permille: 100, delay_max };
        EndpointConfig { mtu: [1500, 9000, 4300][usize::from(me)], faults, ..config(me) }
    };
    let mut net = Net::new((0..3).map(config).collect());
    net.until_all_up();
    let pages: Vec<Page> = (0..16).map(contents).collect();
    let mut sent = [[0; 3]; 3];
    let mut seen_twice = 0;
    let mut got = BTreeSet::new();
    net.until("everybody's flood leaves", |net| {
        for (from, to) in [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)] {
            let id = (from * 3 + to) as u64 * 1_000_000 + sent[from][to];
            if sent[from][to] < GRANTS && net.send(from, to, &grant(id, 0, 16), &pages, Class::Bulk) {
                sent[from][to] += 1;
            }
        }
        for seen in net.seen.iter_mut().flat_map(std::mem::take) {
            let Seen::Frame(_, Message::Grant { request, page, .. }, bytes) = seen else { panic!("{seen:?}") };
            assert!((page.0..).zip(&bytes).all(|(page, bytes)| **bytes == contents(page)));
            seen_twice += u64::from(!got.insert((request, page)));
        }
        // Losses are not repaired here, but most of it arrives, and nobody is stuck.
        let wanted = GRANTS * 6 * 16;
        sent.iter().flatten().sum::<u64>() == GRANTS * 6 && got.len() as u64 > wanted / 3
    });
    assert_eq!(seen_twice, 0, "doubled datagrams are replays");
    assert!(net.counters().iter().all(|counters| counters.dropped_replay > 0 && counters.peers_lost == 0));
}

#[test]
fn lost_bulk_frees_its_credits() {
    const GRANTS: u64 = 300;
    let faults = FaultPlan { seed: 3, loss_permille: 300, ..FaultPlan::NONE };
    let mut net = Net::new(vec![EndpointConfig { faults, ..config(0) }, config(1)]);
    net.until_all_up();
    let pages: Vec<Page> = (0..16).map(contents).collect();
    let mut sent = 0;
    net.until("all sent despite loss", |net| {
        while sent < GRANTS && net.send(0, 1, &grant(sent, sent * 16, 16), &pages, Class::Bulk) {
            sent += 1;
        }
        let out = net.counters()[0];
        sent == GRANTS && out.frames_out_bulk + out.injected_loss >= GRANTS * 8
    });
    assert!(net.counters()[0].no_credit > 0);
}

#[test]
fn silent_peer_is_lost_once() {
    let mut net = Net::new(vec![config(0), config(1)]);
    net.until_all_up();
    // Pings keep a quiet peer alive.
    for _ in 0..10 {
        net.skip(Duration::from_millis(600));
        net.run(Duration::from_millis(2));
    }
    assert!(net.seen.iter().all(Vec::is_empty), "{:?}", net.seen);
    for _ in 0..10 {
        net.skip(Duration::from_millis(600));
        net.step_one(0);
    }
    assert_eq!(net.seen[0], [Seen::Lost(1, LostReason::Lease)]);
    let now = net.now();
    assert_eq!(net.endpoints[0].send(now, NodeId(1), &request(1, 1), &[], Class::Urgent), Err(SendRefusal::PeerLost));
    assert_eq!(net.endpoints[0].send(now, NodeId(9), &request(1, 1), &[], Class::Urgent), Err(SendRefusal::UnknownPeer));
}

#[test]
fn peer_that_never_answers_is_lost() {
    let mut net = Net::strangers(vec![config(0), config(1)]);
    let address = net.endpoints[1].listening();
    net.introduce(0, 1, address);
    for _ in 0..40 {
        net.skip(Duration::from_millis(300));
        net.step();
    }
    assert_eq!(net.seen[0], [Seen::Lost(1, LostReason::NoHandshake)]);
    assert!(net.counters()[1].dropped_unknown_peer > 5);
}

#[test]
fn restarted_peer_is_another_incarnation() {
    let mut net = Net::new(vec![config(0), config(1)]);
    net.until_all_up();
    net.endpoints[1] = dsm_transport::Endpoint::bind(config(1)).unwrap();
    let (mine, its) = (net.endpoints[0].listening(), net.endpoints[1].listening());
    net.introduce(1, 0, mine);
    net.run(Duration::from_millis(150));
    assert!(net.seen[0].is_empty(), "an Init alone disturbs nothing; {:?}", net.seen[0]);
    // Node 0 still answers to the old address; a new one comes with the membership.
    net.introduce(0, 1, its);
    net.until_all_up();
}

#[test]
fn other_epochs_are_dropped() {
    let mut net = Net::new(vec![config(0), config(1)]);
    net.until_all_up();
    net.endpoints[1].set_epoch(Epoch(2));
    net.send(0, 1, &request(1, 1), &[], Class::Urgent);
    net.until("drop", |net| net.counters()[1].dropped_epoch == 1);
    assert_eq!(net.frames(1), 0);
    net.endpoints[0].set_epoch(Epoch(2));
    net.send(0, 1, &request(2, 1), &[], Class::Urgent);
    net.until("frame of the new epoch", |net| net.frames(1) == 1);
}

#[test]
fn watched_descriptors() {
    let mut net = Net::new(vec![config(0)]);
    let (reader, mut writer) = std::io::pipe().unwrap();
    net.endpoints[0].watch(reader.as_fd(), 77).unwrap();
    assert!(net.endpoints[0].watch(reader.as_fd(), 77).is_err(), "token in use");
    net.step();
    assert!(net.seen[0].is_empty());
    for _ in 0..3 {
        writer.write_all(b"x").unwrap();
        net.until("ready", |net| net.seen[0] == [Seen::Ready(77)]);
        net.seen[0].clear();
    }
    net.endpoints[0].unwatch(77);
    net.step();
    writer.write_all(b"x").unwrap();
    net.run(Duration::from_millis(5));
    assert!(net.seen[0].is_empty());
    net.endpoints[0].watch(reader.as_fd(), 78).unwrap();
    net.until("ready at once: bytes are there", |net| net.seen[0] == [Seen::Ready(78)]);
}

#[test]
fn waiting_ends_at_the_deadline_and_at_an_event() {
    let mut net = Net::new(vec![config(0), config(1)]);
    net.until_all_up();
    net.run(Duration::from_millis(50));
    let start = Instant::now();
    let now = net.now();
    net.endpoints[0].wait(now, Some(now.after(Duration::from_millis(30)))).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(29), "{:?}", start.elapsed());
    assert!(net.endpoints[0].next_event(now).is_none());
    net.send(1, 0, &request(1, 1), &[], Class::Urgent);
    net.step_one(1);
    let start = Instant::now();
    let now = net.now();
    net.endpoints[0].wait(now, Some(now.after(Duration::from_secs(5)))).unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
    assert!(net.endpoints[0].next_event(now).is_some());
}

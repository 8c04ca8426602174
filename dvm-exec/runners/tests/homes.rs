//! Two nodes, message by message: locks, waits, copies.
//!
//! Owns the order in which messages arrive. Must not look into nodes.

use dvm_disa::machine::Settings;
use dvm_disa::machine::effects::{Kept, page_of};
use dvm_disa::machine::memory::Used;
use dvm_disa::machine::page::Words;
use dvm_disa::machine::runner::Ran;
use dvm_disa::map::{self, PAGE_BYTES};
use dvm_disa::memory::{Born, Spawn};
use dvm_disa::object::Object;
use dvm_disa::types::ExitMode;
use dvm_runners::{Config, Delta, Event, Host, Message, Nanos, Node, Program, Run};
use std::sync::Arc;

/// Nodes whose messages arrive at once.
fn nodes(hosts: usize) -> Vec<Node> {
    let program = Arc::new(Program::new(Object::default(), Settings::default()));
    let config =
        |me| Config { me: Host(me), slots: vec![8; hosts], program: Arc::clone(&program), told_words_max: 64, copies: 1 };
    let mut nodes: Vec<Node> = (0..hosts as u16).map(|me| Node::new(config(me))).collect();
    nodes[0].handle_start(Nanos(0));
    exchange(&mut nodes);
    nodes
}

fn exchange(nodes: &mut [Node]) {
    while let Some((from, (to, message))) = (0..nodes.len()).find_map(|me| Some((me, nodes[me].poll_transmit()?))) {
        nodes[usize::from(to.0)].handle_message(Nanos(0), Host(from as u16), message);
    }
}

fn next_runs(nodes: &mut [Node]) -> Vec<(usize, Run)> {
    let mut runs = Vec::new();
    for (me, node) in nodes.iter_mut().enumerate() {
        while let Some(run) = node.poll_run() {
            runs.push((me, run));
        }
    }
    runs
}

/// A run that stores these words and makes so many runners.
fn ran(run: &Run, words: &[(u64, u64)], children: u64) -> Ran {
    let mut used = Used::default();
    for (address, value) in words {
        let word = (address % PAGE_BYTES / 8) as usize;
        let (words, page) = used.changed.entry(address / PAGE_BYTES).or_insert_with(|| (Words::default(), Default::default()));
        words.insert(word);
        page.write(word * 8, &value.to_le_bytes());
    }
    let mut kept = Kept::default();
    for id in 1..=children {
        let stack = page_of(map::STACKS, id).expect("there is room");
        // Nothing declared: nothing is fetched ahead.
        let spawn = Spawn { stack: None, heap: Vec::new(), watched: Vec::new(), first: 1, is_persistent: false };
        kept.children.push((Born { id, stack }, spawn));
    }
    let runner = run.runner.clone();
    Ran { runner, epoch: run.epoch, end: Ok(ExitMode::Commit), pc: 0, last: 0, used, kept, fuel_used: 1, record: 0 }
}

/// An address whose home is this host.
fn at_home(of: u16, hosts: u64) -> u64 {
    let home = |page: u64| ((page / 512).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) % hosts;
    (0..64)
        .map(|extent| map::SR.base + (extent << 21))
        .find(|address| home(address / PAGE_BYTES) == u64::from(of))
        .expect("each host is one's home")
}

#[test]
fn of_two_commits_with_a_word_in_common_one_is_refused_and_waits() {
    // rule: H1, H4
    let mut nodes = nodes(2);
    let (me, first) = next_runs(&mut nodes).remove(0);
    nodes[me].handle_ran(Nanos(0), first.key, ran(&first, &[], 2));
    exchange(&mut nodes);
    let mut runs = next_runs(&mut nodes);
    assert_eq!(runs.len(), 2);
    let word = at_home(1, 2);
    // The first is prepared, and its coordinator hears nothing yet.
    let (first_at, first) = runs.remove(0);
    nodes[first_at].handle_ran(Nanos(0), first.key, ran(&first, &[(word, 1)], 0));
    let held: Vec<_> = std::iter::from_fn(|| nodes[first_at].poll_transmit()).collect();
    let (second_at, second) = runs.remove(0);
    assert!(held.iter().all(|(to, _)| *to == Host(1)) || first_at == 1, "asked at the home: {held:?}");
    for (to, message) in held {
        nodes[usize::from(to.0)].handle_message(Nanos(0), Host(first_at as u16), message);
    }
    let answers: Vec<_> = std::iter::from_fn(|| nodes[1].poll_transmit()).collect();
    nodes[second_at].handle_ran(Nanos(0), second.key, ran(&second, &[(word, 2)], 0));
    for (to, message) in answers {
        nodes[usize::from(to.0)].handle_message(Nanos(0), Host(1), message);
    }
    exchange(&mut nodes);
    let again = next_runs(&mut nodes);
    let waits = nodes[0].poll_timeout();
    assert!(again.len() == 1 || waits.is_some_and(|at| at.0 <= 10_000_000), "the loser runs again: {again:?}, {waits:?}");
    nodes[0].handle_timeout(Nanos(20_000_000));
    exchange(&mut nodes);
    let again = again.into_iter().chain(next_runs(&mut nodes)).next();
    let (at, again) = again.expect("the loser runs again");
    assert_eq!((again.runner.tries, nodes[at].page(again.key, word / PAGE_BYTES).map(|page| page.word(0))), (2, Some(1)));
}

#[test]
fn small_changes_are_told_and_large_ones_fetched() {
    // rule: H5
    let mut nodes = nodes(3);
    let (me, first) = next_runs(&mut nodes).remove(0);
    let (small, large) = (at_home(0, 3), at_home(1, 3) + PAGE_BYTES);
    let all: Vec<(u64, u64)> = (0..512).map(|word| (large + 8 * word, word + 1)).chain([(small, 7)]).collect();
    nodes[me].handle_ran(Nanos(0), first.key, ran(&first, &all, 24));
    exchange(&mut nodes);
    let runs = next_runs(&mut nodes);
    let (_, third) = runs.iter().find(|(me, _)| *me == 2).expect("each host has some");
    assert_eq!(nodes[2].page(third.key, small / PAGE_BYTES).map(|page| page.word(0)), Some(7));
    assert!(nodes[2].page(third.key, large / PAGE_BYTES).is_none(), "it is asked for");
    let (to, fetch) = nodes[2].poll_transmit().expect("it is asked for");
    assert!(to == Host(1) && matches!(&fetch, Message::Fetch(pages) if pages.len() == 1), "{fetch:?}");
    nodes[1].handle_message(Nanos(0), Host(2), fetch);
    exchange(&mut nodes);
    assert!(matches!(nodes[2].poll_event(), Some(Event::PageReady(key)) if key == third.key));
    let page = nodes[2].page(third.key, large / PAGE_BYTES).expect("it has come");
    assert_eq!((page.word(0), page.word(511)), (1, 512));
    assert_eq!(Delta::whole(3, &page).to_page().word(511), 512);
}

#[test]
fn the_root_validates_its_own_pages_when_it_decides() {
    // rule: H4
    let mut nodes = nodes(2);
    let (me, first) = next_runs(&mut nodes).remove(0);
    nodes[me].handle_ran(Nanos(0), first.key, ran(&first, &[], 4));
    exchange(&mut nodes);
    let runs = next_runs(&mut nodes);
    let word = at_home(0, 2);
    let elsewhere: Vec<&Run> = runs.iter().filter(|(me, _)| *me == 1).map(|(_, run)| run).collect();
    let [one, two] = elsewhere[..] else { panic!("each host has two: {runs:?}") };
    // Both are under way at once, and each is asked for in one message.
    for run in [one, two] {
        nodes[1].handle_ran(Nanos(0), run.key, ran(run, &[(word, run.runner.id)], 0));
        let said: Vec<_> = std::iter::from_fn(|| nodes[1].poll_transmit()).collect();
        let is_commit = |said: &(Host, Message)| matches!(said, (Host(0), Message::Commit(_)));
        assert_eq!(said.iter().filter(|said| is_commit(said)).count(), 1, "{said:?}");
        assert!(!said.iter().any(|(_, message)| matches!(message, Message::Prepare { .. })), "{said:?}");
        said.into_iter().for_each(|(_, message)| nodes[0].handle_message(Nanos(0), Host(1), message));
    }
    exchange(&mut nodes);
    // The second has lost to the first, which is known: it runs again on a snapshot with what that one stored.
    let (at, again) = next_runs(&mut nodes).pop().expect("the loser runs again");
    assert_eq!((again.runner.id, again.runner.tries), (two.runner.id, 2));
    assert_eq!(nodes[at].page(again.key, word / PAGE_BYTES).map(|page| page.word(0)), Some(one.runner.id));
}

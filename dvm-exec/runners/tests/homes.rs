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
    exchange_but(nodes, |_, _, _| false);
}

/// A message, from whom and to whom.
type UnderWay = (Host, Host, Message);

/// Lets messages arrive; those that `holds` keeps back.
fn exchange_but(nodes: &mut [Node], holds: impl Fn(Host, Host, &Message) -> bool) -> Vec<UnderWay> {
    let mut held = Vec::new();
    while let Some((from, (to, message))) = (0..nodes.len()).find_map(|me| Some((Host(me as u16), nodes[me].poll_transmit()?))) {
        if holds(from, to, &message) {
            held.push((from, to, message));
        } else {
            nodes[usize::from(to.0)].handle_message(Nanos(0), from, message);
        }
    }
    held
}

fn deliver(nodes: &mut [Node], held: Vec<UnderWay>) {
    held.into_iter().for_each(|(from, to, message)| nodes[usize::from(to.0)].handle_message(Nanos(0), from, message));
    exchange(nodes);
}

/// Three nodes, each with three runs.
fn three_busy_nodes() -> (Vec<Node>, [Vec<Run>; 3]) {
    let mut nodes = nodes(3);
    let (me, first) = next_runs(&mut nodes).remove(0);
    nodes[me].handle_ran(Nanos(0), first.key, ran(&first, &[], 9));
    exchange(&mut nodes);
    let mut runs: [Vec<Run>; 3] = Default::default();
    next_runs(&mut nodes).into_iter().for_each(|(me, run)| runs[me].push(run));
    assert!(runs.iter().all(|runs| runs.len() == 3), "{runs:?}");
    (nodes, runs)
}

/// The run of a runner that is started again.
fn again(nodes: &mut [Node], id: u64) -> (usize, Run) {
    nodes[0].handle_timeout(Nanos(1_000_000_000));
    exchange(nodes);
    next_runs(nodes).into_iter().find(|(_, run)| run.runner.id == id).expect("it runs again")
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

#[test]
fn a_retry_does_not_meet_its_own_lock() {
    // rule: H4
    let (mut nodes, runs) = three_busy_nodes();
    let (at_root, elsewhere) = (at_home(0, 3), at_home(1, 3));
    let (loser, winner, other) = (&runs[2][0], &runs[0][0], &runs[0][1]);
    nodes[2].handle_ran(Nanos(0), loser.key, ran(loser, &[(at_root, 1), (elsewhere, 1)], 0));
    let held = exchange_but(&mut nodes, |_, _, message| matches!(message, Message::Commit(_)));
    nodes[0].handle_ran(Nanos(0), winner.key, ran(winner, &[(at_root, 2)], 0));
    // One run less at the root than elsewhere, so that the next one starts there.
    nodes[0].handle_ran(Nanos(0), other.key, ran(other, &[], 0));
    exchange(&mut nodes);
    held.into_iter().for_each(|(from, to, message)| nodes[usize::from(to.0)].handle_message(Nanos(0), from, message));
    // What its first host says to the home does not arrive before the end.
    let is_late = |from, to, _: &Message| (from, to) == (Host(2), Host(1));
    let late = exchange_but(&mut nodes, is_late);
    let (at, second) = next_runs(&mut nodes).pop().expect("the loser runs again");
    assert_eq!((at, second.runner.id, second.runner.tries), (0, loser.runner.id, 2));
    nodes[0].handle_ran(Nanos(0), second.key, ran(&second, &[(at_root, 3), (elsewhere, 3)], 0));
    // Its home answers with what it has heard by then.
    let is_refused = |_, _, message: &Message| matches!(message, Message::Refused(..));
    let held = exchange_but(&mut nodes, |from, to, message| is_late(from, to, message) || is_refused(from, to, message));
    assert!(held.iter().all(|(_, _, message)| !matches!(message, Message::Refused(..))), "refused once only: {held:?}");
    deliver(&mut nodes, late);
    assert!(next_runs(&mut nodes).is_empty() && nodes[0].poll_timeout().is_none(), "it has committed");
}

#[test]
fn who_has_lost_often_locks_at_the_root_too() {
    // rule: H4
    let (at_root, elsewhere) = (at_home(0, 3), at_home(1, 3));
    let words = [(at_root, 1), (elsewhere, 1)];
    for (tries, is_first) in [(7, false), (8, true)] {
        let (mut nodes, runs) = three_busy_nodes();
        let (one, rival) = (&runs[2][0], &runs[1][0]);
        let mut tried = ran(one, &words, 0);
        tried.runner.tries = tries;
        nodes[2].handle_ran(Nanos(0), one.key, tried);
        let held = exchange_but(&mut nodes, |from, _, message| from == Host(1) && matches!(message, Message::Prepared(_)));
        assert_eq!(held.len(), 1, "{held:?}");
        nodes[1].handle_ran(Nanos(0), rival.key, ran(rival, &[(at_root, 2)], 0));
        exchange(&mut nodes);
        deliver(&mut nodes, held);
        let loser = if is_first { rival } else { one };
        let (at, second) = again(&mut nodes, loser.runner.id);
        let shown = nodes[at].page(second.key, at_root / PAGE_BYTES).map(|page| page.word(0));
        assert_eq!(shown, Some(if is_first { 1 } else { 2 }), "after {tries} tries");
        // Nothing is locked any more.
        nodes[at].handle_ran(Nanos(0), second.key, ran(&second, &[(at_root, 3), (elsewhere, 3)], 0));
        exchange(&mut nodes);
        assert!(next_runs(&mut nodes).is_empty() && nodes[0].poll_timeout().is_none());
    }
}

#[test]
fn what_was_locked_at_the_root_is_given_back() {
    // rule: H3, H4
    let (at_root, elsewhere) = (at_home(0, 3), at_home(1, 3));
    let asked = |nodes: &mut [Node], runs: &[Vec<Run>; 3]| {
        let mut tried = ran(&runs[2][0], &[(at_root, 1), (elsewhere, 1)], 0);
        tried.runner.tries = 8;
        nodes[2].handle_ran(Nanos(0), runs[2][0].key, tried);
    };
    let refused_elsewhere = |nodes: &mut [Node], runs: &[Vec<Run>; 3]| {
        let winner = &runs[1][1];
        nodes[1].handle_ran(Nanos(0), winner.key, ran(winner, &[(elsewhere, 5)], 0));
        exchange(nodes);
        asked(nodes, runs);
        exchange(nodes);
    };
    let asker_lost = |nodes: &mut [Node], runs: &[Vec<Run>; 3]| {
        asked(nodes, runs);
        exchange_but(nodes, |_, to, _| to == Host(2));
        nodes[0].handle_lost(Nanos(0), Host(2));
        exchange_but(nodes, |_, to, _| to == Host(2));
    };
    let home_lost = |nodes: &mut [Node], runs: &[Vec<Run>; 3]| {
        asked(nodes, runs);
        exchange_but(nodes, |from, to, _| from == Host(1) || to == Host(1));
        nodes[0].handle_lost(Nanos(0), Host(1));
        exchange_but(nodes, |from, to, _| from == Host(1) || to == Host(1));
    };
    type Way<'a> = &'a dyn Fn(&mut [Node], &[Vec<Run>; 3]);
    let ways: [(&str, Way<'_>); 3] =
        [("refused", &refused_elsewhere), ("its asker lost", &asker_lost), ("a home lost", &home_lost)];
    for (how, lose) in ways {
        let (mut nodes, runs) = three_busy_nodes();
        lose(&mut nodes, &runs);
        let next = &runs[0][0];
        nodes[0].handle_ran(Nanos(0), next.key, ran(next, &[(at_root, 2)], 0));
        assert!(nodes[0].poll_timeout().is_none(), "{how}: nobody waits for a commit under way");
    }
}

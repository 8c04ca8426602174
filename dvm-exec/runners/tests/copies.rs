//! Three nodes, message by message: what waits for a backup, and who goes on when the root is lost.
//!
//! Owns which messages arrive. Must not look into nodes.

use dvm_disa::machine::Settings;
use dvm_disa::machine::effects::Kept;
use dvm_disa::machine::memory::Used;
use dvm_disa::machine::page::Words;
use dvm_disa::machine::runner::Ran;
use dvm_disa::map::{self, PAGE_BYTES};
use dvm_disa::object::Object;
use dvm_disa::types::ExitMode;
use dvm_runners::{Config, Event, Host, Message, Nanos, Node, Program, Run};
use std::sync::Arc;

const NOW: Nanos = Nanos(0);

struct Hosts {
    nodes: Vec<Node>,
    /// Messages on their way.
    under_way: Vec<(Host, Host, Message)>,
    events: Vec<(usize, Event)>,
}

impl Hosts {
    fn new(count: usize, copies: usize) -> Self {
        let program = Arc::new(Program::new(Object::default(), Settings::default()));
        let config =
            |me| Config { me: Host(me), slots: vec![1; count], program: Arc::clone(&program), told_words_max: 64, copies };
        let mut nodes: Vec<Node> = (0..count as u16).map(|me| Node::new(config(me))).collect();
        nodes[0].handle_start(NOW);
        Self { nodes, under_way: Vec::new(), events: Vec::new() }
    }

    /// Lets messages arrive until there are none but those that `holds` keeps back.
    fn exchange(&mut self, holds: impl Fn(Host, Host, &Message) -> bool) {
        loop {
            for (me, node) in self.nodes.iter_mut().enumerate() {
                let from = Host(me as u16);
                self.under_way.extend(std::iter::from_fn(|| node.poll_transmit()).map(|(to, message)| (from, to, message)));
                self.events.extend(std::iter::from_fn(|| node.poll_event()).map(|event| (me, event)));
            }
            let next = self.under_way.iter().position(|(from, to, message)| !holds(*from, *to, message));
            let Some((from, to, message)) = next.map(|next| self.under_way.remove(next)) else { return };
            self.nodes[usize::from(to.0)].handle_message(NOW, from, message);
        }
    }

    fn next_run(&mut self) -> Option<(usize, Run)> {
        self.nodes.iter_mut().enumerate().find_map(|(me, node)| Some((me, node.poll_run()?)))
    }

    /// The run commits a word and prints.
    fn commit(&mut self, (me, run): (usize, Run)) {
        let mut used = Used::default();
        let (words, page) =
            used.changed.entry(map::SR.base / PAGE_BYTES).or_insert_with(|| (Words::default(), Default::default()));
        words.insert(0);
        page.write(0, &7_u64.to_le_bytes());
        let kept = Kept { output: b"seven".to_vec(), ..Kept::default() };
        let (runner, epoch, key) = (run.runner, run.epoch, run.key);
        let ran = Ran { runner, epoch, end: Ok(ExitMode::Commit), pc: 0, last: 0, used, kept, fuel_used: 1, record: 0 };
        self.nodes[me].handle_ran(NOW, key, ran);
    }

    fn lose(&mut self, lost: u16, told: &[usize]) {
        told.iter().for_each(|me| self.nodes[*me].handle_lost(NOW, Host(lost)));
    }

    fn is_over(&self, at: usize) -> bool {
        self.events.iter().any(|(me, event)| *me == at && matches!(event, Event::Over(_)))
    }

    fn is_stranded(&self) -> bool {
        self.events.iter().any(|(_, event)| matches!(event, Event::Stranded))
    }
}

const fn is_stored(message: &Message) -> bool {
    matches!(message, Message::Stored(_))
}

#[test]
fn nothing_is_told_before_the_backup_has_it() {
    // rule: H8
    let mut hosts = Hosts::new(3, 2);
    hosts.exchange(|_, _, _| false);
    let run = hosts.next_run().expect("the first runner");
    hosts.commit(run);
    hosts.exchange(|_, _, message| is_stored(message));
    assert!(hosts.under_way.iter().any(|(from, to, _)| (*from, *to) == (Host(1), Host(0))), "the backup has it");
    assert!(hosts.events.iter().all(|(_, event)| !matches!(event, Event::Happened(_) | Event::Over(_))), "{:?}", hosts.events);
    assert_eq!(hosts.nodes[0].take_output(), (0, Vec::new()));
    hosts.exchange(|_, _, _| false);
    assert_eq!(hosts.nodes[0].take_output(), (0, b"seven".to_vec()));
    assert!(hosts.is_over(0));
}

#[test]
fn a_commit_that_only_the_backup_knows_stands_after_the_root() {
    // rule: H9, H10
    let mut hosts = Hosts::new(3, 2);
    hosts.exchange(|_, _, _| false);
    let run = hosts.next_run().expect("the first runner");
    hosts.commit(run);
    hosts.exchange(|_, _, message| is_stored(message));
    // The former root is alive, hears nothing of that, and of the answers that are under way none arrives.
    hosts.under_way.clear();
    hosts.lose(0, &[1, 2]);
    hosts.exchange(|_, to, _| to == Host(0));
    assert!(hosts.is_over(1) && !hosts.is_over(0), "{:?}", hosts.events);
    assert_eq!((hosts.nodes[1].take_output(), hosts.nodes[0].take_output()), ((0, b"seven".to_vec()), (0, Vec::new())));
}

#[test]
fn a_former_root_decides_nothing() {
    // rule: H10
    let mut hosts = Hosts::new(2, 2);
    hosts.exchange(|_, _, _| false);
    let former = hosts.next_run().expect("the first runner");
    // If it runs at the backup, it is void there from now on.
    hosts.lose(0, &[1]);
    hosts.commit(former);
    hosts.exchange(|_, _, _| false);
    assert!(!hosts.is_over(0) && !hosts.is_over(1), "{:?}", hosts.events);
    assert_eq!(hosts.nodes[0].take_output(), (0, Vec::new()), "the backup does not answer it");
    let run = (1, hosts.nodes[1].poll_run().expect("it runs again"));
    hosts.commit(run);
    hosts.exchange(|_, _, _| false);
    assert!(!hosts.is_over(0) && hosts.is_over(1), "{:?}", hosts.events);
    assert_eq!(hosts.nodes[1].take_output(), (0, b"seven".to_vec()));
}

#[test]
fn a_lost_backup_has_a_successor() {
    // rule: H11
    let is_state = |message: &Message| matches!(message, Message::State(_));
    for arrives in [true, false] {
        let mut hosts = Hosts::new(3, 2);
        hosts.exchange(|_, _, _| false);
        let run = hosts.next_run().expect("the first runner");
        hosts.lose(1, &[0, 2]);
        hosts.exchange(|_, to, message| to == Host(1) || !arrives && is_state(message));
        // The first runner may have been at the backup: it runs again, but not before another host has the log.
        let run = if run.0 == 1 { hosts.next_run() } else { Some(run) };
        if let Some(run) = run {
            hosts.commit(run);
        }
        hosts.exchange(|_, to, message| to == Host(1) || !arrives && is_state(message));
        assert_eq!(hosts.is_over(0), arrives, "{:?}", hosts.events);
        assert_eq!(hosts.nodes[0].take_output().1.is_empty(), !arrives);
        hosts.lose(0, &[2]);
        hosts.exchange(|_, to, message| to.0 < 2 || !arrives && is_state(message));
        assert_eq!((hosts.is_over(2), hosts.is_stranded()), (arrives, !arrives), "{:?}", hosts.events);
        if arrives {
            assert_eq!(hosts.nodes[2].take_output(), (0, b"seven".to_vec()));
        }
    }
}

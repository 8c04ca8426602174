//! Every interleaving of an agent and of kernel programs on one directory entry, word by word.
//!
//! A reader that a program has entered must be among those the agent tells when it grants the page to a writer. loom runs the real
//! functions under the orders of their accesses.

use dsm_fast::{Directory, Entry, Sharers, State, Step, Word, load, step, try_step};
use dsm_wire::{Era, NodeId};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering::SeqCst};

const HOME: NodeId = NodeId(0);
const OWNER: NodeId = NodeId(1);
const READERS: [NodeId; 2] = [NodeId(2), NodeId(3)];
const WRITER: NodeId = NodeId(4);

struct One {
    word: AtomicU64,
    sharers: AtomicU64,
}

impl Directory for One {
    fn word(&self, _slot: usize) -> Word {
        Word(self.word.load(SeqCst))
    }

    fn sharers(&self, _slot: usize) -> Sharers {
        Sharers(self.sharers.load(SeqCst))
    }

    fn exchange_word(&self, _slot: usize, current: Word, new: Word) -> bool {
        self.word.compare_exchange(current.0, new.0, SeqCst, SeqCst).is_ok()
    }

    fn exchange_sharers(&self, _slot: usize, current: Sharers, new: Sharers) -> bool {
        self.sharers.compare_exchange(current.0, new.0, SeqCst, SeqCst).is_ok()
    }
}

fn entry(word: Word, sharers: Sharers) -> Arc<One> {
    Arc::new(One { word: AtomicU64::new(word.0), sharers: AtomicU64::new(sharers.0) })
}

fn shared() -> (Word, Sharers) {
    let owned = Entry { word: Word::owned(OWNER, Era(5), false), sharers: Sharers::default() };
    let entry = dsm_fast::apply(owned, Step::Joined(HOME)).expect("allowed");
    (entry.word, entry.sharers)
}

/// What a program does for a reader: whether it may be served.
fn program(directory: &One, reader: NodeId) -> Option<Era> {
    let entry = load(directory, 0);
    if entry.word.is_busy() || !matches!(entry.word.state(), State::Shared | State::Owned) {
        return None;
    }
    try_step(directory, 0, entry, Step::Joined(reader)).expect("allowed").map(|entry| entry.word.era())
}

/// What a home does for a writer: who is told to drop a copy, or to hand it over.
fn grant(directory: &One) -> Vec<NodeId> {
    step(directory, 0, Step::Lock).expect("allowed");
    let told = load(directory, 0);
    step(directory, 0, Step::Granted(WRITER)).expect("allowed");
    let is_told = |node: &NodeId| told.sharers.may_contain(*node, false);
    (0..8).map(NodeId).filter(is_told).collect()
}

/// Every order with up to three switches away from a thread that could go on: each race of two needs one.
fn explore(run: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(run);
}

fn race(start: (Word, Sharers), readers: usize) {
    explore(move || {
        let directory = entry(start.0, start.1);
        let programs: Vec<_> = READERS[..readers]
            .iter()
            .map(|reader| {
                let directory = Arc::clone(&directory);
                let reader = *reader;
                loom::thread::spawn(move || (reader, program(&directory, reader)))
            })
            .collect();
        let told = grant(&directory);
        for program in programs {
            let (reader, served) = program.join().expect("allowed");
            // What is served of the writer's era comes from the writer.
            assert!(
                served != Some(Era(5)) || told.contains(&reader),
                "{reader} was served in {served:?} and only {told:?} were told"
            );
        }
        let end = load(&*directory, 0);
        assert_eq!((end.word.owner(), end.word.era(), end.word.is_busy()), (WRITER, Era(6), false));
    });
}

#[test]
fn a_reader_of_a_shared_page_is_told() {
    race(shared(), 1);
}

#[test]
fn a_reader_of_an_owned_page_is_told() {
    race((Word::owned(OWNER, Era(5), false), Sharers::default()), 1);
}

#[test]
fn two_readers_at_once_are_told() {
    race(shared(), 2);
    race((Word::owned(OWNER, Era(5), false), Sharers::default()), 2);
}

#[test]
fn a_sharer_entered_too_late_stays_harmless() {
    race((Word::owned(OWNER, Era(5), false), Sharers(0b1100)), 2);
}

#[test]
fn readers_that_the_agent_and_a_program_enter_are_all_there() {
    for start in [shared(), (Word::owned(OWNER, Era(5), false), Sharers(0b0100))] {
        explore(move || {
            let directory = entry(start.0, start.1);
            let other = Arc::clone(&directory);
            let program = loom::thread::spawn(move || program(&other, READERS[0]));
            step(&*directory, 0, Step::Joined(READERS[1])).expect("allowed");
            step(&*directory, 0, Step::Left(NodeId(7))).expect("allowed");
            let served = program.join().expect("allowed");
            let end = load(&*directory, 0);
            assert!(end.sharers.may_contain(READERS[1], false));
            assert!(served.is_none() || end.sharers.may_contain(READERS[0], false), "{end:?}");
        });
    }
}

//! Recordings: every run of one, again, is the same; bytes of one are read back or refused.
//!
//! Owns the comparison. Must not know how memory of the past is had.

use dvm_disa::asm::{Source, assemble, link};
use dvm_disa::elf::unit;
use dvm_disa::engine::{Engine, Interpreted};
use dvm_disa::interpreter::Outcome;
use dvm_disa::machine::{Machine, Recording, Replay, RunEnd, Settings, changes};
use dvm_disa::record;
use proptest::prelude::*;

fn recorded(source: &str, settings: Settings) -> Recording {
    let object = assemble(source, "t.disa").unwrap_or_else(|errors| panic!("{errors}"));
    let mut machine = Machine::new(&object, settings).expect("verified");
    machine.record();
    machine.run();
    machine.recording().cloned().expect("it was asked for")
}

const PROGRAMS: [&str; 3] =
    [include_str!("../programs/bank.disa"), include_str!("../programs/write-skew.disa"), include_str!("../programs/kmeans.disa")];

#[test]
fn each_run_again_is_the_same() {
    // rule: R1, R2
    for source in PROGRAMS {
        let recording = recorded(source, Settings { losses_percent: 10, ..Settings::default() });
        let recording = record::read(&record::write(&recording)).expect("it was just written");
        let mut replay = Replay::new(&recording).expect("verified");
        let mut committed = 0;
        for run in &recording.runs {
            let mut processor = replay.begin(run).expect("there is memory");
            let outcome = Interpreted.run(&mut processor);
            assert_eq!(processor.fuel_used(), run.fuel_used, "{run:?}");
            let RunEnd::Committed(at) = run.end else { continue };
            assert!(matches!(outcome, Outcome::Exit(mode, _) if mode.commits()));
            let words = changes(processor.memory).expect("no range was left");
            let commit = recording.commits.iter().find(|commit| commit.at == at).expect("it committed");
            let own = |(address, _): &&(u64, u64)| !dvm_disa::map::EXIT_CODES.contains(*address);
            assert!(commit.words.iter().filter(own).all(|word| words.contains(word)), "{run:?}");
            committed += 1;
        }
        assert!(committed > 2);
    }
}

#[test]
fn it_is_known_who_woke_a_watcher() {
    // rule: R3
    let recording = recorded(PROGRAMS[0], Settings::default());
    let audits: Vec<usize> = (0..recording.runs.len()).filter(|index| !recording.runs[*index].watched.is_empty()).collect();
    assert!(!audits.is_empty());
    for index in audits {
        let commit = recording.woken_by(index).expect("a commit woke it");
        assert!(commit.at <= recording.runs[index].epoch);
    }
}

#[test]
fn sources_are_linked() {
    // rule: C3
    let source = |name: &str, text: &str| Source { name: name.into(), text: text.into() };
    let main = source("a.disa", ".extern f\n.global main\n.private x, 8\nmain: mov $1, x\nbl $f, w8\nsys $1, x\nexit:c\n");
    let other = source("b.disa", ".global f\n.private x, 8\nmain: nop\nf: mov $2, x\nbr:a w8\n");
    assert_eq!(unit::read(&unit::write(&main)), Ok(main.clone()));
    let object = link(&[main.clone(), other]).expect("they fit");
    assert_eq!(Machine::new(&object, Settings::default()).expect("verified").run().output, b"1\n");
    let told = link(&[main]).map(|_| ()).map_err(|all| all.iter().map(ToString::to_string).collect::<String>());
    assert_eq!(told, Err("a.disa:1:1: undefined symbol `f`".into()));
}

proptest! {
    #[test]
    // rule: R4
    fn no_bytes_bring_the_reader_down(harms in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>()) {
        let mut bytes = record::write(&recorded(PROGRAMS[1], Settings::default()));
        bytes.truncate(cut.index(bytes.len()) + 1);
        for (at, value) in harms {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        drop(record::read(&bytes));
    }
}

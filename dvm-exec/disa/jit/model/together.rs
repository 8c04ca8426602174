//! Programs of a few runners by chance, as text: words that they change and watch at the same time.
//!
//! Owns the mixture. A watcher stores only behind what it watches, so that every program ends; and no instance changes what its own
//! watcher watches, since the reference model would fire it again. Must not judge.

use crate::source::{Source, pick};
use dvm_disa::machine::chance::Chance;

/// Shared words, few, so that runners meet: three on one page, one on another.
const WORDS: [&str; 4] = ["a", "b", "c", "d"];
const RUNNERS_MAX: usize = 3;

/// What a runner may use and waits for, by index in [`WORDS`].
struct Runner {
    heap: Vec<usize>,
    watched: Vec<usize>,
    is_persistent: bool,
    /// Whether the first runner makes it, while others run.
    is_late: bool,
}

/// The program of a few runners.
pub fn together(chance: &mut Chance) -> Source {
    let count = RUNNERS_MAX - usize::from(chance.below(4) == 0);
    let runners: Vec<Runner> = (0..count).map(|index| runner(chance, index)).collect();
    let has_late = runners.iter().any(|runner| runner.is_late);
    let mut lines: Vec<String> = [".entry main", ".data SR+0x1000"].map(str::to_owned).into();
    lines.extend(["a: .quad 0", "b: .quad 0x100", "c: .quad 2", ".data SR+0x4000", "d: .quad 0"].map(str::to_owned));
    lines.extend([".data SR+0x2000", "stack: .quad 0, 0"].map(str::to_owned));
    for (index, runner) in runners.iter().enumerate() {
        let makes_some = if index == 0 { has_late } else { !runner.watched.is_empty() && chance.below(2) == 0 };
        lines.push(format!("heap{index}: .quad {}", list(chance, &runner.heap, makes_some)));
        lines.push(format!("watch{index}: .quad {}", list(chance, &runner.watched, false)));
        lines.push(format!("first{index}: .quad run{index}"));
    }
    lines.push(".text".into());
    let mut body = Body { lines, label: 0 };
    body.lines.push("main:".into());
    if chance.below(4) == 0 {
        let word = pick(chance, &WORDS);
        body.add(&format!("add {word}, $1, {word}"));
    }
    runners.iter().enumerate().filter(|(_, runner)| !runner.is_late).for_each(|(index, runner)| body.make(index, runner));
    body.add(exit(chance));
    for (index, runner) in runners.iter().enumerate() {
        body.lines.push(format!("run{index}:"));
        if index == 0 {
            runners.iter().enumerate().filter(|(_, late)| late.is_late).for_each(|(index, late)| body.make(index, late));
        }
        write(chance, &mut body, index, runner);
    }
    Source { lines: body.lines, grain: if chance.below(4) == 0 { 4096 } else { 8 } }
}

/// Lines, each with a label of its own.
struct Body {
    lines: Vec<String>,
    label: usize,
}

impl Body {
    fn add(&mut self, line: &str) {
        self.lines.push(format!("L{}: {line}", self.label));
        self.label += 1;
    }

    fn make(&mut self, index: usize, runner: &Runner) {
        let op = if runner.is_persistent { "neww" } else { "newr" };
        self.add(&format!("{op} $stack, $heap{index}, $watch{index}, $first{index}"));
    }
}

/// The first one waits for nothing, so that something happens.
fn runner(chance: &mut Chance, index: usize) -> Runner {
    let is_watcher = index > 0 && chance.below(2) == 0;
    let watched: Vec<usize> = match chance.below(3) {
        _ if !is_watcher => Vec::new(),
        0 => vec![0, 1],
        _ => vec![chance.below(2)],
    };
    let mut heap: Vec<usize> = (0..=chance.below(2)).map(|_| chance.below(WORDS.len())).collect();
    heap.extend(if is_watcher { [2, 3] } else { [0, 1] }.iter().take(2 - usize::from(chance.below(8) == 0)));
    let is_persistent = is_watcher && chance.below(3) == 0;
    Runner { heap, watched, is_persistent, is_late: is_watcher && chance.below(2) == 0 }
}

/// Count, bases and bytes of the words; of the descriptors', too, if new runners are to be made of them.
fn list(chance: &mut Chance, words: &[usize], has_descriptors: bool) -> String {
    let mut quads = vec![(words.len() + usize::from(has_descriptors)).to_string()];
    for word in words {
        let bytes = if chance.below(12) == 0 { 4 } else { 8 };
        quads.push(format!("{}, {bytes}", WORDS[*word]));
    }
    if has_descriptors {
        quads.push("SR+0x2000, 4096".into());
    }
    quads.join(", ")
}

fn write(chance: &mut Chance, body: &mut Body, index: usize, runner: &Runner) {
    let least = runner.watched.iter().max().map_or(0, |last| last + 1);
    let may_store: Vec<usize> = runner.heap.iter().copied().filter(|word| *word >= least).collect();
    let known: Vec<usize> = runner.heap.iter().chain(&runner.watched).copied().collect();
    let other =
        |chance: &mut Chance| if chance.below(16) == 0 { chance.below(WORDS.len()) } else { known[chance.below(known.len())] };
    let end = format!("end{index}");
    for _ in 0..2 + chance.below(3) {
        let from = WORDS[other(chance)];
        let to = match may_store.len() {
            _ if chance.below(24) == 0 => "d",
            0 => "w1",
            some => WORDS[may_store[chance.below(some)]],
        };
        match chance.below(12) {
            0 | 1 => body.add(&format!("add {to}, ${}, {to}", 1 + chance.below(3))),
            2 => body.add(&format!("mul {to}, $3, {to}")),
            3..=5 => body.add(&format!("mov {from}, {to}")),
            6 => body.add(&format!("mov ${}, {to}", chance.below(3))),
            7 => body.add(&format!("mov:b ${}, {to}", 1 + chance.below(3))),
            8 => body.add(&format!("sys $1, {from}")),
            9 => body.add(&format!("br:{} {from}, ${end}", pick(chance, &["z", "nz"]))),
            10 if !runner.watched.is_empty() => {
                // The slide's idiom: not all is there, so it makes itself again.
                body.add(&format!("br:nz {from}, ${end}"));
                body.make(index, runner);
            }
            _ => body.add(&format!("add {from}, {to}, {to}")),
        }
    }
    if chance.below(40) == 0 {
        body.add(&format!("trap ${index}"));
    }
    body.add(exit(chance));
    body.lines.push(format!("{end}:"));
    body.add(exit(chance));
}

/// Most commit.
const fn exit(chance: &mut Chance) -> &'static str {
    match chance.below(24) {
        0 => "exit:a",
        1 => "exit:cd",
        2 => "exit:ad",
        3 => "exit",
        _ => "exit:c",
    }
}

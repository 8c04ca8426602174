//! Fuzzes `Node::handle_frame` from a committed corpus, for a bounded number of lives.
//!
//! Owns the loop: a life that reaches something new joins the corpus of this run, and with `UPDATE=1` the committed one
//! (`regressions/lives.txt`, one life a line in hexadecimal). `FUZZ_LIVES` sets the number of lives.

use dvm_tests::fuzz::{Reached, live};
use dvm_tests::sim::rng::Rng;
use std::collections::BTreeSet;
use std::fmt::Write;

const LIVES: u64 = 20_000;
const LIFE_BYTES_MAX: u64 = 1500;

fn corpus() -> Vec<Vec<u8>> {
    let text = include_str!("../regressions/lives.txt");
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let digits: Vec<u8> = line.bytes().map(|byte| (byte as char).to_digit(16).expect("a digit") as u8).collect();
            digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
        })
        .collect()
}

fn hex(life: &[u8]) -> String {
    life.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string takes text");
        text
    })
}

fn judge(life: &[u8]) -> Reached {
    let outcome = std::panic::catch_unwind(|| live(life));
    match outcome {
        Ok(Ok(reached)) => reached,
        Ok(Err(reason)) => panic!("{reason}; add this line to tests/regressions/lives.txt:\n{}", hex(life)),
        Err(_) => panic!("a panic; add this line to tests/regressions/lives.txt:\n{}", hex(life)),
    }
}

fn mutate(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut life = if corpus.is_empty() || rng.chance(100_000) {
        (0..rng.between(20, LIFE_BYTES_MAX)).map(|_| rng.draw() as u8).collect()
    } else {
        corpus[rng.below(corpus.len() as u64) as usize].clone()
    };
    for _ in 0..rng.between(1, 12) {
        let place = rng.below(life.len() as u64 + 1) as usize;
        match rng.below(4) {
            0 if place < life.len() => life[place] = rng.draw() as u8,
            1 if place < life.len() => life[place] ^= 1 << rng.below(8),
            2 => {
                let other = &corpus.get(rng.below(corpus.len() as u64) as usize).cloned().unwrap_or_default();
                let from = rng.below(other.len() as u64 + 1) as usize;
                life.truncate(place);
                life.extend_from_slice(&other[from..]);
            }
            _ => {
                let piece: Vec<u8> = (0..rng.between(1, 24)).map(|_| rng.draw() as u8).collect();
                life.splice(place..place, piece);
            }
        }
    }
    life.truncate(LIFE_BYTES_MAX as usize);
    life
}

#[test]
fn no_life_breaks_a_node() {
    let lives = std::env::var("FUZZ_LIVES").ok().and_then(|text| text.parse().ok()).unwrap_or(LIVES);
    let mut rng = Rng::new(0xf022);
    let mut corpus = corpus();
    let mut seen: BTreeSet<Reached> = corpus.iter().map(|life| judge(life)).collect();
    let committed = corpus.len();
    for _ in 0..lives {
        let life = mutate(&mut rng, &corpus);
        if seen.insert(judge(&life)) && corpus.len() < 4000 {
            corpus.push(life);
        }
    }
    println!("{lives} lives, {committed} from the corpus, {} forms of life", seen.len());
    if std::env::var_os("UPDATE").is_some() {
        let head = "# Lives for the fuzzer of Node::handle_frame; see tests/tests/fuzz_node.rs.\n";
        let chosen = corpus.iter().take(committed).chain(corpus.iter().skip(committed).step_by(40));
        let text: String = chosen.map(|life| hex(life) + "\n").collect();
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/regressions/lives.txt"), format!("{head}{text}"))
            .expect("the corpus can be written");
    }
}

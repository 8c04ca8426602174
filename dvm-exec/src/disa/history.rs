//! `dvm-exec disa why` and `replay`: what became of a runner, and the same again.
//!
//! Owns the sentences. Must not know how recordings are kept.

use super::{files, show};
use anyhow::{Context, bail};
use clap::Args;
use dvm_disa::interpreter::Outcome;
use dvm_disa::machine::{Recording, Replay, Run, RunEnd, changes};
use dvm_disa::map::{self, Range};
use dvm_disa::trap::Trap;
use std::fmt::Write;
use std::path::PathBuf;

/// Most words that are shown.
const WORDS_SHOWN: usize = 16;

/// A runner of a recording.
#[derive(Args, Debug)]
pub struct Options {
    /// What `run --record` wrote, or a program, which is run for it.
    recording: PathBuf,
    /// The runner's number.
    runner: u64,
    /// Which start of it [default: the last].
    #[arg(long = "try", value_name = "N")]
    tries: Option<u64>,
    /// Show every instruction (replay).
    #[arg(long)]
    trace: bool,
}

/// Finds a run.
///
/// # Errors
/// There is none.
pub fn find(recording: &Recording, runner: u64, tries: Option<u64>) -> anyhow::Result<usize> {
    recording.find(runner, tries).with_context(|| {
        let last = recording.runs.iter().map(|run| run.id).max().unwrap_or(0);
        format!("runner {runner} never ran so: runners up to {last} did, see --try for their starts")
    })
}

/// Where an address is in the source, for people.
pub fn place(recording: &Recording, pc: u64) -> String {
    let (file, line) = recording.object.line_of(pc);
    format!("{} ({file}:{line})", recording.object.function_of(pc))
}

/// Says what became of a runner.
pub fn why(options: &Options) -> anyhow::Result<u8> {
    let recording = files::recording(&options.recording)?;
    find(&recording, options.runner, options.tries)?;
    let mut text = String::new();
    let of_runner = |(_, run): &(usize, &Run)| run.id == options.runner && options.tries.is_none_or(|tries| run.tries == tries);
    let runs: Vec<(usize, &Run)> = recording.runs.iter().enumerate().filter(of_runner).collect();
    let Some((_, first)) = runs.first() else { bail!("runner {} never ran", options.runner) };
    writeln!(text, "runner {} begins at {}", first.id, place(&recording, first.first))?;
    match first.id {
        0 => writeln!(text, "  it is the program's first")?,
        _ => writeln!(text, "  made by runner {}", first.parent)?,
    }
    for (name, ranges) in [("uses", &first.heap), ("watches", &first.watched)] {
        if !ranges.is_empty() {
            writeln!(text, "  {name} {}", list(&recording, ranges))?;
        }
    }
    for (index, run) in runs {
        writeln!(text, "start {}: snapshot {}, {} instructions", run.tries, run.epoch, run.fuel_used)?;
        if let Some(commit) = recording.woken_by(index) {
            let is_watched = |address: u64| run.watched.iter().any(|range| range.overlaps(Range::new(address, 8)));
            let word = commit.words.iter().find(|(address, _)| is_watched(*address));
            let word = word.map_or(String::new(), |(address, value)| {
                format!(": {} became {}", recording.object.place_of(*address), *value as i64)
            });
            writeln!(text, "  woken by the commit of runner {} at {}{word}", commit.author, commit.at)?;
        }
        writeln!(text, "  {}", end(&recording, run))?;
    }
    show(text.as_bytes())?;
    Ok(0)
}

fn list(recording: &Recording, ranges: &[Range]) -> String {
    let name = |range: &Range| format!("{}, {} bytes", recording.object.place_of(range.base), range.bytes);
    ranges.iter().map(name).collect::<Vec<_>>().join("; ")
}

fn end(recording: &Recording, run: &Run) -> String {
    match run.end {
        RunEnd::Unknown => "the program was cut off".into(),
        RunEnd::Committed(at) => {
            let commit = recording.commits.iter().find(|commit| commit.at == at);
            let own = |(address, _): &&(u64, u64)| !map::EXIT_CODES.contains(*address);
            let words: Vec<(u64, u64)> = commit.map_or(Vec::new(), |commit| commit.words.iter().filter(own).copied().collect());
            format!("committed at {at}{}", shown(recording, &words))
        }
        RunEnd::Aborted => format!("aborted at {}", place(recording, run.pc)),
        RunEnd::Trapped(code) => format!("trapped with number {code} at {}", place(recording, run.pc)),
        RunEnd::Conflict { address, winner } => {
            let who = winner.map_or("a commit that was under way".into(), |winner| format!("runner {winner}"));
            format!("lost to {who} at {}", recording.object.place_of(address))
        }
        RunEnd::Lost => "its host was lost".into(),
    }
}

fn shown(recording: &Recording, words: &[(u64, u64)]) -> String {
    let mut text = format!(", {} words changed", words.len());
    for (address, value) in words.iter().take(WORDS_SHOWN) {
        text.push_str(&format!("\n    {} = {}", recording.object.place_of(*address), *value as i64));
    }
    if words.len() > WORDS_SHOWN {
        text.push_str("\n    ...");
    }
    text
}

/// Runs it again; 0 if it ended as it did, 1 if otherwise.
pub fn replay(options: &Options) -> anyhow::Result<u8> {
    let recording = files::recording(&options.recording)?;
    let run = &recording.runs[find(&recording, options.runner, options.tries)?];
    let mut replay = Replay::new(&recording)?;
    let mut processor = replay.begin(run).map_err(|kind| anyhow::anyhow!("the run cannot begin: {kind}"))?;
    let mut text = String::new();
    let outcome = loop {
        let pc = processor.pc();
        if options.trace {
            let shown = recording.object.instruction_text(pc);
            writeln!(text, "{pc:x}  {:<30}  {shown}", place(&recording, pc))?;
        }
        match processor.step() {
            Ok(None) => {}
            Ok(Some(mode)) => break Outcome::Exit(mode, processor.pc()),
            Err(kind) => break Outcome::Trap(Trap { kind, pc: processor.pc() }),
        }
    };
    let (fuel_used, output) = (processor.fuel_used(), std::mem::take(&mut processor.effects.output));
    let (is_same, end) = match outcome {
        Outcome::Trap(Trap { kind, pc }) => {
            (run.end == RunEnd::Trapped(kind.code()), format!("trap {kind} at {}", place(&recording, pc)))
        }
        Outcome::Exit(mode, _) if !mode.commits() => (run.end == RunEnd::Aborted, "it aborts".into()),
        Outcome::Exit(..) => match (changes(processor.memory), run.end) {
            (Err(kind), end) => (end == RunEnd::Trapped(kind.code()), format!("trap {kind} at the exit")),
            (Ok(words), RunEnd::Committed(at)) => (was_committed(&recording, at, &words), shown(&recording, &words)),
            (Ok(words), _) => (true, shown(&recording, &words)),
        },
    };
    let is_same = is_same && fuel_used == run.fuel_used;
    text.push_str(&String::from_utf8_lossy(&output));
    writeln!(text, "runner {} start {}: {fuel_used} instructions; {}", run.id, run.tries, end.trim_start_matches([',', ' ']))?;
    writeln!(text, "{}", if is_same { "as recorded" } else { "NOT as recorded" })?;
    show(text.as_bytes())?;
    Ok(u8::from(!is_same))
}

/// Whether a commit has these words and no others, but for those that were so before and exit codes.
fn was_committed(recording: &Recording, at: u64, words: &[(u64, u64)]) -> bool {
    let Some(commit) = recording.commits.iter().find(|commit| commit.at == at) else { return words.is_empty() };
    let own = commit.words.iter().filter(|(address, _)| !map::EXIT_CODES.contains(*address));
    own.copied().all(|word| words.contains(&word))
}

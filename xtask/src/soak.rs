//! `cargo xtask soak`: the counted promises, kept over as many runs as it takes.
//!
//! Owns the promises and the record of what is done, in target/soak, for one state of the sources. Must not know how anything is
//! tested.

use crate::ebpf::classify::{self, Classify};
use crate::interrupt::Interrupt;
use crate::stages::FAST_PATHS;
use crate::tally::Tally;
use crate::{cargo, ebpf, live, setup, simulate};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Seeds per call of the simulator: the grain at which it can be stopped.
const SEEDS_PER_CALL: u64 = 500;
/// Frames per call of the comparison of host and kernel.
const FRAMES_PER_CALL: u64 = 50_000;
const CLASSIFY: &str = "ebpf: classify";
/// Programs of DISA per call of the comparison of interpreter and machine code.
const DISA_PER_CALL: u64 = 10_000;
const ENGINES: &str = "disa: engines";
/// The same with the reference model, which is slower and may not be there.
const MODEL: &str = "disa: model";
const MODEL_PER_CALL: u64 = 5_000;
const MODEL_DIRECTORY: &str = "../shared/reference/disa";
/// Runs of a program per call of the live harness, and programs: they share their hosts.
const RUNS_PER_CALL: u64 = 5;
const PROGRAMS_PER_CALL: usize = 8;
/// Cases that run a program to its end: those are promised to hold every time.
const COUNTED_CASES: [&str; 5] = ["program-", "further-program-", "ordinary-users-", "disa-", "etcd/disa-"];
/// Cases that run a guest: of those more is promised.
const GUEST_CASES: &str = "kvm/";
/// The case that runs a program while frames are lost, and its runs per call.
const LOSSY_CASES: &str = "stress-loss-";
const LOSSY_RUNS_PER_CALL: u64 = 50;
/// Cases that are promised as one: each takes a fraction of a second.
const SMALL_CASES: &str = "process/";
/// What the harness checks when all its cases have run.
const LEFT_OVERS: &str = "hosts-leave-nothing";

/// How much is promised.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Runs of each program case.
    #[arg(long, default_value_t = 20)]
    runs: u64,
    /// Runs of each case of a guest.
    #[arg(long, default_value_t = 25)]
    guest_runs: u64,
    /// Runs of the program while frames are lost.
    #[arg(long, default_value_t = 1_000)]
    lossy_runs: u64,
    /// Rounds of each litmus test.
    #[arg(long, default_value_t = 100_000)]
    rounds: u64,
    /// Signals of each storm.
    #[arg(long, default_value_t = 20_000)]
    signals: u64,
    /// Seeds of the simulator.
    #[arg(long, default_value_t = 20_000)]
    seeds: u64,
    /// Frames judged by host and kernel.
    #[arg(long, default_value_t = 1_000_000)]
    frames: u64,
    /// Programs of DISA run by both engines.
    #[arg(long, default_value_t = 1_000_000)]
    programs: u64,
    /// Programs of DISA run by both engines and the reference model.
    #[arg(long, default_value_t = 100_000)]
    model_programs: u64,
    /// Work only on promises whose names begin so.
    #[arg(long, value_name = "PREFIX")]
    only: Vec<String>,
    /// Forget what is done.
    #[arg(long)]
    restart: bool,
}

/// One promise: so many units of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Promise {
    name: String,
    wanted: u64,
    /// Units done by one call.
    step: u64,
}

/// What is done so far.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    sources: String,
    done: BTreeMap<String, u64>,
    broken: BTreeMap<String, u64>,
    /// What this machine cannot do.
    skipped: BTreeSet<String>,
}

/// How a step of a promise ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Kept,
    Broken,
    Skipped,
}

/// Works on the promises until all are kept or ^C comes.
///
/// # Errors
/// A tool cannot be started, or the record cannot be written.
pub fn run(options: &Options) -> Result<ExitCode> {
    for lack in setup::prepare(setup::FOR_TEST)? {
        eprintln!("setup: {lack}");
    }
    let without_fast_path = ebpf::provide()?;
    let classify = classify::prepare()?;
    let interrupt = Interrupt::listen()?;
    let path = cargo::metadata()?.target_directory.join("soak").join("record.json");
    let mut record = Record::read(&path, &sources()?, options.restart);
    let promises = promises(&live::names()?, classify.is_ok(), options);
    let is_chosen =
        |promise: &&Promise| options.only.is_empty() || options.only.iter().any(|prefix| promise.name.starts_with(prefix));
    for batch in batches(&promises) {
        let mut open: Vec<&Promise> = batch.iter().filter(is_chosen).collect();
        while let Some((turn, done)) = record.next_turn(&open)
            && interrupt.check().is_ok()
        {
            let steps = match &classify {
                Ok(classify) if turn[0].name == CLASSIFY => vec![keep_frames(classify, done, turn[0].step)],
                _ => keep(&turn, done, options)?,
            };
            if interrupt.check().is_err() {
                break;
            }
            turn.iter().zip(&steps).for_each(|(promise, step)| record.add(promise, *step));
            record.write(&path)?;
            let is_kept =
                |promise: &Promise| turn.iter().zip(&steps).all(|(one, step)| one.name != promise.name || *step == Step::Kept);
            open.retain(|promise| is_kept(promise));
        }
    }
    let unkept: Vec<&Promise> = promises.iter().filter(|promise| record.left(promise) > 0).collect();
    for promise in &unkept {
        println!("open: {}: {} of {} done", promise.name, promise.wanted - record.left(promise), promise.wanted);
    }
    for (name, count) in &record.broken {
        println!("BROKEN {name}: {count} failed");
    }
    let without_classify = classify.err().map(|reason| reason.to_string());
    let mut skipped = record.skipped.len();
    for (name, reason) in [("ebpf", without_fast_path), (CLASSIFY, without_classify)] {
        if let Some(reason) = reason {
            println!("skipped {name}: {reason}");
            skipped += 1;
        }
    }
    let kept = promises.len() - unkept.len() - record.skipped.len();
    println!("soak: {kept} of {} promises kept, {} broken, {skipped} skipped", promises.len(), record.broken.len());
    Ok(if unkept.is_empty() && record.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn promises(cases: &[String], has_classify: bool, options: &Options) -> Vec<Promise> {
    let mut promises = vec![
        Promise { name: "sim".into(), wanted: options.seeds, step: SEEDS_PER_CALL },
        Promise { name: ENGINES.into(), wanted: options.programs, step: DISA_PER_CALL },
        Promise { name: MODEL.into(), wanted: options.model_programs, step: MODEL_PER_CALL },
    ];
    if has_classify {
        promises.push(Promise { name: CLASSIFY.into(), wanted: options.frames, step: FRAMES_PER_CALL });
    }
    if cases.iter().any(|case| case.starts_with(SMALL_CASES)) {
        promises.push(Promise { name: SMALL_CASES.into(), wanted: 1, step: 1 });
    }
    for case in cases.iter().filter(|case| !case.starts_with(SMALL_CASES)) {
        let is_counted = COUNTED_CASES.iter().any(|prefix| case.starts_with(prefix));
        let (wanted, step) = match is_counted {
            _ if case.starts_with(LOSSY_CASES) => (options.lossy_runs, LOSSY_RUNS_PER_CALL),
            _ if case.starts_with(GUEST_CASES) => (options.guest_runs, RUNS_PER_CALL),
            true => (options.runs, RUNS_PER_CALL),
            false => (1, 1),
        };
        promises.push(Promise { name: case.clone(), wanted, step });
    }
    promises
}

/// What one call of a tool can work on together, in order.
fn batches(promises: &[Promise]) -> impl Iterator<Item = &[Promise]> {
    let is_program = |promise: &Promise| promise.step == RUNS_PER_CALL;
    promises.chunk_by(move |left, right| is_program(left) && is_program(right)).flat_map(|alike| alike.chunks(PROGRAMS_PER_CALL))
}

/// One step of each of these promises, of which as much is done.
fn keep(promises: &[&Promise], done: u64, options: &Options) -> Result<Vec<Step>> {
    let Promise { name, step, .. } = promises[0];
    if name == "sim" {
        let (start, count) = (done.to_string(), step.to_string());
        let holds = simulate::add(&mut Tally::default(), "sim", &["--seeds", &count, "--start", &start])?;
        return Ok(vec![Step::of(holds)]);
    }
    if name == ENGINES {
        return Ok(vec![Step::of(keep_programs("disa-fuzz", &[], done, *step)?)]);
    }
    if name == MODEL {
        let model = cargo::root().join(MODEL_DIRECTORY);
        if !model.join("disa_ref.py").is_file() {
            println!("skipped {MODEL}: {} is not there", model.display());
            return Ok(vec![Step::Skipped]);
        }
        return Ok(vec![Step::of(keep_programs("disa-model", &[model.as_os_str()], done, *step)?)]);
    }
    let (repeat, rounds, seed) = (step.to_string(), options.rounds.to_string(), (done * 1000 + 1).to_string());
    let signals = options.signals.to_string();
    // Each call its own fast path, where there are several.
    let fast_path = FAST_PATHS[(done / step) as usize % FAST_PATHS.len()];
    let effort = ["--repeat", &repeat, "--rounds", &rounds, "--signals", &signals, "--seed", &seed, "--fast-path", fast_path];
    let choice = if name == SMALL_CASES { "--only" } else { "--exactly" };
    let chosen = promises.iter().flat_map(|promise| [choice, &promise.name]);
    let totals = live::run(&chosen.chain(effort).map(str::to_owned).collect::<Vec<_>>())?;
    totals.failed.iter().for_each(|(case, reason)| println!("FAILED {case}: {reason}"));
    if name == SMALL_CASES {
        // What is open of them is skipped by its own name.
        return Ok(vec![Step::of(totals.failed.is_empty())]);
    }
    let is_in = |cases: &[(String, String)], name: &str| cases.iter().any(|(case, _)| case == name);
    Ok(promises
        .iter()
        .map(|Promise { name, .. }| match name {
            _ if is_in(&totals.skipped, name) => Step::Skipped,
            _ => Step::of(totals.passed.contains(name) && !is_in(&totals.failed, LEFT_OVERS)),
        })
        .collect())
}

/// The same for programs of DISA: whether the engines agreed on all of them, with each other or with the model.
fn keep_programs(tool: &str, first: &[&OsStr], done: u64, count: u64) -> Result<bool> {
    let mut command = Command::new(cargo::build(&["dvm-jit"])?.join(tool));
    let status = command.args(first).args([done.to_string(), count.to_string()]).status();
    Ok(status.with_context(|| format!("cannot start {tool}"))?.success())
}

/// The same for frames: whether host and kernel agreed on all of them.
fn keep_frames(classify: &Classify, done: u64, count: u64) -> Step {
    let outcome = classify.run(&["--seed", &(done + 1).to_string(), "--frames", &count.to_string()]);
    Step::of(classify::tell(&mut Tally::default(), outcome))
}

/// The committed files and their hashes, as one hash; prose changes nothing that was promised.
fn sources() -> Result<String> {
    let mut git = Command::new("git");
    let output = git.args(["ls-tree", "-r", "HEAD"]).current_dir(cargo::root()).output().context("cannot start git")?;
    let listing = String::from_utf8_lossy(&output.stdout);
    let mut hash = DefaultHasher::new();
    listing.lines().filter(|line| !line.ends_with(".md")).for_each(|line| line.hash(&mut hash));
    Ok(format!("{:016x}", hash.finish()))
}

impl Step {
    const fn of(holds: bool) -> Self {
        if holds { Self::Kept } else { Self::Broken }
    }
}

impl Record {
    /// The record of these sources; an empty one if there is none.
    fn read(path: &Path, sources: &str, restart: bool) -> Self {
        let kept: Option<Self> = fs::read_to_string(path).ok().and_then(|text| serde_json::from_str(&text).ok());
        match kept {
            Some(record) if record.sources == sources && !restart => record,
            _ => Self { sources: sources.into(), ..Self::default() },
        }
    }

    /// Those of the promises of which least is done, and how much that is.
    fn next_turn<'a>(&self, promises: &[&'a Promise]) -> Option<(Vec<&'a Promise>, u64)> {
        let done = |promise: &Promise| self.done.get(&promise.name).copied().unwrap_or(0);
        let open = || promises.iter().copied().filter(|promise| self.left(promise) > 0);
        let least = open().map(done).min()?;
        Some((open().filter(|promise| done(promise) == least).collect(), least))
    }

    fn add(&mut self, promise: &Promise, step: Step) {
        let count = match step {
            Step::Kept => &mut self.done,
            Step::Broken => &mut self.broken,
            Step::Skipped => {
                self.skipped.insert(promise.name.clone());
                return;
            }
        };
        *count.entry(promise.name.clone()).or_default() += promise.step;
    }

    fn write(&self, path: &PathBuf) -> Result<()> {
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(path, serde_json::to_string_pretty(self)?).with_context(|| format!("cannot write {}", path.display()))
    }

    fn left(&self, promise: &Promise) -> u64 {
        if self.skipped.contains(&promise.name) {
            return 0;
        }
        promise.wanted.saturating_sub(self.done.get(&promise.name).copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_counts_down() {
        let options = Options {
            runs: 20,
            guest_runs: 25,
            lossy_runs: 1000,
            rounds: 5,
            signals: 1,
            seeds: 1000,
            frames: 7,
            programs: 9,
            model_programs: 8,
            only: vec![],
            restart: false,
        };
        let cases = ["process/a/b", "kvm/kv-2", "litmus-SB-one-page", "program-pigz-2", "process/a/c", "stress-loss-3"];
        let cases = cases.map(str::to_owned);
        assert_eq!(promises(&cases, true, &options)[3].wanted, 7);
        let promises = promises(&cases, false, &options);
        assert_eq!(promises.iter().map(|promise| promise.wanted).collect::<Vec<_>>(), [1000, 9, 8, 1, 25, 1, 20, 1000]);
        let programs: Vec<Promise> =
            (0..10).map(|k| Promise { name: format!("p{k}"), wanted: 20, step: RUNS_PER_CALL }).collect();
        let all = [promises.clone(), programs].concat();
        assert_eq!(batches(&all).map(<[Promise]>::len).collect::<Vec<_>>(), [1, 1, 1, 1, 1, 1, 1, 1, 8, 2]);
        let mut record = Record::default();
        let ahead = all.last().expect("programs").clone();
        record.add(&ahead, Step::Kept);
        let (turn, done) = record.next_turn(&all[16..].iter().collect::<Vec<_>>()).expect("open");
        assert_eq!((turn, done), (vec![&all[16]], 0));
        record.done.insert("sim".into(), 999);
        assert_eq!(record.left(&promises[0]), 1);
        record.done.insert("sim".into(), 1500);
        assert_eq!(record.left(&promises[0]), 0);
        assert_eq!(record.left(&promises[6]), 20);
    }
}

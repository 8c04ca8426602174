//! `cargo xtask test` and `ci`: every check and test in order, and one line at the end.
//!
//! Owns the order and what counts as one result. Must not know how a check works. Nothing stops at the first failure.

use crate::tally::Tally;
use crate::{cargo, ebpf, guests, live, setup, simulate, tidy, walls};
use anyhow::{Context, Result};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

/// `fast_path` of the hosts of the live cases, in turn: where it may be, nowhere, on every other host.
pub const FAST_PATHS: [&str; 3] = ["auto", "off", "auto,off"];
/// Cases that judge the pages themselves: each with each fast path. All others have one turn, every third case the same.
const EVERY_TURN_CASES: [&str; 4] = ["litmus-", "history-", "failure-", "program-stress-"];

/// Cases that wait for most of their time: run beside the others, on hosts of their own.
const WAITING_CASES: [&str; 3] = ["kvm/", "etcd/", "deploy"];

/// Cases for a soak alone: the same programs are run on three hosts.
const SOAK_CASES: &str = "further-program-2/";

/// How much is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Stage {
    /// Form, walls, lints and unit tests: no privilege needed.
    Smoke,
    /// All of it: the simulator and the live cases, too.
    Full,
}

/// How much the repeating parts do.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Seeds of the simulator.
    #[arg(long, default_value_t = 2000)]
    seeds: u64,
    /// Least rounds of each live litmus test.
    #[arg(long, default_value_t = 1500)]
    rounds: u64,
}

/// Runs a stage.
///
/// # Errors
/// A tool cannot be started at all.
pub fn run(stage: Stage, options: &Options) -> Result<ExitCode> {
    let started = Instant::now();
    let mut tally = Tally::default();
    prepare(started, stage)?;
    step(started, "form");
    tool(&mut tally, "rustfmt", cargo::command(&["fmt", "--all", "--check", "--", "--color=never", "-l"]))?;
    for (name, manifest) in [
        ("rustfmt of the programs", "ebpf/prog/Cargo.toml"),
        ("rustfmt of the comparison", ebpf::classify::MANIFEST),
        ("rustfmt of the guests", guests::MANIFEST),
    ] {
        tool(&mut tally, name, cargo::command(&["fmt", "--all", "--manifest-path", manifest, "--check", "--", "-l"]))?;
    }
    tidy::check(&mut tally)?;
    walls::check(&mut tally)?;
    if stage == Stage::Full {
        // First of all that is built, since it gets into the agent.
        step(started, "fast path");
        ebpf::check(&mut tally)?;
    }
    step(started, "lints");
    note_features(&mut tally);
    let is_clean = lints(&mut tally)?;
    guest_lints(&mut tally)?;
    step(started, "unit tests");
    unit_tests(&mut tally, is_clean)?;
    if stage == Stage::Full {
        step(started, "simulator");
        if let Err(error) = simulations(&mut tally, options) {
            tally.fail("sim", &format!("{error:#}"));
        }
        live_cases(&mut tally, options, started)?;
    }
    eprintln!("== {} s", started.elapsed().as_secs());
    Ok(tally.finish())
}

fn prepare(started: Instant, stage: Stage) -> Result<()> {
    step(started, &format!("setup (kernel {})", setup::kernel()));
    let mut lacks = setup::prepare_toolchain()?;
    if stage == Stage::Full {
        lacks.extend(setup::prepare(setup::FOR_TEST)?);
        lacks.extend(setup::prepare(setup::FOR_ETCD)?);
    }
    for lack in lacks {
        eprintln!("setup: {lack}");
    }
    Ok(())
}

fn simulations(tally: &mut Tally, options: &Options) -> Result<()> {
    simulate::add(tally, "sim-seeds", &["--seeds", &options.seeds.to_string()])?;
    simulate::add(tally, "sim-scale", &["--scale"])?;
    Ok(())
}

fn live_cases(tally: &mut Tally, options: &Options, started: Instant) -> Result<()> {
    let names = live::names()?;
    let rounds = options.rounds.to_string();
    for (turn, fast_path) in FAST_PATHS.into_iter().enumerate() {
        step(started, &format!("live cases, fast path {fast_path}"));
        let arguments = |group: Vec<&str>| -> Vec<String> {
            let chosen = group.into_iter().flat_map(|name| ["--exactly", name]);
            ["--rounds", &rounds, "--fast-path", fast_path].into_iter().chain(chosen).map(str::to_owned).collect()
        };
        let groups: Vec<_> = groups(of_turn(&names, turn)).into_iter().filter(|group| !group.is_empty()).map(arguments).collect();
        if let Err(error) = live::add(tally, &groups) {
            tally.fail("live", &format!("{error:#}"));
        }
    }
    Ok(())
}

fn of_turn(names: &[String], turn: usize) -> impl Iterator<Item = &str> {
    let tested = names.iter().map(String::as_str).filter(|name| !name.starts_with(SOAK_CASES)).enumerate();
    let is_now = move |place: usize, name: &str| {
        place % FAST_PATHS.len() == turn || EVERY_TURN_CASES.iter().any(|every| name.starts_with(every))
    };
    tested.filter(move |(place, name)| is_now(*place, name)).map(|(_, name)| name)
}

/// Those that wait and the others.
fn groups<'a>(names: impl Iterator<Item = &'a str>) -> [Vec<&'a str>; 2] {
    names.partition::<Vec<_>, _>(|name| WAITING_CASES.iter().any(|waiting| name.starts_with(waiting))).into()
}

/// What of the workspace cannot be built here.
fn note_features(tally: &mut Tally) {
    if cargo::features().is_empty() {
        tally.skip("the agent with etcd", "protoc is not installed (packages protobuf-compiler, libprotobuf-dev)");
    }
}

fn step(started: Instant, name: &str) {
    eprintln!("== {name} (after {} s)", started.elapsed().as_secs());
}

/// One cargo command, one result; says whether it was good.
fn tool(tally: &mut Tally, name: &str, mut cargo: Command) -> Result<bool> {
    let status = cargo.status().context("cannot start cargo")?;
    if status.success() {
        println!("ok {name}");
        tally.pass(1);
    } else {
        let words: Vec<_> = cargo.get_args().map(|word| word.to_string_lossy()).collect();
        tally.fail(name, &format!("cargo {} ended with {status}", words.join(" ")));
    }
    Ok(status.success())
}

/// Builds the unit tests with clippy as the compiler, so that nothing is compiled twice; says whether it was content.
fn lints(tally: &mut Tally) -> Result<bool> {
    let build = cargo::command(&[&["test", "--workspace", "--no-run"], cargo::features()].concat());
    let is_clean = tool(tally, "clippy", cargo::with_clippy(build))?;
    if is_clean {
        cargo::note_tests_built();
    }
    Ok(is_clean)
}

/// Clippy over the guests' own workspace.
fn guest_lints(tally: &mut Tally) -> Result<()> {
    match guests::lints()? {
        Ok(clippy) => tool(tally, "clippy of the guests", clippy).map(drop),
        Err(lack) => {
            tally.skip("clippy of the guests", &lack);
            Ok(())
        }
    }
}

/// `cargo test` over the workspace: each test is one result. `is_built`: by clippy.
fn unit_tests(tally: &mut Tally, is_built: bool) -> Result<()> {
    let mut command = cargo::command(&[&["test", "--workspace", "--no-fail-fast"], cargo::features()].concat());
    if is_built {
        command = cargo::with_clippy(command);
    }
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let output = child.stdout.take().context("no output of cargo test")?;
    let talk = child.stderr.take().context("no stderr of cargo test")?;
    let listener = std::thread::spawn(move || skips_told(talk));
    let mut seen = Seen::default();
    for line in BufReader::new(output).lines() {
        let line = line?;
        if !line.ends_with("... ok") && !line.is_empty() {
            println!("{line}");
        }
        seen.add_line(&line);
    }
    let status = child.wait()?;
    let skips = listener.join().map_err(|_| anyhow::anyhow!("the reader of cargo test's stderr panicked"))?;
    // Cargo counts a test that could not do its work as passed.
    tally.pass(seen.passed.saturating_sub(skips.len() as u64));
    for (name, reason) in &skips {
        tally.skip(name, reason);
    }
    for name in &seen.failed {
        tally.fail(name, "unit test");
    }
    for name in &seen.ignored {
        tally.skip(name, "#[ignore]");
    }
    if !status.success() && seen.failed.is_empty() {
        tally.fail("cargo test", &format!("{status}: does not build, or a test program died"));
    }
    Ok(())
}

/// Passes `talk` on to stderr; returns the tests that said there why they cannot run, as `skipped: name: reason`.
fn skips_told(talk: impl Read) -> Vec<(String, String)> {
    let mut skips = Vec::new();
    for line in BufReader::new(talk).lines().map_while(Result::ok) {
        eprintln!("{line}");
        let told = line.strip_prefix("skipped: ").and_then(|rest| rest.split_once(": "));
        skips.extend(told.map(|(name, reason)| (name.to_owned(), reason.to_owned())));
    }
    skips
}

/// What the test programs printed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    passed: u64,
    failed: Vec<String>,
    ignored: Vec<String>,
}

impl Seen {
    fn add_line(&mut self, line: &str) {
        let Some((name, result)) = line.strip_prefix("test ").and_then(|rest| rest.rsplit_once(" ... ")) else { return };
        match result.split([' ', ',']).next() {
            Some("ok") => self.passed += 1,
            Some("FAILED") => self.failed.push(name.to_owned()),
            Some("ignored") => self.ignored.push(name.to_owned()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipped_tests_are_named() {
        let talk = "   Compiling x\nskipped: agents::jobs: /dev/userfaultfd: not found\nskipped nothing\n";
        let expected = vec![("agents::jobs".to_owned(), "/dev/userfaultfd: not found".to_owned())];
        assert_eq!(skips_told(talk.as_bytes()), expected);
    }

    #[test]
    fn each_case_has_its_turn() {
        let names: Vec<String> = ["litmus-SB", "a", "further-program-2/x", "b", "c", "d"].map(str::to_owned).into();
        let turns = [0, 1, 2].map(|turn| of_turn(&names, turn).collect::<Vec<_>>());
        assert_eq!(turns, [vec!["litmus-SB", "c"], vec!["litmus-SB", "a", "d"], vec!["litmus-SB", "b"]]);
    }

    #[test]
    fn cases_that_wait_are_a_group() {
        assert_eq!(
            groups(["kvm/hello-2", "litmus-SB", "deploy-killed"].into_iter()),
            [vec!["kvm/hello-2", "deploy-killed"], vec!["litmus-SB"]]
        );
    }

    #[test]
    fn test_lines_are_counted() {
        let mut seen = Seen::default();
        for line in [
            "running 3 tests",
            "test a::b ... ok",
            "test a::c - should panic ... ok",
            "test d ... FAILED",
            "test e ... ignored, needs root",
            "test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured",
        ] {
            seen.add_line(line);
        }
        assert_eq!(seen, Seen { passed: 2, failed: vec!["d".into()], ignored: vec!["e".into()] });
    }
}

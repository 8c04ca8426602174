//! The programs of the fast path in the kernel, beside `classify` on the host: the same frames, the same verdicts, bytes and words.
//!
//! Owns the command line, the last line and the exit code: 1 for a disagreement, 2 if this machine cannot run it. The object is
//! loaded by libbpf, the second opinion on it: agents load it with aya. Must not judge.

mod frames;
mod host;
mod hunt;
mod kernel;
mod lane;
mod network;
#[path = "../../src/sim/rng.rs"]
mod rng;
mod state;
mod sys;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use dsm_fast::VERDICT_NAMES;
use frames::Frame;
use host::Plant;
use hunt::{FRAMES_PER_STATE, Found, Hunt};
use lane::Lane;
use network::Network;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

const UNABLE: u8 = 2;

/// Puts frames through the host's judgement and the kernel's programs, and compares.
#[derive(Debug, Parser)]
#[command(name = "dvm-test-ebpf")]
struct Flags {
    /// The object.
    #[arg(long)]
    object: PathBuf,
    /// Frames.
    #[arg(long, default_value_t = 20_000)]
    frames: u64,
    /// Seed of the first state; each state has the next one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Replays these frames alone from the state of the seed, as a failure printed them.
    #[arg(long = "frame")]
    replay: Vec<String>,
    /// Plants a fault in the host's side; the run succeeds when it is found.
    #[arg(long)]
    plant: Option<Plant>,
    /// Plants each fault, one after the other.
    #[arg(long)]
    plants: bool,
    /// Prints how often each verdict came.
    #[arg(long)]
    verdicts: bool,
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    // What libbpf has to say, the errors say, too.
    libbpf_rs::set_print(None);
    let network = match Network::enter() {
        Ok(network) => network,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::from(UNABLE);
        }
    };
    match run(&flags, network) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dvm-test-ebpf: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags, mut network: Network) -> Result<()> {
    if flags.plants {
        for plant in Plant::value_variants() {
            network = hunt_plant(flags, *plant, network)?;
        }
        return Ok(());
    }
    if let Some(plant) = flags.plant {
        return hunt_plant(flags, plant, network).map(drop);
    }
    let mut hunt = Hunt::new(Lane::all(&flags.object, None)?, network);
    if !flags.replay.is_empty() {
        let frames: Vec<Frame> = flags.replay.iter().map(|text| parse(text)).collect::<Result<_>>()?;
        let found = hunt.replay(flags.seed, &frames)?;
        ensure!(found.is_none(), "{}", found.map_or(String::new(), |(difference, _)| difference));
        println!("ebpf: {} frames, no difference", frames.len());
        return Ok(());
    }
    let begun = Instant::now();
    if let Some(found) = hunt_seeds(&mut hunt, flags)? {
        anyhow::bail!("{}", told(&found));
    }
    let seconds = begun.elapsed().as_secs_f64();
    if flags.verdicts {
        print_verdicts(&hunt);
    }
    println!("ebpf: {} frames, no difference, {:.0} frames/s", flags.frames, flags.frames as f64 / seconds);
    Ok(())
}

fn hunt_seeds(hunt: &mut Hunt, flags: &Flags) -> Result<Option<Found>> {
    let mut left = flags.frames;
    let mut seed = flags.seed;
    while left > 0 {
        let count = left.min(FRAMES_PER_STATE);
        if let Some(found) = hunt.run(seed, count)? {
            return Ok(Some(found));
        }
        left -= count;
        seed += 1;
    }
    Ok(None)
}

fn hunt_plant(flags: &Flags, plant: Plant, network: Network) -> Result<Network> {
    let mut hunt = Hunt::new(Lane::all(&flags.object, Some(plant))?, network);
    let found = hunt_seeds(&mut hunt, flags)?.with_context(|| format!("{plant:?} not found by {} frames", flags.frames))?;
    println!("ebpf: {plant:?} found with seed {}, {} frames: {}", found.seed, found.frames.len(), found.difference);
    Ok(hunt.end())
}

fn told(found: &Found) -> String {
    let lines: Vec<String> = found.frames.iter().map(|frame| format!(" --frame {}", hex(frame))).collect();
    format!("{}\n--seed {}{}", found.difference, found.seed, lines.concat())
}

/// Interface, whether joined, bytes.
fn hex(frame: &Frame) -> String {
    let bytes: String = frame.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}{}:{bytes}", frame.interface, if frame.is_joined { "j" } else { "" })
}

fn parse(text: &str) -> Result<Frame> {
    let (front, bytes) = text.split_once(':').context("no frame: it begins with the number of an interface and `:`")?;
    let pairs = bytes.as_bytes().chunks(2).map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?));
    let interface: usize = front.trim_end_matches('j').parse()?;
    ensure!(interface < 3, "there are three interfaces, 0 to 2");
    Ok(Frame { interface, is_joined: front.ends_with('j'), bytes: pairs.collect::<Result<_>>()? })
}

fn print_verdicts(hunt: &Hunt) {
    for (number, name) in VERDICT_NAMES.iter().enumerate() {
        let counts: Vec<String> =
            hunt.lanes.iter().map(|lane| format!("{} {:>8}", lane.name, lane.host.verdicts[number])).collect();
        println!("{name:<18} {}", counts.join("   "));
    }
}

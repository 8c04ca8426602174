//! The program that runs live cases.
//!
//! Owns the command line and exit code (0: none failed, 1: some failed). Must not know any case.

use anyhow::{Context, Result};
use clap::Parser;
use dvm_tests::live::bed::Effort;
use dvm_tests::live::{cases, runner};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Runs real programs over local hosts.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only cases whose name contains this; may be given several times.
    #[arg(long)]
    only: Vec<String>,
    /// Only the case of this name; may be given several times.
    #[arg(long, conflicts_with = "only")]
    exactly: Vec<String>,
    /// No case whose name contains this; may be given several times.
    #[arg(long)]
    except: Vec<String>,
    /// Only print the names.
    #[arg(long)]
    list: bool,
    /// Times each case is run.
    #[arg(long, default_value_t = 1)]
    repeat: u32,
    /// Least rounds of each litmus test.
    #[arg(long, default_value_t = 1500)]
    rounds: u64,
    /// Operations of each thread of a history.
    #[arg(long, default_value_t = 10_000)]
    operations: u64,
    /// Signals of a storm.
    #[arg(long, default_value_t = 3000)]
    signals: u64,
    /// Seed of what is random.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// `fast_path` of the hosts, in turn: auto, native, generic, tc, off.
    #[arg(long, value_delimiter = ',')]
    fast_path: Vec<String>,
    /// Directory of dvm-agent and dvm-exec; that of this program if left out.
    #[arg(long, overrides_with = "binaries")]
    binaries: Option<PathBuf>,
    /// Also write the totals to this file, as JSON.
    #[arg(long)]
    totals: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.list {
        for case in cases() {
            println!("{}", case.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("cannot catch ^C")?;
    }
    let own = std::env::current_exe().context("cannot find this program")?;
    let beside = own.parent().context("this program has no directory")?.to_path_buf();
    let plan = runner::Plan {
        filters: arguments.only,
        names: arguments.exactly,
        exceptions: arguments.except,
        repeat: arguments.repeat.max(1),
        effort: Effort {
            litmus_rounds: arguments.rounds,
            history_operations: arguments.operations,
            signals: arguments.signals,
            seed: arguments.seed,
        },
        fast_paths: arguments.fast_path,
        binaries: arguments.binaries.unwrap_or(beside),
        stop,
    };
    let totals = runner::run(&plan, cases())?;
    if let Some(path) = arguments.totals {
        std::fs::write(&path, serde_json::to_string(&totals)?).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{} passed, {} failed, {} skipped", totals.passed.len(), totals.failed.len(), totals.skipped.len());
    Ok(if totals.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

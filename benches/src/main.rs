//! `cargo xtask bench`: figures, each beside its floor measured in the same run.
//!
//! Owns the command line and the order. Must not measure: [`list`] and the others do.

mod bed;
mod calls;
mod collecting;
mod data;
mod disa;
mod engines;
mod figure;
mod gains;
mod idle;
mod kernel;
mod kvm;
mod list;
mod peers;
mod place;
mod sysbench;
mod timed;
mod work;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;

/// Measures the page layer and programs on it against what the machine can do.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only figures whose name contains this; may be given several times.
    #[arg(long)]
    only: Vec<String>,
    /// Only print the names.
    #[arg(long)]
    list: bool,
    /// Also print one JSON line per figure.
    #[arg(long)]
    json: bool,
    /// Samples of each latency.
    #[arg(long, default_value_t = 4000)]
    samples: usize,
    /// Directory of dvm-agent and dvm-exec; that of this program if left out.
    #[arg(long)]
    binaries: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let chosen: Vec<&list::Bench> = [
        &list::BENCHES[..],
        &kernel::BENCHES,
        &calls::BENCHES,
        &collecting::BENCHES,
        &engines::BENCHES,
        &gains::BENCHES,
        &sysbench::BENCHES,
        &place::BENCHES,
        &disa::BENCHES,
        &kvm::BENCHES,
    ]
    .into_iter()
    .flatten()
    .filter(|bench| arguments.only.is_empty() || arguments.only.iter().any(|part| bench.name.contains(part.as_str())))
    .collect();
    ensure!(!chosen.is_empty(), "no figure matches {:?}: see --list", arguments.only);
    if arguments.list {
        for bench in chosen {
            println!("{}", bench.name);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let own = std::env::current_exe().context("cannot find this program")?;
    let beside = own.parent().context("this program has no directory")?.to_path_buf();
    let mut bed = bed::Bed::new(arguments.binaries.unwrap_or(beside), arguments.samples)?;
    let mut missed = 0;
    for bench in chosen {
        eprintln!("bench: {}", bench.name);
        match (bench.run)(&mut bed) {
            Ok(figures) => {
                for figure in figures {
                    println!("{figure}");
                    if arguments.json {
                        println!("{}", serde_json::to_string(&figure)?);
                    }
                    missed += usize::from(!figure.holds());
                }
            }
            Err(error) => {
                println!("FAILED {}: {error:#}", bench.name);
                missed += 1;
            }
        }
    }
    let skipped = bed.skipped();
    if !skipped.is_empty() {
        println!("{} peers skipped: {}", skipped.len(), skipped.join(", "));
    }
    println!("{missed} bars missed");
    Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

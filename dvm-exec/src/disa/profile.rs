//! `dvm-exec disa prof`: where instructions go.
//!
//! Owns the table. Must not know how runs are repeated.

use super::{files, show};
use clap::Args;
use dvm_disa::machine::{Recording, Replay};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

/// A recording.
#[derive(Args, Debug)]
pub struct Options {
    /// What `run --record` wrote, or a program, which is run for it.
    recording: PathBuf,
    /// Lines of each table.
    #[arg(long, default_value_t = 20)]
    lines: usize,
}

/// Fuel by instruction.
fn fuel(recording: &Recording) -> anyhow::Result<BTreeMap<u64, u64>> {
    let mut by_pc = BTreeMap::new();
    let mut replay = Replay::new(recording)?;
    for run in &recording.runs {
        let Ok(mut processor) = replay.begin(run) else { continue };
        loop {
            let (pc, before) = (processor.pc(), processor.fuel_used());
            let stepped = processor.step();
            *by_pc.entry(pc).or_insert(0) += processor.fuel_used() - before;
            if !matches!(stepped, Ok(None)) {
                break;
            }
        }
    }
    Ok(by_pc)
}

/// Shows the tables.
pub fn profile(options: &Options) -> anyhow::Result<u8> {
    let recording = files::recording(&options.recording)?;
    let by_pc = fuel(&recording)?;
    let total = by_pc.values().sum::<u64>().max(1);
    let (mut functions, mut lines) = (BTreeMap::new(), BTreeMap::new());
    for (pc, fuel) in by_pc {
        *functions.entry(recording.object.function_of(pc).to_owned()).or_insert(0u64) += fuel;
        let (file, line) = recording.object.line_of(pc);
        *lines.entry(format!("{file}:{line}")).or_insert(0u64) += fuel;
    }
    let mut text = format!("{total} instructions in {} runs\n", recording.runs.len());
    for (title, table) in [("function", functions), ("line", lines)] {
        let mut rows: Vec<(String, u64)> = table.into_iter().collect();
        rows.sort_by_key(|(_, fuel)| std::cmp::Reverse(*fuel));
        writeln!(text, "\n{:>14} {:>6}  {title}", "instructions", "%")?;
        for (name, fuel) in rows.iter().take(options.lines) {
            writeln!(text, "{fuel:>14} {:>6.2}  {name}", *fuel as f64 * 100.0 / total as f64)?;
        }
    }
    show(text.as_bytes())?;
    Ok(0)
}

//! Runs as a trace that Chrome and Perfetto show.
//!
//! Owns the format. Must not know how runs came about. Time is the number of instructions that all runs had taken.

use dvm_disa::machine::{Recording, RunEnd};
use serde_json::{Value, json};

/// The trace of a recording.
pub fn trace(recording: &Recording) -> String {
    let mut free: Vec<u64> = Vec::new();
    let mut events: Vec<Value> = Vec::with_capacity(recording.runs.len());
    for run in &recording.runs {
        // The lowest row that is free when the run begins.
        let row = free.iter().position(|end| *end <= run.began).unwrap_or(free.len());
        if row == free.len() {
            free.push(0);
        }
        free[row] = run.ended.max(run.began + 1);
        let end = match run.end {
            RunEnd::Unknown => "unknown".into(),
            RunEnd::Committed(at) => format!("committed at {at}"),
            RunEnd::Aborted => "aborted".into(),
            RunEnd::Trapped(code) => format!("trap {code}"),
            RunEnd::Conflict { address, .. } => format!("conflict at {}", recording.object.place_of(address)),
            RunEnd::Lost => "host lost".into(),
        };
        events.push(json!({
            "name": format!("{} {}", recording.object.function_of(run.first), run.id),
            "cat": if matches!(run.end, RunEnd::Committed(_)) { "commit" } else { "other" },
            "ph": "X", "pid": 1, "tid": row + 1, "ts": run.began, "dur": run.ended.saturating_sub(run.began).max(1),
            "args": {
                "runner": run.id, "parent": run.parent, "start": run.tries, "snapshot": run.epoch,
                "instructions": run.fuel_used, "end": end,
            },
        }));
    }
    json!({ "displayTimeUnit": "ns", "traceEvents": events }).to_string()
}

//! Faults as a Chrome trace: <https://ui.perfetto.dev> and chrome://tracing open it.
//!
//! Owns the file's form: a track per thread, the fault as a complete event, its stages inside it. Must not know how faults are
//! found.

use super::join::Fault;
use serde::Serialize;
use std::io::{self, Write};

/// One event of the format; `X` are complete ones, times in microseconds.
#[derive(Debug, Serialize)]
struct Event {
    name: &'static str,
    cat: &'static str,
    ph: &'static str,
    ts: f64,
    dur: f64,
    pid: u32,
    tid: u32,
    args: Arguments,
}

#[derive(Debug, Serialize)]
struct Arguments {
    page: String,
}

/// Writes the whole file.
///
/// # Errors
/// The writer's.
pub(super) fn write(mut to: impl Write, faults: &[Fault]) -> io::Result<()> {
    // Times from the first fault on: a float keeps them exact.
    let origin_ns = faults.iter().map(|fault| fault.begun_ns).min().unwrap_or(0);
    write!(to, "{{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
    let mut separator = "\n";
    for fault in faults {
        let whole = if fault.is_remote { "remote fault" } else { "local fault" };
        let stages = fault.stages().map(|(stage, begun, ns)| (stage.name(), "stage", begun, ns));
        for (name, cat, begun_ns, ns) in std::iter::once((whole, "fault", fault.begun_ns, fault.total_ns())).chain(stages) {
            let event = Event {
                name,
                cat,
                ph: "X",
                ts: microseconds(begun_ns - origin_ns),
                dur: microseconds(ns),
                pid: fault.process,
                tid: fault.thread,
                args: Arguments { page: format!("{:#x}", fault.page) },
            };
            to.write_all(separator.as_bytes())?;
            serde_json::to_writer(&mut to, &event)?;
            separator = ",\n";
        }
    }
    to.write_all(b"\n]}\n")?;
    to.flush()
}

fn microseconds(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::super::join::{join, tests::remote};
    use super::*;
    use serde_json::Value;

    #[test]
    fn stages_stand_inside_their_fault() {
        let mut bytes = Vec::new();
        write(&mut bytes, &join(remote(), true).faults).unwrap();
        let file: Value = serde_json::from_slice(&bytes).unwrap();
        let events = file["traceEvents"].as_array().unwrap();
        let names: Vec<&str> = events.iter().map(|event| event["name"].as_str().unwrap()).collect();
        assert_eq!(names, ["remote fault", "delivered", "request_out", "reply_in", "installed", "resumed"]);
        let end = |event: &Value| event["ts"].as_f64().unwrap() + event["dur"].as_f64().unwrap();
        assert!(events.iter().all(|event| event["ph"] == "X" && event["pid"] == 70 && event["tid"] == 7));
        assert!(events.windows(2).skip(1).all(|pair| (end(&pair[0]) - pair[1]["ts"].as_f64().unwrap()).abs() < 1e-9));
        assert!((end(&events[0]) - end(&events[5])).abs() < 1e-9 && (end(&events[0]) - 0.15).abs() < 1e-9);
        assert_eq!(events[0]["args"]["page"], "0x5");
    }

    #[test]
    fn a_file_without_faults_is_a_file() {
        let mut bytes = Vec::new();
        write(&mut bytes, &[]).unwrap();
        let file: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(file["traceEvents"], serde_json::json!([]));
    }
}

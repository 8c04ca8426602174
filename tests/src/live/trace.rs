//! A trace of a running job: every stage is seen, and the stages add up.
//!
//! Owns what `dvm-agent trace` must bring. Must not know how it is measured.

use super::bed::{Bed, shortened};
use super::case::{Case, Lacking, Need};
use anyhow::{Context, Result, ensure};
use dvm_hosts::{User, output_within};
use serde_json::Value;
use std::fs;
use std::process::Output;
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::{Duration, Instant};

const STAGES: [&str; 5] = ["delivered", "request_out", "reply_in", "installed", "resumed"];
/// The host that is traced: not the root.
const TRACED: usize = 1;
/// Exit code of a trace that cannot be made.
const UNTRACEABLE: i32 = 23;
const SECONDS: &str = "2";
const TRACE_LATEST: Duration = Duration::from_secs(30);
const START_LATEST: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
/// The job shares a page all the time: fewer remote faults than this in the time say that most are not joined.
const FAULTS_LEAST: u64 = 20;
/// The times of the trace file are rounded, in microseconds.
const ROUNDING_US: f64 = 0.01;

/// One case on two hosts.
#[must_use]
pub fn cases() -> Vec<Case> {
    vec![Case::new("trace", 2, trace).needs(&[Need::Program("gcc")])]
}

fn trace(bed: &mut Bed<'_>) -> Result<String> {
    let running = bed.job("endless", &["6", "60"])?.options(["--place", "rr"]).start(bed.hosts)?;
    let latest = Instant::now() + START_LATEST;
    while !running.output_so_far().contains("running") {
        ensure!(Instant::now() < latest, "the job did not start within {} s", START_LATEST.as_secs());
        sleep(POLL);
    }
    let file = bed.workshop.job_directory().with_extension("trace");
    let socket = bed.hosts.host(TRACED)?.socket.clone();
    let mut command = bed.hosts.command(TRACED, User::Root, &bed.hosts.binaries().agent)?;
    command.args(["trace", "--json", "--seconds", SECONDS, "--output"]).arg(&file).arg("--socket").arg(&socket);
    let traced = output_within(&mut command, TRACE_LATEST).context("dvm-agent trace");
    running.interrupt();
    running.wait(Instant::now() + START_LATEST, &AtomicBool::new(false))?;
    let report = report(&traced?)?;
    let remote = report.get("remote").and_then(Value::as_array).context("no remote faults in the report")?;
    let row = |name: &str| remote.iter().find(|row| row["name"] == name).with_context(|| format!("no stage {name}: {report}"));
    let total = row("total")?;
    let (count, p50) = (total["count"].as_u64().unwrap_or(0), us(total, "p50_ns"));
    ensure!(count >= FAULTS_LEAST, "{count} remote faults, {FAULTS_LEAST} expected: {report}");
    let (mut longest, mut sum) = (0.0, 0.0);
    for name in STAGES {
        let row = row(name)?;
        ensure!(row["count"].as_u64() == Some(count), "{name} is not of every fault: {row}, {count} faults");
        longest = us(row, "p50_ns").max(longest);
        sum += us(row, "p90_ns");
    }
    // Half of the faults are in no stage among its slowest tenth, whatever the distribution: five tenths at most are.
    ensure!(longest <= p50 && p50 <= sum, "the total's p50 is {p50:.1} us, not within {longest:.1} and {sum:.1}: {report}");
    let events = events(&fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?)?;
    Ok(format!("{count} remote faults, p50 {p50:.1} us, {events} events"))
}

fn us(row: &Value, figure: &str) -> f64 {
    row[figure].as_f64().unwrap_or(0.0) / 1e3
}

fn report(output: &Output) -> Result<Value> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(UNTRACEABLE) {
        return Err(Lacking(shortened(&stderr)).into());
    }
    ensure!(output.status.success(), "dvm-agent trace: {}: {}", output.status, shortened(&stderr));
    let report: Value = serde_json::from_slice(&output.stdout).context("the report is no JSON")?;
    if let Some(lacking) = report["not_attached"].as_object().filter(|lacking| !lacking.is_empty()) {
        return Err(Lacking(format!("not attached: {lacking:?}")).into());
    }
    Ok(report)
}

/// Checks the trace file: each fault is followed by its stages, which add up to it. Says how many events it has.
fn events(bytes: &[u8]) -> Result<usize> {
    let file: Value = serde_json::from_slice(bytes).context("the trace file is no JSON")?;
    let events = file["traceEvents"].as_array().context("the trace file has no events")?;
    for name in STAGES.into_iter().chain(["remote fault"]) {
        ensure!(events.iter().any(|event| event["name"] == name), "the trace file has no event {name}");
    }
    let (mut fault, mut left) = (&Value::Null, 0.0_f64);
    for event in events.iter().chain([&Value::Null]) {
        let dur = event["dur"].as_f64().unwrap_or(0.0);
        if event["cat"] == "stage" {
            left -= dur;
            continue;
        }
        ensure!(left.abs() <= ROUNDING_US, "the stages miss the fault by {left} us: {fault}");
        (fault, left) = (event, dur);
    }
    Ok(events.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_lacking_a_stage_is_refused() {
        let file = |names: &[&str]| {
            let event = |name: &&str| match *name {
                "remote fault" => serde_json::json!({ "name": name, "cat": "fault", "dur": 5.0 }),
                _ => serde_json::json!({ "name": name, "cat": "stage", "dur": 1.0 }),
            };
            let events: Vec<Value> = names.iter().map(event).collect();
            serde_json::json!({ "traceEvents": events }).to_string()
        };
        let mut names = vec!["remote fault"];
        names.extend(STAGES);
        assert_eq!(events(file(&names).as_bytes()).unwrap(), 6);
        assert!(events(file(&names[..5]).as_bytes()).is_err());
        assert!(events(b"{").is_err());
        names.push("resumed");
        assert!(events(file(&names).as_bytes()).is_err());
    }
}

//! `histograms --hosts`: the latencies of many hosts as one table, JSON, HdrHistogram log and page.
//!
//! Owns the files' names and the rhythm of `--watch`. Must not know how hosts are asked, or reports drawn.

use super::collect::Collector;
use crate::client::Target;
use crate::exit::{Exit, Failure};
use anyhow::{Context, anyhow};
use dvm_report::{MergeError, Report, html, json, log, table};
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// Most intervals kept for the log of a `--watch`: the earliest go first.
const INTERVALS_MAX: usize = 4096;

/// How figures are asked for and shown.
pub struct Options {
    /// By name; `all` is all.
    pub hosts: Vec<String>,
    /// One JSON object instead of a table.
    pub is_json: bool,
    /// Directory for `report.json`, `report.hlog` and `report.html`.
    pub output: Option<PathBuf>,
    /// The report of an earlier run.
    pub before: Option<PathBuf>,
    /// Over how many seconds; none: since the agents started.
    pub seconds: Option<u64>,
    /// Again and again, until interrupted.
    pub is_watch: bool,
}

/// Collects and shows the figures; `print` gets each text.
///
/// # Errors
/// When no agent answers, hosts cannot be merged, or a file cannot be read or written.
pub fn run(target: &Target, options: &Options, print: impl Fn(&str) -> Result<(), Failure>) -> Result<(), Failure> {
    let before = options.before.as_deref().map(read).transpose()?;
    let collector = Collector::new(target, &options.hosts)?;
    let mut last = collector.collect()?.report;
    let Some(seconds) = options.seconds else { return show(&last, &[last.clone()], before.as_ref(), options, &print) };
    let mut intervals = Vec::new();
    loop {
        sleep(Duration::from_secs(seconds));
        let now = collector.collect()?.report;
        let interval = now.since(&last);
        last = now;
        if intervals.len() >= INTERVALS_MAX {
            intervals.remove(0);
        }
        intervals.push(interval.clone());
        show(&interval, &intervals, before.as_ref(), options, &print)?;
        if !options.is_watch {
            return Ok(());
        }
    }
}

fn show(
    report: &Report,
    intervals: &[Report],
    before: Option<&Report>,
    options: &Options,
    print: &impl Fn(&str) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut text = if options.is_json { json::write(report) } else { table::write(report) }.map_err(unmergeable)?;
    if let Some(before) = before.filter(|_| !options.is_json) {
        text += &format!("\n{}", table::compare(before, report).map_err(unmergeable)?);
    }
    print(&text)?;
    let Some(directory) = &options.output else { return Ok(()) };
    let put = |name: &str, text: Result<String, (String, MergeError)>| {
        let path = directory.join(name);
        let text = text.map_err(unmergeable)?;
        let written = fs::create_dir_all(directory).and_then(|()| fs::write(&path, text));
        written
            .with_context(|| format!("cannot write {}; give a directory with room to --output", path.display()))
            .map_err(output)
    };
    put("report.json", json::write(report))?;
    put("report.hlog", log::write(intervals))?;
    put("report.html", html::write(report, before))
}

fn read(path: &Path) -> Result<Report, Failure> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}; give a report.json to --before", path.display()));
    let report = json::read(&text.map_err(unreadable)?).with_context(|| path.display().to_string());
    report.map_err(unreadable)
}

fn unreadable(error: anyhow::Error) -> Failure {
    Failure::new(Exit::Report, error)
}

fn output(error: anyhow::Error) -> Failure {
    Failure::new(Exit::Output, error)
}

fn unmergeable((what, error): (String, MergeError)) -> Failure {
    Failure::new(Exit::BadAnswer, anyhow!("{what}: {error}"))
}

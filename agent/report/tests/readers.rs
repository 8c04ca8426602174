//! Reports, read by programs that know nothing of this project.
//!
//! Owns a report by chance and what it is compared with: PyPI `hdrhistogram` (put into a virtual environment of the build directory)
//! and a headless Chromium. What is not there is skipped by name.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

use dvm_report::{Host, Page, Report, Summary, html, json, log};
use hdrhistogram::Histogram;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The release that is compared with.
const HDRHISTOGRAM: &str = "hdrhistogram==0.10.3";
const QUANTILES: [f64; 7] = [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 100.0];
/// Samples of each histogram of a host: of three hosts, no percentile lies between two samples, where one implementation rounds up
/// and the other to the nearest.
const SAMPLES: usize = 20_011;
/// Reads a log and prints, line by line, tag, count, values at percentiles, and all buckets.
const READER: &str = r#"
import sys
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader
whole = HdrHistogram(1, 1 << 62, 2)
reader = HistogramLogReader(sys.argv[1], whole)
while True:
    interval = reader.get_next_interval_histogram()
    if interval is None:
        break
    values = [interval.get_value_at_percentile(float(p)) for p in sys.argv[2:]]
    buckets = [f"{step.value_iterated_to}:{step.count_at_value_iterated_to}" for step in interval.get_recorded_iterator()]
    print(interval.get_tag(), interval.get_total_count(), *values, *buckets)
"#;

#[test]
fn the_log_is_read_by_another_implementation() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => return skip("the_log_is_read_by_another_implementation", &reason),
    };
    let report = report(1);
    let path = directory().join("report.hlog");
    fs::write(&path, log::write(std::slice::from_ref(&report)).unwrap()).unwrap();
    let quantiles = QUANTILES.map(|quantile| quantile.to_string());
    let output = Command::new(python).args(["-c", READER]).arg(&path).args(quantiles).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).unwrap();
    let mut lines = 0;
    for (line, (name, histogram)) in told.lines().zip(report.merged().unwrap()) {
        let values = QUANTILES.map(|quantile| match quantile {
            // The smallest: each implementation has its own edge of the bucket, so both are taken to the lower one.
            0.0 => histogram.lowest_equivalent(histogram.value_at_percentile(0.0)),
            _ => histogram.value_at_percentile(quantile),
        });
        let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        words[2] = histogram.lowest_equivalent(words[2].parse().unwrap()).to_string();
        let buckets = histogram.iter_recorded().map(|step| format!("{}:{}", step.value_iterated_to(), step.count_at_value()));
        let ours = [name, histogram.len().to_string()].into_iter().chain(values.map(|value| value.to_string())).chain(buckets);
        assert_eq!(words, ours.collect::<Vec<_>>());
        lines += 1;
    }
    assert_eq!(lines, report.merged().unwrap().len());
}

#[test]
fn the_page_shows_the_numbers_of_the_json() {
    let Some(chromium) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| runs(name, "--version"))
    else {
        return skip("the_page_shows_the_numbers_of_the_json", "no chromium; install the package chromium");
    };
    let (before, after) = (report(1), report(2));
    let path = directory().join("report.html");
    fs::write(&path, html::write(&after, Some(&before)).unwrap()).unwrap();
    let browse = |more: &[&str]| {
        let mut command = Command::new(chromium);
        command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=900,2300"]);
        command.arg(format!("--user-data-dir={}", directory().join("chromium").display()));
        let output = command.args(more).arg(format!("file://{}", path.display())).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let shown = browse(&["--dump-dom"]);
    let json: Value = serde_json::from_str(&json::write(&after).unwrap()).unwrap();
    let merged = json["merged"].as_object().unwrap();
    assert!(!merged.is_empty());
    for (name, summary) in merged {
        let row = shown.split("<tr data-name=\"").find_map(|row| row.strip_prefix(&format!("{name}\""))).unwrap();
        let row = row.split("</tr>").next().unwrap();
        let numbers: Vec<u64> =
            ["data-count=\"", "data-ns=\""].iter().flat_map(|key| row.split(key).skip(1)).map(number).collect();
        let ours: Summary = serde_json::from_value(summary.clone()).unwrap();
        let times = ours.times().into_iter().map(|(_, ns)| ns);
        assert_eq!(numbers, std::iter::once(ours.count).chain(times).collect::<Vec<_>>(), "{name}");
    }
    let pictures = [("light", 1), ("dark", 0)].map(|(name, scheme)| {
        let picture = directory().join(format!("report-{name}.png"));
        let shot = format!("--screenshot={}", picture.display());
        browse(&[&format!("--blink-settings=preferredColorScheme={scheme}"), &shot]);
        fs::read(picture).unwrap()
    });
    assert_ne!(pictures[0], pictures[1], "light and dark look the same");
}

fn number(text: &str) -> u64 {
    text.split('"').next().unwrap().parse().unwrap()
}

/// Three hosts; `seed` changes every figure.
fn report(seed: u64) -> Report {
    let mut state = seed;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1_u64 << 31) as f64
    };
    let names = ["node-a", "node-b", "node-c"];
    let spans = [
        ("fault_local_ns", 3_500.0),
        ("fault_remote_read_ns", 62_000.0),
        ("fault_remote_write_ns", 88_000.0),
        ("stage_request_out_ns", 4_000.0),
        ("stage_reply_in_ns", 45_000.0),
        ("stage_installed_ns", 7_000.0),
        ("page_operation_ns", 1_900.0),
    ];
    let mut host = |name: &str| {
        let mut histogram = |middle: f64| {
            let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 2).unwrap();
            for _ in 0..SAMPLES {
                let tail = if random() < 0.01 { 1.0 + 30.0 * random() } else { 1.0 };
                histogram.saturating_record((middle * (0.7 + random() * random()) * tail) as u64);
            }
            histogram
        };
        let histograms = spans.iter().map(|(name, middle)| ((*name).to_owned(), histogram(*middle))).collect();
        let others = names.iter().filter(|other| **other != name);
        let sources = others.map(|other| ((*other).to_owned(), (20_000.0 * random()) as u64)).collect();
        let page = |number: u64| Page {
            space: 4,
            program: "stencil".into(),
            address: 0x7f00_0000 + number * 0x3000,
            reads: (4000.0 / (number + 1) as f64) as u64,
            writes: 900 / (number + 1),
            lines: 0xff >> number,
        };
        Host { name: name.into(), incarnation: "1".into(), histograms, sources, pages: (0..8).map(page).collect() }
    };
    Report {
        cluster: "lab".into(),
        taken_unix_ms: 1_763_760_000_000 + seed * 60_000,
        interval_ms: Some(10_000),
        hosts: names.map(&mut host).into(),
        missing: Vec::new(),
    }
}

/// A Python that has `hdrhistogram`.
fn python() -> Result<PathBuf, String> {
    let environment = directory().join("python");
    let python = environment.join("bin/python");
    if !runs(&python, "--version") && !succeeds(Command::new("virtualenv").arg(&environment)) {
        return Err("virtualenv fails; install the package virtualenv".to_owned());
    }
    let has = |python: &Path| succeeds(Command::new(python).args(["-c", "import hdrh"]));
    if !has(&python) && !succeeds(Command::new(&python).args(["-m", "pip", "install", "-q", "--timeout", "10", HDRHISTOGRAM])) {
        return Err(format!("pip cannot install {HDRHISTOGRAM}; it needs the network once"));
    }
    if has(&python) { Ok(python) } else { Err(format!("{HDRHISTOGRAM} cannot be imported")) }
}

fn runs(program: impl AsRef<std::ffi::OsStr>, argument: &str) -> bool {
    succeeds(Command::new(program).arg(argument))
}

fn succeeds(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
}

/// Past the test harness, which hides what a passing test prints.
fn skip(test: &str, reason: &str) {
    std::io::stderr().write_all(format!("skipped: readers::{test}: {reason}\n").as_bytes()).unwrap();
}

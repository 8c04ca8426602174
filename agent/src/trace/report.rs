//! The result of a trace, as a table and as JSON.
//!
//! Owns percentiles and names. Must not know how faults are found.

use super::join::{Fault, Joined, Stage};
use crate::exit::{Exit, Failure};
use dsm_bpf::NotAttached;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

/// What is printed.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    agent_pid: u32,
    seconds: u64,
    /// Faults whose page came from another host, stage by stage; then `total`.
    remote: Vec<Row>,
    /// The others.
    local: Vec<Row>,
    /// What could not be joined, by kind.
    unmatched: BTreeMap<&'static str, u64>,
    /// Records that were lost or too many.
    records_left_out: u64,
    not_attached: BTreeMap<&'static str, String>,
}

/// One line.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    count: usize,
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    max_ns: u64,
}

impl Report {
    pub(super) fn of(joined: &Joined, agent_pid: u32, seconds: u64, records_left_out: u64, lacking: &[NotAttached]) -> Self {
        let unmatched = &joined.unmatched;
        Self {
            agent_pid,
            seconds,
            remote: rows(joined.faults.iter().filter(|fault| fault.is_remote)),
            local: rows(joined.faults.iter().filter(|fault| !fault.is_remote)),
            unmatched: [
                ("reads", unmatched.reads),
                ("repeats", unmatched.repeats),
                ("faults", unmatched.faults),
                ("requests", unmatched.requests),
                ("replies", unmatched.replies),
                ("installs", unmatched.installs),
                ("resumes", unmatched.resumes),
                ("unknown", unmatched.unknown),
            ]
            .into(),
            records_left_out,
            not_attached: lacking.iter().map(|lack| (lack.place, lack.reason.clone())).collect(),
        }
    }

    pub(super) fn json(&self) -> Result<String, Failure> {
        let text = serde_json::to_string(self).map_err(|error| Failure::new(Exit::Internal, error))?;
        Ok(text + "\n")
    }

    pub(super) fn table(&self) -> String {
        let mut text = format!(
            "{:<24} {:>10} {:>10} {:>10} {:>10} {:>10}\n",
            format!("agent {}, {} s", self.agent_pid, self.seconds),
            "count",
            "p50 us",
            "p90 us",
            "p99 us",
            "max us"
        );
        for (origin, rows) in [("remote", &self.remote), ("local", &self.local)] {
            for Row { name, count, p50_ns, p90_ns, p99_ns, max_ns } in rows {
                let [p50, p90, p99, max] = [p50_ns, p90_ns, p99_ns, max_ns].map(|ns| *ns as f64 / 1000.0);
                let name = format!("{origin} {name}");
                line(&mut text, format_args!("{name:<24} {count:>10} {p50:>10.1} {p90:>10.1} {p99:>10.1} {max:>10.1}"));
            }
            if rows.is_empty() {
                line(&mut text, format_args!("no {origin} faults"));
            }
        }
        for (name, count) in self.unmatched.iter().filter(|(_, count)| **count > 0) {
            line(&mut text, format_args!("unmatched {name} {count}"));
        }
        if self.records_left_out > 0 {
            line(&mut text, format_args!("records left out {}", self.records_left_out));
        }
        for (place, reason) in &self.not_attached {
            line(&mut text, format_args!("not attached: {place}: {reason}"));
        }
        text
    }
}

/// A row for each stage that occurs, and one for the whole; none without faults. A stage that a fault had twice counts once, as long as
/// both.
fn rows<'a>(faults: impl Iterator<Item = &'a Fault>) -> Vec<Row> {
    let mut totals = Vec::new();
    let mut stages: [Vec<u64>; Stage::ALL.len()] = Default::default();
    for fault in faults {
        totals.push(fault.total_ns());
        let mut own = [None; Stage::ALL.len()];
        for (stage, _, ns) in fault.stages() {
            *own[stage as usize].get_or_insert(0) += ns;
        }
        for (times, ns) in stages.iter_mut().zip(own) {
            times.extend(ns);
        }
    }
    let named = Stage::ALL.into_iter().map(Stage::name).zip(stages);
    named.chain([("total", totals)]).filter_map(|(name, times)| Row::of(name, times)).collect()
}

impl Row {
    fn of(name: &'static str, mut times: Vec<u64>) -> Option<Self> {
        times.sort_unstable();
        let max_ns = *times.last()?;
        let [p50_ns, p90_ns, p99_ns] = [50, 90, 99].map(|percent| times[(times.len() * percent).div_ceil(100) - 1]);
        Some(Self { name, count: times.len(), p50_ns, p90_ns, p99_ns, max_ns })
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::super::join::{join, tests::remote};
    use super::*;

    #[test]
    fn percentiles_are_samples() {
        #[track_caller]
        fn check(times: &[u64], expected: Option<[u64; 4]>) {
            let row = Row::of("x", times.to_vec());
            assert_eq!(row.map(|row| [row.p50_ns, row.p90_ns, row.p99_ns, row.max_ns]), expected);
        }
        check(&[], None);
        check(&[7], Some([7; 4]));
        check(&[3, 1, 2], Some([2, 3, 3, 3]));
        check(&(1..=100).collect::<Vec<_>>(), Some([50, 90, 99, 100]));
    }

    #[test]
    fn everything_is_said() {
        let lacking = [NotAttached { place: "sched_exit_tp", reason: "ENOENT".into() }];
        let mut joined = join(remote(), true);
        joined.unmatched.reads = 3;
        let report = Report::of(&joined, 12, 2, 4, &lacking);
        let table = report.table();
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["remote", "delivered", "1", "0.0", "0.0", "0.0", "0.0"]);
        assert_eq!(rows[6], ["remote", "total", "1", "0.1", "0.1", "0.1", "0.1"]);
        let end = "no local faults\nunmatched reads 3\nrecords left out 4\nnot attached: sched_exit_tp: ENOENT\n";
        assert!(table.ends_with(end), "{table}");
        let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
        assert_eq!(json["remote"][5]["p50_ns"], 150);
        assert_eq!(json["not_attached"]["sched_exit_tp"], "ENOENT");
    }
}

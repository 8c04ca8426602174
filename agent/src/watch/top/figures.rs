//! What `top` shows, from two collections of figures.
//!
//! Owns rates and shares, and their JSON. Must not know the screen.

use super::super::collect::Collected;
use crate::status::Status;
use dvm_report::{Host, Report, add};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;

/// Verdicts after which the agent need not be woken. Answers to heartbeats and refusals are no work saved.
const ANSWERED: [&str; 4] = ["counted", "forward", "serve", "fan_out"];
/// Histograms of faults whose page came from another host.
const REMOTE: [&str; 2] = ["fault_remote_read_ns", "fault_remote_write_ns"];
/// Counters of pages that left for want of room.
const EVICTIONS: [&str; 2] = ["pages_evicted_clean", "pages_evicted_away"];

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Figures {
    /// The cluster's name.
    pub cluster: String,
    /// Unix time of the later collection, in milliseconds.
    pub taken_unix_ms: u64,
    /// Time between the two, in milliseconds.
    pub interval_ms: u64,
    /// Hosts that answered.
    pub hosts: Vec<HostFigures>,
    /// Names of those that did not, and why.
    pub missing: BTreeMap<String, String>,
    /// Spaces with a root that answered.
    pub spaces: Vec<SpaceFigures>,
    /// Pages fetched most in the interval.
    pub pages: Vec<PageFigures>,
}

/// A host.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HostFigures {
    /// Its name.
    pub name: String,
    /// Faults of its threads.
    pub faults_per_s: f64,
    /// Those whose page came from another host.
    pub remote_per_s: f64,
    /// How long these took; none: there were none.
    pub p50_ns: Option<u64>,
    /// The same.
    pub p99_ns: Option<u64>,
    /// Of the frames that could be answered in the kernel, those that were; none: there were none.
    pub fast_share: Option<f64>,
    /// Pages that left for want of room.
    pub evictions_per_s: f64,
    /// What pages take.
    pub memory_used_bytes: u64,
    /// What they may take.
    pub memory_limit_bytes: u64,
}

/// A space.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SpaceFigures {
    /// Its number.
    pub space: u32,
    /// Its program.
    pub program: String,
    /// Its user.
    pub uid: u32,
    /// Its hosts, root first.
    pub hosts: Vec<String>,
    /// Faults on all of them.
    pub faults_per_s: f64,
    /// Those whose page came from another host.
    pub remote_per_s: f64,
    /// Since it began.
    pub uptime_s: f64,
}

/// A page.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct PageFigures {
    /// Its space.
    pub space: u32,
    /// The space's program.
    pub program: String,
    /// Address of its first byte.
    pub address: u64,
    /// Fetches from other hosts to read it.
    pub reads_per_s: f64,
    /// The same to write it.
    pub writes_per_s: f64,
    /// 64-byte lines wanted so far.
    pub lines: u32,
    /// Who fetched it.
    pub hosts: Vec<String>,
}

impl Figures {
    /// What happened between two collections.
    #[must_use]
    pub fn between(before: &Collected, after: &Collected) -> Self {
        let report = after.report.since(&before.report);
        let interval_ms = report.interval_ms.unwrap_or(0);
        let seconds = interval_ms.max(1) as f64 / 1000.0;
        let was =
            |now: &Status| before.states.iter().find(|state| state.node == now.node && state.incarnation == now.incarnation);
        let host = |(host, now): (&Host, &Status)| host_figures(host, now, was(now).unwrap_or(now), seconds);
        Self {
            cluster: report.cluster.clone(),
            taken_unix_ms: report.taken_unix_ms,
            interval_ms,
            hosts: report.hosts.iter().zip(&after.states).map(host).collect(),
            missing: report.missing.iter().map(|missing| (missing.name.clone(), missing.reason.clone())).collect(),
            spaces: spaces(before, after, seconds),
            pages: pages(&report, seconds),
        }
    }

    /// As one JSON object.
    #[must_use]
    pub fn json(&self) -> String {
        serde_json::to_string(self).expect("maps with text keys can be written") + "\n"
    }
}

fn host_figures(host: &Host, now: &Status, was: &Status, seconds: f64) -> HostFigures {
    let rate = |names: &[&str]| rise(&was.shards, &now.shards, names) as f64 / seconds;
    let verdicts = |wanted: &dyn Fn(&str) -> bool| -> u64 {
        let names: Vec<&str> = now.fast_path.verdicts.keys().map(String::as_str).filter(|name| wanted(name)).collect();
        rise(&was.fast_path.verdicts, &now.fast_path.verdicts, &names)
    };
    let answered = verdicts(&|name| ANSWERED.contains(&name));
    let all = answered + verdicts(&|name| name.starts_with("pass_"));
    let mut remote: Option<Histogram<u64>> = None;
    for histogram in REMOTE.iter().filter_map(|name| host.histograms.get(*name)) {
        match &mut remote {
            None => remote = Some(histogram.clone()),
            // Both are of one agent, and so of one form.
            Some(sum) => drop(add(sum, histogram)),
        }
    }
    let at = |quantile| remote.as_ref().filter(|sum| !sum.is_empty()).map(|sum| sum.value_at_quantile(quantile));
    HostFigures {
        name: host.name.clone(),
        faults_per_s: rate(&["faults_read", "faults_write"]),
        remote_per_s: rate(&["faults_remote"]),
        p50_ns: at(0.5),
        p99_ns: at(0.99),
        fast_share: (all > 0).then(|| answered as f64 / all as f64),
        evictions_per_s: rate(&EVICTIONS),
        memory_used_bytes: now.memory.used_bytes,
        memory_limit_bytes: now.memory.limit_bytes,
    }
}

fn rise(was: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>, names: &[&str]) -> u64 {
    let of = |map: &BTreeMap<String, u64>, name: &str| map.get(name).copied().unwrap_or(0);
    names.iter().map(|name| of(now, name).saturating_sub(of(was, name))).sum()
}

fn spaces(before: &Collected, after: &Collected, seconds: f64) -> Vec<SpaceFigures> {
    let mut spaces: BTreeMap<u32, SpaceFigures> = BTreeMap::new();
    let none = BTreeMap::new();
    for state in &after.states {
        let known = before.states.iter().find(|known| known.node == state.node);
        for job in &state.jobs {
            let was =
                known.and_then(|known| known.jobs.iter().find(|was| was.space == job.space)).map_or(&none, |was| &was.counters);
            let space = spaces.entry(job.space).or_insert_with(|| SpaceFigures {
                space: job.space,
                program: job.program.clone(),
                uid: job.uid,
                hosts: job.members.clone(),
                uptime_s: job.uptime_s,
                ..SpaceFigures::default()
            });
            space.faults_per_s += rise(was, &job.counters, &["faults_read", "faults_write"]) as f64 / seconds;
            space.remote_per_s += rise(was, &job.counters, &["faults_remote"]) as f64 / seconds;
        }
    }
    let mut spaces: Vec<SpaceFigures> = spaces.into_values().collect();
    spaces.sort_by(|one, other| other.remote_per_s.total_cmp(&one.remote_per_s));
    spaces
}

fn pages(report: &Report, seconds: f64) -> Vec<PageFigures> {
    let page = |hot: dvm_report::HotPage| PageFigures {
        space: hot.page.space,
        program: hot.page.program,
        address: hot.page.address,
        reads_per_s: hot.page.reads as f64 / seconds,
        writes_per_s: hot.page.writes as f64 / seconds,
        lines: hot.page.lines.count_ones(),
        hosts: hot.hosts.into_iter().filter(|(_, fetches)| *fetches > 0).map(|(host, _)| host).collect(),
    };
    report.hot_pages().into_iter().map(page).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(faults: u64, served: u64) -> Status {
        let text = format!(
            r#"{{"node":"a","number":0,"incarnation":"1","cluster":"lab","fingerprint":"0","uptime_s":1.0,"peers":[],
            "membership":{{"source":"list","epoch":1,"trouble":null,"hosts":["a","b"],"draining":[],"spaces":{{}}}},
            "jobs":[{{"space":7,"program":"pigz","uid":0,"role":"root","root":"a","members":["a","b"],"uptime_s":2.0,
            "counters":{{"faults_read":{faults},"faults_remote":{faults}}}}}],
            "memory":{{"limit_bytes":100,"used_bytes":10}},
            "fast_path":{{"attached":"TC","reasons":[],"probe_us":null,"verdicts":{{"serve":{served},"pass_agent":10,"pong":99}}}},
            "counters":{{}},"shards":{{"faults_read":{faults},"faults_remote":{faults},"pages_evicted_clean":4}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    fn collected(at_ms: u64, faults: u64, served: u64) -> Collected {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 2).unwrap();
        histogram.record_n(100_000, faults).unwrap();
        let histograms = [("fault_remote_read_ns".to_owned(), histogram)].into();
        let host = Host { name: "a".into(), incarnation: "1".into(), histograms, ..Host::default() };
        let report = Report { cluster: "lab".into(), taken_unix_ms: at_ms, hosts: vec![host], ..Report::default() };
        Collected { report, states: vec![state(faults, served)] }
    }

    #[test]
    fn figures_are_those_of_the_interval() {
        let figures = Figures::between(&collected(1000, 50, 0), &collected(3000, 250, 30));
        let host = &figures.hosts[0];
        assert_eq!((host.faults_per_s, host.remote_per_s, host.evictions_per_s), (100.0, 100.0, 0.0));
        assert_eq!(host.fast_share, Some(1.0));
        assert_eq!(host.p50_ns.map(|ns| ns / 1000), Some(100));
        assert_eq!((figures.spaces[0].space, figures.spaces[0].remote_per_s), (7, 100.0));
        assert!(figures.json().starts_with("{\"cluster\":\"lab\",\"taken_unix_ms\":3000,\"interval_ms\":2000,"));
    }

    #[test]
    fn nothing_happens_between_one_and_itself() {
        let one = collected(1000, 50, 5);
        let host = Figures::between(&one, &one).hosts.remove(0);
        assert_eq!((host.faults_per_s, host.p50_ns, host.fast_share), (0.0, None, None));
    }
}

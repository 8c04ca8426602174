//! `status` and `histograms`: asks the agent of this host and prints the answer. `trace` asks only which process it is.
//!
//! Owns the tables. Must not know the agent beyond its control socket.

use crate::config::NodeConfig;
use crate::exit::{Exit, Failure};
use crate::fastpath::FastPathStatus;
use crate::status::{HistogramReport, MembershipStatus, MemoryStatus, Status};
use anyhow::{Context, anyhow};
use dvm_api::local::{Query, ToAgent, ToHusk};
use dvm_api::socket::{receive, send};
use dvm_report::HistogramRow;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, setsockopt, socket, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

/// Longer than the agent waits for its shards.
const ANSWER_SECONDS: i64 = 10;
/// Where sockets are by default.
const SOCKETS: &str = "/run/dvm";

/// Which agent is asked.
#[derive(Debug)]
pub enum Target {
    /// The one that serves this socket.
    Socket(PathBuf),
    /// The one of this node.toml.
    Node(PathBuf),
    /// The only one of this host.
    Only,
}

impl Target {
    /// The control socket meant.
    ///
    /// # Errors
    /// When there is not exactly one, or the node file cannot be read.
    pub fn socket(&self) -> Result<PathBuf, Failure> {
        match self {
            Self::Socket(path) => Ok(path.clone()),
            Self::Node(path) => Ok(NodeConfig::read(path)?.socket),
            Self::Only => only_socket(),
        }
    }
}

fn only_socket() -> Result<PathBuf, Failure> {
    let entries = std::fs::read_dir(SOCKETS).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    let sockets: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "sock")).collect();
    match <[PathBuf; 1]>::try_from(sockets) {
        Ok([socket]) => Ok(socket),
        Err(sockets) => {
            let error = anyhow!("{} control sockets in {SOCKETS}; name one with --socket or --node", sockets.len());
            Err(Failure::new(Exit::NoAgent, error))
        }
    }
}

/// Prints the agent's state.
///
/// # Errors
/// When no agent answers, or not what is expected.
pub fn status(target: &Target, is_json: bool) -> Result<String, Failure> {
    let text = ask(&target.socket()?, Query::Status)?;
    if is_json { Ok(text + "\n") } else { Ok(status_table(&parse(&text)?)) }
}

/// The state of the agent at `path`, JSON.
///
/// # Errors
/// When it does not answer.
pub fn status_text(path: &Path) -> Result<String, Failure> {
    ask(path, Query::Status)
}

/// Prints the agent's histograms.
///
/// # Errors
/// When no agent answers, or not what is expected.
pub fn histograms(target: &Target, is_json: bool) -> Result<String, Failure> {
    let text = ask(&target.socket()?, Query::Histograms)?;
    if is_json { Ok(text + "\n") } else { Ok(histogram_table(&parse::<HistogramReport>(&text)?)) }
}

/// What an agent's answer means.
///
/// # Errors
/// When it is of another release.
pub fn parse<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Failure> {
    let parsed =
        serde_json::from_str(text).context("the agent's answer is not understood; install the same release of all programs");
    parsed.map_err(|error| Failure::new(Exit::BadAnswer, error))
}

fn ask(path: &Path, query: Query) -> Result<String, Failure> {
    match exchange(path, &ToAgent::Query(query))? {
        Ok(text) => Ok(text),
        Err(reason) => Err(Failure::new(Exit::BadAnswer, anyhow!("the agent refused: {reason}"))),
    }
}

/// Asks the agent at `path` what the one of `host` answers to `query`; in it, why that one does not.
///
/// # Errors
/// When the agent at `path` does not answer.
pub fn ask_of(path: &Path, host: &str, query: Query) -> Result<Result<String, String>, Failure> {
    exchange(path, &ToAgent::QueryOf { host: host.to_owned(), query })
}

pub(crate) fn exchange(path: &Path, question: &ToAgent) -> Result<Result<String, String>, Failure> {
    let control = connected(path).map_err(|error| nobody(path, error))?;
    let asked = send(control.as_fd(), question, &[]).and_then(|()| receive::<ToHusk>(control.as_fd()));
    match asked.with_context(|| format!("no answer from the agent at {}", path.display())) {
        Ok((ToHusk::Report(text), _)) => Ok(Ok(text)),
        Ok((ToHusk::Refused { reason, .. }, _)) => Ok(Err(reason)),
        Ok(_) => Err(Failure::new(Exit::BadAnswer, anyhow!("the agent at {} answered something else", path.display()))),
        Err(error) => Err(Failure::new(Exit::NoAgent, error)),
    }
}

/// Process id of the agent.
///
/// # Errors
/// When no agent listens.
pub fn process(target: &Target) -> Result<u32, Failure> {
    let path = target.socket()?;
    let control = connected(&path).map_err(|error| nobody(&path, error))?;
    let peer = getsockopt(&control, sockopt::PeerCredentials).map_err(|error| nobody(&path, error))?;
    u32::try_from(peer.pid()).ok().filter(|pid| *pid > 0).ok_or_else(|| {
        Failure::new(Exit::NoAgent, anyhow!("the agent at {} is not in this process-id namespace", path.display()))
    })
}

fn nobody(path: &Path, error: Errno) -> Failure {
    let what = match error {
        Errno::ENOENT | Errno::ECONNREFUSED => "start one with dvm-agent run",
        Errno::EACCES => "the directory is closed to you",
        _ => "is the path right?",
    };
    Failure::new(Exit::NoAgent, anyhow!("no agent answers at {} ({error}); {what}", path.display()))
}

fn connected(path: &Path) -> Result<std::os::fd::OwnedFd, Errno> {
    let control = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(control.as_raw_fd(), &UnixAddr::new(path)?)?;
    setsockopt(&control, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_SECONDS))?;
    Ok(control)
}

fn status_table(status: &Status) -> String {
    let mut text = format!(
        "node {} ({}) of cluster {} ({}), incarnation {}, up {:.0} s\n",
        status.node, status.number, status.cluster, status.fingerprint, status.incarnation, status.uptime_s
    );
    let MembershipStatus { source, epoch, trouble, hosts, draining, .. } = &status.membership;
    line(&mut text, format_args!("hosts by {source}, epoch {epoch}: {}", hosts.join(", ")));
    for host in draining {
        line(&mut text, format_args!("host {host} is being drained"));
    }
    if let Some(trouble) = trouble {
        line(&mut text, format_args!("{source} does not answer: {trouble}"));
    }
    for peer in &status.peers {
        let state = if peer.up { "up" } else { "down" };
        let seen = peer.last_seen_ms.map_or_else(|| "never seen".to_owned(), |ago| format!("seen {ago} ms ago"));
        let trouble = peer.trouble.as_ref().map(|trouble| format!(": {trouble}")).unwrap_or_default();
        line(&mut text, format_args!("peer {} {state}, {seen}{trouble}", peer.name));
    }
    for job in &status.jobs {
        let hosts = job.members.join(", ");
        line(
            &mut text,
            format_args!(
                "job {} `{}` of user {}, {} here, on {hosts}, {:.0} s",
                job.space, job.program, job.uid, job.role, job.uptime_s
            ),
        );
    }
    memory(&mut text, status.memory);
    fast_path(&mut text, &status.fast_path);
    counters(&mut text, "counter", &status.counters);
    counters(&mut text, "shard counter", &status.shards);
    text
}

fn memory(text: &mut String, memory: MemoryStatus) {
    let MemoryStatus { limit_bytes, used_bytes } = memory;
    *text += &format!("memory {} MiB of {} MiB\n", used_bytes >> 20, limit_bytes >> 20);
}

fn fast_path(text: &mut String, path: &FastPathStatus) {
    let probe = path.probe_us.map(|time| format!(", probe took {time:.1} us")).unwrap_or_default();
    line(text, format_args!("fast path {}{probe}", path.attached));
    for reason in &path.reasons {
        line(text, format_args!("fast path not better: {reason}"));
    }
    counters(text, "fast path verdict", &path.verdicts);
}

fn counters(text: &mut String, what: &str, counters: &BTreeMap<String, u64>) {
    for (name, value) in counters.iter().filter(|(_, value)| **value > 0) {
        line(text, format_args!("{what} {name} {value}"));
    }
}

fn histogram_table(report: &HistogramReport) -> String {
    let mut text =
        format!("{:<32} {:>12} {:>12} {:>12} {:>12} {:>12}\n", report.node, "count", "p50 us", "p90 us", "p99 us", "max us");
    for HistogramRow { name, count, p50_ns, p90_ns, p99_ns, max_ns, .. } in &report.histograms {
        let [p50, p90, p99, max] = [p50_ns, p90_ns, p99_ns, max_ns].map(|value| *value as f64 / 1000.0);
        line(&mut text, format_args!("{name:<32} {count:>12} {p50:>12.1} {p90:>12.1} {p99:>12.1} {max:>12.1}"));
    }
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_are_a_table() {
        let row = HistogramRow {
            name: "fault_ns".into(),
            count: 3,
            p50_ns: 1500,
            p90_ns: 2000,
            p99_ns: 2000,
            max_ns: 12_345,
            hdr_v2: String::new(),
        };
        let table = histogram_table(&HistogramReport { node: "a".into(), histograms: vec![row] });
        let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["fault_ns", "3", "1.5", "2.0", "2.0", "12.3"]);
    }

    #[test]
    fn the_fast_path_is_told_with_its_reasons() {
        let verdicts = [("serve", 7), ("pong", 0)].map(|(name, count)| (name.to_owned(), count));
        let reasons = vec!["native XDP: EOPNOTSUPP".to_owned()];
        let path = FastPathStatus { attached: "TC".into(), reasons, probe_us: Some(42.25), verdicts: verdicts.into() };
        let mut text = String::new();
        fast_path(&mut text, &path);
        let expected =
            "fast path TC, probe took 42.2 us\nfast path not better: native XDP: EOPNOTSUPP\nfast path verdict serve 7\n";
        assert_eq!(text, expected);
    }
}

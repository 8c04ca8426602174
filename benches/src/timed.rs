//! A program that says itself when its work begins: how long the work took, and what came out.
//!
//! Owns the stamps. Must not know whose program it is. Everything before the line `begin` is not counted: start of processes
//! and workers, load, compilation. The work ends with the next line, or with the output where there is none. Ours, peers and C
//! are all measured so, by one reader.

use anyhow::{Context, Result, ensure};
use dvm_hosts::wait_within;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Longest run, with its start.
const RUN_LATEST: Duration = Duration::from_secs(180);
/// How long output may still come after the end: a grandchild may hold the pipe.
const DRAIN_LATEST: Duration = Duration::from_millis(500);
/// Of what a failed run said.
const TOLD_LINES_MAX: usize = 20;
const BEGIN: &str = "begin";

/// A run that ended well.
#[derive(Debug, PartialEq, Eq)]
pub struct Timed {
    /// From the line `begin` to the next one.
    pub work: Duration,
    /// Its last line.
    pub last: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// A line with the time of its end, or none at the end of the output.
type Stamped = (Instant, Option<String>);

/// Runs it; it must end well and print `begin`.
pub fn timed(command: &mut Command) -> Result<Timed> {
    let program = command.get_program().to_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
    let stdout = stamp(child.stdout.take().context("no output")?);
    let stderr = stamp(child.stderr.take().context("no errors")?);
    let ended = wait_within(&mut child, RUN_LATEST);
    let told: Vec<String> = drained(&stderr).into_iter().filter_map(|(_, line)| line).collect();
    let last = told[told.len().saturating_sub(TOLD_LINES_MAX)..].join("\n");
    let status = ended.with_context(|| format!("stderr: {last}"))?;
    ensure!(status.success(), "ended with {status}; stderr: {last}");
    let (work, last_line) = judged(drained(&stdout)).with_context(|| format!("stderr: {last}"))?;
    Ok(Timed { work, last: last_line, stderr: told.join("\n") })
}

/// Between `begin` and what follows it, and the last line.
fn judged(lines: Vec<Stamped>) -> Result<(Duration, String)> {
    let mut after = lines.iter().skip_while(|(_, line)| line.as_deref() != Some(BEGIN));
    let (began, _) = after.next().with_context(|| format!("no line `{BEGIN}` printed"))?;
    let (ended, _) = after.next().context("the output did not end")?;
    let work = ended.duration_since(*began);
    let last = lines.iter().rev().find_map(|(_, line)| line.clone());
    Ok((work, last.unwrap_or_default()))
}

/// Reads a pipe to its end beside us; the thread goes with the pipe.
fn stamp(pipe: impl Read + Send + 'static) -> Receiver<Stamped> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            // Nobody waits any more: then nobody wants it.
            if sender.send((Instant::now(), Some(line))).is_err() {
                return;
            }
        }
        sender.send((Instant::now(), None)).ok();
    });
    receiver
}

/// All that came, up to the end of the output.
fn drained(lines: &Receiver<Stamped>) -> Vec<Stamped> {
    std::iter::from_fn(|| lines.recv_timeout(DRAIN_LATEST).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lines: &[(u64, Option<&str>)]) -> Result<(Duration, String)> {
        let zero = Instant::now();
        judged(lines.iter().map(|(ms, line)| (zero + Duration::from_millis(*ms), line.map(str::to_owned))).collect())
    }

    #[test]
    fn time_runs_from_begin_to_what_follows() {
        let of = |ms, last: &str| (Duration::from_millis(ms), last.to_owned());
        assert_eq!(
            at(&[(3, Some("x")), (5, Some("begin")), (9, Some("end")), (20, Some("42")), (21, None)]).unwrap(),
            of(4, "42")
        );
        assert_eq!(at(&[(5, Some("begin")), (9, Some("42")), (21, None)]).unwrap(), of(4, "42"));
        assert_eq!(at(&[(5, Some("begin")), (21, None)]).unwrap(), of(16, "begin"));
        assert!(at(&[(9, Some("42")), (21, None)]).is_err());
        assert!(at(&[(5, Some("begin"))]).is_err());
    }

    #[test]
    fn runs_are_judged() {
        let shell = |script: &str| timed(Command::new("sh").args(["-c", script]));
        assert_eq!(shell("echo begin; echo 42; echo x >&2").unwrap().last, "42");
        assert!(shell("echo begin; echo gone >&2; exit 3").unwrap_err().to_string().contains("gone"));
        assert!(shell("echo 42").is_err());
    }
}

//! Runs cases one after another and says how each ended.
//!
//! Owns the choice of cases, the hosts between them, deadlines, the check that nothing is left behind, and the report. Must
//! not know what a case does.

use super::bed::{Bed, Effort, Workshop, left_behind};
use super::case::{Case, Lacking};
use anyhow::{Context, Result, bail, ensure};
use dvm_hosts::{Binaries, Config, Links, LocalHosts, leftovers};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a finished job's processes and descriptors may linger.
const CLEAN_LATEST: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);
const LOG_LINES: usize = 8;
/// Sociable cases that run at a time: they wait more than they work.
const SEATS: usize = 4;
/// Sociable cases between two looks at what is left behind.
const GROUP: usize = 40;
/// Failures to make hosts after which the remaining cases fail at once.
const HOST_FAILURES_MAX: usize = 2;

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Only cases whose name contains one of these; all if empty.
    pub filters: Vec<String>,
    /// Only the cases of these names; all if empty.
    pub names: Vec<String>,
    /// No case whose name contains one of these.
    pub exceptions: Vec<String>,
    /// Times each case is run.
    pub repeat: u32,
    /// How much the repeating cases do.
    pub effort: Effort,
    /// `fast_path` of the hosts, in turn; as their agents please if empty.
    pub fast_paths: Vec<String>,
    /// Where `dvm-agent` and `dvm-exec` are.
    pub binaries: PathBuf,
    /// Set by ^C.
    pub stop: Arc<AtomicBool>,
}

/// How all of it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Names of those that held.
    pub passed: Vec<String>,
    /// Name and reason of those that did not.
    pub failed: Vec<(String, String)>,
    /// Name and reason of those that could not run here.
    pub skipped: Vec<(String, String)>,
}

/// Runs the plan; prints one line per case and repetition.
///
/// # Errors
/// The work directory cannot be made, or no case is chosen.
pub fn run(plan: &Plan, cases: Vec<Case>) -> Result<Totals> {
    let chosen: Vec<Case> = cases.into_iter().filter(|case| plan.chooses(&case.name)).collect();
    ensure!(!chosen.is_empty(), "no case matches {:?}: see `live --list`", [&plan.filters[..], &plan.names].concat());
    let mut runner =
        Runner { plan, workshop: Workshop::new()?, hosts: None, made: None, host_failures: 0, totals: Totals::default() };
    let absent = plan.absent();
    let (sociable, alone): (Vec<Case>, Vec<Case>) = chosen.into_iter().partition(|case| case.is_sociable);
    let (sociable, alone) = (runner.fit(sociable, absent.as_deref()), runner.fit(alone, absent.as_deref()));
    alone.iter().for_each(|case| runner.repeat(case));
    sociable
        .chunk_by(|left, right| left.hosts == right.hosts)
        .flat_map(|group| group.chunks(GROUP))
        .for_each(|group| runner.side_by_side(group));
    runner.end();
    Ok(runner.totals)
}

impl Plan {
    fn chooses(&self, name: &str) -> bool {
        let is_named = |words: &[String]| words.iter().any(|word| name.contains(word.as_str()));
        (self.filters.is_empty() || is_named(&self.filters))
            && (self.names.is_empty() || self.names.iter().any(|own| own == name))
            && !is_named(&self.exceptions)
    }

    /// Why no case at all can run here.
    fn absent(&self) -> Option<String> {
        let binaries = Binaries::in_directory(&self.binaries);
        let root = nix::unistd::geteuid().is_root();
        [
            (!root, "needs root".to_owned()),
            (!Path::new("/dev/userfaultfd").exists(), "this kernel has no /dev/userfaultfd".to_owned()),
            (!binaries.agent.exists(), format!("{} is not built", binaries.agent.display())),
            (!binaries.exec.exists(), format!("{} is not built", binaries.exec.display())),
        ]
        .into_iter()
        .find_map(|(lacking, reason)| lacking.then_some(reason))
    }
}

struct Runner<'a> {
    plan: &'a Plan,
    workshop: Workshop,
    hosts: Option<LocalHosts>,
    /// How those hosts were made: `fast_path`s, links and `memory`.
    made: Option<(Vec<String>, Links, Option<&'static str>)>,
    host_failures: usize,
    totals: Totals,
}

impl Runner<'_> {
    /// Those of the cases that this machine can run; the others are skipped.
    fn fit(&mut self, cases: Vec<Case>, absent: Option<&str>) -> Vec<Case> {
        let mut fit = Vec::new();
        for case in cases {
            match absent.map(str::to_owned).or_else(|| case.lacks()) {
                Some(reason) => self.skip(&case.name, reason),
                None => fit.push(case),
            }
        }
        fit
    }

    /// Runs sociable cases as often as asked, several at a time; the first failure ends one.
    fn side_by_side(&mut self, group: &[Case]) {
        let mut group: Vec<&Case> = group.iter().collect();
        for turn in 1..=self.plan.repeat {
            let outcomes = match self.all_at_once(&group, turn) {
                Ok(outcomes) => outcomes,
                Err(error) => {
                    self.hosts = None;
                    let names: Vec<&str> = group.iter().map(|case| case.name.as_str()).collect();
                    return self.fail(&names.join(" "), format!("{}{error:#}", self.turn(turn)));
                }
            };
            let mut held = Vec::new();
            for (case, outcome) in group.into_iter().zip(outcomes) {
                match outcome {
                    Ok(said) => {
                        println!("ok {}{} ({said})", case.name, self.turn(turn));
                        held.push(case);
                    }
                    Err(error) if error.is::<Lacking>() => self.skip(&case.name, error.to_string()),
                    Err(error) => {
                        let logs = self.logs();
                        self.fail(&case.name, format!("{}{error:#}{logs}", self.turn(turn)));
                    }
                }
            }
            group = held;
        }
        self.totals.passed.extend(group.into_iter().map(|case| case.name.clone()));
    }

    /// What each said; the hosts are clean afterwards.
    fn all_at_once(&mut self, group: &[&Case], turn: u32) -> Result<Vec<Result<String>>> {
        ensure!(!self.plan.stop.load(Ordering::Relaxed), "interrupted");
        self.prepare(group.first().context("no case")?)?;
        let hosts = self.hosts.as_ref().context("no hosts")?;
        let (next, outcomes) = (AtomicUsize::new(0), group.iter().map(|_| OnceLock::new()).collect::<Vec<_>>());
        std::thread::scope(|scope| {
            for _ in 0..SEATS {
                scope.spawn(|| {
                    while let Some((case, outcome)) = group.iter().zip(&outcomes).nth(next.fetch_add(1, Ordering::Relaxed)) {
                        outcome.get_or_init(|| (case.run)(&mut self.bed(hosts, case, turn)));
                    }
                });
            }
        });
        clean(hosts)?;
        let said = |outcome: OnceLock<_>| outcome.into_inner().unwrap_or_else(|| bail!("did not run"));
        Ok(outcomes.into_iter().map(said).collect())
    }

    fn bed<'b>(&'b self, hosts: &'b LocalHosts, case: &Case, turn: u32) -> Bed<'b> {
        let effort = Effort { seed: self.plan.effort.seed + u64::from(turn), ..self.plan.effort };
        Bed { hosts, workshop: &self.workshop, deadline: Instant::now() + case.deadline, effort }
    }

    /// Runs a case as often as asked; the first failure ends it.
    fn repeat(&mut self, case: &Case) {
        for turn in 1..=self.plan.repeat {
            let started = Instant::now();
            match self.once(case, turn) {
                Ok(said) => println!("ok {}{} ({said})", case.name, self.turn(turn)),
                Err(error) if error.is::<Lacking>() => return self.skip(&case.name, error.to_string()),
                Err(error) => {
                    let logs = self.logs();
                    self.hosts = None;
                    let after = started.elapsed().as_secs_f64();
                    self.fail(&case.name, format!("{}after {after:.1} s: {error:#}{logs}", self.turn(turn)));
                    return;
                }
            }
        }
        self.totals.passed.push(case.name.clone());
    }

    fn turn(&self, turn: u32) -> String {
        if self.plan.repeat > 1 { format!(" {turn}/{} ", self.plan.repeat) } else { String::new() }
    }

    fn skip(&mut self, name: &str, reason: String) {
        println!("skipped {name}: {reason}");
        self.totals.skipped.push((name.to_owned(), reason));
    }

    fn fail(&mut self, name: &str, reason: String) {
        println!("FAILED {name}: {reason}");
        self.totals.failed.push((name.to_owned(), reason));
    }

    fn once(&mut self, case: &Case, turn: u32) -> Result<String> {
        ensure!(!self.plan.stop.load(Ordering::Relaxed), "interrupted");
        self.prepare(case)?;
        let hosts = self.hosts.as_ref().context("no hosts")?;
        let said = (case.run)(&mut self.bed(hosts, case, turn))?;
        if case.harms {
            self.hosts = None;
        } else {
            clean(hosts)?;
        }
        Ok(said)
    }

    /// Makes hosts unless those at hand are as many, and made, as wanted.
    fn prepare(&mut self, case: &Case) -> Result<()> {
        let count = case.hosts;
        let fast_paths = case.fast_path.map_or_else(|| self.plan.fast_paths.clone(), |fast_path| vec![fast_path.to_owned()]);
        let wanted = Some((fast_paths.clone(), case.links, case.memory));
        if self.hosts.as_ref().is_some_and(|hosts| hosts.hosts().len() == count) && self.made == wanted {
            return Ok(());
        }
        self.hosts = None;
        self.made = wanted;
        if self.host_failures >= HOST_FAILURES_MAX {
            bail!("no hosts: they could not be made {} times", self.host_failures);
        }
        let config = Config {
            instance: "test".into(),
            hosts: count,
            links: case.links,
            fast_paths,
            memory: case.memory.map(str::to_owned),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            binaries: Binaries::in_directory(&self.plan.binaries),
        };
        match LocalHosts::claim(&config) {
            Ok(hosts) => self.hosts = Some(hosts),
            Err(error) => {
                self.host_failures += 1;
                return Err(error).context("cannot make hosts");
            }
        }
        self.host_failures = 0;
        Ok(())
    }

    /// Removes the hosts; nothing may be left of them.
    fn end(&mut self) {
        const NAME: &str = "hosts-leave-nothing";
        let Some(hosts) = self.hosts.take() else { return };
        let instance = hosts.instance().to_owned();
        let left = hosts.down().and_then(|()| leftovers(&instance));
        match left {
            Ok(left) if left.is_empty() => {
                println!("ok {NAME}");
                self.totals.passed.push(NAME.to_owned());
            }
            Ok(left) => self.fail(NAME, left.join(", ")),
            Err(error) => self.fail(NAME, error.to_string()),
        }
    }

    /// What the agents said last.
    fn logs(&self) -> String {
        let Some(hosts) = &self.hosts else { return String::new() };
        let mut text = String::new();
        for (index, host) in hosts.hosts().iter().enumerate() {
            let tail = hosts.log_tail(index, LOG_LINES).unwrap_or_default();
            if !tail.is_empty() {
                text += &format!("\n  agent log of {}:\n    {}", host.name, tail.replace('\n', "\n    "));
            }
        }
        text
    }
}

/// Demands that only idle agents are left on the hosts.
fn clean(hosts: &LocalHosts) -> Result<()> {
    let latest = Instant::now() + CLEAN_LATEST;
    loop {
        let left = left_behind(hosts)?;
        if left.is_empty() {
            for index in 0..hosts.hosts().len() {
                ensure!(hosts.agent(index)?.is_some(), "the agent of {} is gone", hosts.host(index)?.name);
            }
            return Ok(());
        }
        ensure!(Instant::now() < latest, "left behind {} s after the end: {}", CLEAN_LATEST.as_secs(), left.join(", "));
        sleep(POLL);
    }
}

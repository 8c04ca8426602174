//! What a bench is given: hosts, compiled programs, and ways to run them pinned to processors.
//!
//! Owns the hosts and the directory. Must not know which figures there are.

use crate::figure::Samples;
use anyhow::{Context, Result, bail, ensure};
use dvm_hosts::{Binaries, Config, Finished, Job, Links, LocalHosts, User, output_within};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const MTU: u32 = 9000;
/// Longest job or floor.
const RUN_LATEST: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_secs(10);

const SOURCES: [(&str, &str); 6] = [
    ("pairs", include_str!("../../tests/programs/pairs.c")),
    ("stress", include_str!("../../tests/programs/stress.c")),
    ("calls", include_str!("../programs/calls.c")),
    ("faults", include_str!("../programs/faults.c")),
    ("floors", include_str!("../programs/floors.c")),
    ("loop", include_str!("../programs/loop.c")),
];

/// The place where benches run.
pub struct Bed {
    /// Three hosts.
    pub hosts: LocalHosts,
    /// Samples of each latency.
    pub samples: usize,
    /// Systems that are not there to be measured beside.
    skipped: BTreeSet<String>,
    binaries: PathBuf,
    directory: PathBuf,
    jobs: usize,
}

/// A process beside what is measured, ended when dropped.
pub struct Beside(Child);

impl Drop for Beside {
    fn drop(&mut self) {
        if self.0.kill().is_ok() {
            // Reaped, or gone by itself.
            self.0.wait().ok();
        }
    }
}

impl Bed {
    /// Makes three hosts and compiles the programs.
    pub fn new(binaries: PathBuf, samples: usize) -> Result<Self> {
        Self::with("bench", Vec::new(), processors(), binaries, samples)
    }

    /// Another bed like this one, whose agents have no fast path.
    pub fn without_fast_path(&self) -> Result<Self> {
        Self::with("bench-off", vec!["off".into()], processors(), self.binaries.clone(), self.samples)
    }

    /// Another bed like this one, whose hosts offer one processor each.
    pub fn of_one_processor(&self) -> Result<Self> {
        Self::with("bench-one", Vec::new(), 1, self.binaries.clone(), self.samples)
    }

    /// Tells that a system is not there to be measured beside.
    pub fn skip(&mut self, name: &str, reason: &str) {
        if self.skipped.insert(name.to_owned()) {
            println!("SKIPPED {name}: {reason}");
        }
    }

    fn with(instance: &str, fast_paths: Vec<String>, cpus: usize, binaries: PathBuf, samples: usize) -> Result<Self> {
        let hosts = LocalHosts::claim(&Config {
            instance: instance.into(),
            hosts: 3,
            links: Links::of_mtu(MTU),
            fast_paths,
            memory: None,
            cpus,
            binaries: Binaries::in_directory(&binaries),
        })?;
        let directory = hosts.scratch()?;
        for (name, text) in SOURCES {
            let source = directory.join(format!("{name}.c"));
            fs::write(&source, text)?;
            let mut gcc = Command::new("gcc");
            gcc.args(["-O2", "-pthread", "-o"]).arg(directory.join(name)).arg(&source);
            let output = output_within(&mut gcc, RUN_LATEST).context("cannot run gcc")?;
            ensure!(output.status.success(), "gcc {name}.c: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(Self { hosts, samples, skipped: BTreeSet::new(), binaries, directory, jobs: 0 })
    }

    /// The systems that were not there.
    pub fn skipped(&self) -> Vec<&str> {
        self.skipped.iter().map(String::as_str).collect()
    }

    /// Path of a compiled program.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Path of `dvm-exec`.
    pub fn executor(&self) -> PathBuf {
        self.binaries.join("dvm-exec")
    }

    /// Pins host `index` (its agent and what that starts) to a list of processors such as `0` or `0,1`.
    pub fn pin(&self, index: usize, list: &str) -> Result<()> {
        let agent = self.hosts.agent(index)?.with_context(|| format!("no agent on host {index}"))?;
        let pin = || output_within(Command::new("taskset").args(["-a", "-c", "-p", list, &agent.pid.to_string()]), SHORT);
        let mut output = pin()?;
        if !output.status.success() {
            // A thread that ends meanwhile, of the job before, is an error to it.
            output = pin()?;
        }
        ensure!(output.status.success(), "taskset: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    /// Has packets that come to host `index` handled by these processors (a hexadecimal mask; 0: by whoever takes them in).
    pub fn steer(&self, index: usize, mask: &str) -> Result<()> {
        let namespace = &self.hosts.host(index)?.namespace;
        let script = format!("echo {mask} > /sys/class/net/eth0/queues/rx-0/rps_cpus");
        // `ip netns exec` mounts the namespace's own /sys.
        let output = output_within(Command::new("ip").args(["netns", "exec", namespace, "sh", "-c", &script]), SHORT)?;
        ensure!(output.status.success(), "steering packets: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }

    /// Runs a job from host 0, its root pinned; it must succeed.
    pub fn job(&mut self, job: Job, list: &str) -> Result<Finished> {
        self.jobs += 1;
        let job = Job {
            directory: self.directory.join(format!("job-{}", self.jobs)),
            processors: Some(list.into()),
            is_watched: false,
            ..job
        };
        let finished = job.run(&self.hosts, Instant::now() + RUN_LATEST)?;
        match finished.code() {
            Some(0) => Ok(finished),
            Some(code) => bail!("exit code {code}; stderr: {}", finished.stderr.trim()),
            None => bail!("hangs; stderr: {}\n{}", finished.stderr.trim(), finished.autopsy),
        }
    }

    /// Runs `faults` over two hosts.
    pub fn faults(&mut self, mode: &str, count: usize, more: &[&str], list: &str) -> Result<Finished> {
        self.faults_on("h0,h1", mode, count, more, list)
    }

    /// Runs `faults` over these hosts, its threads placed on them in turn.
    pub fn faults_on(&mut self, hosts: &str, mode: &str, count: usize, more: &[&str], list: &str) -> Result<Finished> {
        let arguments = [mode.to_owned(), count.to_string()].into_iter().chain(more.iter().map(|word| (*word).to_owned()));
        let job =
            Job::new(self.program("faults"), &self.directory).options(["--place", "rr", "--hosts", hosts]).arguments(arguments);
        self.job(job, list)
    }

    /// Runs a program without us, pinned; gives how long it took and its output.
    pub fn native(&self, list: &str, program: &Path, arguments: &[String]) -> Result<(Duration, String)> {
        let mut command = Command::new("taskset");
        command.args(["-c", list]).arg(program).args(arguments);
        let started = Instant::now();
        let output = output_within(&mut command, RUN_LATEST)?;
        let elapsed = started.elapsed();
        ensure!(output.status.success(), "native {} ended with {}", program.display(), output.status);
        Ok((elapsed, String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// Has the last host collect the histograms of all, each second.
    pub fn collect(&self) -> Result<Beside> {
        let last = self.hosts.hosts().len() - 1;
        let mut command = self.hosts.command(last, User::Root, &self.hosts.binaries().agent)?;
        command.args(["histograms", "--hosts", "all", "--watch", "--seconds", "1", "--json", "--socket"]);
        command.arg(&self.hosts.host(last)?.socket);
        Ok(Beside(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("cannot start the collector")?))
    }

    /// Runs `floors` on a host, pinned; gives its output.
    pub fn floor(&self, host: usize, list: &str, arguments: &[&str]) -> Result<String> {
        let output = output_within(&mut self.pinned(host, list, arguments)?, RUN_LATEST)?;
        ensure!(output.status.success(), "floors {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts a server of `floors` on host 0 and waits until it is ready.
    pub fn server(&self, list: &str, kind: &str) -> Result<Beside> {
        let mut child = self.pinned(0, list, &[kind])?.stdout(Stdio::piped()).stdin(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().context("no output")?;
        let server = Beside(child);
        let mut line = String::new();
        // The server prints before it can block, or dies and closes the pipe.
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.trim() == "ready", "floors {kind} says `{}`", line.trim());
        Ok(server)
    }

    fn pinned(&self, host: usize, list: &str, arguments: &[&str]) -> Result<Command> {
        let mut command = self.hosts.command(host, User::Root, Path::new("taskset"))?;
        command.args(["-c", list]).arg(self.program("floors")).args(arguments);
        Ok(command)
    }
}

/// Processors of this machine.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Keeps a list of processors busy.
pub fn busy(list: &str) -> Result<Beside> {
    let mut command = Command::new("taskset");
    command.args(["-c", list, "sh", "-c", "while :; do :; done"]).stdin(Stdio::null()).stdout(Stdio::null());
    Ok(Beside(command.spawn().context("cannot start a busy process")?))
}

/// The numbers of all lines `NAME NANOSECONDS` of an output.
pub fn times(output: &str, name: &str) -> Result<Samples> {
    let lines = output.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let values: Vec<u64> = lines.filter_map(|number| number.parse().ok()).collect();
    ensure!(!values.is_empty(), "no `{name}` printed");
    Ok(Samples::new(values))
}

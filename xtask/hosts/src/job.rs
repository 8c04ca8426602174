//! A program run over the hosts by `dvm-exec`: started, watched, ended.
//!
//! Owns the process of the root, its files, its deadline, and the CPU time seen on each host meanwhile (read from /proc, so
//! that it does not rest on what the job says about itself). Must not know what the program does.

use crate::files::on;
use crate::instance::{LocalHosts, User};
use crate::process::{self, Census, cpu_time};
use crate::statistics::Statistics;
use crate::{Error, Result};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(10);
/// How long a killed job may take to go.
const KILL_PATIENCE: Duration = Duration::from_secs(3);

/// What to run and how.
#[derive(Debug, Clone)]
pub struct Job {
    /// Host on which it is started.
    pub root: usize,
    /// Who runs it.
    pub user: User,
    /// Processors the root is pinned to, as `taskset -c` has it.
    pub processors: Option<String>,
    /// Another control socket than the root's agent's.
    pub socket: Option<PathBuf>,
    /// Options of `dvm-exec` before `--`.
    pub options: Vec<OsString>,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Variables added to the environment.
    pub environment: Vec<(String, String)>,
    /// Its standard input, /dev/null without.
    pub stdin: Option<PathBuf>,
    /// Directory for its output files; made, and given to the user.
    pub directory: PathBuf,
    /// Whether the CPU time of its processes is looked at while it runs, which costs the machine a little of a processor.
    pub is_watched: bool,
}

/// A job on its way.
#[derive(Debug)]
pub struct Running<'a> {
    hosts: &'a LocalHosts,
    child: Child,
    directory: PathBuf,
    started: Instant,
    /// Whose CPU times are looked at; none for a job that is not watched.
    census: Option<Census>,
    /// Most CPU time seen of each process of each host.
    seen: Vec<BTreeMap<i32, Duration>>,
}

/// A job that is over.
#[derive(Debug)]
pub struct Finished {
    /// How it ended; none if it was killed at its deadline or stopped.
    pub status: Option<ExitStatus>,
    /// File with its standard output.
    pub stdout: PathBuf,
    /// What it wrote to standard error.
    pub stderr: String,
    /// From start to end.
    pub elapsed: Duration,
    /// CPU time its processes used on each host, to 10 ms; zero for a job that was not watched.
    pub cpu: Vec<Duration>,
    /// Its own account, if it wrote one.
    pub statistics: Option<Statistics>,
    /// What the threads were doing when it had to be killed.
    pub autopsy: String,
}

impl Job {
    /// A job of root's on host 0, writing into `directory`.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, directory: impl Into<PathBuf>) -> Self {
        Self {
            root: 0,
            user: User::Root,
            processors: None,
            socket: None,
            options: Vec::new(),
            program: program.into(),
            arguments: Vec::new(),
            environment: Vec::new(),
            stdin: None,
            directory: directory.into(),
            is_watched: true,
        }
    }

    /// Adds options of `dvm-exec`.
    #[must_use]
    pub fn options<S: Into<OsString>>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        self.options.extend(options.into_iter().map(Into::into));
        self
    }

    /// Adds arguments of the program.
    #[must_use]
    pub fn arguments<S: Into<OsString>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    /// Starts it.
    ///
    /// # Errors
    /// No such host, or its files or process cannot be made.
    pub fn start<'a>(&self, hosts: &'a LocalHosts) -> Result<Running<'a>> {
        let directory = &self.directory;
        fs::create_dir_all(directory).map_err(on("create", directory))?;
        if let User::Ordinary(uid) = self.user {
            chown(directory, Some(uid), Some(uid)).map_err(on("give away", directory))?;
        }
        for stale in [stat_file(directory), directory.join("stdout"), directory.join("stderr")] {
            drop(fs::remove_file(stale));
        }
        let stdin = match &self.stdin {
            Some(path) => File::open(path).map(Stdio::from).map_err(on("open", path))?,
            None => Stdio::null(),
        };
        let exec = &hosts.binaries().exec;
        let mut command = match &self.processors {
            None => hosts.command(self.root, self.user, exec)?,
            Some(list) => {
                let mut command = hosts.command(self.root, self.user, Path::new("taskset"))?;
                command.arg("-c").arg(list).arg(exec);
                command
            }
        };
        let census = self.is_watched.then(|| Census::begin(hosts.hosts().iter().map(|host| host.namespace.as_str())));
        let child = command
            .arg("--socket")
            .arg(self.socket.as_ref().unwrap_or(&hosts.host(self.root)?.socket))
            .arg("--stat-json")
            .arg(stat_file(directory))
            .args(&self.options)
            .arg("--")
            .arg(&self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .env("HOME", directory)
            .env("LC_ALL", "C")
            .current_dir(directory)
            .stdin(stdin)
            .stdout(create(&directory.join("stdout"))?)
            .stderr(create(&directory.join("stderr"))?)
            .spawn()
            .map_err(on("start", exec))?;
        Ok(Running {
            hosts,
            child,
            directory: directory.clone(),
            started: Instant::now(),
            census,
            seen: vec![BTreeMap::new(); hosts.hosts().len()],
        })
    }

    /// Runs it to its end or the deadline, whichever comes first.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, hosts: &LocalHosts, deadline: Instant) -> Result<Finished> {
        self.start(hosts)?.wait(deadline, &AtomicBool::new(false))
    }
}

impl Running<'_> {
    /// Process id of the root.
    ///
    /// # Panics
    /// Never: a pid fits an `i32` on Linux.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid fits an i32")
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn output_so_far(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.directory.join("stdout")).unwrap_or_default()).into_owned()
    }

    /// Sends what ^C sends.
    pub fn interrupt(&self) {
        process::signal(self.pid(), Signal::SIGINT);
    }

    /// Sends what `kill` sends.
    pub fn terminate(&self) {
        process::signal(self.pid(), Signal::SIGTERM);
    }

    /// Waits for the end; at the deadline, or when `stop` becomes true, kills what is left of it on every host.
    ///
    /// # Errors
    /// The process cannot be waited for.
    pub fn wait(mut self, deadline: Instant, stop: &AtomicBool) -> Result<Finished> {
        let mut autopsy = String::new();
        let status = loop {
            self.look();
            if let Some(status) = self.child.try_wait().map_err(on("wait for", &self.directory))? {
                break Some(status);
            }
            if Instant::now() >= deadline || stop.load(Ordering::Relaxed) {
                autopsy = self.autopsy();
                self.kill()?;
                break None;
            }
            sleep(POLL);
        };
        let elapsed = self.started.elapsed();
        let stderr = fs::read(self.directory.join("stderr")).unwrap_or_default();
        Ok(Finished {
            status,
            stdout: self.directory.join("stdout"),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            elapsed,
            cpu: self.seen.iter().map(|host| host.values().sum()).collect(),
            statistics: Statistics::read(&stat_file(&self.directory)).ok(),
            autopsy,
        })
    }

    /// Notes the CPU time of its processes, which grows until they go: the last look before that is what counts. `wait` looks
    /// all the time.
    pub fn look(&mut self) {
        let Some(census) = &mut self.census else { return };
        for (pid, index) in census.count() {
            if let Some(time) = cpu_time(pid) {
                self.seen[index].insert(pid, time);
            }
        }
    }

    fn kill(&mut self) -> Result<()> {
        process::kill_process(self.pid());
        for index in 0..self.seen.len() {
            for process in self.hosts.processes(index)? {
                if process.name != "dvm-agent" {
                    process::kill_process(process.pid);
                }
            }
        }
        let deadline = Instant::now() + KILL_PATIENCE;
        while self.child.try_wait().map_err(on("wait for", &self.directory))?.is_none() {
            if Instant::now() >= deadline {
                let pid = self.pid();
                let stderr = format!("pid {pid} survived SIGKILL for {} s", KILL_PATIENCE.as_secs());
                return Err(Error::Command { command: "dvm-exec".into(), status: "still there".into(), stderr });
            }
            sleep(POLL);
        }
        Ok(())
    }

    fn autopsy(&self) -> String {
        let mut report = String::new();
        for (index, host) in self.hosts.hosts().iter().enumerate() {
            for process in self.hosts.processes(index).unwrap_or_default() {
                report += &format!("{} pid {} {}\n{}", host.name, process.pid, process.name, process::threads(process.pid));
            }
        }
        report
    }
}

impl Finished {
    /// Exit code as a shell shows it: 128 + signal for a killed process; none if we killed it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        let status = self.status?;
        status.code().or_else(|| status.signal().map(|signal| 128 + signal))
    }

    /// Standard output as text.
    #[must_use]
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.stdout).unwrap_or_default()).into_owned()
    }
}

fn stat_file(directory: &Path) -> PathBuf {
    directory.join("stat.json")
}

fn create(path: &Path) -> Result<File> {
    File::create(path).map_err(on("create", path))
}

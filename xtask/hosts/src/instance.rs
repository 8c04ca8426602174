//! One set of local hosts: claimed, made, used, removed.
//!
//! Owns the names and directories of an instance and the lock that keeps two processes from sharing one. Must not know
//! what runs on the hosts.

use crate::agents::{self, Binaries};
use crate::files::{self, on};
use crate::net::{self, Links};
use crate::process::{self, Process};
use crate::{Error, HOSTS_MAX, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const RUN_DIRECTORY: &str = "/run/dvm-hosts";
const STATE_DIRECTORY: &str = "/var/lib/dvm-hosts";
/// Names tried by [`LocalHosts::claim`]: `demo`, `demo-2`, ...
const INSTANCES_MAX: usize = 9;
/// Tries to lock a file that others may be removing.
const LOCK_TRIES_MAX: usize = 100;
const END_PATIENCE: Duration = Duration::from_secs(3);

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name of the instance.
    pub instance: String,
    /// Number of hosts.
    pub hosts: usize,
    /// What their links are like.
    pub links: Links,
    /// Processors each host offers to jobs.
    pub cpus: usize,
    /// `fast_path` of node.toml, host by host and over again; none: as the agent pleases.
    pub fast_paths: Vec<String>,
    /// `memory` of node.toml; none: as the agent pleases.
    pub memory: Option<String>,
    /// The programs to run.
    pub binaries: Binaries,
}

/// A host of an instance.
#[derive(Debug, Clone)]
pub struct Host {
    /// `h0`, `h1`, ...
    pub name: String,
    /// Network namespace.
    pub namespace: String,
    /// Address on the common link.
    pub address: String,
    /// Configuration, socket and log.
    pub directory: PathBuf,
    /// Control socket of the agent.
    pub socket: PathBuf,
    /// What the agent says.
    pub log: PathBuf,
}

/// Who runs a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// Uid 0.
    Root,
    /// This uid, with the gid of the same number and no other group.
    Ordinary(u32),
}

/// Hosts that are up; removed with all that runs on them when dropped, unless [`LocalHosts::keep`] is called.
#[derive(Debug)]
pub struct LocalHosts {
    names: Names,
    hosts: Vec<Host>,
    binaries: Binaries,
    /// Those that this process started.
    agents: Mutex<Vec<Option<Child>>>,
    kept: bool,
    lock: Lock,
}

/// What a later process needs to find kept hosts again.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    hosts: usize,
}

impl LocalHosts {
    /// Makes the hosts under the first free of the names `instance`, `instance-2`, ...; removes what a killed process left there.
    ///
    /// # Errors
    /// Not root, a bad name or count, a missing program, or an agent that does not become ready.
    pub fn claim(config: &Config) -> Result<Self> {
        for number in 1..=INSTANCES_MAX {
            let instance = if number == 1 { config.instance.clone() } else { format!("{}-{number}", config.instance) };
            match Self::up(&Config { instance, ..config.clone() }) {
                Err(Error::Busy { .. } | Error::Up { .. }) => {}
                other => return other,
            }
        }
        Err(Error::Busy { instance: config.instance.clone() })
    }

    /// Makes the hosts under exactly this name.
    ///
    /// # Errors
    /// As [`LocalHosts::claim`], and when the name is taken.
    pub fn up(config: &Config) -> Result<Self> {
        require_root()?;
        if config.hosts == 0 || config.hosts > HOSTS_MAX {
            return Err(Error::Count { count: config.hosts, max: HOSTS_MAX });
        }
        let names = Names::new(&config.instance)?;
        let lock = Lock::take(&names, Hold::Alone)?;
        if names.record().exists() {
            return Err(Error::Up { instance: config.instance.clone() });
        }
        sweep(&names)?;
        let hosts: Vec<Host> = (0..config.hosts).map(|index| names.host(index)).collect();
        let agents = Mutex::new((0..config.hosts).map(|_| None).collect());
        let mut made = Self { binaries: Binaries::in_directory(&names.programs()), names, hosts, agents, kept: false, lock };
        made.build(config)?;
        Ok(made)
    }

    /// Finds hosts that an earlier process made and kept.
    ///
    /// # Errors
    /// Not root, or no such hosts.
    pub fn open(instance: &str) -> Result<Self> {
        require_root()?;
        let names = Names::new(instance)?;
        let mut lock = Lock::take(&names, Hold::WithOthers)?;
        let path = names.record();
        let Ok(text) = fs::read_to_string(&path) else {
            lock.remove_on_drop = true;
            return Err(Error::NotUp { instance: instance.into() });
        };
        let record: Record =
            serde_json::from_str(&text).map_err(|error| on("read", &path)(std::io::Error::other(error.to_string())))?;
        let hosts = (0..record.hosts).map(|index| names.host(index)).collect();
        let agents = Mutex::new((0..record.hosts).map(|_| None).collect());
        Ok(Self { binaries: Binaries::in_directory(&names.programs()), names, hosts, agents, kept: true, lock })
    }

    fn build(&mut self, config: &Config) -> Result<()> {
        self.binaries = config.binaries.install(&self.names.programs())?;
        files::make_directory(&self.names.run())?;
        let switch = self.names.switch();
        net::make_switch(&switch, config.links.mtu)?;
        for (index, host) in self.hosts.iter().enumerate() {
            net::make_host(&switch, &host.namespace, index, &host.address, &config.links)?;
        }
        if config.links.has_native_xdp {
            agents::pass_at(&switch, self.hosts.len(), &self.binaries.agent)?;
        }
        agents::configure(&self.hosts, &self.binaries.exec, config)?;
        let slots = self.agents.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (host, slot) in self.hosts.iter().zip(slots.iter_mut()) {
            *slot = Some(agents::start(host, &self.binaries.agent, &[])?);
        }
        for (host, slot) in self.hosts.iter().zip(slots) {
            if let Some(child) = slot {
                agents::wait_ready(host, &self.binaries.agent, child)?;
            }
        }
        Ok(())
    }

    /// Kills the agent of a host, starts it again by `before` (words that run the rest of their command line; none: as it was) and
    /// waits until it sees its peers.
    ///
    /// # Errors
    /// No such host, or the agent does not become ready.
    pub fn restart_agent(&self, index: usize, before: &[&str]) -> Result<()> {
        let host = self.host(index)?;
        let mut slots = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(process) = self.agent(index)? {
            process::kill_process(process.pid);
        }
        let slot = slots.get_mut(index).ok_or(Error::NoHost { index, last: self.hosts.len().saturating_sub(1) })?;
        if let Some(mut child) = slot.take() {
            // Killed just now, or gone before.
            drop(child.wait());
        }
        let child = slot.insert(agents::start(host, &self.binaries.agent, before)?);
        agents::wait_ready(host, &self.binaries.agent, child)
    }

    /// Leaves the hosts up when this value goes; [`LocalHosts::open`] finds them.
    ///
    /// # Errors
    /// The record cannot be written.
    pub fn keep(mut self) -> Result<()> {
        let record = Record { hosts: self.hosts.len() };
        let text = serde_json::to_string(&record).expect("a record of one number is JSON");
        files::write(&self.names.record(), &text)?;
        self.kept = true;
        Ok(())
    }

    /// Ends everything on the hosts and removes them.
    ///
    /// # Errors
    /// A namespace or directory cannot be removed.
    pub fn down(mut self) -> Result<()> {
        self.kept = true;
        self.remove()
    }

    fn remove(&mut self) -> Result<()> {
        let swept = sweep(&self.names);
        for child in self.agents.get_mut().unwrap_or_else(PoisonError::into_inner).iter_mut().flatten() {
            drop(child.wait());
        }
        self.lock.remove_on_drop = true;
        swept
    }

    /// All hosts, in order.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// Name of the instance.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.names.instance
    }

    /// The installed programs.
    #[must_use]
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// A directory on disk that goes with the hosts.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn scratch(&self) -> Result<PathBuf> {
        let path = self.names.state().join("scratch");
        files::make_directory(&path)?;
        Ok(path)
    }

    /// A host by its number.
    ///
    /// # Errors
    /// There is none.
    pub fn host(&self, index: usize) -> Result<&Host> {
        self.hosts.get(index).ok_or(Error::NoHost { index, last: self.hosts.len().saturating_sub(1) })
    }

    /// A command that will run `program` on a host as a user.
    ///
    /// # Errors
    /// No such host.
    pub fn command(&self, index: usize, user: User, program: &Path) -> Result<Command> {
        let mut command = net::enter(&self.host(index)?.namespace);
        if let User::Ordinary(uid) = user {
            command.arg(format!("--setuid={uid}")).arg(format!("--setgid={uid}"));
        }
        command.arg("--").arg(program);
        Ok(command)
    }

    /// The processes on a host, the agent among them.
    ///
    /// # Errors
    /// No such host.
    pub fn processes(&self, index: usize) -> Result<Vec<Process>> {
        Ok(process::in_namespace(&self.host(index)?.namespace))
    }

    /// The agent's process on a host; none if it is not running.
    ///
    /// # Errors
    /// No such host.
    pub fn agent(&self, index: usize) -> Result<Option<Process>> {
        Ok(self.processes(index)?.into_iter().find(|process| process.name == "dvm-agent"))
    }

    /// Whether somebody on a host waits for TCP connections at that port.
    ///
    /// # Errors
    /// No such host.
    pub fn is_listening(&self, index: usize, port: u16) -> Result<bool> {
        Ok(self.agent(index)?.is_some_and(|agent| process::is_listening(agent.pid, port)))
    }

    /// What the agent of a host says about itself; none if it does not answer.
    ///
    /// # Errors
    /// No such host.
    pub fn status(&self, index: usize) -> Result<Option<Value>> {
        Ok(agents::status(self.host(index)?, &self.binaries.agent))
    }

    /// Takes a host's cable out or plugs it in.
    ///
    /// # Errors
    /// No such host, or `ip` failed.
    pub fn set_cable(&self, index: usize, connected: bool) -> Result<()> {
        self.host(index)?;
        net::set_cable(&self.names.switch(), index, connected)
    }

    /// A command that will run `program` at the switch between the hosts.
    #[must_use]
    pub fn switch_command(&self, program: &Path) -> Command {
        let mut command = net::enter(&self.names.switch());
        command.arg("--").arg(program);
        command
    }

    /// The names that the hosts' links have at the switch.
    #[must_use]
    pub fn switch_ports(&self) -> Vec<String> {
        (0..self.hosts.len()).map(net::port).collect()
    }

    /// Connects a device that was made at the switch: what it sends goes to the hosts, nothing comes to it by itself.
    ///
    /// # Errors
    /// `ip` failed.
    pub fn join_switch(&self, device: &str, mtu: u32) -> Result<()> {
        net::join(&self.names.switch(), device, mtu)
    }

    /// Frames that the switch has sent to a host, queue by queue; none if the links have one.
    ///
    /// # Errors
    /// No such host, or `tc` failed.
    pub fn frames_by_queue(&self, index: usize) -> Result<Vec<u64>> {
        self.host(index)?;
        net::frames_by_queue(&self.names.switch(), index)
    }

    /// Makes all processors share the work on frames that come to a host (receive packet steering).
    ///
    /// # Errors
    /// No such host, or its queues cannot be set.
    pub fn spread_receiving(&self, index: usize) -> Result<()> {
        net::spread_receiving(&self.host(index)?.namespace)
    }

    /// Last lines of an agent's log.
    ///
    /// # Errors
    /// No such host.
    pub fn log_tail(&self, index: usize, lines: usize) -> Result<String> {
        Ok(files::tail(&self.host(index)?.log, lines))
    }
}

impl Drop for LocalHosts {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        if let Err(error) = self.remove() {
            eprintln!("local hosts `{}` not wholly removed: {error}", self.names.instance);
        }
    }
}

/// What is still there of an instance: namespaces and directories. Empty after [`LocalHosts::down`].
///
/// # Errors
/// The name is no instance's.
pub fn leftovers(instance: &str) -> Result<Vec<String>> {
    let names = Names::new(instance)?;
    let paths = [names.run(), names.state(), names.lock()];
    let paths = paths.iter().filter(|path| path.exists()).map(|path| path.display().to_string());
    Ok(net::with_prefix(&names.prefix()).into_iter().chain(paths).collect())
}

/// Ends and removes whatever carries the instance's names.
fn sweep(names: &Names) -> Result<()> {
    let namespaces = net::with_prefix(&names.prefix());
    for namespace in &namespaces {
        process::end_all(namespace, END_PATIENCE);
    }
    for namespace in &namespaces {
        net::remove(namespace)?;
    }
    files::remove_tree(&names.run())?;
    files::remove_tree(&names.state())?;
    files::remove_if_empty(Path::new(STATE_DIRECTORY));
    Ok(())
}

fn require_root() -> Result<()> {
    let path = Path::new("/proc/self");
    let uid = fs::metadata(path).map_err(on("read", path))?.uid();
    if uid == 0 { Ok(()) } else { Err(Error::NotRoot { uid }) }
}

/// Where the parts of an instance are.
#[derive(Debug, Clone)]
struct Names {
    instance: String,
}

impl Names {
    fn new(instance: &str) -> Result<Self> {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if instance.is_empty() || instance.len() > 24 || !instance.chars().all(fits) {
            return Err(Error::Name { name: instance.into() });
        }
        Ok(Self { instance: instance.into() })
    }

    /// A dot ends the instance in a namespace's name, so that `demo` never matches `demo-2`.
    fn prefix(&self) -> String {
        format!("dvm.{}.", self.instance)
    }

    fn switch(&self) -> String {
        self.prefix() + "switch"
    }

    fn run(&self) -> PathBuf {
        Path::new(RUN_DIRECTORY).join(&self.instance)
    }

    fn state(&self) -> PathBuf {
        Path::new(STATE_DIRECTORY).join(&self.instance)
    }

    fn programs(&self) -> PathBuf {
        self.state().join("bin")
    }

    fn record(&self) -> PathBuf {
        self.run().join("hosts.json")
    }

    fn lock(&self) -> PathBuf {
        Path::new(RUN_DIRECTORY).join(format!("{}.lock", self.instance))
    }

    fn host(&self, index: usize) -> Host {
        let name = format!("h{index}");
        let directory = self.run().join(&name);
        Host {
            namespace: self.prefix() + &name,
            address: format!("10.77.0.{}", index + 1),
            socket: directory.join("agent.sock"),
            log: directory.join("agent.log"),
            name,
            directory,
        }
    }
}

/// How an instance's name is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hold {
    /// By the one process that makes the hosts.
    Alone,
    /// By processes that use kept hosts.
    WithOthers,
}

/// A hold on an instance's name.
#[derive(Debug)]
struct Lock {
    path: PathBuf,
    /// Holds the flock until dropped.
    _file: fs::File,
    remove_on_drop: bool,
}

impl Lock {
    fn take(names: &Names, hold: Hold) -> Result<Self> {
        files::make_directory(Path::new(RUN_DIRECTORY))?;
        let path = names.lock();
        for _ in 0..LOCK_TRIES_MAX {
            let mut options = fs::OpenOptions::new();
            let file = options.create(true).truncate(false).write(true).open(&path).map_err(on("open", &path))?;
            let locked = match hold {
                Hold::Alone => file.try_lock(),
                Hold::WithOthers => file.try_lock_shared(),
            };
            if locked.is_err() {
                break;
            }
            // The last holder removes the file: a lock on a removed file holds nothing.
            let held = file.metadata().map_err(on("read", &path))?;
            if fs::metadata(&path).is_ok_and(|current| current.ino() == held.ino()) {
                return Ok(Self { path, _file: file, remove_on_drop: false });
            }
        }
        Err(Error::Busy { instance: names.instance.clone() })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.remove_on_drop {
            drop(fs::remove_file(&self.path));
            files::remove_if_empty(Path::new(RUN_DIRECTORY));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_do_not_overlap() {
        assert!(Names::new("demo-2").is_ok());
        for bad in ["", "Demo", "a/b", "a.b", "0123456789012345678901234"] {
            assert!(matches!(Names::new(bad), Err(Error::Name { .. })), "{bad}");
        }
        let demo = Names::new("demo").unwrap();
        let second = Names::new("demo-2").unwrap();
        assert!(!second.host(0).namespace.starts_with(&demo.prefix()));
        assert_eq!(demo.host(2).address, "10.77.0.3");
    }
}

//! Processes as /proc shows them: who lives in a namespace, what they use, how they end.
//!
//! Owns reading /proc and killing by pid. Must not know agents or husks by role.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Ticks of /proc/PID/stat in a second: USER_HZ, fixed on x86-64.
const TICKS_PER_SECOND: u64 = 100;
/// Unit of `st_blocks`.
const BLOCK_BYTES: u64 = 512;
/// Between two looks while waiting for processes to end.
const POLL: Duration = Duration::from_millis(10);

/// Threads of a process shown in a report.
const THREADS_SHOWN_MAX: usize = 40;

/// A process of a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Process id.
    pub pid: i32,
    /// The kernel's name of it (first 15 bytes of the program's).
    pub name: String,
    /// Its command line, spaces between the arguments.
    pub command: String,
    /// Real uid.
    pub uid: u32,
}

/// The processes that live in the named network namespace; none if it does not exist.
pub(crate) fn in_namespace(namespace: &str) -> Vec<Process> {
    let Ok(wanted) = fs::metadata(Path::new("/run/netns").join(namespace)) else { return Vec::new() };
    all().filter(|pid| lives_in(*pid, &wanted)).filter_map(describe).collect()
}

/// The processes that came to live in some namespaces. A look asks the kernel only about processes it does not know yet: asking
/// about all of them every few milliseconds keeps a processor busy.
#[derive(Debug)]
pub(crate) struct Census {
    namespaces: Vec<Option<fs::Metadata>>,
    before: BTreeSet<i32>,
    residents: BTreeMap<i32, usize>,
}

impl Census {
    /// Processes of the namespaces with these names that are born from now on.
    pub(crate) fn begin<'a>(namespaces: impl Iterator<Item = &'a str>) -> Self {
        let namespaces = namespaces.map(|name| fs::metadata(Path::new("/run/netns").join(name)).ok()).collect();
        Self { namespaces, before: all().collect(), residents: BTreeMap::new() }
    }

    /// The living processes that were born since and live in one of the namespaces, with its index.
    pub(crate) fn count(&mut self) -> Vec<(i32, usize)> {
        let mut living = Vec::new();
        for pid in all().filter(|pid| !self.before.contains(pid)) {
            let known = self.residents.get(&pid).copied();
            if let Some(index) = known.or_else(|| self.place(pid)) {
                self.residents.insert(pid, index);
                living.push((pid, index));
            }
        }
        living
    }

    fn place(&self, pid: i32) -> Option<usize> {
        self.namespaces.iter().position(|wanted| wanted.as_ref().is_some_and(|wanted| lives_in(pid, wanted)))
    }
}

fn all() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
}

fn lives_in(pid: i32, namespace: &fs::Metadata) -> bool {
    fs::metadata(format!("/proc/{pid}/ns/net"))
        .is_ok_and(|found| found.ino() == namespace.ino() && found.dev() == namespace.dev())
}

fn describe(pid: i32) -> Option<Process> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned();
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let command = String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned();
    let uid = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    Some(Process { pid, name, command, uid })
}

/// CPU time a process has used so far, user and system together; none if it is gone.
#[must_use]
pub fn cpu_time(pid: i32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_SECOND))
}

/// Whether the process exists and is no zombie.
#[must_use]
pub fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z')))
}

/// Open descriptors of a process by kind: `socket`, `memfd`, `userfaultfd`, `file` and so on.
#[must_use]
pub fn descriptors(pid: i32) -> BTreeMap<String, usize> {
    let mut census = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.to_string_lossy();
        let kind = match target.split_once(':') {
            _ if target.starts_with("/memfd:") => "memfd",
            Some(("anon_inode", what)) => what.trim_matches(|c| c == '[' || c == ']'),
            Some((kind, _)) if !kind.starts_with('/') => kind,
            _ => "file",
        };
        *census.entry(kind.to_owned()).or_insert(0) += 1;
    }
    census
}

/// Bytes of memory in the memfds a process holds open.
#[must_use]
pub fn memory_file_bytes(pid: i32) -> u64 {
    let mut blocks = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
        let is_memfd = fs::read_link(entry.path()).is_ok_and(|target| target.to_string_lossy().starts_with("/memfd:"));
        if let (true, Ok(file)) = (is_memfd, fs::metadata(entry.path())) {
            blocks.insert(file.ino(), file.blocks());
        }
    }
    blocks.values().sum::<u64>() * BLOCK_BYTES
}

/// One line per thread: its state, where it waits in the kernel, and its last system call; for the report on a hanging job.
pub(crate) fn threads(pid: i32) -> String {
    let read = |path: String| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let mut report = String::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten().take(THREADS_SHOWN_MAX) {
        let thread = entry.file_name().to_string_lossy().into_owned();
        let task = format!("/proc/{pid}/task/{thread}");
        let state = read(format!("{task}/stat"));
        let state = state.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next()).unwrap_or("?");
        let (wait, call) = (read(format!("{task}/wchan")), read(format!("{task}/syscall")));
        report += &format!("  {thread} {} {state} {wait} {call}\n", read(format!("{task}/comm")));
    }
    report
}

/// Sends SIGKILL; a process that is gone already is fine.
pub fn kill_process(pid: i32) {
    signal(pid, Signal::SIGKILL);
}

/// Sends a signal; a process that is gone already is fine.
pub(crate) fn signal(pid: i32, signal: Signal) {
    if kill(Pid::from_raw(pid), signal).is_err() {
        // Gone already: nothing is left to signal.
    }
}

/// Whether somebody in the network of that process waits for TCP connections at the port, IPv4.
pub(crate) fn is_listening(pid: i32, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap_or_default();
    table.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (local, state) = (words.next().unwrap_or_default(), words.nth(1).unwrap_or_default());
        local.ends_with(&format!(":{port:04X}")) && state == LISTEN
    })
}

/// Processors of this machine, those included that we may not use.
pub(crate) fn processors() -> usize {
    let is_processor = |name: &str| name.strip_prefix("cpu").is_some_and(|number| number.parse::<usize>().is_ok());
    let entries = fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_name().to_str().is_some_and(is_processor)).count().max(1)
}

/// Asks all of a namespace to end, then makes them; returns the names of those that had to be killed.
pub(crate) fn end_all(namespace: &str, patience: Duration) -> Vec<String> {
    for process in in_namespace(namespace) {
        signal(process.pid, Signal::SIGTERM);
    }
    if wait_empty(namespace, patience) {
        return Vec::new();
    }
    let stubborn = in_namespace(namespace);
    for process in &stubborn {
        signal(process.pid, Signal::SIGKILL);
    }
    wait_empty(namespace, patience);
    stubborn.into_iter().map(|process| process.name).collect()
}

fn wait_empty(namespace: &str, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    loop {
        if in_namespace(namespace).is_empty() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_itself() {
        let me = i32::try_from(std::process::id()).unwrap();
        assert!(alive(me));
        assert!(cpu_time(me).is_some());
        assert!(descriptors(me).values().sum::<usize>() > 0);
        assert!(describe(me).is_some_and(|process| process.pid == me && !process.name.is_empty()));
        assert_eq!(in_namespace("no such namespace"), Vec::new());
        assert!(processors() >= std::thread::available_parallelism().unwrap().get());
    }
}

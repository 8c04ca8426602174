//! An agent in each host: its files, its start, its readiness.
//!
//! Owns the two TOML files and the life of the agent process. Must not know namespaces beyond the command that enters one.

use crate::command::output_within;
use crate::files::{self, on};
use crate::instance::{Config, Host};
use crate::{AGENT_PORT, Error, Result, net};
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long an agent may take from its start to its first answer.
const READY_DEADLINE: Duration = Duration::from_secs(20);
/// How long one answer may take.
const STATUS_DEADLINE: Duration = Duration::from_secs(5);
const READY_POLL: Duration = Duration::from_millis(50);
/// The library of `dvm-exec --page-allocator`, beside it.
const ALLOCATOR: &str = "libdvm_alloc.so";
const LOG_LINES: usize = 15;

/// The two programs of a cluster.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `dvm-agent`.
    pub agent: PathBuf,
    /// `dvm-exec`.
    pub exec: PathBuf,
}

impl Binaries {
    /// Both in one directory, as cargo leaves them.
    #[must_use]
    pub fn in_directory(directory: &Path) -> Self {
        Self { agent: directory.join("dvm-agent"), exec: directory.join("dvm-exec") }
    }

    /// Copies them to where every user may execute them (a build directory may be closed, /run may be noexec).
    pub(crate) fn install(&self, directory: &Path) -> Result<Self> {
        files::make_directory(directory)?;
        let installed = Self::in_directory(directory);
        for (from, to, package) in [(&self.agent, &installed.agent, "dvm-agent"), (&self.exec, &installed.exec, "dvm-exec")] {
            if !from.exists() {
                return Err(Error::NoBinary { path: from.clone(), package });
            }
            fs::copy(from, to).map_err(on("install", to))?;
            fs::set_permissions(to, fs::Permissions::from_mode(0o755)).map_err(on("open to all", to))?;
        }
        let [from, to] = [&self.exec, &installed.exec].map(|exec| exec.with_file_name(ALLOCATOR));
        // Only jobs with --page-allocator need it.
        if from.exists() {
            fs::copy(&from, &to).map_err(on("install", &to))?;
            fs::set_permissions(&to, fs::Permissions::from_mode(0o755)).map_err(on("open to all", &to))?;
        }
        Ok(installed)
    }
}

/// Writes key, cluster and node files of every host.
pub(crate) fn configure(hosts: &[Host], exec: &Path, config: &Config) -> Result<()> {
    let Config { instance, links, cpus, fast_paths, memory, .. } = config;
    let mtu = links.mtu;
    let key = files::random_key()?;
    let mut nodes = String::new();
    for host in hosts {
        write!(
            nodes,
            "\n[[nodes]]\nname = \"{}\"\naddress = \"{}\"\nport = {AGENT_PORT}\ncpus = {cpus}\n",
            host.name, host.address
        )
        .expect("writing to a String cannot fail");
    }
    for (index, host) in hosts.iter().enumerate() {
        files::make_directory(&host.directory)?;
        let key_file = host.directory.join("cluster.key");
        files::write_secret(&key_file, &format!("{key}\n"))?;
        let head = format!("name = \"{instance}\"\nkey_file = \"{}\"\n", key_file.display());
        files::write(&host.directory.join("cluster.toml"), &(head + &nodes))?;
        let mut node = format!(
            "name = \"{}\"\nsocket = \"{}\"\nexec = \"{}\"\nmtu = {mtu}\n",
            host.name,
            host.socket.display(),
            exec.display()
        );
        if let Some(fast_path) = fast_paths.iter().cycle().nth(index) {
            writeln!(node, "fast_path = \"{fast_path}\"").expect("writing to a String cannot fail");
        }
        if let Some(memory) = memory {
            writeln!(node, "memory = \"{memory}\"").expect("writing to a String cannot fail");
        }
        files::write(&host.directory.join("node.toml"), &node)?;
    }
    Ok(())
}

/// Starts a host's agent, detached from our terminal so that ^C reaches us alone. `before` are words that run the rest of their
/// command line; none usually.
pub(crate) fn start(host: &Host, agent: &Path, before: &[&str]) -> Result<Child> {
    let log = fs::OpenOptions::new().create(true).append(true).open(&host.log).map_err(on("open", &host.log))?;
    let errors = log.try_clone().map_err(on("duplicate", &host.log))?;
    net::enter(&host.namespace)
        .arg("--")
        .args(before)
        .arg(agent)
        .args(["run", "--cluster"])
        .arg(host.directory.join("cluster.toml"))
        .arg("--node")
        .arg(host.directory.join("node.toml"))
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .process_group(0)
        .spawn()
        .map_err(on("start", agent))
}

/// Has the agent's program put an XDP program that passes all on the switch's ends of the links; it goes with them.
pub(crate) fn pass_at(switch: &str, hosts: usize, agent: &Path) -> Result<()> {
    let mut command = net::enter(switch);
    command.arg("--").arg(agent).arg("xdp-pass");
    for index in 0..hosts {
        command.arg("--interface").arg(net::port(index));
    }
    let output = output_within(&mut command, STATUS_DEADLINE).map_err(on("run", agent))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Command {
        command: "dvm-agent xdp-pass".into(),
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// Waits until the agent answers and sees its peers.
pub(crate) fn wait_ready(host: &Host, agent: &Path, child: &mut Child) -> Result<()> {
    let deadline = Instant::now() + READY_DEADLINE;
    let failed = |what: String| Error::Agent {
        host: host.name.clone(),
        what,
        log: host.log.clone(),
        tail: files::tail(&host.log, LOG_LINES),
    };
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return Err(failed(format!("ended at its start ({status})")));
        }
        let seen = match status(host, agent) {
            Some(status) if peers_up(&status) => return Ok(()),
            Some(_) => "does not see all its peers",
            None => "does not answer `status`",
        };
        if Instant::now() >= deadline {
            return Err(failed(format!("{seen} {} s after its start", READY_DEADLINE.as_secs())));
        }
        sleep(READY_POLL);
    }
}

/// The agent's status, or none while it does not answer.
pub(crate) fn status(host: &Host, agent: &Path) -> Option<Value> {
    let mut command = net::enter(&host.namespace);
    command.arg("--").arg(agent).args(["status", "--json", "--socket"]).arg(&host.socket);
    let output = output_within(&mut command, STATUS_DEADLINE).ok()?;
    if output.status.success() { serde_json::from_slice(&output.stdout).ok() } else { None }
}

/// Whether every peer the status names is up; a status without peers says nothing against it.
fn peers_up(status: &Value) -> bool {
    let peers = status.get("peers").and_then(Value::as_array);
    peers.is_none_or(|peers| peers.iter().all(|peer| peer.get("up").and_then(Value::as_bool) != Some(false)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn readiness_counts_only_peers_that_are_down() {
        assert!(peers_up(&json!({})));
        assert!(peers_up(&json!({"peers": [{"name": "h1", "up": true}]})));
        assert!(!peers_up(&json!({"peers": [{"name": "h1", "up": true}, {"name": "h2", "up": false}]})));
    }
}

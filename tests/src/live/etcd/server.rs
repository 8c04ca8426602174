//! A real etcd on the first host, and agents that enter the cluster by it.
//!
//! Owns etcd's process and data, and the files of agents. Must not know what is judged.

use crate::live::bed::Bed;
use crate::live::case::Lacking;
use anyhow::{Context, Result, bail, ensure};
use dvm_hosts::{User, alive, kill_process, output_within};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// `lease_seconds` of the cases.
pub const LEASE: Duration = Duration::from_secs(3);
const START_LATEST: Duration = Duration::from_secs(20);
const COMMAND_LATEST: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);
const CLIENT_PORT: u16 = 2379;
/// Certificates of etcd and of agents, signed by the same authority.
const CERTIFICATES: &str = "set -e
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=authority -days 2 -keyout ca.key -out ca.pem
for name in server client; do
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$name -keyout $name.key -out $name.csr
  printf 'subjectAltName=IP:%s\\nextendedKeyUsage=serverAuth,clientAuth\\n' \"$1\" > $name.ext
  openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile $name.ext -out $name.pem
done
chmod 600 *.key";

/// etcd, ended when dropped. The agents that the hosts came with are ended by its start.
pub struct Etcd<'a> {
    bed: &'a Bed<'a>,
    directory: PathBuf,
    is_tls: bool,
    process: Option<Child>,
}

impl<'a> Etcd<'a> {
    /// Starts etcd, with certificates if `is_tls`, and gives each host the files of an agent that enters by it.
    ///
    /// # Errors
    /// It does not start; or the agent cannot speak to any etcd, which is no failure.
    pub fn new(bed: &'a Bed<'a>, is_tls: bool) -> Result<Self> {
        let directory = bed.workshop.job_directory();
        fs::create_dir_all(&directory)?;
        let mut made = Self { bed, directory, is_tls, process: None };
        if is_tls {
            made.make_certificates()?;
        }
        for index in 0..bed.hosts.hosts().len() {
            if let Some(agent) = bed.hosts.agent(index)? {
                kill_process(agent.pid);
                await_end(agent.pid)?;
            }
            made.configure(index, "", "")?;
        }
        let refused = made.refused_agent(0)?;
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        if said.contains("was built without etcd") {
            return Err(Lacking("the agent was built without etcd, as protoc is not installed".to_owned()).into());
        }
        ensure!(refused.status.code() == Some(26) && said.contains("cannot enter the cluster by etcd at"), "no etcd: {said}");
        made.start()?;
        Ok(made)
    }

    fn make_certificates(&self) -> Result<()> {
        let mut command = Command::new("sh");
        command.args(["-c", CERTIFICATES, "sh", &self.bed.hosts.host(0)?.address]).current_dir(&self.directory);
        let output = output_within(&mut command, COMMAND_LATEST)?;
        ensure!(output.status.success(), "openssl: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// Where etcd is.
    ///
    /// # Errors
    /// There is no host.
    pub fn address(&self) -> Result<String> {
        let scheme = if self.is_tls { "https" } else { "http" };
        Ok(format!("{scheme}://{}:{CLIENT_PORT}", self.bed.hosts.host(0)?.address))
    }

    /// Writes a host's files; lines of `control` are added to `[control]`, those of `node` to node.toml.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn configure(&self, index: usize, control: &str, node: &str) -> Result<()> {
        let host = self.bed.hosts.host(index)?;
        let (key, address) = (host.directory.join("cluster.key"), self.address()?);
        // One key for all, where each host has a copy of its own.
        let key = if index == 0 { key } else { self.bed.hosts.host(0)?.directory.join("cluster.key") };
        let lease = LEASE.as_secs();
        let mut cluster = format!(
            "name = \"live\"\nkey_file = \"{}\"\n[control]\netcd = [\"{address}\"]\nlease_seconds = {lease}\n{control}\n",
            key.display()
        );
        if self.is_tls {
            let directory = self.directory.display();
            cluster += &format!(
                "ca_file = \"{directory}/ca.pem\"\ncert_file = \"{directory}/client.pem\"\ncert_key_file = \"{directory}/client.key\"\n"
            );
        }
        fs::write(host.directory.join("cluster.toml"), cluster)?;
        let file = host.directory.join("node.toml");
        let old = fs::read_to_string(&file)?;
        let own = |line: &&str| !["address", "port", "cpus"].iter().any(|key| line.starts_with(key));
        let kept: String = old.lines().filter(own).map(|line| format!("{line}\n")).collect();
        fs::write(file, format!("{kept}address = \"{}\"\ncpus = 2\n{node}", host.address))?;
        Ok(())
    }

    /// A file of agents that others must not read.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn secret(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.directory.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    }

    /// Starts etcd with what it has written before, if there is anything, and waits until it answers.
    ///
    /// # Errors
    /// It does not answer.
    pub fn start(&mut self) -> Result<()> {
        let (directory, address) = (self.directory.display(), self.address()?);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.directory.join("etcd.log"))?;
        let mut command = self.bed.hosts.command(0, User::Root, Path::new("etcd"))?;
        command.args(["--name", "e", "--data-dir"]).arg(self.directory.join("data"));
        command.args(["--listen-client-urls", &address, "--advertise-client-urls", &address]);
        command.args(["--listen-peer-urls", "http://127.0.0.1:2380", "--initial-advertise-peer-urls", "http://127.0.0.1:2380"]);
        command.args(["--initial-cluster", "e=http://127.0.0.1:2380"]);
        if self.is_tls {
            command.arg(format!("--cert-file={directory}/server.pem")).arg(format!("--key-file={directory}/server.key"));
            command.arg("--client-cert-auth").arg(format!("--trusted-ca-file={directory}/ca.pem"));
        }
        self.process = Some(command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?);
        let latest = Instant::now() + START_LATEST;
        while let Err(error) = self.control(&["endpoint", "health"]) {
            ensure!(Instant::now() < latest, "etcd does not start: {error:#}");
            sleep(POLL);
        }
        Ok(())
    }

    /// Kills etcd; what it has written stays.
    ///
    /// # Errors
    /// It does not run.
    pub fn stop(&mut self) -> Result<()> {
        let mut process = self.process.take().context("etcd does not run")?;
        process.kill()?;
        process.wait()?;
        Ok(())
    }

    /// Runs etcdctl; what it prints.
    ///
    /// # Errors
    /// It fails.
    pub fn control(&self, words: &[&str]) -> Result<String> {
        let mut command = self.bed.hosts.command(0, User::Root, Path::new("etcdctl"))?;
        command.arg("--endpoints").arg(self.address()?).args(["--command-timeout", "3s"]);
        if self.is_tls {
            let directory = self.directory.display();
            command.arg(format!("--cacert={directory}/ca.pem"));
            command.arg(format!("--cert={directory}/client.pem")).arg(format!("--key={directory}/client.key"));
        }
        let output = output_within(command.args(words).env("ETCDCTL_API", "3"), COMMAND_LATEST)?;
        ensure!(output.status.success(), "etcdctl {words:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a host's agent, which is expected to refuse.
    ///
    /// # Errors
    /// It does not end.
    pub fn refused_agent(&self, index: usize) -> Result<Output> {
        let host = self.bed.hosts.host(index)?;
        let mut command = self.bed.hosts.command(index, User::Root, &self.bed.hosts.binaries().agent)?;
        command.arg("run").arg("--cluster").arg(host.directory.join("cluster.toml"));
        command.arg("--node").arg(host.directory.join("node.toml"));
        output_within(&mut command, START_LATEST).context("an agent that must refuse")
    }

    /// The command that asks a host's agent something.
    ///
    /// # Errors
    /// No such host.
    pub fn ask(&self, index: usize, words: &[&str]) -> Result<Command> {
        let mut command = self.bed.hosts.command(index, User::Root, &self.bed.hosts.binaries().agent)?;
        command.args(words).arg("--socket").arg(&self.bed.hosts.host(index)?.socket);
        Ok(command)
    }

    /// What a host's agent says about the cluster.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self, index: usize) -> Result<Value> {
        self.bed.hosts.status(index)?.with_context(|| format!("the agent of host {index} does not answer"))
    }

    /// The hosts of the cluster as a host's agent sees them.
    ///
    /// # Errors
    /// It does not answer.
    pub fn members(&self, index: usize) -> Result<Vec<String>> {
        names(&self.status(index)?["membership"]["hosts"])
    }

    /// Waits until something is so; says how long that took.
    ///
    /// # Errors
    /// It is not in time.
    pub fn until(&self, what: &str, patience: Duration, is_so: impl Fn() -> Result<bool>) -> Result<Duration> {
        let started = Instant::now();
        while !is_so()? {
            if started.elapsed() > patience {
                let logs = (0..self.bed.hosts.hosts().len()).map(|index| self.bed.hosts.log_tail(index, 6));
                bail!(
                    "not within {} s: {what}\n{}",
                    patience.as_secs(),
                    logs.collect::<dvm_hosts::Result<Vec<_>>>()?.join("\n--\n")
                );
            }
            sleep(POLL);
        }
        Ok(started.elapsed())
    }
}

impl Drop for Etcd<'_> {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill().ok();
            process.wait().ok();
        }
    }
}

/// A list of names.
///
/// # Errors
/// It is something else.
pub fn names(value: &Value) -> Result<Vec<String>> {
    let list = value.as_array().with_context(|| format!("no list: {value}"))?;
    Ok(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// Waits until the process has ended, and with it what it served.
fn await_end(pid: i32) -> Result<()> {
    let latest = Instant::now() + START_LATEST;
    let has_threads = || fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.count() > 1);
    while alive(pid) || has_threads() {
        ensure!(Instant::now() < latest, "process {pid} is there {START_LATEST:?} after it was killed");
        sleep(POLL);
    }
    Ok(())
}

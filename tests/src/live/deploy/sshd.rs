//! Local hosts that an operator reaches by ssh: a real sshd in each, and files that no other host shares.
//!
//! Owns their private mounts, sshd's configuration and keys. Must not know what is deployed.

use crate::live::bed::Bed;
use anyhow::{Context, Result, ensure};
use dvm_hosts::{User, kill_process, output_within};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

const START_LATEST: Duration = Duration::from_secs(10);
/// Where the environment names the program that started this one.
const XTASK: &str = "DVM_XTASK";
const COMMAND_LATEST: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// Makes the host's own /etc, /usr/local and /run, then becomes sshd, the first process of its own.
const HOST: &str = "set -e
mount -t tmpfs -o mode=755 tmpfs /mnt
cp -a /etc /mnt/etc
mount --bind /mnt/etc /etc
mount -t tmpfs -o mode=755,size=400m tmpfs /usr/local
mkdir -p /usr/local/bin
echo theirs > /usr/local/bin/theirs
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/sshd /run/mount
exec /usr/sbin/sshd -D -e -f \"$1\"";

/// Everything that a deployment may leave somewhere, with times of change, sizes and contents.
const LIST: &str =
    "cd / && find usr/local etc run -xdev \\( -type s -o -path run/sshd -o -path run/mount \\) -prune -o -printf '%p %y %m %U %l %T@\\n' | sort
find usr/local etc -xdev -type f -print0 | sort -z | xargs -0 sha256sum";

/// Hosts with sshd, ended when dropped.
pub struct Operator<'a> {
    hosts: &'a Bed<'a>,
    directory: PathBuf,
    servers: Vec<Child>,
}

impl<'a> Operator<'a> {
    /// Ends the agents that the hosts came with, and starts sshd on each.
    ///
    /// # Errors
    /// A key cannot be made, or an sshd does not listen.
    pub fn new(bed: &'a Bed<'a>) -> Result<Self> {
        let directory = bed.workshop.job_directory();
        fs::create_dir_all(&directory)?;
        let mut made = Self { hosts: bed, directory, servers: Vec::new() };
        made.make_key("client")?;
        made.make_key("stranger")?;
        fs::copy(made.directory.join("client.pub"), made.directory.join("authorized"))?;
        let mut known = String::new();
        for (index, host) in bed.hosts.hosts().iter().enumerate() {
            if let Some(agent) = bed.hosts.agent(index)? {
                kill_process(agent.pid);
            }
            made.make_key(&host.name)?;
            let public = fs::read_to_string(made.directory.join(format!("{}.pub", host.name)))?;
            writeln!(known, "{} {}", host.address, public.trim())?;
            made.start(index)?;
        }
        fs::write(made.directory.join("known"), known)?;
        for index in 0..made.servers.len() {
            made.wait(index)?;
        }
        Ok(made)
    }

    fn make_key(&self, name: &str) -> Result<()> {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(self.directory.join(name));
        let output = output_within(&mut command, COMMAND_LATEST)?;
        ensure!(output.status.success(), "ssh-keygen: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn start(&mut self, index: usize) -> Result<()> {
        let host = self.hosts.hosts.host(index)?;
        let (file, directory) = (self.directory.join(format!("{}.conf", host.name)), self.directory.display());
        let text = format!(
            "ListenAddress {}\nHostKey {directory}/{}\nAuthorizedKeysFile {directory}/authorized\nPermitRootLogin prohibit-password\n\
             UsePAM no\nStrictModes no\nPidFile none\nSubsystem sftp internal-sftp\n",
            host.address, host.name
        );
        fs::write(&file, text)?;
        let log = fs::File::create(self.directory.join(format!("{}.log", host.name)))?;
        let mut command = self.hosts.hosts.command(index, User::Root, Path::new("unshare"))?;
        command.args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--propagation",
            "private",
            "sh",
            "-c",
            HOST,
            "sh",
        ]);
        self.servers.push(command.arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?);
        Ok(())
    }

    fn wait(&self, index: usize) -> Result<()> {
        let latest = Instant::now() + START_LATEST;
        while !self.ssh(index, "true")?.status.success() {
            let log = self.directory.join(format!("{}.log", self.hosts.hosts.host(index)?.name));
            ensure!(Instant::now() < latest, "sshd does not answer: {}", fs::read_to_string(log)?);
            sleep(POLL);
        }
        Ok(())
    }

    /// A file of this operator.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// hosts.toml; each line of `more` goes to the host of its number.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn hosts_file(&self, name: &str, known: &str, more: &[(usize, &str)]) -> Result<PathBuf> {
        let mut text = String::new();
        for (index, host) in self.hosts.hosts.hosts().iter().enumerate() {
            let options = format!("{:?}", self.options(known));
            writeln!(text, "[[hosts]]\nname = \"{}\"\naddress = \"{}\"\nssh_options = {options}", host.name, host.address)?;
            for (_, line) in more.iter().filter(|(number, _)| *number == index) {
                writeln!(text, "{line}")?;
            }
        }
        let path = self.path(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    fn options(&self, known: &str) -> Vec<String> {
        let directory = self.directory.display();
        vec![
            format!("IdentityFile={directory}/client"),
            "IdentitiesOnly=yes".to_owned(),
            format!("UserKnownHostsFile={directory}/{known}"),
            "StrictHostKeyChecking=yes".to_owned(),
        ]
    }

    /// The command that runs a line on a host, over ssh.
    ///
    /// # Errors
    /// No such host.
    pub fn ssh_command(&self, index: usize, line: &str) -> Result<Command> {
        let mut command = self.hosts.hosts.command(0, User::Root, Path::new("ssh"))?;
        for option in self.options("known") {
            command.args(["-o", &option]);
        }
        command.args(["-o", "BatchMode=yes", "-o", "ConnectTimeout=5", &self.hosts.hosts.host(index)?.address, line]);
        Ok(command)
    }

    /// Runs a line on a host.
    ///
    /// # Errors
    /// ssh cannot be started or is not over in time.
    pub fn ssh(&self, index: usize, line: &str) -> Result<Output> {
        output_within(&mut self.ssh_command(index, line)?, COMMAND_LATEST).context("ssh")
    }

    /// What a line prints on a host.
    ///
    /// # Errors
    /// It fails.
    pub fn demand(&self, index: usize, line: &str) -> Result<String> {
        let output = self.ssh(index, line)?;
        ensure!(output.status.success(), "host {index}: {line}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// All files of all hosts that a deployment may touch.
    ///
    /// # Errors
    /// A host does not answer.
    pub fn files(&self) -> Result<Vec<String>> {
        (0..self.servers.len()).map(|index| self.demand(index, LIST)).collect()
    }

    /// The command that deploys, from the network of the first host.
    ///
    /// # Errors
    /// Nobody said where it is.
    pub fn deploy_command(&self, hosts: &Path, binaries: &Path, words: &[&str]) -> Result<Command> {
        let program =
            std::env::var_os(XTASK).with_context(|| format!("{XTASK} does not name xtask: `cargo xtask live` does it"))?;
        let mut command = self.hosts.hosts.command(0, User::Root, Path::new(&program))?;
        command.args(["deploy", "--hosts"]).arg(hosts).arg("--binaries").arg(binaries).args(words);
        Ok(command)
    }
}

impl Drop for Operator<'_> {
    fn drop(&mut self) {
        for server in &mut self.servers {
            // Its first process goes with it, and with that all others of the host.
            server.kill().ok();
            server.wait().ok();
        }
    }
}

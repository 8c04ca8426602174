//! The system's own ssh and scp: one connection for each host, and what is done over it.
//!
//! Owns their command lines, deadlines, and what their failures mean. Must not know what is deployed.

use super::hosts_file::HostEntry;
use dvm_hosts::output_within;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longest from the start of ssh to a connection with a shell behind it.
const CONNECT_LATEST: Duration = Duration::from_secs(20);
/// Of that, until TCP is connected.
const CONNECT_SECONDS: u64 = 10;
const POLL: Duration = Duration::from_millis(20);
/// How much longer than the remote side we wait for its end.
const GRACE: Duration = Duration::from_secs(10);
/// Of what a command said, shown when it failed.
const SAID_BYTES_MAX: usize = 600;

/// Why a host could not be asked or changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble(pub String);

/// A connection, ended when dropped.
#[derive(Debug)]
pub struct Connection {
    address: String,
    options: Vec<String>,
    is_root: bool,
    master: Child,
    /// When it closes, by our end, whatever it is, the remote command ends and with it the connection.
    _stdin: Option<ChildStdin>,
}

impl Connection {
    /// Connects; sockets and messages go to `directory`.
    ///
    /// # Errors
    /// What ssh says, and what to do.
    pub fn open(host: &HostEntry, number: usize, directory: &Path) -> Result<Self, Trouble> {
        let socket = directory.join(format!("{number}.sock"));
        let messages = directory.join(format!("{number}.log"));
        let options = options(host, &socket);
        let log =
            fs::File::create(&messages).map_err(|error| Trouble(format!("cannot write {}: {error}", messages.display())))?;
        let mut command = Command::new("ssh");
        command.args(&options).args(["-o", "ControlMaster=yes", &host.address, "cat > /dev/null"]);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn();
        let mut master = spawned.map_err(|error| Trouble(format!("cannot start ssh ({error}); install openssh-client")))?;
        let stdin = master.stdin.take();
        let is_root = host.user.as_deref().is_none_or(|user| user == "root");
        let mut made = Self { address: host.address.clone(), options, is_root, master, _stdin: stdin };
        made.wait(&socket, &messages)?;
        Ok(made)
    }

    fn wait(&mut self, socket: &Path, messages: &Path) -> Result<(), Trouble> {
        let said = || fs::read_to_string(messages).unwrap_or_default();
        let latest = Instant::now() + CONNECT_LATEST;
        while !socket.exists() {
            match self.master.try_wait() {
                Ok(None) if Instant::now() < latest => sleep(POLL),
                Ok(None) => {
                    return Err(explain(&format!("no connection after {} s: timed out\n{}", CONNECT_LATEST.as_secs(), said())));
                }
                _ => return Err(explain(&said())),
            }
        }
        Ok(())
    }

    /// Runs a script as root; gives what it wrote to stdout.
    ///
    /// # Errors
    /// It failed, or was not over in time.
    pub fn script(&self, what: &str, text: &str, limit: Duration) -> Result<String, Trouble> {
        let sudo = if self.is_root { "" } else { "sudo -n " };
        let words = format!("exec {sudo}timeout -k 5 {} sh -c {}", limit.as_secs(), quoted(text));
        let mut command = Command::new("ssh");
        command.args(&self.options).args(["-o", "ControlMaster=no", &self.address, &words]);
        finished(what, output_within(&mut command, limit + GRACE))
    }

    /// Copies files into a directory there.
    ///
    /// # Errors
    /// It failed, or was not over in time.
    pub fn copy(&self, files: &[PathBuf], to: &str, limit: Duration) -> Result<(), Trouble> {
        let address = if self.address.contains(':') { format!("[{}]", self.address) } else { self.address.clone() };
        let mut command = Command::new("scp");
        command.arg("-q").args(&self.options).args(["-o", "ControlMaster=no"]).args(files).arg(format!("{address}:{to}/"));
        finished("copy", output_within(&mut command, limit)).map(drop)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Gone by itself is as good.
        drop(self.master.kill());
        drop(self.master.wait());
    }
}

/// Options of ssh and scp for a host. Those of the hosts file come first: ssh keeps the first of each.
fn options(host: &HostEntry, socket: &Path) -> Vec<String> {
    let mut settings = host.ssh_options.clone();
    settings.extend(host.port.map(|port| format!("Port={port}")));
    settings.extend(host.user.as_ref().map(|user| format!("User={user}")));
    settings.extend([
        "BatchMode=yes".to_owned(),
        format!("ConnectTimeout={CONNECT_SECONDS}"),
        "ServerAliveInterval=5".to_owned(),
        "ServerAliveCountMax=3".to_owned(),
        "ControlPersist=no".to_owned(),
        format!("ControlPath={}", socket.display()),
    ]);
    settings.into_iter().flat_map(|setting| ["-o".to_owned(), setting]).collect()
}

fn finished(what: &str, output: std::io::Result<std::process::Output>) -> Result<String, Trouble> {
    let output = output.map_err(|error| match error.kind() {
        ErrorKind::TimedOut => Trouble(format!("{what}: {error}")),
        _ => Trouble(format!("{what}: cannot be started ({error}); install openssh-client")),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(124) => Err(Trouble(format!("{what}: not over in time: ended"))),
        Some(255) => Err(Trouble(format!("{what}: {}", explain(&said).0))),
        _ => Err(Trouble(format!("{what}: {}", shortened(&said)))),
    }
}

/// What a failure of ssh means, with what to do.
fn explain(said: &str) -> Trouble {
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let advice = if has(&["REMOTE HOST IDENTIFICATION HAS CHANGED"]) {
        "its host key is not the one that is known: find out why; if it was installed anew, `ssh-keygen -R` the old key"
    } else if has(&["Host key verification failed", "No matching host key", "host key is known"]) {
        "its host key is not known: compare it and log in once by hand, or add it to known_hosts"
    } else if has(&["Permission denied", "Too many authentication failures"]) {
        "it lets nobody in with our keys: log in with `ssh -o BatchMode=yes` by hand"
    } else if has(&["Could not resolve", "Name or service not known"]) {
        "its address is not known: correct it in the hosts file"
    } else if has(&[
        "Connection refused",
        "timed out",
        "No route to host",
        "unreachable",
        "Connection closed",
        "Connection reset",
    ]) {
        "it cannot be reached: is it up, does sshd listen there?"
    } else {
        "ssh failed"
    };
    Trouble(format!("{advice} ({})", shortened(said)))
}

/// The last lines of what was said, as one.
fn shortened(said: &str) -> String {
    let said = said.trim();
    let mut start = said.len().saturating_sub(SAID_BYTES_MAX);
    while !said.is_char_boundary(start) {
        start += 1;
    }
    let lines =
        said.get(start..).unwrap_or_default().lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('@'));
    let text = lines.collect::<Vec<_>>().join("; ");
    if text.is_empty() { "it said nothing".to_owned() } else { text }
}

/// A word that a shell takes as it is.
#[must_use]
pub fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart() {
        for (said, start) in [
            (
                "@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\n@@@\nHost key verification failed.",
                "its host key is not the one",
            ),
            (
                "No ED25519 host key is known for x and you have requested strict checking.\nHost key verification failed.",
                "its host key is not known",
            ),
            ("op@x: Permission denied (publickey).", "it lets nobody in"),
            ("ssh: connect to host x port 22: Connection refused", "it cannot be reached"),
            ("ssh: Could not resolve hostname x: Name or service not known", "its address is not known"),
            ("", "ssh failed (it said nothing)"),
        ] {
            let Trouble(text) = explain(said);
            assert!(text.starts_with(start), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn own_options_come_first_and_words_are_quoted() {
        let host = HostEntry {
            name: "a".into(),
            address: "x".into(),
            user: Some("op".into()),
            port: Some(22),
            interface: None,
            memory: None,
            ssh_options: vec!["IdentityFile=/k".into()],
        };
        let options = options(&host, Path::new("/s"));
        assert_eq!(options[..6], ["-o", "IdentityFile=/k", "-o", "Port=22", "-o", "User=op"]);
        assert!(options.contains(&"BatchMode=yes".to_owned()));
        assert_eq!(quoted("it's"), "'it'\\''s'");
    }
}

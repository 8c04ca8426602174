//! A member husk: started as the caller, watched, killed, reaped.
//!
//! Owns the process. Must not know what the husk does.

use super::channel::Channel;
use crate::limits::{HUSK_LINE_BYTES_MAX, HUSK_LINES_MAX, REAP_DEADLINE};
use crate::sys::{self, Credentials};
use anyhow::{Context, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::rc::Rc;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Interest};
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;

/// A husk this agent has started. Dropping it kills the process.
#[derive(Debug)]
pub struct Husk {
    child: RefCell<Child>,
    exited: AsyncFd<OwnedFd>,
}

impl Husk {
    /// Starts `exec --husk` as `credentials`; the channel is its control socket. It gets no descriptor of the agent's own:
    /// its stderr is a pipe, because a terminal of the agent's would be another user's.
    ///
    /// # Errors
    /// When the caller's rights cannot be taken on or the program cannot be started.
    pub fn start(exec: &Path, credentials: &Credentials) -> anyhow::Result<(Rc<Self>, Channel, Words)> {
        let effective = nix::unistd::geteuid();
        if !effective.is_root() && effective.as_raw() != credentials.uid {
            bail!(
                "the agent runs as user {effective} and cannot start a husk as user {}; run the agent as root",
                credentials.uid
            );
        }
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .context("cannot make a husk's control socket")?;
        let channel = Channel::new(ours).context("cannot prepare a husk's control socket")?;
        let mut command = Command::new(exec);
        command.arg("--husk").env_clear().env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        sys::start_as(&mut command, credentials.clone(), theirs, effective.is_root());
        let mut child = command.spawn().with_context(|| {
            format!("cannot start {} as user {}; check `exec` in node.toml and its rights", exec.display(), credentials.uid)
        })?;
        let pidfd = sys::pidfd_open(child.id().cast_signed()).map_err(std::io::Error::from);
        let watched = pidfd.and_then(|pidfd| sys::watch(pidfd, Interest::READABLE));
        let words = child.stderr.take().map(OwnedFd::from).context("a husk without stderr");
        let words = words.and_then(|stderr| Receiver::from_owned_fd(stderr).context("cannot read a husk's stderr"));
        match watched.context("cannot watch a husk").and_then(|exited| Ok((exited, words?))) {
            Ok((exited, words)) => Ok((Rc::new(Self { child: RefCell::new(child), exited }), channel, Words(words))),
            Err(error) => {
                child.kill().and_then(|()| child.wait().map(drop)).context("cannot kill a husk")?;
                Err(error)
            }
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.borrow().id().cast_signed()
    }

    /// Waits until the process has exited; says how. The process stays a zombie no longer.
    pub async fn exited(&self) -> String {
        // Readable for ever once it has exited; an error would mean the same as a lost husk.
        match self.exited.readable().await {
            Ok(_) => {}
            Err(error) => return format!("cannot be watched ({error})"),
        }
        let status = self.child.borrow_mut().wait();
        status.map_or_else(|error| format!("cannot be reaped ({error})"), describe)
    }

    /// Stops the process, or lets it go on.
    pub fn pause(&self, is_stopped: bool) {
        let signal = if is_stopped { libc::SIGSTOP } else { libc::SIGCONT };
        // One that is gone reports its end by itself.
        sys::pidfd_signal(self.exited.get_ref().as_fd(), signal).unwrap_or(());
    }

    /// Kills the process and waits until it is gone, at most [`REAP_DEADLINE`].
    ///
    /// # Errors
    /// When it is still there: the kernel does not let it go.
    pub async fn kill(&self) -> anyhow::Result<()> {
        sys::pidfd_kill(self.exited.get_ref().as_fd()).context("cannot kill a husk")?;
        let gone = timeout(REAP_DEADLINE, self.exited()).await;
        gone.map(drop).with_context(|| format!("husk {} does not end after SIGKILL", self.child.borrow().id()))
    }
}

/// What a husk writes to its stderr: its own words, for the log of the agent that started it.
#[derive(Debug)]
pub struct Words(Receiver);

impl Words {
    /// Passes line by line to `heard` until the husk's end; bounded.
    pub async fn listen(self, mut heard: impl FnMut(&str)) {
        let mut reader = BufReader::new(self.0);
        let mut count = 0;
        loop {
            let mut line = Vec::new();
            let limit = HUSK_LINE_BYTES_MAX as u64;
            match (&mut reader).take(limit).read_until(b'\n', &mut line).await {
                Ok(0) | Err(_) => return,
                Ok(_) if count >= HUSK_LINES_MAX => {}
                Ok(_) => {
                    count += 1;
                    heard(String::from_utf8_lossy(&line).trim());
                }
            }
        }
    }
}

impl Drop for Husk {
    fn drop(&mut self) {
        // Already dead and reaped in every orderly case; then both do nothing.
        if sys::pidfd_kill(self.exited.get_ref().as_fd()).is_ok() {
            drop(self.child.borrow_mut().try_wait());
        }
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

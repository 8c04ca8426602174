//! The control socket's file: made, found stale, replaced, removed.
//!
//! Owns the path in the file system. Must not know what connections bring.

use crate::exit::{Exit, Failure};
use crate::sys;
use anyhow::{Context, anyhow};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The listening socket; dropping it removes its file.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<OwnedFd>,
    path: PathBuf,
    inode: u64,
}

impl Listener {
    /// Makes the socket at `path`, for all users, replacing what a dead agent left.
    ///
    /// # Errors
    /// `AlreadyRunning` when an agent answers there, `Socket` when it cannot be made.
    pub fn bind(path: &Path) -> Result<Self, Failure> {
        let failed = |error: anyhow::Error| Failure::new(Exit::Socket, error);
        let directory = path.parent().unwrap_or(Path::new("/"));
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .with_context(|| format!("cannot make the directory {} of the control socket", directory.display()))
            .map_err(failed)?;
        let _lock = lock(directory).map_err(failed)?;
        clear(path)?;
        let made = make(path)
            .with_context(|| format!("cannot make the control socket {}; choose another `socket` in node.toml", path.display()));
        made.map_err(failed)
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// The kernel's error, EMFILE as a rule.
    pub async fn accept(&self) -> io::Result<OwnedFd> {
        self.socket.async_io(Interest::READABLE, |socket| sys::accept(socket.as_fd()).map_err(io::Error::from)).await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Not if somebody has replaced it meanwhile.
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Keeps two starting agents from finding each other's half-made socket stale.
fn lock(directory: &Path) -> anyhow::Result<Flock<File>> {
    let file = File::open(directory).with_context(|| format!("cannot open {}", directory.display()))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| anyhow!("cannot lock {}: {error}", directory.display()))
}

fn clear(path: &Path) -> Result<(), Failure> {
    let failed = |text: String| Failure::new(Exit::Socket, anyhow!(text));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(format!("cannot examine {}: {error}", path.display()))),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(failed(format!("{} is no socket; remove it or choose another `socket` in node.toml", path.display())));
        }
        Ok(_) => {}
    }
    match connects(path) {
        Ok(()) | Err(Errno::EAGAIN | Errno::EPROTOTYPE) => Err(Failure::new(
            Exit::AlreadyRunning,
            anyhow!("another agent serves {}; stop it or choose another `socket` in node.toml", path.display()),
        )),
        Err(Errno::ECONNREFUSED) => {
            fs::remove_file(path).map_err(|error| failed(format!("cannot remove the stale {}: {error}", path.display())))
        }
        Err(error) => Err(failed(format!("cannot tell whether {} is served: {error}", path.display()))),
    }
}

fn connects(path: &Path) -> Result<(), Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let probe = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    connect(probe.as_raw_fd(), &UnixAddr::new(path)?)
}

fn make(path: &Path) -> anyhow::Result<Listener> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listening = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    let address = UnixAddr::new(path)?;
    bind(listening.as_raw_fd(), &address)?;
    fs::set_permissions(path, Permissions::from_mode(0o666))?;
    listen(&listening, Backlog::new(128)?)?;
    let inode = fs::symlink_metadata(path)?.ino();
    Ok(Listener { socket: sys::watch(listening, Interest::READABLE)?, path: path.to_path_buf(), inode })
}

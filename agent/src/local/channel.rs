//! One control connection to a husk or tool, for the asynchronous side.
//!
//! Owns waiting; packets and descriptors are `dvm_api::socket`'s. Must not know what the packets mean.

use crate::limits::{CONTROL_BUFFER_BYTES, HUSK_SEND_DEADLINE};
use crate::sys::{self, Credentials};
use dvm_api::socket::{self, SocketError};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{setsockopt, sockopt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

/// A connected SOCK_SEQPACKET socket.
#[derive(Debug)]
pub struct Channel {
    socket: AsyncFd<OwnedFd>,
}

/// The process at the other end, as the kernel knows it.
#[derive(Debug)]
pub struct Caller {
    /// Its rights.
    pub credentials: Credentials,
    /// Its process id when it connected.
    pub pid: i32,
    /// The process itself; none where the kernel cannot say it without a race and it is gone.
    pub pidfd: Option<OwnedFd>,
}

impl Channel {
    /// Takes over `socket` and makes it non-blocking.
    ///
    /// # Errors
    /// The system's error.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // Without the right to exceed the limit the plain option does what it can.
        if setsockopt(&socket, sockopt::SndBufForce, &CONTROL_BUFFER_BYTES).is_err() {
            setsockopt(&socket, sockopt::SndBuf, &CONTROL_BUFFER_BYTES)?;
        }
        Ok(Self { socket: sys::watch(socket, Interest::READABLE | Interest::WRITABLE)? })
    }

    /// Sends one packet with descriptors; a reader that takes none in time counts as gone.
    ///
    /// # Errors
    /// When the other end is gone or does not read.
    pub async fn send<T: Serialize>(&self, packet: &T, descriptors: &[BorrowedFd<'_>]) -> Result<(), SocketError> {
        let sending = self.socket.async_io(Interest::WRITABLE, |fd| blocked(socket::send(fd.as_fd(), packet, descriptors)));
        match timeout(HUSK_SEND_DEADLINE, sending).await {
            Ok(Ok(result)) => result,
            Ok(Err(error)) => Err(call("sendmsg", &error)),
            Err(_) => Err(SocketError::Call { call: "sendmsg", source: Errno::ETIMEDOUT }),
        }
    }

    /// Waits for one packet and its descriptors.
    ///
    /// # Errors
    /// `Closed` at the end, `Malformed` for what is no `T`.
    pub async fn receive<T: DeserializeOwned>(&self) -> Result<(T, Vec<OwnedFd>), SocketError> {
        match self.socket.async_io(Interest::READABLE, |fd| blocked(socket::receive(fd.as_fd()))).await {
            Ok(result) => result,
            Err(error) => Err(call("recvmsg", &error)),
        }
    }

    /// Who is at the other end.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn caller(&self) -> Result<Caller, Errno> {
        let socket = self.socket.get_ref();
        let peer = nix::sys::socket::getsockopt(socket, sockopt::PeerCredentials)?;
        let groups = sys::peer_groups(socket.as_fd())?;
        let pidfd = match nix::sys::socket::getsockopt(socket, sockopt::PeerPidfd) {
            Ok(pidfd) => Some(pidfd),
            // Before Linux 6.5: by number, right after the connection was made.
            Err(_) => sys::pidfd_open(peer.pid()).ok(),
        };
        Ok(Caller { credentials: Credentials { uid: peer.uid(), gid: peer.gid(), groups }, pid: peer.pid(), pidfd })
    }
}

/// Sorts "not now" out of a result, the way [`AsyncFd`] wants it.
fn blocked<T>(result: Result<T, SocketError>) -> io::Result<Result<T, SocketError>> {
    match result {
        Err(SocketError::Call { source: Errno::EAGAIN, .. }) => Err(io::ErrorKind::WouldBlock.into()),
        other => Ok(other),
    }
}

fn call(call: &'static str, error: &io::Error) -> SocketError {
    SocketError::Call { call, source: Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)) }
}

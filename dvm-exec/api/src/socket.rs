//! One control packet with its descriptors over a SOCK_SEQPACKET Unix socket.
//!
//! Owns framing and SCM_RIGHTS. Must not know what the packets mean.

use crate::local::PACKET_BYTES_MAX;
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// Most descriptors one packet carries.
pub const DESCRIPTORS_MAX: usize = 4;

/// Number under which a member husk finds its control socket.
pub const INHERITED: i32 = 3;

static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes over the control socket a member husk was started with; none if there is none, or the second time.
#[must_use]
pub fn inherited() -> Option<OwnedFd> {
    let is_open = std::fs::symlink_metadata(format!("/proc/self/fd/{INHERITED}")).is_ok();
    // Relaxed: the flag guards the number alone, no memory is published by it.
    (is_open && !IS_TAKEN.swap(true, Ordering::Relaxed)).then(|| crate::sys::adopt(INHERITED))
}

/// Why a packet could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The other end is gone.
    #[error("the control connection was closed by the other end")]
    Closed,
    /// The kernel refused.
    #[error("control socket: {call} failed")]
    Call {
        /// System call.
        call: &'static str,
        /// Its error.
        #[source]
        source: Errno,
    },
    /// The packet is not one of ours.
    #[error("control packet of {bytes} bytes is malformed; both sides must be the same release")]
    Malformed {
        /// Bytes received.
        bytes: usize,
        /// What the decoder said.
        #[source]
        source: postcard::Error,
    },
    /// The packet is longer than [`PACKET_BYTES_MAX`] or has too many descriptors.
    #[error("control packet of {bytes} bytes exceeds {PACKET_BYTES_MAX}")]
    Oversize {
        /// Bytes of the packet.
        bytes: usize,
    },
}

/// Sends `packet` and `descriptors` as one packet. Blocks unless the socket is non-blocking.
///
/// # Errors
/// [`SocketError::Closed`] when the peer is gone, `Call` with EAGAIN on a full non-blocking socket.
pub fn send<T: Serialize>(socket: BorrowedFd<'_>, packet: &T, descriptors: &[BorrowedFd<'_>]) -> Result<(), SocketError> {
    let bytes = postcard::to_allocvec(packet).map_err(|source| SocketError::Malformed { bytes: 0, source })?;
    if bytes.len() > PACKET_BYTES_MAX || descriptors.len() > DESCRIPTORS_MAX {
        return Err(SocketError::Oversize { bytes: bytes.len() });
    }
    let raw: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(Errno::EPIPE | Errno::ECONNRESET) => return Err(SocketError::Closed),
            Err(source) => return Err(SocketError::Call { call: "sendmsg", source }),
        }
    }
}

/// Receives one packet and its descriptors (close-on-exec). Blocks unless the socket is non-blocking.
///
/// # Errors
/// [`SocketError::Closed`] at the end of the connection, `Malformed` for a packet that is not a `T`.
pub fn receive<T: DeserializeOwned>(socket: BorrowedFd<'_>) -> Result<(T, Vec<OwnedFd>), SocketError> {
    let mut bytes = vec![0_u8; PACKET_BYTES_MAX];
    let mut control = cmsg_space!([i32; DESCRIPTORS_MAX]);
    loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Ok(received) => {
                let length = received.bytes;
                let mut descriptors = Vec::new();
                let messages = received.cmsgs().map_err(|source| SocketError::Call { call: "recvmsg", source })?;
                for message in messages {
                    if let ControlMessageOwned::ScmRights(raw) = message {
                        descriptors.extend(raw.into_iter().map(crate::sys::adopt));
                    }
                }
                if length == 0 {
                    return Err(SocketError::Closed);
                }
                let packet =
                    postcard::from_bytes(&bytes[..length]).map_err(|source| SocketError::Malformed { bytes: length, source })?;
                return Ok((packet, descriptors));
            }
            Err(Errno::EINTR) => {}
            Err(Errno::ECONNRESET) => return Err(SocketError::Closed),
            Err(source) => return Err(SocketError::Call { call: "recvmsg", source }),
        }
    }
}

//! One TCP connection between two agents, inside a Noise NNpsk0 session under the cluster key.
//!
//! Owns the preamble, the handshake and the framing. Must not know what the messages mean.
//!
//! ```text
//! opener                                   listener
//!   preamble: magic, version, cluster  ->
//!   Noise e, psk                       ->
//!                                      <-  Noise e, ee
//!   u16 length, ciphertext             <-> u16 length, ciphertext
//! ```
//! A plaintext is one byte (1: more parts follow, 0: last part) and a part of a postcard message. Nothing is read
//! ahead, so that the socket can be handed to a husk between two messages.

use crate::limits::PEER_MESSAGE_BYTES_MAX;
use crate::sys;
use nix::errno::Errno;
use serde::Serialize;
use serde::de::DeserializeOwned;
use snow::{HandshakeState, TransportState};
use std::cell::RefCell;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use tokio_uring::buf::BoundedBuf;
use tokio_uring::net::TcpStream;

const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
const MAGIC: [u8; 4] = *b"dvmc";
/// Version of everything between agents that is not a frame.
const VERSION: u16 = 4;
const PREAMBLE_BYTES: usize = 10;
/// Most plaintext per Noise message: 65,535 less tag and our byte.
const PART_BYTES_MAX: usize = 65_535 - 16 - 1;
/// An NNpsk0 handshake message without payload: an ephemeral key and a tag.
const HANDSHAKE_BYTES: usize = 32 + 16;

/// Why a session is not made or has ended.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// End of the connection.
    #[error("the other side closed the connection")]
    Closed,
    /// End of the connection in answer to the handshake.
    #[error(
        "the other side closed the connection during the handshake; its log says why (another key, cluster.toml or release?)"
    )]
    Rejected,
    /// The system's error.
    #[error("{call}: {source}")]
    Call {
        /// What was tried.
        call: &'static str,
        /// Its error.
        source: std::io::Error,
    },
    /// The other side is no agent of ours.
    #[error("the other side does not speak the agents' protocol")]
    Garbage,
    /// The other side's release differs.
    #[error("the other side speaks version {theirs}, this agent {VERSION}; install the same release on all hosts")]
    Version {
        /// Its version.
        theirs: u16,
    },
    /// The other side has another cluster definition.
    #[error("the other side's cluster.toml has fingerprint {theirs:08x}, ours {ours:08x}; make the files equal")]
    Cluster {
        /// Its fingerprint.
        theirs: u32,
        /// Ours.
        ours: u32,
    },
    /// The other side has another key, or the message was forged.
    #[error("the other side has another cluster key; copy the same key file to all hosts")]
    Key,
    /// A message after the handshake does not decrypt.
    #[error("a message was forged or damaged on its way")]
    Forged,
    /// The message is none of ours.
    #[error("a message of {bytes} bytes is malformed; install the same release on all hosts")]
    Malformed {
        /// Its length.
        bytes: usize,
    },
}

/// An authenticated, encrypted connection.
pub struct Session {
    stream: TcpStream,
    noise: RefCell<TransportState>,
}

/// What both sides must share.
#[derive(Clone, Copy)]
pub struct Secret<'a> {
    /// The cluster key.
    pub key: &'a [u8; 32],
    /// Fingerprint of the cluster's definition.
    pub fingerprint: u32,
}

impl Secret<'_> {
    fn preamble(&self) -> Vec<u8> {
        let mut preamble = MAGIC.to_vec();
        preamble.extend(VERSION.to_le_bytes());
        preamble.extend(self.fingerprint.to_le_bytes());
        preamble
    }

    fn handshake(&self, is_opener: bool) -> Result<HandshakeState, SessionError> {
        let preamble = self.preamble();
        let pattern = PATTERN.parse().map_err(|_| SessionError::Key)?;
        let builder = snow::Builder::new(pattern).psk(0, self.key).and_then(|builder| builder.prologue(&preamble));
        let built = builder.and_then(|builder| if is_opener { builder.build_initiator() } else { builder.build_responder() });
        built.map_err(|_| SessionError::Key)
    }
}

impl Session {
    /// Does the opener's side of the handshake on `stream`.
    ///
    /// # Errors
    /// [`SessionError::Rejected`] when the listener does not accept us.
    pub async fn open(stream: TcpStream, secret: Secret<'_>) -> Result<Self, SessionError> {
        let mut handshake = secret.handshake(true)?;
        let mut first = secret.preamble();
        let mut message = [0; HANDSHAKE_BYTES];
        let length = handshake.write_message(&[], &mut message).map_err(|_| SessionError::Key)?;
        first.extend_from_slice(&message[..length]);
        write(&stream, first).await?;
        let answer = read_exact(&stream, HANDSHAKE_BYTES).await.map_err(|error| match error {
            SessionError::Closed => SessionError::Rejected,
            other => other,
        })?;
        handshake.read_message(&answer, &mut message).map_err(|_| SessionError::Key)?;
        Self::established(stream, handshake)
    }

    /// Does the listener's side of the handshake on `stream`.
    ///
    /// # Errors
    /// What is wrong with the other side.
    pub async fn accept(stream: TcpStream, secret: Secret<'_>) -> Result<Self, SessionError> {
        let preamble = read_exact(&stream, PREAMBLE_BYTES).await?;
        check_preamble(&preamble, secret.fingerprint)?;
        let mut handshake = secret.handshake(false)?;
        let first = read_exact(&stream, HANDSHAKE_BYTES).await?;
        let mut message = [0; HANDSHAKE_BYTES];
        handshake.read_message(&first, &mut message).map_err(|_| SessionError::Key)?;
        let length = handshake.write_message(&[], &mut message).map_err(|_| SessionError::Key)?;
        write(&stream, message[..length].to_vec()).await?;
        Self::established(stream, handshake)
    }

    fn established(stream: TcpStream, handshake: HandshakeState) -> Result<Self, SessionError> {
        let noise = handshake.into_transport_mode().map_err(|_| SessionError::Key)?;
        Ok(Self { stream, noise: RefCell::new(noise) })
    }

    /// Sends one message. One task sends at a time, and lets the call finish: half a message ends the session.
    ///
    /// # Errors
    /// When the connection has ended.
    pub async fn send<T: Serialize>(&self, message: &T) -> Result<(), SessionError> {
        let bytes = postcard::to_allocvec(message).map_err(|_| SessionError::Malformed { bytes: 0 })?;
        if bytes.len() > PEER_MESSAGE_BYTES_MAX {
            return Err(SessionError::Malformed { bytes: bytes.len() });
        }
        let sealed = self.seal(&bytes)?;
        write(&self.stream, sealed).await
    }

    fn seal(&self, bytes: &[u8]) -> Result<Vec<u8>, SessionError> {
        let mut noise = self.noise.borrow_mut();
        let mut sealed = Vec::with_capacity(bytes.len() + 64);
        let parts = bytes.chunks(PART_BYTES_MAX);
        let count = parts.len();
        for (index, part) in parts.enumerate() {
            let mut plain = vec![u8::from(index + 1 < count)];
            plain.extend_from_slice(part);
            let mut cipher = vec![0; plain.len() + 16];
            let length = noise.write_message(&plain, &mut cipher).map_err(|_| SessionError::Forged)?;
            let prefix = u16::try_from(length).map_err(|_| SessionError::Malformed { bytes: length })?;
            sealed.extend(prefix.to_le_bytes());
            sealed.extend_from_slice(&cipher[..length]);
        }
        Ok(sealed)
    }

    /// Receives one message. One task receives at a time.
    ///
    /// # Errors
    /// When the connection has ended, or what came is none of ours.
    pub async fn receive<T: DeserializeOwned>(&self) -> Result<T, SessionError> {
        let mut bytes = Vec::new();
        loop {
            let prefix = read_exact(&self.stream, 2).await?;
            let length = usize::from(u16::from_le_bytes([prefix[0], prefix[1]]));
            let cipher = read_exact(&self.stream, length).await?;
            let mut plain = vec![0; length];
            let opened = self.noise.borrow_mut().read_message(&cipher, &mut plain).map_err(|_| SessionError::Forged)?;
            let Some((more, part)) = plain.get(..opened).and_then(<[u8]>::split_first) else {
                return Err(SessionError::Malformed { bytes: opened });
            };
            bytes.extend_from_slice(part);
            if bytes.len() > PEER_MESSAGE_BYTES_MAX {
                return Err(SessionError::Malformed { bytes: bytes.len() });
            }
            if *more == 0 {
                return postcard::from_bytes(&bytes).map_err(|_| SessionError::Malformed { bytes: bytes.len() });
            }
        }
    }

    /// Ends the connection; whoever waits on it is told.
    pub fn shutdown(&self) {
        // A connection that is already down needs no shutdown: the result says nothing new.
        drop(self.stream.shutdown(Shutdown::Both));
    }

    /// The bare socket for a husk: blocking, without delay. The session must be idle.
    ///
    /// # Errors
    /// The system's error.
    pub fn into_socket(self) -> Result<OwnedFd, SessionError> {
        let call = |call| move |source| SessionError::Call { call, source };
        let socket = sys::duplicate(&self.stream).map_err(|errno: Errno| call("duplicate a socket")(errno.into()))?;
        let socket = std::net::TcpStream::from(socket);
        socket.set_nodelay(true).map_err(call("set TCP_NODELAY"))?;
        socket.set_nonblocking(false).map_err(call("set a socket blocking"))?;
        Ok(OwnedFd::from(socket))
    }
}

fn check_preamble(preamble: &[u8], ours: u32) -> Result<(), SessionError> {
    let (magic, rest) = preamble.split_at(MAGIC.len());
    let [v0, v1, f0, f1, f2, f3] = rest.try_into().map_err(|_| SessionError::Garbage)?;
    if magic != MAGIC {
        return Err(SessionError::Garbage);
    }
    match (u16::from_le_bytes([v0, v1]), u32::from_le_bytes([f0, f1, f2, f3])) {
        (theirs, _) if theirs != VERSION => Err(SessionError::Version { theirs }),
        (_, theirs) if theirs != ours => Err(SessionError::Cluster { theirs, ours }),
        _ => Ok(()),
    }
}

async fn write(stream: &TcpStream, bytes: Vec<u8>) -> Result<(), SessionError> {
    stream.write_all(bytes).await.0.map_err(|source| SessionError::Call { call: "send", source })
}

async fn read_exact(stream: &TcpStream, bytes: usize) -> Result<Vec<u8>, SessionError> {
    let mut buffer = vec![0; bytes];
    let mut have = 0;
    while have < bytes {
        let (result, slice) = stream.read(buffer.slice(have..bytes)).await;
        buffer = slice.into_inner();
        match result {
            Ok(0) => return Err(SessionError::Closed),
            Ok(count) => have += count,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return Err(SessionError::Closed),
            Err(source) => return Err(SessionError::Call { call: "receive", source }),
        }
    }
    Ok(buffer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dvm_api::peer::ToPeer;

    const KEY: [u8; 32] = [7; 32];
    const SECRET: Secret<'static> = Secret { key: &KEY, fingerprint: 5 };

    fn pair() -> (TcpStream, TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let one = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (TcpStream::from_std(one), TcpStream::from_std(listener.accept().unwrap().0))
    }

    async fn both(opener: Secret<'_>, listener: Secret<'_>) -> (Result<Session, SessionError>, Result<Session, SessionError>) {
        let (one, two) = pair();
        tokio::join!(Session::open(one, opener), Session::accept(two, listener))
    }

    #[test]
    fn messages_of_any_length_arrive_whole() {
        tokio_uring::start(async {
            let (one, two) = both(SECRET, SECRET).await;
            let (one, two) = (one.unwrap(), two.unwrap());
            for bytes in [0, 1, PART_BYTES_MAX - 10, PART_BYTES_MAX, 3 * PART_BYTES_MAX + 1] {
                let message = ToPeer::CloseSpace { space: 3, reason: "x".repeat(bytes) };
                let (sent, received) = tokio::join!(one.send(&message), two.receive::<ToPeer>());
                sent.unwrap();
                assert_eq!(received.unwrap(), message);
            }
            two.send(&ToPeer::Heartbeat).await.unwrap();
            assert_eq!(one.receive::<ToPeer>().await.unwrap(), ToPeer::Heartbeat);
            one.shutdown();
            assert!(matches!(two.receive::<ToPeer>().await, Err(SessionError::Closed)));
        });
    }

    #[test]
    fn another_key_or_cluster_is_refused_on_both_sides() {
        tokio_uring::start(async {
            let (one, two) = both(Secret { key: &[8; 32], ..SECRET }, SECRET).await;
            assert!(matches!(two, Err(SessionError::Key)));
            assert!(matches!(one, Err(SessionError::Rejected)));
            let (one, two) = both(Secret { fingerprint: 6, ..SECRET }, SECRET).await;
            assert!(matches!(two, Err(SessionError::Cluster { theirs: 6, ours: 5 })));
            assert!(one.is_err());
        });
    }

    #[test]
    fn what_is_damaged_on_its_way_is_refused() {
        tokio_uring::start(async {
            let (one, two) = both(SECRET, SECRET).await;
            let (one, two) = (one.unwrap(), two.unwrap());
            let mut sealed = one.seal(b"hello").unwrap();
            sealed[5] ^= 1;
            write(&one.stream, sealed).await.unwrap();
            assert!(matches!(two.receive::<ToPeer>().await, Err(SessionError::Forged)));
        });
    }

    #[test]
    fn the_bare_socket_starts_where_the_session_ended() {
        use std::io::{Read, Write};
        tokio_uring::start(async {
            let (one, two) = both(SECRET, SECRET).await;
            let (one, two) = (one.unwrap(), two.unwrap());
            one.send(&ToPeer::Heartbeat).await.unwrap();
            let mut early = std::net::TcpStream::from(one.into_socket().unwrap());
            early.write_all(b"husk").unwrap();
            two.receive::<ToPeer>().await.unwrap();
            let mut late = std::net::TcpStream::from(two.into_socket().unwrap());
            let mut bytes = [0; 4];
            late.read_exact(&mut bytes).unwrap();
            assert_eq!(&bytes, b"husk");
        });
    }
}

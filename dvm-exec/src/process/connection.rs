//! A husk-to-husk connection: authenticated messages over a socket that the agents opened.
//!
//! Owns framing on the socket. Must not know what messages mean.

use super::wire::{self, LENGTH_BYTES, Message, Opener, Sealer, Side, WireError};
use crate::sys::{asm, call};
use std::io::Error;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use thiserror::Error;

const NONCE_BYTES: usize = 8;
const READ_BYTES: usize = 16 * 1024;
/// `F_SETOWN_EX` and `F_OWNER_TID`, for which libc has no names here.
const SET_OWNER: u64 = 15;
const OWNER_THREAD: i32 = 0;
/// linux 6.15; libc has no name for it yet.
const TCP_RTO_MIN_US: i32 = 45;
/// Shortest time until what was lost is sent again: usually 200 ms, which a thread would wait in its system call. At least two
/// ticks of the slowest kernel, and longer than a busy peer takes to acknowledge: that becomes faster by the same option.
const RESEND_US_MIN: u32 = 20_000;

/// Why no message came or went.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// The other husk is gone.
    #[error("the connection was closed by the other husk")]
    Closed,
    /// A signal came first; ask again.
    #[error("interrupted by a signal")]
    Interrupted,
    /// The kernel refused.
    #[error("connection failed")]
    Io(#[from] Error),
    /// Not from our job, or not of our release.
    #[error("refused")]
    Wire(#[from] WireError),
}

/// The sending half.
#[derive(Debug)]
pub struct Sender {
    socket: Arc<OwnedFd>,
    sealer: Sealer,
    bytes: Vec<u8>,
    /// What the other side had no room for when it was tried.
    rest: Vec<u8>,
}

/// The receiving half.
#[derive(Debug)]
pub struct Receiver {
    socket: Arc<OwnedFd>,
    opener: Opener,
    bytes: Vec<u8>,
    /// What of `bytes` was received and not used yet.
    ready: Range<usize>,
}

/// Both halves.
#[derive(Debug)]
pub struct Connection {
    /// The sending half.
    pub sender: Sender,
    /// The receiving half.
    pub receiver: Receiver,
}

impl Connection {
    /// Exchanges nonces on a fresh socket and is ready for messages.
    ///
    /// # Errors
    /// When the other side is gone.
    pub fn start(socket: OwnedFd, job_key: &[u8; 16], side: Side) -> Result<Self, ConnectionError> {
        let socket = super::descriptors::hide(socket)?;
        hurry(&socket);
        let mut own = [0_u8; NONCE_BYTES];
        call::checked(libc::SYS_getrandom, &[own.as_mut_ptr() as u64, NONCE_BYTES as u64, 0, 0, 0, 0])?;
        send_all(&socket, &own)?;
        let mut other = [0_u8; NONCE_BYTES];
        let mut filled = 0;
        while filled < NONCE_BYTES {
            filled += receive_some(&socket, &mut other[filled..], None)?;
        }
        let (own, other) = (u64::from_le_bytes(own), u64::from_le_bytes(other));
        let (root_nonce, member_nonce) = if side == Side::Root { (own, other) } else { (other, own) };
        let (sealer, opener) = wire::session(job_key, side, root_nonce, member_nonce);
        let socket = Arc::new(socket);
        Ok(Self {
            sender: Sender { socket: Arc::clone(&socket), sealer, bytes: Vec::new(), rest: Vec::new() },
            receiver: Receiver { socket, opener, bytes: Vec::new(), ready: 0..0 },
        })
    }

    /// What ends it from elsewhere.
    #[must_use]
    pub fn cutter(&self) -> Cutter {
        Cutter(Arc::clone(&self.sender.socket))
    }

    /// Sends `message` and waits for the answer.
    ///
    /// # Errors
    /// [`ConnectionError`], but never `Interrupted`.
    pub fn ask(&mut self, message: &Message) -> Result<Message, ConnectionError> {
        self.sender.send(message)?;
        self.receiver.receive(None)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        super::descriptors::reveal(&*self.socket);
    }
}

impl Sender {
    /// Sends one message.
    ///
    /// # Errors
    /// [`ConnectionError`], but never `Interrupted`.
    pub fn send(&mut self, message: &Message) -> Result<(), ConnectionError> {
        self.bytes.clear();
        self.sealer.seal(message, &mut self.bytes)?;
        send_all(&self.socket, &self.bytes)
    }

    /// Sends one message as far as the other side has room for it, and never waits: whether all is sent. What is not goes with
    /// [`Sender::finish`], before anything else may be sent otherwise.
    ///
    /// # Errors
    /// As for [`Sender::send`].
    pub fn try_send(&mut self, message: &Message) -> Result<bool, ConnectionError> {
        let is_waiting = !self.rest.is_empty();
        self.sealer.seal(message, &mut self.rest)?;
        if is_waiting {
            return Ok(false);
        }
        let sent = send_some(&self.socket, &self.rest)?;
        self.rest.drain(..sent);
        Ok(self.rest.is_empty())
    }

    /// Sends what [`Sender::try_send`] has left.
    ///
    /// # Errors
    /// As for [`Sender::send`].
    pub fn finish(&mut self) -> Result<(), ConnectionError> {
        let rest = std::mem::take(&mut self.rest);
        send_all(&self.socket, &rest)
    }

    /// As [`Sender::send`], but calls `before_wait` if the other side has not room for all of it.
    ///
    /// # Errors
    /// As there.
    pub fn send_or(&mut self, message: &Message, before_wait: &dyn Fn()) -> Result<(), ConnectionError> {
        self.bytes.clear();
        self.sealer.seal(message, &mut self.bytes)?;
        let sent = send_some(&self.socket, &self.bytes)?;
        if sent == self.bytes.len() {
            return Ok(());
        }
        before_wait();
        send_all(&self.socket, &self.bytes[sent..])
    }
}

/// Ends a connection from any thread, whatever its halves wait for.
#[derive(Clone, Debug)]
pub struct Cutter(Arc<OwnedFd>);

impl Cutter {
    /// Both halves see the end.
    pub fn cut(&self) {
        // A connection that is gone already needs no cutting.
        let descriptor = self.0.as_raw_fd() as u64;
        drop(call::checked(libc::SYS_shutdown, &[descriptor, libc::SHUT_RDWR as u64, 0, 0, 0, 0]));
    }
}

impl Receiver {
    /// Waits for the next message; with a `flag`, only until it is raised.
    ///
    /// # Errors
    /// [`ConnectionError`]; `Interrupted` only with a flag, and nothing is lost by it.
    pub fn receive(&mut self, flag: Option<&AtomicU32>) -> Result<Message, ConnectionError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            self.ready.end += receive_some(&self.socket, &mut self.bytes[self.ready.end..], flag)?;
        }
    }

    /// The next message if it is here.
    ///
    /// # Errors
    /// [`ConnectionError`], but never `Interrupted`.
    pub fn try_receive(&mut self) -> Result<Option<Message>, ConnectionError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            match receive_now(&self.socket, &mut self.bytes[self.ready.end..])? {
                Some(count) => self.ready.end += count,
                None => return Ok(None),
            }
        }
    }

    /// Has the kernel signal (SIGIO) arrivals to this thread, or to nobody.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn signal_arrivals(&self, is_wanted: bool) -> Result<(), Error> {
        let descriptor = self.socket.as_raw_fd() as u64;
        if is_wanted {
            let owner = [OWNER_THREAD, call::checked(libc::SYS_gettid, &[0; 6])? as i32];
            call::checked(libc::SYS_fcntl, &[descriptor, SET_OWNER, owner.as_ptr() as u64, 0, 0, 0])?;
        }
        let flags = if is_wanted { libc::O_ASYNC as u64 } else { 0 };
        call::checked(libc::SYS_fcntl, &[descriptor, libc::F_SETFL as u64, flags, 0, 0, 0]).map(drop)
    }

    /// The next message of what has been received; if it is not whole, there is room for the rest of it.
    fn take(&mut self) -> Result<Option<Message>, ConnectionError> {
        let ready = &self.bytes[self.ready.clone()];
        let mut wanted = READ_BYTES;
        if let Some(length) = ready.first_chunk() {
            let bytes = wire::frame_bytes(*length)?;
            if let Some(frame) = ready.get(LENGTH_BYTES..LENGTH_BYTES + bytes) {
                let message = self.opener.open(frame)?;
                self.ready.start += LENGTH_BYTES + bytes;
                return Ok(Some(message));
            }
            wanted = wanted.max(LENGTH_BYTES + bytes);
        }
        self.bytes.copy_within(self.ready.clone(), 0);
        self.ready = 0..self.ready.len();
        if self.bytes.len() < wanted {
            self.bytes.resize(wanted, 0);
        }
        Ok(None)
    }
}

/// Has single messages sent at once, and soon again if they are lost.
fn hurry(socket: &OwnedFd) {
    for (option, value) in [(libc::TCP_NODELAY, 1_u32), (TCP_RTO_MIN_US, RESEND_US_MIN)] {
        let socket = socket.as_raw_fd() as u64;
        let arguments = [socket, libc::IPPROTO_TCP as u64, option as u64, &raw const value as u64, 4, 0];
        // Not a TCP socket in tests, or a kernel without the option: nothing to set.
        call::raw(libc::SYS_setsockopt, &arguments);
    }
}

fn send_all(socket: &OwnedFd, bytes: &[u8]) -> Result<(), ConnectionError> {
    let mut sent = 0;
    while sent < bytes.len() {
        let rest = &bytes[sent..];
        let arguments = [socket.as_raw_fd() as u64, rest.as_ptr() as u64, rest.len() as u64, libc::MSG_NOSIGNAL as u64, 0, 0];
        match call::checked(libc::SYS_sendto, &arguments) {
            Ok(count) => sent += count as usize,
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::EPIPE | libc::ECONNRESET) => return Err(ConnectionError::Closed),
                _ => return Err(error.into()),
            },
        }
    }
    Ok(())
}

/// Sends what the other side has room for.
fn send_some(socket: &OwnedFd, bytes: &[u8]) -> Result<usize, ConnectionError> {
    let flags = (libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) as u64;
    match call::checked(libc::SYS_sendto, &[socket.as_raw_fd() as u64, bytes.as_ptr() as u64, bytes.len() as u64, flags, 0, 0]) {
        Ok(count) => Ok(count as usize),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN) => Ok(0),
            Some(libc::EPIPE | libc::ECONNRESET) => Err(ConnectionError::Closed),
            _ => Err(error.into()),
        },
    }
}

/// Receives what is here; none if there is nothing.
fn receive_now(socket: &OwnedFd, into: &mut [u8]) -> Result<Option<usize>, ConnectionError> {
    let flags = libc::MSG_DONTWAIT as u64;
    match call::checked(
        libc::SYS_recvfrom,
        &[socket.as_raw_fd() as u64, into.as_mut_ptr() as u64, into.len() as u64, flags, 0, 0],
    ) {
        Ok(0) => Err(ConnectionError::Closed),
        Ok(count) => Ok(Some(count as usize)),
        Err(error) => match error.raw_os_error() {
            Some(libc::EINTR | libc::EAGAIN) => Ok(None),
            Some(libc::ECONNRESET | libc::ETIMEDOUT) => Err(ConnectionError::Closed),
            _ => Err(error.into()),
        },
    }
}

fn receive_some(socket: &OwnedFd, into: &mut [u8], flag: Option<&AtomicU32>) -> Result<usize, ConnectionError> {
    let arguments = [socket.as_raw_fd() as u64, into.as_mut_ptr() as u64, into.len() as u64, 0, 0, 0];
    loop {
        let result = match flag {
            Some(flag) => call::raw_unless(flag, libc::SYS_recvfrom, &arguments),
            None => call::raw(libc::SYS_recvfrom, &arguments),
        };
        match result {
            0 => return Err(ConnectionError::Closed),
            count if count > 0 => return Ok(count as usize),
            asm::NOT_BEGUN | asm::INTERRUPTED => return Err(ConnectionError::Interrupted),
            error => match (-error) as i32 {
                libc::EINTR => {}
                libc::ECONNRESET | libc::ETIMEDOUT => return Err(ConnectionError::Closed),
                error => return Err(Error::from_raw_os_error(error).into()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    const KEY: [u8; 16] = [7; 16];

    /// Both ends of a connection in this process.
    fn pair() -> (Connection, Connection) {
        let (root, member) = UnixStream::pair().expect("a pair of sockets");
        let other = std::thread::spawn(move || Connection::start(member.into(), &KEY, Side::Member).expect("a connection"));
        (Connection::start(root.into(), &KEY, Side::Root).expect("a connection"), other.join().expect("no panic"))
    }

    #[test]
    fn what_has_no_room_waits_for_its_turn() {
        let (mut root, mut member) = pair();
        let message = |number: u8| Message::Runners { bytes: vec![number; 40_000], is_last: true };
        assert!(root.sender.try_send(&message(0)).expect("there is room"));
        let full = (1..=200).find(|number| !root.sender.try_send(&message(*number)).expect("it is open"));
        let last = full.expect("the socket has an end");
        let listener = std::thread::spawn(move || (0..=last).map(|_| member.receiver.receive(None)).collect::<Vec<_>>());
        root.sender.finish().expect("the other side takes it");
        for (number, received) in (0..).zip(listener.join().expect("no panic")) {
            assert_eq!(received.expect("it came"), message(number));
        }
    }
}

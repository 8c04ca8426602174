//! The peer's part in a probe: asked, it sends a probe; when the echo comes, it says so.
//!
//! Owns one socket and one thread. Must not know who probes or why: an answer never depends on an earlier datagram, and is
//! never longer than the question.

use dsm_fast::{PROBE_BYTES, PROBE_FILL, PROBE_GROWN_BYTES, Probe, ProbeKind, ProbeProgram};
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use zerocopy::IntoBytes;

/// Longest wait for a datagram before the thread looks whether it is to end.
const PATIENCE: Duration = Duration::from_millis(100);
/// Longer than any probe, so that a datagram that is too long is seen to be.
const DATAGRAM_BYTES_MAX: usize = PROBE_GROWN_BYTES + 1;

/// A socket that will answer probes.
#[derive(Debug)]
pub struct Responder {
    socket: UdpSocket,
}

/// A responder at work, until dropped.
#[derive(Debug)]
pub struct Responding {
    address: SocketAddr,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Responder {
    /// Binds the socket, usually to `PROBE_PORT` of the agent's address.
    ///
    /// # Errors
    /// The address is taken or not this host's.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket })
    }

    /// Starts answering.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn run_in_thread(self) -> io::Result<Responding> {
        let address = self.socket.local_addr()?;
        let ends = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ends);
        let thread = thread::Builder::new().name("probe-responder".into()).spawn(move || self.run(&told))?;
        Ok(Responding { address, ends, thread: Some(thread) })
    }

    fn run(&self, ends: &AtomicBool) {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        // Relaxed: nothing else is read on the strength of it.
        while !ends.load(Ordering::Relaxed) {
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    if let Some(reply) = reply(buffer.get(..length).unwrap_or_default()) {
                        // One that cannot be sent is one that is lost: the prober asks again.
                        drop(self.socket.send_to(reply.as_bytes(), from));
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                // Such as an answer of ours refused by a port that is gone. A moment, lest an error that stays spins.
                Err(_) => thread::sleep(PATIENCE / 10),
            }
        }
    }
}

impl Responding {
    /// Where it answers.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Responding {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// What a responder sends back for a datagram, to where it came from.
#[must_use]
pub fn reply(datagram: &[u8]) -> Option<Probe> {
    let (probe, kind, program) = Probe::read(datagram)?;
    let answer = |kind| Some(Probe::new(kind, program, probe.nonce.get()));
    match kind {
        ProbeKind::Ask if datagram.len() == PROBE_BYTES => answer(ProbeKind::Probe),
        ProbeKind::Echo if is_whole(datagram, program) => answer(ProbeKind::Back),
        ProbeKind::Ask | ProbeKind::Echo | ProbeKind::Probe | ProbeKind::Back => None,
    }
}

/// Whether the program did with the datagram all that it is to show.
fn is_whole(echo: &[u8], program: ProbeProgram) -> bool {
    match program {
        ProbeProgram::Xdp => echo.len() == PROBE_BYTES,
        ProbeProgram::Tc => echo.len() == PROBE_GROWN_BYTES && echo.iter().skip(PROBE_BYTES).all(|byte| *byte == PROBE_FILL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(kind: ProbeKind, program: ProbeProgram) -> Vec<u8> {
        Probe::new(kind, program, 7).as_bytes().to_vec()
    }

    #[test]
    fn only_whole_echos_come_back() {
        let (xdp, tc) = (ProbeProgram::Xdp, ProbeProgram::Tc);
        assert_eq!(reply(&bytes(ProbeKind::Ask, tc)), Some(Probe::new(ProbeKind::Probe, tc, 7)));
        assert_eq!(reply(&bytes(ProbeKind::Echo, xdp)), Some(Probe::new(ProbeKind::Back, xdp, 7)));
        let mut grown = bytes(ProbeKind::Echo, tc);
        assert_eq!(reply(&grown), None, "not grown");
        grown.resize(PROBE_GROWN_BYTES, PROBE_FILL);
        assert_eq!(reply(&grown), Some(Probe::new(ProbeKind::Back, tc, 7)));
        grown[PROBE_GROWN_BYTES - 1] = 0;
        assert_eq!(reply(&grown), None, "grown, but not written");
        grown.push(PROBE_FILL);
        assert_eq!(reply(&grown), None, "too long");
        for silent in [bytes(ProbeKind::Probe, xdp), bytes(ProbeKind::Back, xdp), b"something else".to_vec(), Vec::new()] {
            assert_eq!(reply(&silent), None);
        }
    }

    #[test]
    fn a_responder_answers_and_ends() {
        let responding = Responder::bind(([127, 0, 0, 1], 0).into()).unwrap().run_in_thread().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        for (sent, expected) in [(ProbeKind::Ask, ProbeKind::Probe), (ProbeKind::Echo, ProbeKind::Back)] {
            socket.send_to(&bytes(sent, ProbeProgram::Xdp), responding.address()).unwrap();
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            assert_eq!(from, responding.address());
            assert_eq!(&buffer[..length], bytes(expected, ProbeProgram::Xdp));
        }
    }
}

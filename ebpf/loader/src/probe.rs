//! The prober: whether a program answers on this host's own ingress.
//!
//! Owns the three tries and the reason of a failure. Must not attach or detach anything.

use crate::array::MappedArray;
use crate::error::Error;
use crate::load::FastPath;
use dsm_fast::{PROBE_BYTES, PROBE_ELEMENTS, PROBE_NONCE, PROBE_TO_PORT, Probe, ProbeKind, ProbeProgram};
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use zerocopy::IntoBytes;

const TRIES: usize = 3;
const PATIENCE: Duration = Duration::from_millis(100);
/// Strange datagrams that are read in one try.
const STRANGERS_MAX: usize = 64;
const PROBE_MAP: &str = "PROBE";
const ANSWERS_MAP: &str = "PROBE_ANSWERS";

/// A probe under way: the programs answer it until this is dropped.
struct Wanted<'a> {
    map: &'a MappedArray,
}

/// What one try ended with.
enum Outcome {
    Back,
    Silence,
    /// The probe itself came up to us.
    Passed,
}

impl FastPath {
    /// Proves that `program` sees frames that come to `address` and can send them back; gives the time that took.
    ///
    /// Blocks for 300 ms at most. The tries go to `peers` in turn, each the address of a [`crate::Responder`]. One probe at a
    /// time: a second one would take the first one's place in the programs.
    ///
    /// # Errors
    /// Why it is not proven, for the operator to read.
    pub fn probe(&self, address: IpAddr, peers: &[SocketAddr], program: ProbeProgram) -> Result<Duration, String> {
        if !address.is_ipv4() {
            return Err(format!("the programs answer on IPv4 only, and {address} is not"));
        }
        let Some(first) = peers.first() else { return Err("no peer to probe with".into()) };
        let map = self.map_array(PROBE_MAP, size_of::<u64>(), PROBE_ELEMENTS).map_err(|error| error.told())?;
        let answers_before = self.answers(program)?;
        let socket = UdpSocket::bind((address, 0)).map_err(|error| format!("no socket at {address}: {error}"))?;
        let port = socket.local_addr().map_err(|error| error.to_string())?.port();
        let nonce = nonce().map_err(|error| format!("cannot read /dev/urandom: {error}"))?;
        let _wanted = Wanted::put(&map, nonce, port);
        let mut passed = 0;
        for peer in peers.iter().cycle().take(TRIES) {
            let started = Instant::now();
            match attempt(&socket, *peer, &Probe::new(ProbeKind::Ask, program, nonce)) {
                Ok(Outcome::Back) => return Ok(started.elapsed()),
                Ok(Outcome::Passed) => passed += 1,
                Ok(Outcome::Silence) => {}
                Err(error) => return Err(format!("cannot ask {peer} for a probe: {error}")),
            }
        }
        let answered = self.answers(program)? - answers_before;
        let more = if peers.len() > 1 { " and others" } else { "" };
        let all = format!("no answer to {TRIES} probes in {} ms", PATIENCE.as_millis() * TRIES as u128);
        Err(match (answered, passed) {
            (0, 0) => format!("{all}: none came from {first}{more}"),
            (0, _) => format!("{all}: {passed} came, and the program let them pass"),
            _ => format!("{all}: the program sent {answered} back, and none reached {first}{more}"),
        })
    }

    fn answers(&self, program: ProbeProgram) -> Result<u64, String> {
        self.count(ANSWERS_MAP, program as u32).map_err(|error: Error| error.told())
    }
}

impl<'a> Wanted<'a> {
    fn put(map: &'a MappedArray, nonce: u64, port: u16) -> Self {
        let wanted = Self { map };
        wanted.store(PROBE_TO_PORT, u64::from(port));
        wanted.store(PROBE_NONCE, nonce);
        wanted
    }

    fn store(&self, element: u32, value: u64) {
        // Release: a program that sees the nonce sees the port.
        self.map.word(element, 0).expect("the map was mapped with this many elements").store(value, Ordering::Release);
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        self.store(PROBE_NONCE, 0);
    }
}

/// Asks once, and waits for what comes of it.
fn attempt(socket: &UdpSocket, peer: SocketAddr, ask: &Probe) -> io::Result<Outcome> {
    let deadline = Instant::now() + PATIENCE;
    match socket.send_to(ask.as_bytes(), peer) {
        // Nobody listens there, as an earlier datagram showed.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
        other => drop(other?),
    }
    let mut buffer = [0; PROBE_BYTES];
    let mut outcome = Outcome::Silence;
    for _ in 0..STRANGERS_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left))?;
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        let Some((probe, kind, _)) = Probe::read(buffer.get(..length).unwrap_or_default()) else { continue };
        if from != peer || probe.nonce != ask.nonce || probe.program != ask.program {
            continue;
        }
        match kind {
            ProbeKind::Back => return Ok(Outcome::Back),
            ProbeKind::Probe => outcome = Outcome::Passed,
            ProbeKind::Ask | ProbeKind::Echo => {}
        }
    }
    Ok(outcome)
}

/// Random and not 0, so that nobody else can answer.
fn nonce() -> io::Result<u64> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes) | 1)
}

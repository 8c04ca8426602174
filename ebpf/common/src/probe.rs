//! The probe: a datagram that proves that a program on an interface answers, and where its parts lie in a frame.
//!
//! Owns the layout of the datagram and what a program does to its frame. Must not know sockets, maps or clocks. The kernel
//! programs compile this file too.
//!
//! ```text
//!  0 magic(8)   8 kind(1)   9 program(1)   10 zero(6)   16 nonce(8)   24 zero(8)
//!
//!   prober, at port P                                  responder of a peer, at PROBE_PORT
//!     Ask{nonce, program}  ---------------------------->
//!     program on ingress   <----------------------------  Probe{nonce, program} to P
//!       turns it round     ---------------------------->  Echo{nonce, program}
//!     rung holds           <----------------------------  Back{nonce, program} to P
//! ```
//!
//! Only a peer can send a frame into our ingress, hence the four steps. Nobody but a program makes an Echo.

use crate::envelope::{ENVELOPE_BYTES, Envelope};
use zerocopy::byteorder::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// UDP port of responders, unless a cluster says otherwise.
pub const PROBE_PORT: u16 = 7461;
/// First bytes of every probe datagram.
pub const PROBE_MAGIC: [u8; 8] = *b"dvmprobe";
/// Bytes of a [`Probe`].
pub const PROBE_BYTES: usize = 32;
/// Bytes of an Echo of the TC program, which grows it: more than a header, less than any MTU.
pub const PROBE_GROWN_BYTES: usize = 1088;
/// Elements of the map `PROBE`, each a u64: the nonce being probed (0: none, every probe passes up) and the UDP port that
/// probes come to.
pub const PROBE_NONCE: u32 = 0;
/// See [`PROBE_NONCE`].
pub const PROBE_TO_PORT: u32 = 1;
/// How many elements `PROBE` has.
pub const PROBE_ELEMENTS: u32 = 2;
/// Elements of the map `PROBE_ANSWERS`, which counts Echos per processor under the number of the [`ProbeProgram`].
pub const PROBE_ANSWERS_ELEMENTS: u32 = 3;
/// Byte that the TC program puts into what it grew.
pub const PROBE_FILL: u8 = 0xd5;

/// What a probe datagram is. The number is the wire value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ProbeKind {
    /// Prober to responder: send me a Probe.
    Ask = 1,
    /// Responder to the prober's program.
    Probe = 2,
    /// The prober's program to the responder: the Probe, turned round.
    Echo = 3,
    /// Responder to prober: the Echo came.
    Back = 4,
}

/// Which program is to answer. The number is the wire value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ProbeProgram {
    /// The XDP program.
    Xdp = 1,
    /// The TC program.
    Tc = 2,
}

/// A probe datagram as it lies on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Probe {
    /// [`PROBE_MAGIC`].
    pub magic: [u8; 8],
    /// A [`ProbeKind`].
    pub kind: u8,
    /// A [`ProbeProgram`].
    pub program: u8,
    zero: [u8; 6],
    /// Which probe this belongs to; never 0.
    pub nonce: U64,
    more: [u8; 8],
}

const _: () = assert!(size_of::<Probe>() == PROBE_BYTES);
const _: () = assert!(PROBE_GROWN_BYTES > PROBE_BYTES);

impl Probe {
    /// A datagram of this kind.
    #[must_use]
    pub fn new(kind: ProbeKind, program: ProbeProgram, nonce: u64) -> Self {
        Self { magic: PROBE_MAGIC, kind: kind as u8, program: program as u8, nonce: U64::new(nonce), ..Self::default() }
    }

    /// Reads the datagram at the front of `bytes`, if it is one.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<(Self, ProbeKind, ProbeProgram)> {
        let (probe, _) = Self::read_from_prefix(bytes).ok()?;
        let kind = match probe.kind {
            1 => ProbeKind::Ask,
            2 => ProbeKind::Probe,
            3 => ProbeKind::Echo,
            4 => ProbeKind::Back,
            _ => return None,
        };
        let program = match probe.program {
            1 => ProbeProgram::Xdp,
            2 => ProbeProgram::Tc,
            _ => return None,
        };
        (probe.magic == PROBE_MAGIC && probe.nonce.get() != 0).then_some((probe, kind, program))
    }

    /// Whether `program` is to answer this, given that `nonce` is being probed (0: none is).
    #[must_use]
    pub fn is_for(&self, program: ProbeProgram, nonce: u64) -> bool {
        nonce != 0
            && self.magic == PROBE_MAGIC
            && self.kind == ProbeKind::Probe as u8
            && self.program == program as u8
            && self.nonce.get() == nonce
    }
}

/// A probe in its envelope: what a program sees of a probe's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ProbeFrame {
    envelope: Envelope,
    probe: Probe,
}

/// Bytes of a [`ProbeFrame`].
pub const PROBE_FRAME_BYTES: usize = ENVELOPE_BYTES + PROBE_BYTES;

const _: () = assert!(size_of::<ProbeFrame>() == PROBE_FRAME_BYTES);

impl ProbeFrame {
    /// Whether `program` is to answer this frame, given that `nonce` is being probed (0: none is) at UDP port `port`.
    #[must_use]
    pub fn is_for(&self, program: ProbeProgram, nonce: u64, port: u16) -> bool {
        self.envelope.is_udp_of(PROBE_FRAME_BYTES)
            && self.envelope.port() == port
            && self.envelope.payload_bytes() == PROBE_BYTES
            && self.probe.is_for(program, nonce)
    }

    /// Makes this Probe the Echo to its sender, a datagram of `bytes` bytes.
    pub fn turn_round(&mut self, bytes: usize) {
        let (here, peer) = (self.envelope.receiver(), self.envelope.sender());
        self.envelope.turn_round();
        self.envelope.readdress(here, peer, bytes);
        self.probe.kind = ProbeKind::Echo as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_probe() {
        let probe = Probe::new(ProbeKind::Probe, ProbeProgram::Tc, 0x0102_0304_0506_0708);
        let mut expected = [0; PROBE_BYTES];
        expected[..8].copy_from_slice(b"dvmprobe");
        expected[8] = 2;
        expected[9] = 2;
        expected[16..24].copy_from_slice(&[8, 7, 6, 5, 4, 3, 2, 1]);
        assert_eq!(probe.as_bytes(), expected);
        assert_eq!(Probe::read(&expected), Some((probe, ProbeKind::Probe, ProbeProgram::Tc)));
        for (at, value) in [(0, 0), (8, 0), (8, 5), (9, 0), (9, 3)] {
            let mut bad = expected;
            bad[at] = value;
            assert_eq!(Probe::read(&bad), None, "byte {at} is {value}");
        }
        assert_eq!(Probe::read(&expected[..31]), None);
        assert_eq!(Probe::read(Probe::new(ProbeKind::Ask, ProbeProgram::Xdp, 0).as_bytes()), None);
    }

    #[test]
    fn a_program_answers_its_own_probe_only() {
        let probe = Probe::new(ProbeKind::Probe, ProbeProgram::Tc, 7);
        assert!(probe.is_for(ProbeProgram::Tc, 7));
        for (program, nonce) in [(ProbeProgram::Xdp, 7), (ProbeProgram::Tc, 8), (ProbeProgram::Tc, 0)] {
            assert!(!probe.is_for(program, nonce));
        }
        assert!(!Probe::new(ProbeKind::Echo, ProbeProgram::Tc, 7).is_for(ProbeProgram::Tc, 7));
        assert!(!Probe::new(ProbeKind::Probe, ProbeProgram::Tc, 0).is_for(ProbeProgram::Tc, 0));
    }

    /// A probe from 10.77.0.2 port 7461 to 10.77.0.1 port 40000.
    fn frame(program: ProbeProgram, nonce: u64) -> ProbeFrame {
        let mut bytes = [0; PROBE_FRAME_BYTES];
        let (envelope, probe) = bytes.split_at_mut(ENVELOPE_BYTES);
        envelope.copy_from_slice(&[
            2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, // Ethernet
            0x45, 0, 0, 60, 0x12, 0x34, 0x40, 0, 64, 17, 0x13, 0xe3, 10, 77, 0, 2, 10, 77, 0, 1, // IPv4
            0x1d, 0x25, 0x9c, 0x40, 0, 40, 0xab, 0xcd, // UDP
        ]);
        probe.copy_from_slice(Probe::new(ProbeKind::Probe, program, nonce).as_bytes());
        ProbeFrame::read_from_bytes(&bytes).unwrap()
    }

    #[test]
    fn only_the_probed_frame_is_answered() {
        let good = frame(ProbeProgram::Xdp, 7);
        assert!(good.is_for(ProbeProgram::Xdp, 7, 40000));
        assert!(!good.is_for(ProbeProgram::Xdp, 7, 40001));
        assert!(!good.is_for(ProbeProgram::Xdp, 0, 40000));
        // Not IPv4, options, another length, a fragment, TCP, another length again, an Echo.
        for (at, value) in [(12, 0x86), (14, 0x46), (17, 61), (20, 0x20), (23, 6), (39, 41), (50, 3)] {
            let mut bad = good;
            bad.as_mut_bytes()[at] = value;
            assert!(!bad.is_for(ProbeProgram::Xdp, 7, 40000), "byte {at} is {value}");
        }
    }

    #[test]
    fn a_frame_turns_round() {
        for bytes in [PROBE_BYTES, PROBE_GROWN_BYTES] {
            let before = frame(ProbeProgram::Tc, 7);
            let mut after = before;
            after.turn_round(bytes);
            assert_eq!(
                (after.envelope.sender(), after.envelope.receiver()),
                (before.envelope.receiver(), before.envelope.sender())
            );
            assert_eq!(after.envelope.ethernet_destination, before.envelope.ethernet_source);
            assert!(after.envelope.is_udp_of(ENVELOPE_BYTES + bytes));
            assert_eq!(after.envelope.payload_bytes(), bytes);
            let header = &after.as_bytes()[14..34];
            let sum = header.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1])).sum::<u32>();
            assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "the header's checksum is right");
            assert_eq!(after.as_bytes()[40..42], [0, 0], "there is no checksum of UDP");
            assert_eq!(after.probe, Probe::new(ProbeKind::Echo, ProbeProgram::Tc, 7));
        }
    }
}

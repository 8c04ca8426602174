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

use zerocopy::byteorder::big_endian::U16 as BigU16;
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

/// An Ethernet, IPv4 and UDP header and a probe: what a program sees of a probe's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ProbeFrame {
    ethernet_destination: [u8; 6],
    ethernet_source: [u8; 6],
    ether_type: BigU16,
    version_and_words: u8,
    service: u8,
    ip_bytes: BigU16,
    identification: BigU16,
    fragment: BigU16,
    hops: u8,
    ip_protocol: u8,
    ip_checksum: BigU16,
    ip_source: [u8; 4],
    ip_destination: [u8; 4],
    udp_source: BigU16,
    udp_destination: BigU16,
    udp_bytes: BigU16,
    udp_checksum: BigU16,
    probe: Probe,
}

/// Bytes of a [`ProbeFrame`].
pub const PROBE_FRAME_BYTES: usize = ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES + PROBE_BYTES;

const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const ETHER_TYPE_IPV4: u16 = 0x0800;
/// Version 4, five words: no options.
const PLAIN_IPV4: u8 = 0x45;
const IP_PROTOCOL_UDP: u8 = 17;
/// More fragments, or an offset.
const FRAGMENT_MASK: u16 = 0x3fff;
const HOPS: u8 = 64;

const _: () = assert!(size_of::<ProbeFrame>() == PROBE_FRAME_BYTES);

impl ProbeFrame {
    /// Whether `program` is to answer this frame, given that `nonce` is being probed (0: none is) at UDP port `port`.
    #[must_use]
    pub fn is_for(&self, program: ProbeProgram, nonce: u64, port: u16) -> bool {
        self.ether_type.get() == ETHER_TYPE_IPV4
            && self.version_and_words == PLAIN_IPV4
            && self.fragment.get() & FRAGMENT_MASK == 0
            && self.ip_protocol == IP_PROTOCOL_UDP
            && self.udp_destination.get() == port
            && usize::from(self.udp_bytes.get()) == UDP_BYTES + PROBE_BYTES
            && self.probe.is_for(program, nonce)
    }

    /// Makes this Probe the Echo to its sender, a datagram of `bytes` bytes.
    ///
    /// The UDP checksum becomes 0 (none): what the sender left to its network card would be wrong in the answer.
    pub fn turn_round(&mut self, bytes: u16) {
        core::mem::swap(&mut self.ethernet_source, &mut self.ethernet_destination);
        core::mem::swap(&mut self.ip_source, &mut self.ip_destination);
        core::mem::swap(&mut self.udp_source, &mut self.udp_destination);
        self.probe.kind = ProbeKind::Echo as u8;
        self.udp_bytes = BigU16::new(bytes + UDP_BYTES as u16);
        self.udp_checksum = BigU16::ZERO;
        self.ip_bytes = BigU16::new(bytes + (UDP_BYTES + IPV4_BYTES) as u16);
        self.hops = HOPS;
        self.ip_checksum = BigU16::ZERO;
        self.ip_checksum = BigU16::new(!self.ip_sum());
    }

    /// The one's complement sum of the IPv4 header.
    fn ip_sum(&self) -> u16 {
        let pair = |bytes: [u8; 4]| {
            u32::from(u16::from_be_bytes([bytes[0], bytes[1]])) + u32::from(u16::from_be_bytes([bytes[2], bytes[3]]))
        };
        let first = u16::from_be_bytes([self.version_and_words, self.service]);
        let fifth = u16::from_be_bytes([self.hops, self.ip_protocol]);
        let words = [first, self.ip_bytes.get(), self.identification.get(), self.fragment.get(), fifth, self.ip_checksum.get()];
        let sum = words.into_iter().map(u32::from).sum::<u32>() + pair(self.ip_source) + pair(self.ip_destination);
        let once = (sum & 0xffff) + (sum >> 16);
        ((once & 0xffff) + (once >> 16)) as u16
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

    /// A probe from 10.77.0.2 to 10.77.0.1 with the checksum a kernel gave it.
    fn frame(program: ProbeProgram, nonce: u64) -> ProbeFrame {
        let mut frame = ProbeFrame {
            ethernet_destination: [2, 0, 0, 0, 0, 1],
            ethernet_source: [2, 0, 0, 0, 0, 2],
            ether_type: BigU16::new(ETHER_TYPE_IPV4),
            version_and_words: PLAIN_IPV4,
            service: 0,
            ip_bytes: BigU16::new(60),
            identification: BigU16::new(0x1234),
            fragment: BigU16::new(0x4000),
            hops: 64,
            ip_protocol: IP_PROTOCOL_UDP,
            ip_checksum: BigU16::ZERO,
            ip_source: [10, 77, 0, 2],
            ip_destination: [10, 77, 0, 1],
            udp_source: BigU16::new(PROBE_PORT),
            udp_destination: BigU16::new(40000),
            udp_bytes: BigU16::new(40),
            udp_checksum: BigU16::new(0xabcd),
            probe: Probe::new(ProbeKind::Probe, program, nonce),
        };
        frame.ip_checksum = BigU16::new(!frame.ip_sum());
        frame
    }

    #[test]
    fn only_the_probed_frame_is_answered() {
        let good = frame(ProbeProgram::Xdp, 7);
        assert!(good.is_for(ProbeProgram::Xdp, 7, 40000));
        assert!(!good.is_for(ProbeProgram::Xdp, 7, 40001));
        assert!(!good.is_for(ProbeProgram::Xdp, 0, 40000));
        let spoilers: [fn(&mut ProbeFrame); 6] = [
            |frame| frame.ether_type = BigU16::new(0x86dd),
            |frame| frame.version_and_words = 0x46,
            |frame| frame.fragment = BigU16::new(0x2000),
            |frame| frame.ip_protocol = 6,
            |frame| frame.udp_bytes = BigU16::new(41),
            |frame| frame.probe.kind = ProbeKind::Echo as u8,
        ];
        for (index, spoil) in spoilers.iter().enumerate() {
            let mut bad = good;
            spoil(&mut bad);
            assert!(!bad.is_for(ProbeProgram::Xdp, 7, 40000), "spoiler {index}");
        }
    }

    #[test]
    fn a_frame_turns_round() {
        for bytes in [PROBE_BYTES as u16, PROBE_GROWN_BYTES as u16] {
            let before = frame(ProbeProgram::Tc, 7);
            let mut after = before;
            after.turn_round(bytes);
            assert_eq!(after.ip_sum(), 0xffff, "the header's checksum is right");
            assert_eq!((after.ip_source, after.ip_destination), (before.ip_destination, before.ip_source));
            assert_eq!((after.udp_source, after.udp_destination), (before.udp_destination, before.udp_source));
            assert_eq!(after.ethernet_destination, before.ethernet_source);
            assert_eq!((after.ip_bytes.get(), after.udp_bytes.get()), (bytes + 28, bytes + 8));
            assert_eq!(after.udp_checksum.get(), 0);
            assert_eq!(after.probe, Probe::new(ProbeKind::Echo, ProbeProgram::Tc, 7));
        }
    }
}

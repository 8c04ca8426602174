//! What a frame lies in: Ethernet, IPv4 and UDP headers without options.
//!
//! Owns their layout and what changes when a program sends a frame on. Must not know what the frame says.

use zerocopy::byteorder::big_endian::U16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of an [`Envelope`].
pub const ENVELOPE_BYTES: usize = ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES;

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

/// The three headers as they lie in a packet. Addresses are kept as they come: four bytes, first one first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Envelope {
    /// Ethernet address of the receiver.
    pub ethernet_destination: [u8; 6],
    /// Ethernet address of the sender.
    pub ethernet_source: [u8; 6],
    ether_type: U16,
    version_and_words: u8,
    service: u8,
    ip_bytes: U16,
    identification: U16,
    fragment: U16,
    hops: u8,
    ip_protocol: u8,
    ip_checksum: U16,
    /// IPv4 address of the sender.
    pub ip_source: [u8; 4],
    /// IPv4 address of the receiver.
    pub ip_destination: [u8; 4],
    udp_source: U16,
    udp_destination: U16,
    udp_bytes: U16,
    udp_checksum: U16,
}

const _: () = assert!(size_of::<Envelope>() == ENVELOPE_BYTES);

impl Envelope {
    /// Whether this is a whole UDP datagram over plain IPv4.
    #[must_use]
    pub fn is_udp(&self) -> bool {
        self.ether_type.get() == ETHER_TYPE_IPV4
            && self.version_and_words == PLAIN_IPV4
            && self.fragment.get() & FRAGMENT_MASK == 0
            && self.ip_protocol == IP_PROTOCOL_UDP
    }

    /// The same of a frame of `bytes` bytes in all, with nothing beside the datagram.
    ///
    /// After generic XDP, be it a stranger's, a frame may reach TC without its Ethernet header: the copy that is made for XDP
    /// forgets how long that was. What is read as an envelope then is something else, and its lengths do not fit; the frame is
    /// the network stack's.
    #[must_use]
    pub fn is_udp_of(&self, bytes: usize) -> bool {
        self.is_udp() && bytes == ETHERNET_BYTES + usize::from(self.ip_bytes.get())
    }

    /// UDP port of the receiver.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.udp_destination.get()
    }

    /// Bytes of the datagram's payload.
    #[must_use]
    pub fn payload_bytes(&self) -> usize {
        usize::from(self.udp_bytes.get()).saturating_sub(UDP_BYTES)
    }

    /// Address and port of the sender, as in [`PEER_ADDRESS`](crate::layout::PEER_ADDRESS).
    #[must_use]
    pub fn sender(&self) -> u64 {
        u64::from(u32::from_le_bytes(self.ip_source)) | u64::from(self.udp_source.get()) << 32
    }

    /// Address and port of the receiver, likewise.
    #[must_use]
    pub fn receiver(&self) -> u64 {
        u64::from(u32::from_le_bytes(self.ip_destination)) | u64::from(self.udp_destination.get()) << 32
    }

    /// Makes this the envelope of a datagram of `bytes` payload bytes, between two ends as in
    /// [`PEER_ADDRESS`](crate::layout::PEER_ADDRESS). Ethernet addresses are the caller's.
    ///
    /// The UDP checksum becomes 0 (none): what the sender left to its network card would be wrong.
    pub fn readdress(&mut self, from: u64, to: u64, bytes: usize) {
        self.ip_source = (from as u32).to_le_bytes();
        self.ip_destination = (to as u32).to_le_bytes();
        self.udp_source = U16::new((from >> 32) as u16);
        self.udp_destination = U16::new((to >> 32) as u16);
        self.udp_bytes = U16::new((bytes + UDP_BYTES) as u16);
        self.udp_checksum = U16::ZERO;
        self.ip_bytes = U16::new((bytes + UDP_BYTES + IPV4_BYTES) as u16);
        self.hops = HOPS;
        self.ip_checksum = U16::ZERO;
        self.ip_checksum = U16::new(!self.ip_sum());
    }

    /// The Ethernet address of the sender, first byte lowest.
    #[must_use]
    pub fn ethernet_sender(&self) -> u64 {
        let [a, b, c, d, e, f] = self.ethernet_source;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    /// Sends the frame, as far as Ethernet goes, from where it came to, to `address`, as [`Envelope::ethernet_sender`] gives it.
    pub fn send_on(&mut self, from: [u8; 6], address: u64) {
        let [a, b, c, d, e, f, ..] = address.to_le_bytes();
        self.ethernet_source = from;
        self.ethernet_destination = [a, b, c, d, e, f];
    }

    /// Sends the frame back where it came from, as far as Ethernet goes.
    pub fn turn_round(&mut self) {
        core::mem::swap(&mut self.ethernet_source, &mut self.ethernet_destination);
    }

    /// The one's complement sum of the IPv4 header. RFC 1071.
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

//! The fixed 64-byte little-endian frame header, field by field.
//!
//! Owns the layout and its syntactic checks. Must not know what a kind makes a node do, nor how tags are computed.
//!
//! ```text
//!  0 version  1 kind   2 flags(2)   4 cluster(4)   8 epoch(4)      12 source(2)  14 destination(2)
//! 16 space(4)         20 page_version(4)          24 page(8)       32 request(8)
//! 40 sequence(8)      48 header_tag(8)            56 payload_tag(8)
//! ```

use crate::names::Line;
use zerocopy::byteorder::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of a [`Header`].
pub const HEADER_BYTES: usize = 64;
/// Leading bytes of a header that the header tag covers, besides the payload tag.
pub const TAGGED_BYTES: usize = 48;
/// Protocol version this crate speaks.
pub const VERSION: u8 = 1;

/// The request or grant is for writing.
pub const FLAG_WRITE: u16 = 1 << 0;
/// The page's bytes are all zero and do not travel.
pub const FLAG_ZERO: u16 = 1 << 1;
/// Request: the requester holds a copy of era `page_version`. Grant: the copy it holds is good, no bytes travel.
pub const FLAG_COPY: u16 = 1 << 2;
/// The payload is one piece of one page; see [`Header::fragment`].
pub const FLAG_FRAGMENT: u16 = 1 << 3;

const FRAGMENT_INDEX_SHIFT: u16 = 4;
const COUNT_SHIFT: u16 = 8;
const FRAGMENT_COUNT_SHIFT: u16 = 12;
const NIBBLE: u16 = 0xf;
const LINE_HIGH: u16 = 0b11;

/// What a frame is for. The number is the wire value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Requester to home: a page, to read or (FLAG_WRITE) to write.
    Request = 1,
    /// Holder to requester: rights and bytes.
    Grant = 2,
    /// Home to holder: serve this request from your copy.
    Forward = 3,
    /// Home to holder: drop your copy.
    Invalidate = 4,
    /// Holder to home: the copy is gone.
    InvalidateAck = 5,
    /// Requester to grantor and home: the exclusive grant is installed.
    Done = 6,
    /// Holder without room to any host: ask for these pages, to write, if you have room.
    Offload = 7,
    /// Anyone to requester: ask again, nothing was done.
    Retry = 8,
    /// Requester to anchor: who is home of this extent; me, if nobody.
    Locate = 9,
    /// Anchor to requester: that node (in `page_version`) is home.
    Located = 10,
    /// Executor's host to home: forget these pages' contents.
    Discard = 11,
    /// Home to initiator: they are forgotten.
    DiscardDone = 12,
    /// Home to requester: the page's only copy is lost.
    Lost = 13,
    /// Answer to an Offload: no room here either.
    Declined = 14,
    /// Heartbeat.
    Ping = 32,
    /// Answer to a heartbeat.
    Pong = 33,
    /// Receiver to sender: everything up to this sequence is consumed.
    Credit = 34,
    /// First, second and third message of the Noise handshake.
    HandshakeInit = 48,
    /// See [`Kind::HandshakeInit`].
    HandshakeReply = 49,
    /// See [`Kind::HandshakeInit`].
    HandshakeFinish = 50,
}

impl Kind {
    /// Every kind, in wire order.
    pub const ALL: [Kind; 20] = [
        Kind::Request,
        Kind::Grant,
        Kind::Forward,
        Kind::Invalidate,
        Kind::InvalidateAck,
        Kind::Done,
        Kind::Offload,
        Kind::Retry,
        Kind::Locate,
        Kind::Located,
        Kind::Discard,
        Kind::DiscardDone,
        Kind::Lost,
        Kind::Declined,
        Kind::Ping,
        Kind::Pong,
        Kind::Credit,
        Kind::HandshakeInit,
        Kind::HandshakeReply,
        Kind::HandshakeFinish,
    ];

    /// The kind with wire value `value`, if there is one.
    #[must_use]
    pub fn from_wire(value: u8) -> Option<Kind> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == value)
    }
}

/// The header as it lies on the wire. Any 64 bytes are one; [`Header::check`] says whether it makes sense.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Header {
    /// Protocol version, [`VERSION`].
    pub version: u8,
    /// A [`Kind`].
    pub kind: u8,
    /// FLAG_* bits; bits 4-7 fragment index, 8-11 page count less one, 12-15 fragment count less one. Request and
    /// Forward: bits 4-7 and 12-13 wanted line.
    pub flags: U16,
    /// Fingerprint of the cluster's configuration.
    pub cluster: U32,
    /// Membership epoch of the sender.
    pub epoch: U32,
    /// Node that sent this frame.
    pub source: U16,
    /// Node this frame is for.
    pub destination: U16,
    /// Space the page belongs to.
    pub space: U32,
    /// Era of the page, or home node of Located and Retry (0xffff_ffff: none). Discard: bits 0-31 of the page count.
    pub page_version: U32,
    /// Page number (52 bits), or extent number of Locate and Located. Discard: bits 52-63 are bits 32-43 of the page count.
    pub page: U64,
    /// Request this frame belongs to.
    pub request: U64,
    /// New for each transmission of one sender to one receiver; finds replays. Bit 63: sent from the bulk socket.
    pub sequence: U64,
    /// SipHash-2-4 under the pair key over the first 48 bytes and the payload tag.
    pub header_tag: U64,
    /// Tag under the publisher's key over space, page, era and bytes: eight interleaved SipHash-2-4 lanes folded by one
    /// SipHash-2-4 (`tags.rs` of the transport has the definition); 0 without payload.
    pub payload_tag: U64,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);

/// Why a frame's header is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// Fewer than 64 bytes.
    Short,
    /// Another protocol version.
    Version,
    /// No such kind.
    Kind,
    /// The payload's length does not fit the flags.
    Length,
    /// A field has a value its kind does not allow.
    Field,
}

/// What the flags say the payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadShape {
    /// No payload.
    Empty,
    /// This many whole pages.
    Pages(u16),
    /// Piece `index` of `count` of one page.
    Fragment {
        /// Which piece, from 0.
        index: u16,
        /// How many pieces the page has.
        count: u16,
    },
    /// Opaque bytes of a handshake.
    Handshake,
}

impl Header {
    /// Reads the header at the front of `frame`; the rest is the payload.
    ///
    /// # Errors
    /// [`HeaderError::Short`], `Version` or `Kind`.
    pub fn split(frame: &[u8]) -> Result<(&Header, Kind, &[u8]), HeaderError> {
        let (header, payload) = Header::ref_from_prefix(frame).map_err(|_| HeaderError::Short)?;
        if header.version != VERSION {
            return Err(HeaderError::Version);
        }
        let kind = Kind::from_wire(header.kind).ok_or(HeaderError::Kind)?;
        Ok((header, kind, payload))
    }

    /// Pages this frame speaks of, 1 to 16.
    #[must_use]
    pub fn count(&self) -> u16 {
        (self.flags.get() >> COUNT_SHIFT & NIBBLE) + 1
    }

    /// Flags word for `bits` (FLAG_*) and `count` pages (1 to 16).
    #[must_use]
    pub fn flags_with_count(bits: u16, count: u16) -> U16 {
        U16::new(bits | (count.clamp(1, NIBBLE + 1) - 1) << COUNT_SHIFT)
    }

    /// Marks the payload as piece `index` of `count` (at most 16) of one page.
    pub fn set_fragment(&mut self, index: u16, count: u16) {
        let bits = self.flags.get() & !(NIBBLE << FRAGMENT_INDEX_SHIFT | NIBBLE << FRAGMENT_COUNT_SHIFT);
        let piece = (index & NIBBLE) << FRAGMENT_INDEX_SHIFT | (count.clamp(1, NIBBLE + 1) - 1) << FRAGMENT_COUNT_SHIFT;
        self.flags = U16::new(bits | FLAG_FRAGMENT | piece);
    }

    /// The piece of a page this frame carries, `(index, count)`, if it is one.
    #[must_use]
    pub fn fragment(&self) -> Option<(u16, u16)> {
        let flags = self.flags.get();
        (flags & FLAG_FRAGMENT != 0)
            .then_some((flags >> FRAGMENT_INDEX_SHIFT & NIBBLE, (flags >> FRAGMENT_COUNT_SHIFT & NIBBLE) + 1))
    }

    /// Names the line of the page that is wanted; in frames without pages only, which need no piece.
    pub fn set_line(&mut self, line: Line) {
        let line = u16::from(line.0);
        let place = (line & NIBBLE) << FRAGMENT_INDEX_SHIFT | (line >> 4 & LINE_HIGH) << FRAGMENT_COUNT_SHIFT;
        self.flags = U16::new(self.flags.get() | place);
    }

    /// The line of the page that is wanted.
    #[must_use]
    pub fn line(&self) -> Line {
        let flags = self.flags.get();
        Line((flags >> FRAGMENT_INDEX_SHIFT & NIBBLE | (flags >> FRAGMENT_COUNT_SHIFT & LINE_HIGH) << 4) as u8)
    }

    /// Whether all of `bits` are set.
    #[must_use]
    pub fn has(&self, bits: u16) -> bool {
        self.flags.get() & bits == bits
    }

    /// What payload the flags announce for `kind`.
    #[must_use]
    pub fn shape(&self, kind: Kind) -> PayloadShape {
        match kind {
            Kind::HandshakeInit | Kind::HandshakeReply | Kind::HandshakeFinish => PayloadShape::Handshake,
            Kind::Grant if self.flags.get() & (FLAG_ZERO | FLAG_COPY) == 0 => match self.fragment() {
                Some((index, count)) => PayloadShape::Fragment { index, count },
                None => PayloadShape::Pages(self.count()),
            },
            _ => PayloadShape::Empty,
        }
    }
}

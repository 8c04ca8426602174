//! Coherence messages as types, and their translation from and to header fields.
//!
//! Owns which field carries what for each kind. Must not know transport kinds (heartbeats, credit, handshakes)
//! nor addressing, sequence numbers and tags, which the transport fills in.

use crate::header::{FLAG_COPY, FLAG_WRITE, FLAG_ZERO, Header, Kind};
use crate::names::{Era, ExtentNumber, Line, NodeId, PageNumber, PageRange, RequestId};
use zerocopy::byteorder::little_endian::{U32, U64};

const PAGE_BITS: u32 = 52;
const PAGE_LIMIT: u64 = 1 << PAGE_BITS;
const DISCARD_COUNT_LIMIT: u64 = 1 << 44;
const NO_HOME: u32 = u32::MAX;

/// What a holder may do with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rights {
    /// Map it read-only.
    Read,
    /// Map it writable; nobody else has a copy.
    Write,
}

/// One coherence message. Page bytes travel beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Wants `rights` on `page`; `count - 1` following pages are welcome too (reads only).
    Request {
        /// Identifies the request through retries.
        request: RequestId,
        /// First wanted page.
        page: PageNumber,
        /// Wanted rights.
        rights: Rights,
        /// Pages wanted, 1 to 16; 1 for writes.
        count: u16,
        /// Era of the copy the requester holds, if it holds one.
        copy: Option<Era>,
        /// Where in the page the thread stopped.
        line: Line,
    },
    /// Gives `rights` on `count` pages from `page`, all of era `era`.
    Grant {
        /// Request this answers.
        request: RequestId,
        /// First granted page.
        page: PageNumber,
        /// Granted rights.
        rights: Rights,
        /// Era of the pages.
        era: Era,
        /// Pages granted, 1 to 16; 1 for writes.
        count: u16,
        /// Where the bytes are.
        content: GrantContent,
    },
    /// Asks a holder to serve `request` (whose top bits name the requester) with `rights`.
    Forward {
        /// Request to serve.
        request: RequestId,
        /// Page.
        page: PageNumber,
        /// Rights the requester wants.
        rights: Rights,
        /// Era of the grant to give.
        era: Era,
        /// Where in the page the requester's thread stopped.
        line: Line,
    },
    /// Orders a holder to drop its copy.
    Invalidate {
        /// The home's transaction; comes back in the ack.
        request: RequestId,
        /// Page.
        page: PageNumber,
        /// Era that begins now.
        era: Era,
    },
    /// Says that the copy is gone.
    InvalidateAck {
        /// The transaction of the Invalidate.
        request: RequestId,
        /// Page.
        page: PageNumber,
        /// Era of the Invalidate.
        era: Era,
    },
    /// Says that the exclusive grant of `era` is installed.
    Done {
        /// The request that was granted.
        request: RequestId,
        /// Page.
        page: PageNumber,
        /// Era of the grant.
        era: Era,
    },
    /// Asks the requester to ask again; `home` if the receiver knows a better place.
    Retry {
        /// Request that was not served.
        request: RequestId,
        /// Page.
        page: PageNumber,
        /// Where to ask.
        home: Option<NodeId>,
    },
    /// Asks the anchor for the home of `extent`; the sender becomes home if nobody is.
    Locate {
        /// Identifies the request through retries.
        request: RequestId,
        /// Extent in question.
        extent: ExtentNumber,
    },
    /// Names the home of `extent`; `None` if it was lost with its host.
    Located {
        /// The Locate this answers.
        request: RequestId,
        /// Extent in question.
        extent: ExtentNumber,
        /// Its home.
        home: Option<NodeId>,
    },
    /// Orders homes to forget the contents of `range`; at most 2^44 - 1 pages.
    Discard {
        /// Identifies the request through retries.
        request: RequestId,
        /// Pages to forget.
        range: PageRange,
    },
    /// Says that every page of the Discard homed here is forgotten.
    DiscardDone {
        /// The Discard this answers.
        request: RequestId,
    },
    /// Says that the page's only copy is lost.
    Lost {
        /// Request that cannot be served.
        request: RequestId,
        /// Page.
        page: PageNumber,
        /// Era in which it is lost; a discard begins a later one.
        era: Era,
    },
    /// Says that the sender has no room for `count` pages from `page`, which it holds: who has room asks for them, to write.
    Offload {
        /// The offer; comes back in [`Message::Declined`].
        request: RequestId,
        /// First offered page.
        page: PageNumber,
        /// Pages offered, 1 to 16.
        count: u16,
    },
    /// Says that the receiver of an Offload has no room either.
    Declined {
        /// The offer this answers.
        request: RequestId,
        /// First offered page.
        page: PageNumber,
    },
}

/// Where the bytes of a grant are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantContent {
    /// In the payload.
    Bytes,
    /// All zero: nothing travels.
    Zero,
    /// The requester's own copy is good.
    Copy,
}

/// Why header fields do not make a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageError {
    /// The kind belongs to the transport.
    NotCoherence,
    /// A page number of 2^52 or more, or a range that runs past it.
    Page,
    /// A page count the kind does not allow.
    Count,
    /// Flags that exclude each other.
    Flags,
    /// A node number above 65535.
    Node,
}

impl Message {
    /// The header kind of this message.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Message::Request { .. } => Kind::Request,
            Message::Grant { .. } => Kind::Grant,
            Message::Forward { .. } => Kind::Forward,
            Message::Invalidate { .. } => Kind::Invalidate,
            Message::InvalidateAck { .. } => Kind::InvalidateAck,
            Message::Done { .. } => Kind::Done,
            Message::Retry { .. } => Kind::Retry,
            Message::Locate { .. } => Kind::Locate,
            Message::Located { .. } => Kind::Located,
            Message::Discard { .. } => Kind::Discard,
            Message::DiscardDone { .. } => Kind::DiscardDone,
            Message::Lost { .. } => Kind::Lost,
            Message::Offload { .. } => Kind::Offload,
            Message::Declined { .. } => Kind::Declined,
        }
    }

    /// Writes kind, flags, page, era and request into `header`; leaves addressing and tags alone.
    pub fn encode(&self, header: &mut Header) {
        header.kind = self.kind() as u8;
        let fields = self.fields();
        header.flags = Header::flags_with_count(fields.bits, fields.count);
        if let Message::Request { line, .. } | Message::Forward { line, .. } = self {
            header.set_line(*line);
        }
        header.page = U64::new(fields.page);
        header.page_version = U32::new(fields.version);
        header.request = U64::new(fields.request.0);
    }

    /// Reads a message out of `header`, whose kind is `kind`.
    ///
    /// # Errors
    /// [`MessageError`] when a field has a value the kind does not allow.
    pub fn decode(header: &Header, kind: Kind) -> Result<Message, MessageError> {
        let request = RequestId(header.request.get());
        let era = Era(header.page_version.get());
        let rights = if header.has(FLAG_WRITE) { Rights::Write } else { Rights::Read };
        if kind == Kind::Discard {
            return Ok(Message::Discard { request, range: discard_range(header)? });
        }
        let page = page(header)?;
        Ok(match kind {
            Kind::Request => {
                let count = count(header, rights)?;
                Message::Request { request, page, rights, count, copy: header.has(FLAG_COPY).then_some(era), line: header.line() }
            }
            Kind::Grant => {
                let count = count(header, rights)?;
                Message::Grant { request, page, rights, era, count, content: grant_content(header, rights)? }
            }
            Kind::Forward => Message::Forward { request, page, rights, era, line: header.line() },
            Kind::Invalidate => Message::Invalidate { request, page, era },
            Kind::InvalidateAck => Message::InvalidateAck { request, page, era },
            Kind::Done => Message::Done { request, page, era },
            Kind::Retry => Message::Retry { request, page, home: home(header)? },
            Kind::Locate => Message::Locate { request, extent: ExtentNumber(page.0) },
            Kind::Located => Message::Located { request, extent: ExtentNumber(page.0), home: home(header)? },
            Kind::DiscardDone => Message::DiscardDone { request },
            Kind::Lost => Message::Lost { request, page, era },
            Kind::Offload => Message::Offload { request, page, count: header.count() },
            Kind::Declined => Message::Declined { request, page },
            Kind::Discard
            | Kind::Ping
            | Kind::Pong
            | Kind::Credit
            | Kind::HandshakeInit
            | Kind::HandshakeReply
            | Kind::HandshakeFinish => return Err(MessageError::NotCoherence),
        })
    }

    fn fields(&self) -> Fields {
        match *self {
            Message::Request { request, page, rights, count, copy, .. } => Fields {
                bits: write_bit(rights) | if copy.is_some() { FLAG_COPY } else { 0 },
                count,
                page: page.0,
                version: copy.map_or(0, |era| era.0),
                request,
            },
            Message::Grant { request, page, rights, era, count, content } => {
                let content = match content {
                    GrantContent::Bytes => 0,
                    GrantContent::Zero => FLAG_ZERO,
                    GrantContent::Copy => FLAG_COPY,
                };
                Fields { bits: write_bit(rights) | content, count, page: page.0, version: era.0, request }
            }
            Message::Forward { request, page, rights, era, .. } => {
                Fields { bits: write_bit(rights), ..Fields::of(request, page.0, era.0) }
            }
            Message::Invalidate { request, page, era }
            | Message::InvalidateAck { request, page, era }
            | Message::Done { request, page, era }
            | Message::Lost { request, page, era } => Fields::of(request, page.0, era.0),
            Message::Retry { request, page, home } => Fields::of(request, page.0, node_word(home)),
            Message::Locate { request, extent } => Fields::of(request, extent.0, 0),
            Message::Located { request, extent, home } => Fields::of(request, extent.0, node_word(home)),
            Message::Discard { request, range } => {
                let count = range.count;
                Fields::of(request, range.first.0 | (count >> 32) << PAGE_BITS, (count & u64::from(u32::MAX)) as u32)
            }
            Message::DiscardDone { request } => Fields::of(request, 0, 0),
            Message::Offload { request, page, count } => Fields { count, ..Fields::of(request, page.0, 0) },
            Message::Declined { request, page } => Fields::of(request, page.0, 0),
        }
    }
}

struct Fields {
    bits: u16,
    count: u16,
    page: u64,
    version: u32,
    request: RequestId,
}

impl Fields {
    const fn of(request: RequestId, page: u64, version: u32) -> Self {
        Self { bits: 0, count: 1, page, version, request }
    }
}

const fn write_bit(rights: Rights) -> u16 {
    match rights {
        Rights::Read => 0,
        Rights::Write => FLAG_WRITE,
    }
}

fn node_word(node: Option<NodeId>) -> u32 {
    node.map_or(NO_HOME, |node| u32::from(node.0))
}

fn page(header: &Header) -> Result<PageNumber, MessageError> {
    let page = header.page.get();
    let count = u64::from(header.count());
    if page >= PAGE_LIMIT || page + count > PAGE_LIMIT { Err(MessageError::Page) } else { Ok(PageNumber(page)) }
}

fn count(header: &Header, rights: Rights) -> Result<u16, MessageError> {
    let count = header.count();
    if rights == Rights::Write && count != 1 { Err(MessageError::Count) } else { Ok(count) }
}

fn grant_content(header: &Header, rights: Rights) -> Result<GrantContent, MessageError> {
    match (header.has(FLAG_ZERO), header.has(FLAG_COPY)) {
        (false, false) => Ok(GrantContent::Bytes),
        (true, false) => Ok(GrantContent::Zero),
        (false, true) if rights == Rights::Write => Ok(GrantContent::Copy),
        (false, true) | (true, true) => Err(MessageError::Flags),
    }
}

fn home(header: &Header) -> Result<Option<NodeId>, MessageError> {
    match header.page_version.get() {
        NO_HOME => Ok(None),
        word => u16::try_from(word).map(|node| Some(NodeId(node))).map_err(|_| MessageError::Node),
    }
}

fn discard_range(header: &Header) -> Result<PageRange, MessageError> {
    let word = header.page.get();
    let first = word & (PAGE_LIMIT - 1);
    let count = (word >> PAGE_BITS) << 32 | u64::from(header.page_version.get());
    if count == 0 || count >= DISCARD_COUNT_LIMIT || first + count > PAGE_LIMIT {
        return Err(MessageError::Page);
    }
    Ok(PageRange::new(PageNumber(first), count))
}

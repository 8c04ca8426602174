//! How pages are dealt out over datagrams of a given MTU.
//!
//! Owns the arithmetic and the writing of grant frames, all but sequence and header tag. Must not know slots or peers.

use crate::TransportError;
use crate::limits::{DATAGRAM_MAX, FRAGMENTS_MAX, MTU_MIN, SEGMENTS_MAX};
use crate::tags::{SipKey, payload_tag};
use dsm_wire::{Era, HEADER_BYTES, Header, PAGE_BYTES, PAGES_PER_MESSAGE_MAX, PageNumber, PayloadShape, SpaceId};
use std::net::IpAddr;
use zerocopy::IntoBytes;

const IPV4_UDP_BYTES: usize = 28;
const IPV6_UDP_BYTES: usize = 48;
const FRAGMENT_ALIGN: usize = 64;
/// The flags that are not counts.
const FLAG_BITS: u16 = 0xf;

/// How much of what fits one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// This many whole pages.
    Pages(usize),
    /// This many bytes of one page.
    Fragment(usize),
}

impl Layout {
    /// The layout of packets of `mtu` bytes.
    pub(crate) fn new(mtu: u16, address: IpAddr) -> Result<Layout, TransportError> {
        if mtu < MTU_MIN {
            return Err(TransportError::Mtu { mtu, min: MTU_MIN });
        }
        let overhead = if address.is_ipv4() { IPV4_UDP_BYTES } else { IPV6_UDP_BYTES };
        let payload = (usize::from(mtu) - overhead).min(DATAGRAM_MAX) - HEADER_BYTES;
        match payload / PAGE_BYTES {
            0 => Ok(Layout::Fragment(largest_fragment(payload))),
            pages => Ok(Layout::Pages(pages.min(usize::from(PAGES_PER_MESSAGE_MAX)))),
        }
    }

    /// Bytes of a full datagram.
    pub(crate) fn datagram_bytes(self) -> usize {
        match self {
            Layout::Pages(pages) => HEADER_BYTES + pages * PAGE_BYTES,
            Layout::Fragment(bytes) => HEADER_BYTES + bytes,
        }
    }

    /// Bytes `pages` pages take, headers included.
    pub(crate) fn train_bytes(self, pages: usize) -> usize {
        let (units, unit_bytes) = self.units(pages);
        units * unit_bytes
    }

    /// Where the datagrams of `pages` pages lie in their train, as (offset, length); with `segmented`, where the longest stretches
    /// lie that the kernel cuts into the same datagrams.
    pub(crate) fn cuts(self, pages: usize, segmented: bool) -> impl Iterator<Item = (usize, usize)> {
        let (units, unit_bytes) = self.units(pages);
        let datagram_bytes = self.datagram_bytes();
        let step = if segmented { (DATAGRAM_MAX / datagram_bytes).min(SEGMENTS_MAX) * datagram_bytes } else { datagram_bytes };
        (0..units).flat_map(move |unit| {
            (0..unit_bytes).step_by(step).map(move |offset| (unit * unit_bytes + offset, step.min(unit_bytes - offset)))
        })
    }

    /// Writes the train of a grant of `pages` into `out` and returns its length. `template` is the header of the whole grant: kind,
    /// addressing, first page, era. Sequences and header tags stay open.
    pub(crate) fn write(self, writer: &GrantWriter, template: &Header, pages: &[&[u8; PAGE_BYTES]], out: &mut [u8]) -> usize {
        let mut end = 0;
        let mut header = *template;
        match self {
            Layout::Pages(each) => {
                for (index, group) in pages.chunks(each).enumerate() {
                    header.flags = Header::flags_with_count(template.flags.get() & FLAG_BITS, group.len() as u16);
                    header.page.set(template.page.get() + (index * each) as u64);
                    end += writer.write(header, group.iter().map(|page| page.as_slice()), &mut out[end..]);
                }
            }
            Layout::Fragment(bytes) => {
                header.flags = Header::flags_with_count(template.flags.get() & FLAG_BITS, 1);
                let pieces = PAGE_BYTES.div_ceil(bytes) as u16;
                for (index, page) in pages.iter().enumerate() {
                    header.page.set(template.page.get() + index as u64);
                    for (piece, number) in page.chunks(bytes).zip(0..) {
                        header.set_fragment(number, pieces);
                        end += writer.write(header, [piece].into_iter(), &mut out[end..]);
                    }
                }
            }
        }
        end
    }

    /// Stretches whose datagrams but the last have equal length: how many, and their bytes.
    fn units(self, pages: usize) -> (usize, usize) {
        match self {
            Layout::Pages(each) => (1, pages.div_ceil(each) * HEADER_BYTES + pages * PAGE_BYTES),
            Layout::Fragment(bytes) => (pages, PAGE_BYTES.div_ceil(bytes) * HEADER_BYTES + PAGE_BYTES),
        }
    }
}

/// Bytes of each piece but the last of a page in `pieces` pieces: the receiver knows them from the header alone.
fn fragment_bytes(pieces: usize) -> usize {
    PAGE_BYTES.div_ceil(pieces).next_multiple_of(FRAGMENT_ALIGN)
}

/// The fragment size that deals a page out into as few pieces as `payload` allows.
fn largest_fragment(payload: usize) -> usize {
    (2..=FRAGMENTS_MAX).map(fragment_bytes).find(|bytes| *bytes <= payload).unwrap_or(PAGE_BYTES / FRAGMENTS_MAX)
}

/// Bytes of a datagram that begins with a header of `shape`; `None` if the header does not say. A buffer may hold several
/// datagrams, which the kernel has joined again (UDP_GRO).
pub(crate) fn datagram_bytes(shape: PayloadShape) -> Option<usize> {
    let payload = match shape {
        PayloadShape::Empty => 0,
        PayloadShape::Pages(pages) => usize::from(pages) * PAGE_BYTES,
        PayloadShape::Fragment { index, count } => {
            let (index, count) = (usize::from(index), usize::from(count));
            let bytes = fragment_bytes(count.max(1));
            if index + 1 < count { bytes } else { PAGE_BYTES.checked_sub(bytes * count.checked_sub(1)?)? }
        }
        PayloadShape::Handshake => return None,
    };
    Some(HEADER_BYTES + payload)
}

/// What payload tags are made with.
pub(crate) struct GrantWriter {
    pub(crate) publisher: SipKey,
    pub(crate) space: SpaceId,
}

impl GrantWriter {
    /// Writes one datagram; returns its bytes.
    fn write<'a>(&self, mut header: Header, parts: impl Iterator<Item = &'a [u8]>, out: &mut [u8]) -> usize {
        let mut end = HEADER_BYTES;
        for part in parts {
            out[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        let (page, era) = (PageNumber(header.page.get()), Era(header.page_version.get()));
        header.payload_tag.set(payload_tag(self.publisher, self.space, page, era, &out[HEADER_BYTES..end]));
        out[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dsm_wire::Kind;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn layouts() {
        for (mtu, expected) in [
            (9000, Layout::Pages(2)),
            (4188, Layout::Pages(1)),
            (4187, Layout::Fragment(2048)),
            (1500, Layout::Fragment(1408)),
            (1280, Layout::Fragment(1024)),
            (65535, Layout::Pages(15)),
            (MTU_MIN, Layout::Fragment(256)),
        ] {
            assert_eq!(Layout::new(mtu, HERE).unwrap(), expected, "mtu {mtu}");
        }
        assert!(Layout::new(MTU_MIN - 1, HERE).is_err());
    }

    #[test]
    fn trains_are_made_of_datagrams_that_fit() {
        let writer = GrantWriter { publisher: SipKey(1, 2), space: SpaceId(3) };
        let contents: Vec<[u8; PAGE_BYTES]> = (0..16).map(|page| [page as u8; PAGE_BYTES]).collect();
        for mtu in [MTU_MIN, 576, 1280, 1500, 4300, 9000, 65535] {
            let layout = Layout::new(mtu, HERE).unwrap();
            for count in 1..=16 {
                let pages: Vec<&[u8; PAGE_BYTES]> = contents[..count].iter().collect();
                let mut template = Header { version: 1, kind: Kind::Grant as u8, ..Header::default() };
                template.page.set(100);
                let mut out = vec![0; layout.train_bytes(count)];
                let end = layout.write(&writer, &template, &pages, &mut out);
                assert_eq!(end, out.len());
                let mut carried = 0;
                for (offset, length) in layout.cuts(count, false) {
                    assert!(length + IPV4_UDP_BYTES <= usize::from(mtu));
                    let (header, kind, payload) = Header::split(&out[offset..offset + length]).unwrap();
                    let expected = 100 + (carried / PAGE_BYTES) as u64;
                    assert_eq!(header.page.get(), expected, "mtu {mtu}, {count} pages, offset {offset}");
                    assert_eq!(datagram_bytes(header.shape(kind)), Some(length), "mtu {mtu}, {count} pages, offset {offset}");
                    match header.shape(kind) {
                        PayloadShape::Pages(pages) => assert_eq!(payload.len(), usize::from(pages) * PAGE_BYTES),
                        PayloadShape::Fragment { count, .. } => assert!(usize::from(count) <= FRAGMENTS_MAX),
                        other => panic!("{other:?}"),
                    }
                    assert!(payload.iter().enumerate().all(|(i, byte)| usize::from(*byte) == (carried + i) / PAGE_BYTES));
                    carried += payload.len();
                }
                assert_eq!(carried, count * PAGE_BYTES);
                let whole: Vec<_> = layout.cuts(count, false).collect();
                let cut: Vec<_> = layout
                    .cuts(count, true)
                    .flat_map(|(offset, length)| {
                        assert!(length <= DATAGRAM_MAX);
                        let step = layout.datagram_bytes();
                        (0..length).step_by(step).map(move |at| (offset + at, step.min(length - at)))
                    })
                    .collect();
                assert_eq!(whole, cut, "the kernel cuts where we do");
            }
        }
    }
}

//! Properties of the parser: what is encoded decodes to itself, and no bytes make it panic or lie.
//!
//! Owns the generators. Must not know what a node does with a message.

use dsm_wire::{
    Era, ExtentNumber, GrantContent, HEADER_BYTES, Header, Line, Message, NodeId, PageNumber, PageRange, PayloadShape, RequestId,
    Rights, VERSION,
};
use proptest::prelude::*;
use zerocopy::{FromBytes, IntoBytes};

const PAGES: u64 = 1 << 52;

fn rights() -> impl Strategy<Value = (Rights, u16)> {
    prop_oneof![(1u16..=16).prop_map(|count| (Rights::Read, count)), Just((Rights::Write, 1))]
}

fn page() -> impl Strategy<Value = PageNumber> {
    (0..PAGES - 16).prop_map(PageNumber)
}

fn message() -> impl Strategy<Value = Message> {
    let ids = (any::<u64>().prop_map(RequestId), page(), any::<u32>().prop_map(Era));
    let node = proptest::option::of(any::<u16>().prop_map(NodeId));
    let kind = 0..14u8;
    (ids, rights(), any::<bool>(), 0..3u8, node, 1u64..1 << 40, kind).prop_map(
        |((request, page, era), (rights, count), has_copy, content, home, pages, kind)| {
            let extent = ExtentNumber(page.0);
            let line = Line(pages as u8 % Line::COUNT);
            let range = PageRange::new(PageNumber(page.0 >> 1), pages);
            let content = match (content, rights) {
                (0, _) => GrantContent::Bytes,
                (1, Rights::Write) => GrantContent::Copy,
                _ => GrantContent::Zero,
            };
            match kind {
                0 => Message::Request { request, page, rights, count, copy: has_copy.then_some(era), line },
                1 => Message::Grant { request, page, rights, era, count, content },
                2 => Message::Forward { request, page, rights, era, line },
                3 => Message::Invalidate { request, page, era },
                4 => Message::InvalidateAck { request, page, era },
                5 => Message::Done { request, page, era },
                6 => Message::Retry { request, page, home },
                7 => Message::Locate { request, extent },
                8 => Message::Located { request, extent, home },
                9 => Message::Discard { request, range },
                10 => Message::DiscardDone { request },
                11 => Message::Offload { request, page, count },
                12 => Message::Declined { request, page },
                _ => Message::Lost { request, page, era },
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(4000) })]

    #[test]
    fn what_is_encoded_decodes_to_itself(message in message()) {
        let mut header = Header { version: VERSION, ..Header::default() };
        message.encode(&mut header);
        let (parsed, kind, _) = Header::split(header.as_bytes()).unwrap();
        prop_assert_eq!(kind, message.kind());
        prop_assert_eq!(Message::decode(parsed, kind), Ok(message));
    }

    #[test]
    fn no_bytes_make_the_parser_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..HEADER_BYTES + 8), kind in 0..64u8) {
        if let Some(first) = bytes.get_mut(..2) {
            first.copy_from_slice(&[VERSION, kind]);
        }
        if let Ok((header, kind, payload)) = Header::split(&bytes) {
            prop_assert_eq!(payload.len(), bytes.len() - HEADER_BYTES);
            if let PayloadShape::Pages(count) = header.shape(kind) {
                prop_assert!((1..=16).contains(&count));
            }
            if let Ok(message) = Message::decode(header, kind) {
                prop_assert_eq!(message.kind(), kind);
            }
        }
    }

    #[test]
    fn a_decoded_message_encodes_to_what_it_was_read_from(bytes in any::<[u8; 32]>(), kind in 1..15u8) {
        let mut whole = [0u8; HEADER_BYTES];
        whole[..32].copy_from_slice(&bytes);
        whole[..2].copy_from_slice(&[VERSION, kind]);
        let header = Header::read_from_bytes(&whole).unwrap();
        let Some(kind) = dsm_wire::Kind::from_wire(kind) else { return Ok(()) };
        if let Ok(message) = Message::decode(&header, kind) {
            let mut again = Header { version: VERSION, ..Header::default() };
            message.encode(&mut again);
            prop_assert_eq!(Message::decode(&again, kind), Ok(message));
        }
    }
}

//! Every kind of frame, byte by byte, against `golden/frames.txt`; `UPDATE=1 cargo test -p dsm-wire` writes it anew.
//!
//! Owns one example of each kind. A change here is a change of the protocol: see `docs/protocol.md`.

use dsm_wire::{
    Era, ExtentNumber, FLAG_COPY, FLAG_WRITE, GrantContent, Header, Kind, Line, Message, NodeId, PageNumber, PageRange,
    RequestId, Rights, VERSION,
};
use std::fmt::Write;
use zerocopy::IntoBytes;

const REQUEST: RequestId = RequestId(0x0003_0000_0000_1234);
const PAGE: PageNumber = PageNumber(0x000a_bcde_f012_3456);
const ERA: Era = Era(0x7654_3210);

fn examples() -> Vec<(&'static str, Message)> {
    let (request, page, era) = (REQUEST, PAGE, ERA);
    let extent = ExtentNumber(0x0055_aa55);
    vec![
        (
            "request read, 16 pages",
            Message::Request { request, page, rights: Rights::Read, count: 16, copy: None, line: Line(0) },
        ),
        (
            "request write, no copy",
            Message::Request { request, page, rights: Rights::Write, count: 1, copy: None, line: Line(63) },
        ),
        (
            "request write, copy",
            Message::Request { request, page, rights: Rights::Write, count: 1, copy: Some(era), line: Line(18) },
        ),
        ("grant read, bytes, 2 pages", grant(Rights::Read, 2, GrantContent::Bytes)),
        ("grant read, zero, 16 pages", grant(Rights::Read, 16, GrantContent::Zero)),
        ("grant write, bytes", grant(Rights::Write, 1, GrantContent::Bytes)),
        ("grant write, zero", grant(Rights::Write, 1, GrantContent::Zero)),
        ("grant write, copy", grant(Rights::Write, 1, GrantContent::Copy)),
        ("forward read", Message::Forward { request, page, rights: Rights::Read, era, line: Line(0) }),
        ("forward write", Message::Forward { request, page, rights: Rights::Write, era, line: Line(45) }),
        ("invalidate", Message::Invalidate { request, page, era }),
        ("invalidate ack", Message::InvalidateAck { request, page, era }),
        ("done", Message::Done { request, page, era }),
        ("retry, home known", Message::Retry { request, page, home: Some(NodeId(7)) }),
        ("retry, home unknown", Message::Retry { request, page, home: None }),
        ("locate", Message::Locate { request, extent }),
        ("located", Message::Located { request, extent, home: Some(NodeId(65535)) }),
        ("located, lost", Message::Located { request, extent, home: None }),
        ("discard", Message::Discard { request, range: PageRange::new(PageNumber(0x1_2345), 0x0543_2109_8765) }),
        ("discard done", Message::DiscardDone { request }),
        ("lost", Message::Lost { request, page, era }),
        ("offload, 16 pages", Message::Offload { request, page, count: 16 }),
        ("declined", Message::Declined { request, page }),
    ]
}

fn grant(rights: Rights, count: u16, content: GrantContent) -> Message {
    Message::Grant { request: REQUEST, page: PAGE, rights, era: ERA, count, content }
}

fn addressed(kind: Kind) -> Header {
    let mut header = Header { version: VERSION, kind: kind as u8, ..Header::default() };
    header.cluster.set(0xc105_7e20);
    header.epoch.set(0x0e90_c401);
    header.source.set(0x5011);
    header.destination.set(0xde57);
    header.space.set(0x0050_ace1);
    header.sequence.set(0x5e90_e4ce_0000_0001);
    header.header_tag.set(0x1111_2222_3333_4444);
    header.payload_tag.set(0x5555_6666_7777_8888);
    header
}

fn line(text: &mut String, name: &str, header: &Header) {
    write!(text, "{name:28}").expect("a string takes text");
    for (index, byte) in header.as_bytes().iter().enumerate() {
        let gap = if [4, 8, 12, 16, 20, 24, 32, 40, 48, 56].contains(&index) { " " } else { "" };
        write!(text, "{gap}{byte:02x}").expect("a string takes text");
    }
    text.push('\n');
}

#[test]
fn every_kind_has_its_golden_bytes() {
    let mut text = String::new();
    let mut kinds = Vec::new();
    for (name, message) in examples() {
        let mut header = addressed(message.kind());
        message.encode(&mut header);
        let (parsed, kind, payload) = Header::split(header.as_bytes()).expect("an encoded header parses");
        assert!(payload.is_empty());
        assert_eq!(Message::decode(parsed, kind), Ok(message), "{name}");
        kinds.push(message.kind());
        line(&mut text, name, &header);
    }
    let mut piece = addressed(Kind::Grant);
    grant(Rights::Write, 1, GrantContent::Bytes).encode(&mut piece);
    piece.set_fragment(2, 3);
    line(&mut text, "grant, piece 2 of 3", &piece);
    for kind in Kind::ALL.into_iter().filter(|kind| !kinds.contains(kind)) {
        line(&mut text, &format!("{kind:?}"), &addressed(kind));
    }
    check_golden("tests/golden/frames.txt", &text);
}

#[test]
fn flags_that_exclude_each_other_are_refused() {
    let mut header = addressed(Kind::Request);
    header.flags = Header::flags_with_count(FLAG_WRITE | FLAG_COPY, 3);
    assert!(Message::decode(&header, Kind::Request).is_err());
    header.flags = Header::flags_with_count(FLAG_COPY, 1);
    assert!(Message::decode(&header, Kind::Grant).is_err());
    assert!(Message::decode(&header, Kind::Ping).is_err());
}

fn check_golden(path: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, text).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "{} differs: see what changed, then UPDATE=1\n{text}", path.display());
}

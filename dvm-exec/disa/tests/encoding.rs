//! Bytes, instructions and text are three forms of one thing.
//!
//! Owns the round trips and the refusals. Must not run instructions.

mod common;

use common::instruction;
use dvm_disa::asm::assemble;
use dvm_disa::decode::{Refusal, decode};
use dvm_disa::encode::{encode, encode_all};
use dvm_disa::instruction::Instruction;
use dvm_disa::map::TX;
use dvm_disa::verify::{VerifyError, verify};
use proptest::prelude::*;

fn text(instructions: &[Instruction]) -> String {
    instructions.iter().map(|instruction| format!("{instruction}\n")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_encoded_is_decoded(instruction in instruction(), offset in 0u64..1 << 20) {
        let pc = TX.base + offset;
        let mut bytes = Vec::new();
        encode(&instruction, pc, &mut bytes);
        prop_assert!(bytes.len() <= 64);
        prop_assert_eq!(decode(&bytes, pc), Ok((instruction, bytes.len())));
        for shorter in 0..bytes.len() {
            prop_assert_eq!(decode(&bytes[..shorter], pc), Err(Refusal::Truncated));
        }
    }

    /// Whatever bytes decode, are the canonical form of what they decode to.
    #[test]
    fn bytes_have_one_meaning_and_one_form(bytes in proptest::collection::vec(any::<u8>(), 0..64), head in any::<u8>()) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = head & 0x3f;
        }
        if let Ok((instruction, length)) = decode(&bytes, TX.base) {
            let mut again = Vec::new();
            encode(&instruction, TX.base, &mut again);
            prop_assert_eq!(&bytes[..length], again.as_slice());
        }
    }

    /// One bit changed: another valid instruction, or refused; never the same instruction.
    #[test]
    fn a_flipped_bit_is_another_instruction_or_none(instruction in instruction(), at in any::<usize>(), bit in 0u8..8) {
        let mut bytes = Vec::new();
        encode(&instruction, TX.base, &mut bytes);
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        if let Ok((other, _)) = decode(&bytes, TX.base) {
            prop_assert_ne!(other, instruction);
        }
    }

    #[test]
    fn assembling_what_was_disassembled_gives_the_same_bytes(all in proptest::collection::vec(instruction(), 0..20)) {
        // rule: E2
        // Branches into the middle are refused by the verifier; that is judged elsewhere.
        let all: Vec<Instruction> = all.into_iter().filter(|one| !matches!(one.target(), Some(t) if t.value().is_some())).collect();
        let bytes = encode_all(&all);
        let source = format!(".entry TX\n{}nop\n", text(&all));
        let object = assemble(&source, "t.disa").map_err(|errors| TestCaseError::fail(format!("{errors}\n{source}")))?;
        let mut expected = bytes;
        expected.extend_from_slice(&[0x00, 0x03]);
        prop_assert_eq!(&object.text, &expected, "{}", source);
        let again: Vec<Instruction> = verify(&object.text).unwrap().iter().map(|placed| placed.instruction).collect();
        prop_assert_eq!(&again[..all.len()], &all[..]);
    }

    /// Any bytes as a text: all instructions, or refused with an offset inside the text.
    #[test]
    fn every_text_is_accepted_whole_or_refused_with_its_offset(good in proptest::collection::vec(instruction(), 0..8), junk in proptest::collection::vec(any::<u8>(), 0..8)) {
        let mut bytes = encode_all(&good);
        let start = bytes.len() as u64;
        bytes.extend_from_slice(&junk);
        match verify(&bytes) {
            Ok(placed) => {
                let all: Vec<Instruction> = placed.iter().map(|placed| placed.instruction).collect();
                prop_assert_eq!(encode_all(&all), bytes);
            }
            Err(VerifyError::Refused { offset, .. }) => prop_assert!(offset >= start && offset < bytes.len() as u64),
            Err(VerifyError::Branch { offset, .. }) => prop_assert!(offset < bytes.len() as u64),
            Err(other) => prop_assert!(false, "{other}"),
        }
    }
}

#[test]
fn an_add_of_three_slots_is_eight_bytes() {
    let object = assemble("add w0, w1, w2\n", "t.disa").unwrap();
    assert_eq!(object.text, [0x01, 0x03, 0x60, 0, 0x60, 1, 0x60, 2]);
}

#[test]
fn bytes_of_each_kind_of_operand() {
    // rule: E1
    for (source, bytes) in [
        ("nop", &[0x00, 0x03][..]),
        ("mov $0, w0", &[0x0b, 0x03, 0x00, 0, 0x60, 0]),
        ("mov $-1, w0", &[0x0b, 0x03, 0x00, 0xff, 0x60, 0]),
        ("mov $128, w0", &[0x0b, 0x03, 0x08, 0x80, 0, 0x60, 0]),
        ("mov:b $128, w0", &[0x0b, 0x00, 0x00, 0x80, 0x60, 0]),
        ("mov $0x80000000, w0", &[0x0b, 0x03, 0x18, 0, 0, 0, 0x80, 0, 0, 0, 0, 0x60, 0]),
        ("mov 16, w0", &[0x0b, 0x03, 0x20, 16, 0x60, 0]),
        ("mov 0x100, w0", &[0x0b, 0x03, 0x28, 0, 1, 0x60, 0]),
        ("mov SR, w0", &[0x0b, 0x03, 0x38, 0, 0, 0, 0, 0, 0x10, 0, 0, 0x60, 0]),
        ("mov (w1), w0", &[0x0b, 0x03, 0x80, 1, 0x60, 0]),
        ("mov -8(w1), w0", &[0x0b, 0x03, 0x81, 1, 0xf8, 0x60, 0]),
        ("mov 0x1234(w1), w0", &[0x0b, 0x03, 0x82, 1, 0x34, 0x12, 0x60, 0]),
        ("mov 0x12345(w1), w0", &[0x0b, 0x03, 0x84, 1, 0x45, 0x23, 1, 0, 0x60, 0]),
        ("mov 1(0x20), w0", &[0x0b, 0x03, 0x41, 0x20, 1, 0x60, 0]),
        ("mov (PR+0x1008), PR+0x1000", &[0x0b, 0x03, 0x80, 1, 0x60, 0]),
        ("mov PR+0x1001, w0", &[0x0b, 0x03, 0x38, 1, 0x10, 0, 0, 1, 0, 0, 0, 0x60, 0]),
        ("mov:d $1.5, w0", &[0x0b, 0x05, 0x18, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f, 0x60, 0]),
        ("mov:f $0.0, w0", &[0x0b, 0x04, 0x00, 0, 0x60, 0]),
        ("x: br:a $x", &[0x07, 0x03, 0xa0, 0]),
        ("br:lt:l w0, $1, $y\ny: nop", &[0x07, 0x2a, 0x60, 0, 0, 1, 0xa0, 8, 0, 3]),
        ("exit:cd", &[0x06, 0x13]),
        ("exit:c1", &[0x06, 0x23]),
        ("cvt:sq:d w0, w1", &[0x19, 0x6b, 0x60, 0, 0x60, 1]),
    ] {
        let object = assemble(source, "t.disa").unwrap_or_else(|errors| panic!("{source}: {errors}"));
        assert_eq!(object.text, bytes, "{source}");
    }
}

#[test]
fn refusals_are_named() {
    // rule: E2
    let op = dvm_disa::isa::Op::Nop;
    for (bytes, refusal) in [
        (&[][..], Refusal::Truncated),
        (&[0x0f, 3], Refusal::UnknownOp(0x0f)),
        (&[0x24, 3], Refusal::UnknownOp(0x24)),
        (&[0xff, 3], Refusal::UnknownOp(0xff)),
        (&[0x00], Refusal::Truncated),
        (&[0x00, 0x83], Refusal::BadAttribute { op, attribute: 0x83 }),
        (&[0x00, 0x06], Refusal::BadAttribute { op, attribute: 0x06 }),
        (&[0x00, 0x00], Refusal::BadAttribute { op, attribute: 0x00 }),
        (&[0x00, 0x0b], Refusal::BadAttribute { op, attribute: 0x0b }),
        (&[0x3e, 3, 0xc0, 0], Refusal::BadOperand(0xc0)),
        (&[0x3e, 3, 0xe0, 0], Refusal::BadOperand(0xe0)),
        (&[0x3e, 3, 0x01, 0], Refusal::BadOperand(0x01)),
        (&[0x3e, 3, 0x83, 0, 0, 0, 0], Refusal::BadOperand(0x83)),
        (&[0x3e, 3, 0x68, 0], Refusal::BadOperand(0x68)),
        (&[0x3e, 3, 0x08, 1, 0], Refusal::NonCanonical),
        (&[0x3e, 3, 0x81, 1, 0], Refusal::NonCanonical),
        (&[0x3e, 3, 0x82, 1, 1, 0], Refusal::NonCanonical),
        (&[0x3e, 3, 0x38, 8, 0x10, 0, 0, 1, 0, 0, 0], Refusal::NonCanonical),
        (&[0x3e, 3, 0x18, 8, 0, 0, 0, 1, 0x50, 0, 0], Refusal::NonCanonical),
        (&[0x3e, 3, 0xa0, 0x80], Refusal::NonCanonical),
    ] {
        assert_eq!(decode(bytes, TX.base), Err(refusal), "{bytes:x?}");
        let error = verify(&[&[0x00, 0x03], bytes].concat());
        match bytes {
            [] => assert!(error.is_ok()),
            // Where it lies two bytes behind the start, its target is in the text, but no instruction.
            [.., 0xa0, 0x80] => assert!(error.is_err()),
            _ => assert_eq!(error, Err(VerifyError::Refused { offset: 2, refusal }), "{bytes:x?}"),
        }
    }
}

#[test]
fn branches_lead_to_instructions() {
    // rule: E3
    let into_the_middle = [0x07, 0x03, 0xa0, 1];
    assert_eq!(verify(&into_the_middle), Err(VerifyError::Branch { offset: 0, target: TX.base + 1 }));
    let out_of_the_text = [0x07, 0x03, 0xa0, 5];
    assert_eq!(verify(&out_of_the_text), Err(VerifyError::Branch { offset: 0, target: TX.base + 5 }));
    let to_the_end = [0x07, 0x03, 0xa0, 4];
    assert!(verify(&to_the_end).is_ok());
    let link = [0x0d, 0x03, 0xa0, 1, 0x60, 0];
    assert_eq!(verify(&link), Err(VerifyError::Branch { offset: 0, target: TX.base + 1 }));
}

#[test]
fn lengths_of_forward_branches_settle() {
    let far = "nop\n".repeat(70);
    let source = format!("br:a $end\n{far}br:a $end\nend: br:a $start\nstart: nop\n");
    let object = assemble(&source, "t.disa").unwrap();
    let placed = verify(&object.text).unwrap();
    assert_eq!(placed[0].length, 5, "a branch over 140 bytes has a literal of 2 bytes");
    assert_eq!(placed.last().map(|last| last.length), Some(2));
}

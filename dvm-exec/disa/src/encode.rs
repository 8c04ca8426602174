//! Instructions into bytes.
//!
//! Owns the layout of an instruction and the lengths of its fields. Must not read bytes.

use crate::instruction::{Instruction, Operand};
use crate::map;

/// How an operand is encoded: bits 5 to 7 of its first byte.
pub(crate) mod mode {
    pub const IMMEDIATE: u8 = 0;
    pub const DIRECT: u8 = 1;
    pub const INDIRECT: u8 = 2;
    pub const WINDOW: u8 = 3;
    pub const WINDOW_INDIRECT: u8 = 4;
    pub const CODE: u8 = 5;
}

/// Appends the instruction that will lie at `pc`, in the fewest bytes.
pub fn encode(instruction: &Instruction, pc: u64, bytes: &mut Vec<u8>) {
    bytes.push(instruction.op().code());
    bytes.push(instruction.ty().code() | instruction.attribute().code() << 3);
    for operand in instruction.operands() {
        encode_operand(*operand, pc, bytes);
    }
}

fn encode_operand(operand: Operand, pc: u64, bytes: &mut Vec<u8>) {
    match operand {
        Operand::Immediate(value) => literal(mode::IMMEDIATE, value, bytes),
        Operand::Code(address) => literal(mode::CODE, address.wrapping_sub(pc) as i64, bytes),
        Operand::Direct(address) => {
            let log = address_log(address);
            bytes.push(mode::DIRECT << 5 | log << 3);
            bytes.extend_from_slice(&address.to_le_bytes()[..1 << log]);
        }
        Operand::Indirect { cell, displacement } => {
            let (log, length) = (address_log(cell), displacement_bytes(displacement));
            bytes.push(mode::INDIRECT << 5 | log << 3 | length);
            bytes.extend_from_slice(&cell.to_le_bytes()[..1 << log]);
            bytes.extend_from_slice(&displacement.to_le_bytes()[..usize::from(length)]);
        }
        Operand::Window(slot) => bytes.extend_from_slice(&[mode::WINDOW << 5, slot]),
        Operand::WindowIndirect { slot, displacement } => {
            let length = displacement_bytes(displacement);
            bytes.extend_from_slice(&[mode::WINDOW_INDIRECT << 5 | length, slot]);
            bytes.extend_from_slice(&displacement.to_le_bytes()[..usize::from(length)]);
        }
    }
}

fn literal(mode: u8, value: i64, bytes: &mut Vec<u8>) {
    let log = signed_log(value);
    bytes.push(mode << 5 | log << 3);
    bytes.extend_from_slice(&value.to_le_bytes()[..1 << log]);
}

/// Log of the fewest bytes that sign-extend to `value`.
fn signed_log(value: i64) -> u8 {
    match value {
        -0x80..=0x7f => 0,
        -0x8000..=0x7fff => 1,
        -0x8000_0000..=0x7fff_ffff => 2,
        _ => 3,
    }
}

/// Log of the fewest bytes that zero-extend to `address`.
fn address_log(address: u64) -> u8 {
    match address {
        0..=0xff => 0,
        0x100..=0xffff => 1,
        0x1_0000..=0xffff_ffff => 2,
        _ => 3,
    }
}

fn displacement_bytes(displacement: i32) -> u8 {
    if displacement == 0 { 0 } else { 1 << signed_log(i64::from(displacement)) }
}

/// The bytes of instructions that follow each other from the start of the text.
#[must_use]
pub fn encode_all(instructions: &[Instruction]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for instruction in instructions {
        let pc = map::TX.base + bytes.len() as u64;
        encode(instruction, pc, &mut bytes);
    }
    bytes
}

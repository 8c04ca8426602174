//! Instructions by chance.
//!
//! Owns the strategy that reaches every operation, type, attribute and kind of operand. Must not judge.

use dvm_disa::instruction::{Instruction, Operand};
use dvm_disa::isa::Op;
use dvm_disa::map;
use dvm_disa::types::{Attribute, Type};
use proptest::prelude::*;

/// Numbers near the borders of every length of field.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        (0u32..64, -2i64..3).prop_map(|(bit, offset)| (1u64 << bit).wrapping_add(offset as u64)),
        (0u32..64, -2i64..3).prop_map(|(bit, offset)| (1u64 << bit).wrapping_neg().wrapping_add(offset as u64)),
        any::<u64>(),
        0u64..300,
        (0u64..0x1000).prop_map(|offset| map::TX.base + offset),
        (0u64..0x900).prop_map(|offset| map::WINDOW.base + offset),
    ]
}

fn operand() -> impl Strategy<Value = Operand> {
    let displacement = || number().prop_map(|value| value as i32);
    prop_oneof![
        number().prop_map(|value| Operand::Immediate(value as i64)),
        number().prop_map(Operand::Direct),
        (number(), displacement()).prop_map(|(cell, displacement)| Operand::Indirect { cell, displacement }),
        any::<u8>().prop_map(Operand::Window),
        (any::<u8>(), displacement()).prop_map(|(slot, displacement)| Operand::WindowIndirect { slot, displacement }),
        (0u64..0x1000).prop_map(|offset| Operand::Code(map::TX.base + offset)),
    ]
}

/// Any instruction.
pub fn instruction() -> impl Strategy<Value = Instruction> {
    let head = (0..Op::ALL.len(), 0..Type::ALL.len(), 0u8..16);
    (head, [operand(), operand(), operand(), operand()]).prop_filter_map("no such combination", |((op, ty, bits), operands)| {
        let (op, ty) = (Op::ALL[op], Type::ALL[ty]);
        // Most operations take one type only: give it to them.
        let ty = if op.types().allow(ty) { ty } else { Type::ALL.iter().copied().find(|ty| op.types().allow(*ty))? };
        let attribute = op.attribute(ty, bits).or_else(|| op.attribute(ty, 0)).unwrap_or(Attribute::None);
        let count = op.places(attribute).len();
        Instruction::new(op, ty, attribute, &operands[..count])
    })
}

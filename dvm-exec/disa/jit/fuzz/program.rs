//! Programs by chance: valid, and likely to go on for a while.
//!
//! Owns the mixture. Must not judge.

use crate::memory::SHARED;
use dvm_disa::encode::encode;
use dvm_disa::instruction::{Instruction, Operand};
use dvm_disa::isa::{Op, Place};
use dvm_disa::map;
use dvm_disa::types::{Attribute, Type};

const INSTRUCTIONS_MAX: u64 = 24;
const ROUNDS_MAX: usize = 64;
/// Slots that programs use: few, so that they meet. The first ones hold addresses to begin with.
const SLOTS: u64 = 8;

/// A sequence of numbers from a seed.
pub struct Chance(dvm_disa::machine::chance::Chance);

impl Chance {
    /// The sequence of a seed.
    pub const fn new(seed: u64) -> Self {
        Self(dvm_disa::machine::chance::Chance::new(seed))
    }

    /// The next one.
    pub const fn next(&mut self) -> u64 {
        self.0.next()
    }

    /// One below a bound.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// An instruction, and the index of the one it may jump to.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    instruction: Instruction,
    target: Option<usize>,
}

/// The program of a seed.
pub fn program(chance: &mut Chance) -> Vec<Line> {
    let count = 4 + chance.below(INSTRUCTIONS_MAX) as usize;
    let mut lines = Vec::new();
    let private = match chance.below(4) {
        // Into the window, or behind it.
        0 => map::WINDOW.base + map::WINDOW.bytes - 32 + chance.below(64),
        _ => map::PR.base + 0x2000 + chance.below(0x1010),
    };
    for (slot, address) in [SHARED.base + 8 * chance.below(64), private].into_iter().enumerate() {
        lines.extend(line(Op::Mov, Type::Q, Attribute::None, &[Operand::Immediate(address as i64), Operand::Window(slot as u8)]));
    }
    while lines.len() < count {
        if chance.below(12) == 0 {
            branch_around(chance, &mut lines);
        } else {
            lines.extend(any(chance, count));
        }
    }
    lines
}

/// A branch around a few instructions that cannot fail.
fn branch_around(chance: &mut Chance, lines: &mut Vec<Line>) {
    let ty = if chance.below(4) == 0 { Type::ALL[chance.below(6) as usize] } else { Type::Q };
    let Some(attribute) = Op::Br.attribute(ty, chance.below(16) as u8) else { return };
    let mut operands: Vec<Operand> =
        Op::Br.places(attribute).iter().map(|place| operand(chance, place.ty(ty, attribute), *place)).collect();
    let Some(target) = operands.last_mut() else { return };
    *target = Operand::Code(map::TX.base);
    let Some(instruction) = Instruction::new(Op::Br, ty, attribute, &operands) else { return };
    let around = 1 + chance.below(5) as usize;
    lines.push(Line { instruction, target: Some(lines.len() + 1 + around) });
    for _ in 0..around {
        let slots = [(); 3].map(|()| Operand::Window(chance.below(SLOTS) as u8));
        let number = Operand::constant(number(chance, Type::Q), Type::Q);
        let first = if chance.below(2) == 0 { slots[0] } else { number };
        let (op, operands) = match chance.below(4) {
            0 => (Op::Mov, vec![first, slots[2]]),
            1 => (Op::Add, vec![first, slots[1], slots[2]]),
            2 => (Op::Sub, vec![slots[1], first, slots[2]]),
            _ => (Op::Xor, vec![slots[0], slots[1], slots[2]]),
        };
        lines.extend(line(op, Type::Q, Attribute::None, &operands));
    }
}

fn line(op: Op, ty: Type, attribute: Attribute, operands: &[Operand]) -> Option<Line> {
    Some(Line { instruction: Instruction::new(op, ty, attribute, operands)?, target: None })
}

fn any(chance: &mut Chance, count: usize) -> Option<Line> {
    const COMMON: [Op; 12] =
        [Op::Add, Op::Sub, Op::Mov, Op::Br, Op::Br, Op::Br, Op::Add, Op::Mul, Op::Set, Op::Xor, Op::Bl, Op::Shr];
    let op = match chance.below(3) {
        0 => Op::ALL[chance.below(Op::ALL.len() as u64) as usize],
        _ => COMMON[chance.below(COMMON.len() as u64) as usize],
    };
    // Ends are rare.
    if matches!(op, Op::Exit | Op::Trap | Op::Newr | Op::Neww) && chance.below(8) > 0 {
        return None;
    }
    let ty = if chance.below(2) == 0 { Type::Q } else { Type::ALL[chance.below(6) as usize] };
    let attribute = op.attribute(ty, chance.below(16) as u8).or_else(|| op.attribute(ty, 0))?;
    let places = op.places(attribute);
    let mut operands: Vec<Operand> = places.iter().map(|place| operand(chance, place.ty(ty, attribute), *place)).collect();
    let is_jump = matches!(op, Op::Br | Op::Bl);
    let mut target = None;
    if is_jump && chance.below(8) > 0 {
        let at = if op == Op::Br { operands.len() - 1 } else { 0 };
        operands[at] = Operand::Code(map::TX.base);
        target = Some(chance.below(count as u64 + 1) as usize);
    }
    let instruction = Instruction::new(op, ty, attribute, &operands)?;
    Some(Line { instruction, target })
}

fn number(chance: &mut Chance, ty: Type) -> u64 {
    match chance.below(8) {
        0 => chance.next(),
        1 => 0u64.wrapping_sub(chance.below(3)),
        2 => 1 << (ty.bits() - 1),
        3 if ty == Type::D => (chance.below(1000) as f64 / 8.0 - 40.0).to_bits(),
        3 if ty == Type::F => u64::from((chance.below(1000) as f32 / 8.0 - 40.0).to_bits()),
        4 if ty.is_float() => [0x7ff0_0000_0000_0000, 0x7f80_0000, 0x7ff8_0000_0000_0001, 1 << 63][chance.below(4) as usize],
        5 => chance.below(4096),
        _ => chance.below(20),
    }
}

fn operand(chance: &mut Chance, ty: Type, place: Place) -> Operand {
    let slot = chance.below(SLOTS) as u8;
    let displacement = match chance.below(8) {
        0 => chance.below(8192) as i32 - 4096,
        _ => chance.below(9) as i32 * 8 - 24,
    };
    let is_out = matches!(place, Place::Out | Place::OutQ | Place::OutTo | Place::InOut);
    match chance.below(12) {
        0..=4 => Operand::Window(slot),
        5..=7 if !is_out => Operand::constant(number(chance, ty), ty),
        5 => Operand::Window(slot),
        8 => Operand::Direct(map::PR.base + 0x2000 + chance.below(40)),
        9 => match chance.below(4) {
            0 => Operand::Direct(map::WINDOW.base + chance.below(70) - 4),
            1 => Operand::Direct(map::WINDOW.base + 2044 + chance.below(8)),
            2 => Operand::Direct(SHARED.base + 2 * map::PAGE_BYTES - 8 + chance.below(16)),
            _ => Operand::Direct(map::TX.base + chance.below(64)),
        },
        10 if chance.below(4) == 0 => Operand::Indirect { cell: map::PR.base + 0x2000 + 8 * chance.below(5), displacement },
        _ => Operand::WindowIndirect { slot: chance.below(3) as u8, displacement },
    }
}

/// The text of a program: targets become addresses, which change the lengths of instructions until they settle.
pub fn text(lines: &[Line]) -> Vec<u8> {
    let mut starts: Vec<u64> = vec![map::TX.base; lines.len() + 1];
    let mut bytes = Vec::new();
    for _ in 0..ROUNDS_MAX {
        bytes.clear();
        let mut found = Vec::new();
        for line in lines {
            let start = map::TX.base + bytes.len() as u64;
            found.push(start);
            encode(&placed(line, &starts), start, &mut bytes);
        }
        found.push(map::TX.base + bytes.len() as u64);
        if found == starts {
            break;
        }
        starts = found;
    }
    bytes
}

fn placed(line: &Line, starts: &[u64]) -> Instruction {
    let Some(target) = line.target else { return line.instruction };
    let mut operands = line.instruction.operands().to_vec();
    let at = if line.instruction.op() == Op::Br { operands.len() - 1 } else { 0 };
    operands[at] = Operand::Code(starts[target.min(starts.len() - 1)]);
    Instruction::new(line.instruction.op(), line.instruction.ty(), line.instruction.attribute(), &operands)
        .unwrap_or(line.instruction)
}

/// Takes an instruction out.
pub fn remove(lines: &mut Vec<Line>, at: usize) {
    lines.remove(at);
    for target in lines.iter_mut().filter_map(|line| line.target.as_mut()) {
        *target -= usize::from(*target > at);
    }
}

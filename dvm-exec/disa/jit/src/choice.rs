//! Branches around a few instructions that only compute with slots: they become choices between values, and nothing is guessed.
//!
//! Owns which branches those are. Must not know machine code.

use crate::limits::CHOSEN_MAX;
use crate::shape::{Kind, constant_target, is_unconditional, kind, written};
use dvm_disa::code::Code;
use dvm_disa::instruction::{Instruction, Operand};
use dvm_disa::isa::Op;
use dvm_disa::types::Type;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Such branches of a unit: each with the instruction that it leads to.
#[derive(Debug, Default)]
pub struct Choices(BTreeMap<u32, u32>);

impl Choices {
    /// Those among the instructions of a unit that have both ways in it.
    pub fn among(code: &Code, reached: &BTreeSet<u32>) -> Self {
        let choice = |branch: &u32| end(code, *branch).filter(|end| reached.contains(end)).map(|end| (*branch, end));
        Self(reached.iter().filter_map(choice).collect())
    }

    /// Leaves out those between which and whose end a block begins; gives them.
    pub fn leave_out(&mut self, leaders: &BTreeSet<u32>) -> Vec<u32> {
        let is_cut = |branch: u32, end: u32| leaders.range(branch + 1..end).next().is_some();
        let cut: Vec<u32> = self.0.iter().filter(|(branch, end)| is_cut(**branch, **end)).map(|(branch, _)| *branch).collect();
        cut.iter().for_each(|branch| {
            self.0.remove(branch);
        });
        cut
    }

    /// The instructions that a branch leads around; `None`: it is another one.
    pub fn around(&self, branch: u32) -> Option<Range<u32>> {
        self.0.get(&branch).map(|end| branch + 1..*end)
    }

    /// Whether a branch leads around an instruction.
    pub fn is_chosen(&self, index: u32) -> bool {
        self.0.range(..index).next_back().is_some_and(|(_, end)| index < *end)
    }
}

/// Where a branch leads that only leads around a few instructions.
fn end(code: &Code, branch: u32) -> Option<u32> {
    let step = code.step(branch)?;
    let instruction = step.instruction.as_ref()?;
    let is_conditional = instruction.op() == Op::Br && kind(instruction) == Kind::Jump && !is_unconditional(instruction);
    constant_target(step).filter(|_| is_conditional)?;
    let around = branch + 1..step.target;
    let mut instructions = around.clone().map(|index| code.step(index).and_then(|step| step.instruction));
    let is_short = (1..=CHOSEN_MAX).contains(&(around.end.checked_sub(around.start)?));
    (is_short && instructions.all(|instruction| instruction.is_some_and(|instruction| only_computes(&instruction))))
        .then_some(step.target)
}

/// Whether all that it does is to give a slot a new value.
fn only_computes(instruction: &Instruction) -> bool {
    let is_at_hand = |operand: &Operand| matches!(operand, Operand::Window(_) | Operand::Immediate(_) | Operand::Code(_));
    matches!(instruction.op(), Op::Mov | Op::Add | Op::Sub | Op::And | Op::Or | Op::Xor)
        && instruction.ty() == Type::Q
        && kind(instruction) == Kind::Plain
        && written(instruction).is_some()
        && instruction.operands().iter().all(is_at_hand)
}

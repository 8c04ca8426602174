//! The unit that is translated: what can be reached from one instruction by constant jumps, cut into blocks.
//!
//! Owns blocks, their edges, and where fuel is checked. Must not know machine code.
//!
//! Fuel is checked where a unit begins, at the heads of its loops and behind instructions that are left to others: there must be
//! enough for the longest way to the next check.

use crate::choice::Choices;
use crate::limits::{RETURNS_MAX, UNIT_INSTRUCTIONS_MAX};
use dvm_disa::code::{Code, Step};
use dvm_disa::instruction::{Instruction, Operand};
use dvm_disa::isa::{Op, Place};
use dvm_disa::map::{Range, WINDOW, WINDOW_SLOTS};
use dvm_disa::types::{Attribute, Condition};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Where control goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// To a block of the unit.
    Block(usize),
    /// To an address that is not in the unit.
    Out(u64),
}

/// How a block ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The next block follows.
    Fall(Target),
    /// The last instruction branches; `None`: the target is a value.
    Branch {
        /// The constant target.
        taken: Option<Target>,
        /// Where it goes on if the condition does not hold; `None`: there is none.
        next: Option<Target>,
    },
    /// The last instruction is left to the interpreter, and does not come back.
    Stop,
}

/// Instructions that are executed one after the other.
#[derive(Clone, Debug)]
pub struct Block {
    /// The first.
    pub first: u32,
    /// Behind the last.
    pub end: u32,
    /// What follows.
    pub ends: End,
    /// Whether fuel is checked where it begins.
    pub is_checked: bool,
    /// The one block it is reached from, if there is just one way.
    pub single: Option<usize>,
    /// Slots that may differ from the window in memory where it begins.
    pub dirty: Slots,
    /// How many loops it is in: what is in more of them is taken to be executed more often.
    pub depth: u32,
}

/// A set of slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slots([u64; WINDOW_SLOTS / 64]);

impl Slots {
    /// Adds one.
    pub const fn insert(&mut self, slot: u8) {
        self.0[slot as usize / 64] |= 1 << (slot % 64);
    }

    /// Adds all of another; whether there were new ones.
    pub fn extend(&mut self, other: Self) -> bool {
        let before = *self;
        self.0.iter_mut().zip(other.0).for_each(|(one, two)| *one |= two);
        *self != before
    }

    /// Them, in order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(move |slot| self.0[usize::from(*slot) / 64] >> (slot % 64) & 1 == 1)
    }
}

/// How an instruction is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By machine code.
    Plain,
    /// By machine code, at the end of a block.
    Jump,
    /// By a function of ours over many bytes, or else by the interpreter, which comes back.
    Bulk,
    /// By the interpreter, which comes back.
    Call,
    /// By the interpreter, which does not come back.
    Stop,
}

/// How an instruction is executed.
pub fn kind(instruction: &Instruction) -> Kind {
    if instruction.operands().iter().any(|operand| is_mixed(*operand)) {
        // A jump by such an operand is the interpreter's to the end.
        return if matches!(instruction.op(), Op::Br | Op::Bl) { Kind::Stop } else { Kind::Call };
    }
    let stores_to_constant = instruction.operands().iter().zip(instruction.places()).any(|(operand, place)| {
        matches!(place, Place::Out | Place::OutQ | Place::OutTo | Place::InOut) && operand.value().is_some()
    });
    match instruction.op() {
        Op::Exit | Op::Trap => Kind::Stop,
        _ if stores_to_constant || has_late_target(instruction) => Kind::Stop,
        Op::Br | Op::Bl => Kind::Jump,
        Op::Copy | Op::Fill => Kind::Bulk,
        Op::Cmpb | Op::Find | Op::Hash if written(instruction).is_some() => Kind::Bulk,
        Op::Newr | Op::Neww | Op::Sys | Op::Cmpb | Op::Find | Op::Hash | Op::Touch | Op::Brk => Kind::Call,
        Op::Nop
        | Op::Add
        | Op::Sub
        | Op::Mul
        | Op::Div
        | Op::And
        | Op::Or
        | Op::Xor
        | Op::Mov
        | Op::Rem
        | Op::Divs
        | Op::Rems
        | Op::Shl
        | Op::Shr
        | Op::Sar
        | Op::Movs
        | Op::Set
        | Op::Popcnt
        | Op::Cvt
        | Op::Sqrt
        | Op::Fma
        | Op::Mulh
        | Op::Mulhs
        | Op::Clz
        | Op::Ctz => Kind::Plain,
    }
}

/// Whether the target is in memory, which may be looked at only if the condition holds.
fn has_late_target(instruction: &Instruction) -> bool {
    let is_in_memory = |target| matches!(target, Operand::Direct(_) | Operand::Indirect { .. } | Operand::WindowIndirect { .. });
    instruction.op() == Op::Br && !is_unconditional(instruction) && instruction.target().is_some_and(is_in_memory)
}

/// Whether it is a cell that has bytes of the window without being a slot.
fn is_mixed(operand: Operand) -> bool {
    match operand {
        Operand::Direct(address) | Operand::Indirect { cell: address, .. } => WINDOW.overlaps(Range::new(address, 8)),
        Operand::Immediate(_) | Operand::Window(_) | Operand::WindowIndirect { .. } | Operand::Code(_) => false,
    }
}

/// Slots that an operand may read or write.
pub fn slots_of(operand: Operand) -> Slots {
    let mut slots = Slots::default();
    match operand {
        Operand::Window(slot) | Operand::WindowIndirect { slot, .. } => slots.insert(slot),
        Operand::Direct(address) | Operand::Indirect { cell: address, .. } => {
            let touched = (0..8).filter_map(|offset| address.wrapping_add(offset).checked_sub(WINDOW.base));
            touched.filter_map(|offset| u8::try_from(offset / 8).ok()).for_each(|slot| slots.insert(slot));
        }
        Operand::Immediate(_) | Operand::Code(_) => {}
    }
    slots
}

/// The slot that an instruction of machine code writes.
pub fn written(instruction: &Instruction) -> Option<u8> {
    let (Operand::Window(slot), Place::Out | Place::OutQ | Place::OutTo | Place::InOut) =
        (*instruction.operands().last()?, *instruction.places().last()?)
    else {
        return None;
    };
    Some(slot)
}

/// A unit.
#[derive(Debug)]
pub struct Shape {
    /// Its blocks; control enters at the first.
    pub blocks: Vec<Block>,
    /// The order in which they are translated: each after one of those it is reached from.
    pub order: Vec<usize>,
    /// Slots that occur.
    pub slots: Slots,
    /// Branches that end no block.
    pub choices: Choices,
    /// Where indirect jumps may lead to: address and block.
    pub returns: Vec<(u64, usize)>,
    /// By block: the longest way to the next check, in instructions.
    costs: Vec<u64>,
}

impl Shape {
    /// The unit that begins at an instruction; `None`: the interpreter would have to do it.
    pub fn new(code: &Code, root: u32) -> Option<Self> {
        let reached = reach(code, root);
        if reached.is_empty() {
            return None;
        }
        let mut choices = Choices::among(code, &reached);
        let (mut blocks, by_first, returns) = cut(code, root, &reached, &mut choices);
        let returns: Vec<(u64, usize)> =
            returns.iter().filter_map(|index| Some((code.step(*index)?.pc, *by_first.get(index)?))).take(RETURNS_MAX).collect();
        let mut shape = Self {
            order: Vec::new(),
            slots: Slots::default(),
            choices,
            returns,
            costs: vec![0; blocks.len()],
            blocks: Vec::new(),
        };
        std::mem::swap(&mut shape.blocks, &mut blocks);
        let loops = shape.order_blocks();
        shape.blocks[0].is_checked = true;
        let before = shape.predecessors();
        shape.find_single(&before);
        shape.find_depths(&before, &loops);
        shape.find_dirty(code);
        shape.find_costs(code);
        Some(shape)
    }

    /// Blocks that may follow a block.
    fn successors(&self, block: usize) -> Vec<usize> {
        let inside = |target: Target| match target {
            Target::Block(block) => Some(block),
            Target::Out(_) => None,
        };
        match &self.blocks[block].ends {
            End::Fall(target) => inside(*target).into_iter().collect(),
            End::Branch { taken: Some(taken), next } => [Some(*taken), *next].into_iter().flatten().filter_map(inside).collect(),
            End::Branch { taken: None, next } => {
                self.returns.iter().map(|(_, block)| *block).chain(next.and_then(inside)).collect()
            }
            End::Stop => Vec::new(),
        }
    }

    /// Depth first: what is met again while it is open is the head of a loop. Gives the heads, and the ends that lead back to them.
    fn order_blocks(&mut self) -> BTreeMap<usize, Vec<usize>> {
        const OPEN: u8 = 1;
        const DONE: u8 = 2;
        let mut state = vec![0; self.blocks.len()];
        let mut stack = vec![(0, self.successors(0))];
        state[0] = OPEN;
        let mut order = Vec::new();
        let mut loops: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        while let Some((block, rest)) = stack.last_mut() {
            match rest.pop() {
                Some(next) if state[next] == 0 => {
                    state[next] = OPEN;
                    let successors = self.successors(next);
                    stack.push((next, successors));
                }
                Some(next) if state[next] == OPEN => {
                    self.blocks[next].is_checked = true;
                    loops.entry(next).or_default().push(*block);
                }
                Some(_) => {}
                None => {
                    state[*block] = DONE;
                    order.push(*block);
                    stack.pop();
                }
            }
        }
        order.reverse();
        self.order = order;
        loops
    }

    /// By block: those that may lead to it.
    fn predecessors(&self) -> Vec<Vec<usize>> {
        let mut before = vec![Vec::new(); self.blocks.len()];
        for block in &self.order {
            self.successors(*block).into_iter().for_each(|next| before[next].push(*block));
        }
        before
    }

    fn find_single(&mut self, before: &[Vec<usize>]) {
        for (block, from) in self.blocks.iter_mut().zip(before) {
            block.single = if let [only] = from[..] { Some(only) } else { None };
        }
        // The unit itself is entered there.
        self.blocks[0].single = None;
    }

    /// A loop is what leads back to its head without passing it.
    fn find_depths(&mut self, before: &[Vec<usize>], loops: &BTreeMap<usize, Vec<usize>>) {
        for (head, ends) in loops {
            let mut inside = BTreeSet::from([*head]);
            let mut work = ends.clone();
            while let Some(block) = work.pop() {
                if inside.insert(block) {
                    work.extend(&before[block]);
                }
            }
            inside.into_iter().for_each(|block| self.blocks[block].depth += 1);
        }
    }

    fn find_dirty(&mut self, code: &Code) {
        let mut after: Vec<(bool, Slots)> = Vec::new();
        for block in &self.blocks {
            let (mut is_synced, mut slots) = (false, Slots::default());
            for index in block.first..block.end {
                let Some(instruction) = code.step(index).and_then(|step| step.instruction) else { continue };
                instruction.operands().iter().for_each(|operand| {
                    self.slots.extend(slots_of(*operand));
                });
                if kind(&instruction) == Kind::Call {
                    (is_synced, slots) = (true, Slots::default());
                } else if let Some(slot) = written(&instruction) {
                    slots.insert(slot);
                }
            }
            after.push((is_synced, slots));
        }
        let mut work: VecDeque<usize> = self.order.iter().copied().collect();
        while let Some(block) = work.pop_front() {
            let (is_synced, mut out) = after[block];
            if !is_synced {
                out.extend(self.blocks[block].dirty);
            }
            for next in self.successors(block) {
                if self.blocks[next].dirty.extend(out) {
                    work.push_back(next);
                }
            }
        }
    }

    fn find_costs(&mut self, code: &Code) {
        for block in self.order.clone().into_iter().rev() {
            self.costs[block] = self.cost_from(code, block, self.blocks[block].first);
        }
    }

    /// The longest way from an instruction of a block to the next check.
    pub fn cost_from(&self, code: &Code, block: usize, from: u32) -> u64 {
        let mut cost = 0;
        for index in from..self.blocks[block].end {
            match code.step(index).and_then(|step| step.instruction).as_ref().map(kind) {
                Some(Kind::Plain | Kind::Jump) => cost += 1,
                Some(Kind::Bulk | Kind::Call | Kind::Stop) | None => return cost,
            }
        }
        let unchecked = self.successors(block).into_iter().filter(|next| !self.blocks[*next].is_checked);
        cost + unchecked.map(|next| self.costs[next]).max().unwrap_or(0)
    }

    /// The longest way from a block to the next check.
    pub fn cost(&self, block: usize) -> u64 {
        self.costs[block]
    }
}

/// The constant target of a branch.
pub fn constant_target(step: &Step) -> Option<Operand> {
    step.instruction.as_ref()?.target().filter(|target| target.value().is_some())
}

/// Whether it jumps in any case.
pub fn is_unconditional(instruction: &Instruction) -> bool {
    instruction.op() == Op::Bl || instruction.attribute() == Attribute::Condition(Condition::Always)
}

/// Instructions that can be reached, the nearest first, as many as a unit may have.
fn reach(code: &Code, root: u32) -> BTreeSet<u32> {
    let mut reached = BTreeSet::new();
    let mut work = VecDeque::from([root]);
    while let Some(index) = work.pop_front() {
        if reached.len() >= UNIT_INSTRUCTIONS_MAX {
            break;
        }
        let Some(step) = code.step(index) else { continue };
        let Some(instruction) = &step.instruction else { continue };
        if !reached.insert(index) {
            continue;
        }
        match kind(instruction) {
            Kind::Stop => {}
            Kind::Plain | Kind::Bulk | Kind::Call => work.push_back(index + 1),
            Kind::Jump => {
                let is_over = instruction.op() == Op::Br && is_unconditional(instruction);
                work.extend((!is_over).then_some(index + 1));
                work.extend(constant_target(step).map(|_| step.target));
            }
        }
    }
    reached
}

/// Blocks, the block that begins at an instruction, and the instructions behind calls.
fn cut(code: &Code, root: u32, reached: &BTreeSet<u32>, choices: &mut Choices) -> (Vec<Block>, BTreeMap<u32, usize>, Vec<u32>) {
    let mut leaders = BTreeSet::from([root]);
    let mut returns = Vec::new();
    let mut jumps: Vec<u32> = reached.iter().copied().filter(|index| choices.around(*index).is_none()).collect();
    while !jumps.is_empty() {
        for index in jumps {
            let Some(step) = code.step(index) else { continue };
            let Some(instruction) = &step.instruction else { continue };
            if kind(instruction) == Kind::Jump {
                leaders.extend([index + 1]);
                leaders.extend(constant_target(step).map(|_| step.target));
                returns.extend((instruction.op() == Op::Bl).then_some(index + 1));
            }
        }
        // Where others jump in between, a branch is one like all.
        jumps = choices.leave_out(&leaders);
    }
    leaders.retain(|leader| reached.contains(leader));
    let firsts: Vec<u32> = std::iter::once(root).chain(leaders.iter().copied().filter(|leader| *leader != root)).collect();
    let by_first: BTreeMap<u32, usize> = firsts.iter().enumerate().map(|(block, first)| (*first, block)).collect();
    let target = |index: u32, pc: u64| by_first.get(&index).map_or(Target::Out(pc), |block| Target::Block(*block));
    let blocks = firsts.iter().map(|first| {
        let mut end = *first;
        let ends = loop {
            let step = code.step(end).filter(|_| reached.contains(&end));
            let Some((step, instruction)) = step.and_then(|step| Some((step, step.instruction.as_ref()?))) else {
                // Beyond the unit, or no instruction.
                let before = code.step(end - 1).map_or(0, |step| step.next_pc);
                break End::Fall(Target::Out(before));
            };
            if end > *first && leaders.contains(&end) {
                break End::Fall(target(end, step.pc));
            }
            end += 1;
            match kind(instruction) {
                Kind::Plain | Kind::Bulk | Kind::Call => {}
                Kind::Jump if choices.around(end - 1).is_some() => {}
                Kind::Stop => break End::Stop,
                Kind::Jump => {
                    let taken = constant_target(step).map(|operand| target(step.target, operand.value().unwrap_or(step.next_pc)));
                    let next = (!is_unconditional(instruction)).then(|| target(end, step.next_pc));
                    break End::Branch { taken, next };
                }
            }
        };
        let (is_checked, single, dirty, depth) = (false, None, Slots::default(), 0);
        Block { first: *first, end, ends, is_checked, single, dirty, depth }
    });
    (blocks.collect(), by_first, returns)
}

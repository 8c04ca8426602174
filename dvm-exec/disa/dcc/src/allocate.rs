//! Variables into slots of the window: liveness, then a linear scan.
//!
//! Owns which slot a variable gets, and which variables lie in the frame instead. Must not know what instructions do.

use crate::code::{Base, Code, FRAME_SLOT, Instruction, Line, Operand};
use crate::diagnostic::Reason;
use crate::limits::FRAME_BYTES_MAX;
use dvm_disa::isa::Op;
use dvm_disa::types::{Attribute, Type};
use std::collections::{BTreeMap, BTreeSet};

/// Slots that a call may change.
const FREE: std::ops::Range<u8> = 10..128;
/// Slots that a function gives back as they were.
const SAVED: std::ops::Range<u8> = 128..240;
/// Slots for pointers that lie in the frame: one for each operand.
const SCRATCH: std::ops::Range<u8> = 240..244;

/// Where a variable is.
#[derive(Clone, Copy, Debug)]
enum Home {
    Slot(u8),
    Frame(u64),
}

/// From the first line where a variable is alive to the last.
#[derive(Clone, Copy, Debug)]
struct Interval {
    variable: u32,
    start: usize,
    end: usize,
    crosses_call: bool,
}

/// Gives every variable its place.
///
/// # Errors
/// The frame becomes too large.
pub fn allocate(code: &mut Code) -> Result<(), Reason> {
    let (intervals, unset) = intervals(code);
    let zeros = unset.into_iter().filter(|variable| !code.given.iter().any(|(given, _)| given == variable));
    let zeros: Vec<Line> = zeros
        .map(|variable| {
            let operands = vec![Operand::Integer(0), Operand::Variable(variable)];
            Line::Instruction(Instruction { op: Op::Mov, ty: Type::Q, attribute: Attribute::None, operands })
        })
        .collect();
    let homes = scan(code, intervals);
    // Behind the parameters nothing is needed: all are set before their first use or here.
    code.lines.splice(2..2, zeros);
    let mut lines = Vec::with_capacity(code.lines.len());
    for line in std::mem::take(&mut code.lines) {
        match line {
            Line::Instruction(instruction) => settle(instruction, &homes, &mut lines),
            other => lines.push(other),
        }
    }
    code.lines = lines;
    if !code.is_runner {
        let used: BTreeSet<u8> = homes.values().filter_map(|home| saved_slot(*home)).collect();
        for slot in used {
            code.saved.push((slot, code.frame_bytes));
            code.frame_bytes += 8;
        }
    }
    if code.frame_bytes > FRAME_BYTES_MAX {
        return Err(Reason::TooMany { what: "bytes of a function's variables", max: FRAME_BYTES_MAX });
    }
    Ok(())
}

fn saved_slot(home: Home) -> Option<u8> {
    match home {
        Home::Slot(slot) if SAVED.contains(&slot) => Some(slot),
        Home::Slot(_) | Home::Frame(_) => None,
    }
}

/// A stretch of lines that is entered at its start and left at its end.
#[derive(Debug, Default)]
struct Block {
    start: usize,
    end: usize,
    next: Vec<usize>,
    /// Variables read before they are written.
    needs: BTreeSet<u32>,
    writes: BTreeSet<u32>,
    live_in: BTreeSet<u32>,
    live_out: BTreeSet<u32>,
}

fn blocks(code: &Code) -> Vec<Block> {
    let mut starts: BTreeSet<usize> = BTreeSet::from([0]);
    let mut labels: BTreeMap<u32, usize> = BTreeMap::new();
    for (index, line) in code.lines.iter().enumerate() {
        match line {
            Line::Label(label) => {
                starts.insert(index);
                labels.insert(*label, index);
            }
            Line::Instruction(instruction) if instruction.ends_block() || instruction.label().is_some() => {
                starts.insert(index + 1);
            }
            Line::Leave => {
                starts.insert(index + 1);
            }
            Line::Instruction(_) | Line::Source(_) | Line::Enter => {}
        }
    }
    let starts: Vec<usize> = starts.into_iter().filter(|start| *start < code.lines.len()).collect();
    let mut blocks = Vec::with_capacity(starts.len());
    for (index, start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(code.lines.len());
        let mut block = Block { start: *start, end, ..Block::default() };
        let mut falls_through = true;
        for line in &code.lines[*start..end] {
            falls_through = !matches!(line, Line::Leave);
            let Line::Instruction(instruction) = line else { continue };
            falls_through = !instruction.ends_block();
            block.needs.extend(instruction.reads().filter(|variable| !block.writes.contains(variable)));
            block.writes.extend(instruction.writes());
            let target = instruction.label().and_then(|label| labels.get(&label));
            block.next.extend(target.and_then(|target| starts.binary_search(target).ok()));
        }
        if falls_through && index + 1 < starts.len() {
            block.next.push(index + 1);
        }
        blocks.push(block);
    }
    blocks
}

fn solve(blocks: &mut [Block]) {
    let mut is_settled = false;
    while !is_settled {
        is_settled = true;
        for index in (0..blocks.len()).rev() {
            let mut live_out = BTreeSet::new();
            for next in &blocks[index].next {
                live_out.extend(&blocks[*next].live_in);
            }
            let block = &blocks[index];
            let mut live_in: BTreeSet<u32> = live_out.difference(&block.writes).copied().collect();
            live_in.extend(&block.needs);
            if live_in != block.live_in || live_out != block.live_out {
                is_settled = false;
                blocks[index].live_in = live_in;
                blocks[index].live_out = live_out;
            }
        }
    }
}

/// Where variables are alive, by start, and those that may be read before they are set.
fn intervals(code: &Code) -> (Vec<Interval>, BTreeSet<u32>) {
    let mut blocks = blocks(code);
    solve(&mut blocks);
    let mut spans: BTreeMap<u32, (usize, usize)> = BTreeMap::new();
    let mut touch = |variable: u32, at: usize| {
        let span = spans.entry(variable).or_insert((at, at));
        *span = (span.0.min(at), span.1.max(at));
    };
    for block in &blocks {
        block.live_in.iter().for_each(|variable| touch(*variable, block.start));
        block.live_out.iter().for_each(|variable| touch(*variable, block.end));
        for (at, line) in code.lines.iter().enumerate().take(block.end).skip(block.start) {
            if let Line::Instruction(instruction) = line {
                instruction.reads().chain(instruction.writes()).for_each(|variable| touch(variable, at));
            }
        }
    }
    let calls: Vec<usize> = (0..code.lines.len())
        .filter(|at| matches!(&code.lines[*at], Line::Instruction(instruction) if instruction.is_call()))
        .collect();
    let mut intervals: Vec<Interval> = spans
        .into_iter()
        .map(|(variable, (start, end))| {
            let first_call = calls.partition_point(|call| *call <= start);
            let crosses_call = calls.get(first_call).is_some_and(|call| *call < end);
            Interval { variable, start, end, crosses_call }
        })
        .collect();
    intervals.sort_by_key(|interval| (interval.start, interval.variable));
    let unset = blocks.first().map(|block| block.live_in.clone()).unwrap_or_default();
    (intervals, unset)
}

/// The linear scan.
fn scan(code: &mut Code, intervals: Vec<Interval>) -> BTreeMap<u32, Home> {
    let mut homes: BTreeMap<u32, Home> = code.given.iter().map(|(variable, slot)| (*variable, Home::Slot(*slot))).collect();
    let mut free: [BTreeSet<u8>; 2] = [FREE.collect(), SAVED.collect()];
    let class = |slot: u8| usize::from(SAVED.contains(&slot));
    let mut active: Vec<(Interval, u8)> = Vec::new();
    for interval in intervals {
        if homes.contains_key(&interval.variable) {
            continue;
        }
        active.retain(|(old, slot)| {
            let is_over = old.end <= interval.start;
            if is_over {
                free[class(*slot)].insert(*slot);
            }
            !is_over
        });
        let slot = if interval.crosses_call { None } else { free[0].pop_first() };
        if let Some(slot) = slot.or_else(|| free[1].pop_first()) {
            homes.insert(interval.variable, Home::Slot(slot));
            active.push((interval, slot));
            continue;
        }
        // The one that is needed longest goes to the frame.
        let fits = |slot: u8| !interval.crosses_call || SAVED.contains(&slot);
        let longest = active.iter().enumerate().filter(|(_, (_, slot))| fits(*slot)).max_by_key(|(_, (old, _))| old.end);
        let frame = Home::Frame(code.frame_bytes);
        code.frame_bytes += 8;
        match longest.filter(|(_, (old, _))| old.end > interval.end).map(|(index, _)| index) {
            Some(index) => {
                let (old, slot) = active.swap_remove(index);
                homes.insert(old.variable, frame);
                homes.insert(interval.variable, Home::Slot(slot));
                active.push((interval, slot));
            }
            None => {
                homes.insert(interval.variable, frame);
            }
        }
    }
    homes
}

/// Puts homes in the place of variables.
fn settle(mut instruction: Instruction, homes: &BTreeMap<u32, Home>, lines: &mut Vec<Line>) {
    let frame = |offset: u64| Operand::Memory(Base::Slot(FRAME_SLOT), offset as i32);
    // A variable that is written and never read, in code that nobody reaches.
    let home = |variable: u32| homes.get(&variable).copied().unwrap_or(Home::Slot(SCRATCH.end));
    let mut scratch = SCRATCH;
    for operand in &mut instruction.operands {
        let settled = match &*operand {
            Operand::Variable(variable) => match home(*variable) {
                Home::Slot(slot) => Operand::Slot(slot),
                Home::Frame(offset) => frame(offset),
            },
            Operand::Memory(Base::Variable(variable), displacement) => match home(*variable) {
                Home::Slot(slot) => Operand::Memory(Base::Slot(slot), *displacement),
                Home::Frame(offset) => {
                    let slot = scratch.next().unwrap_or(SCRATCH.start);
                    let operands = vec![frame(offset), Operand::Slot(slot)];
                    let (ty, attribute) = (Type::Q, Attribute::None);
                    lines.push(Line::Instruction(Instruction { op: Op::Mov, ty, attribute, operands }));
                    Operand::Memory(Base::Slot(slot), *displacement)
                }
            },
            other => other.clone(),
        };
        *operand = settled;
    }
    let is_idle = instruction.op == Op::Mov && instruction.ty == Type::Q && instruction.operands[0] == instruction.operands[1];
    if !is_idle {
        lines.push(Line::Instruction(instruction));
    }
}

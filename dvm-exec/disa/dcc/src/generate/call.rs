//! Calls of functions, instructions by name, system calls, runners.
//!
//! Owns how arguments are passed. Must not know how they are computed.

use super::{Generator, number};
use crate::code::{FRAME_SLOT, Operand, RESULT_SLOT, RETURN_SLOT, Symbolic};
use crate::limits::{HEAP_BLOCK, SYSTEM_BLOCK, WATCH_BLOCK};
use crate::print;
use crate::typed::{Builtin, Runner, Value};
use dvm_disa::isa::{Op, Types};
use dvm_disa::map::{self, cell};
use dvm_disa::types::{Attribute, Type};

impl Generator<'_> {
    /// All values, each surviving those behind it.
    fn values<'v>(&mut self, values: impl IntoIterator<Item = &'v Value>) -> Vec<Operand> {
        let values: Vec<&Value> = values.into_iter().collect();
        let mut operands = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            let rest_is_pure = values[index + 1..].iter().all(|value| value.is_pure);
            operands.push(self.kept(value, rest_is_pure));
        }
        operands
    }

    pub(super) fn call(&mut self, name: &str, arguments: &[Value], to: Option<Operand>) {
        for (slot, operand) in (RESULT_SLOT..).zip(self.values(arguments)) {
            self.mov(operand, Operand::Slot(slot));
        }
        let frame = || Operand::Slot(FRAME_SLOT);
        self.plain(Op::Add, vec![frame(), Operand::FrameBytes, frame()]);
        let function = Symbolic { name: Some(name.into()), offset: 0 };
        self.plain(Op::Bl, vec![Operand::Address(function), Operand::Slot(RETURN_SLOT)]);
        self.plain(Op::Sub, vec![frame(), Operand::FrameBytes, frame()]);
        if let Some(to) = to {
            self.mov(Operand::Slot(RESULT_SLOT), to);
        }
    }

    pub(super) fn builtin(&mut self, builtin: Builtin, arguments: &[Value], is_real: bool, to: Option<Operand>) {
        let operands = self.values(arguments);
        match builtin {
            Builtin::Instruction(op) => self.instruction(op, operands, is_real, to),
            Builtin::SystemIn(call) => {
                let operands = [Operand::Integer(call as i64)].into_iter().chain(operands).collect();
                self.plain(Op::Sys, operands);
            }
            Builtin::SystemOut(call) => {
                // The call stores where its operand says, which the table of instructions does not know: a cell.
                let block = Operand::Cell(number(SYSTEM_BLOCK));
                self.plain(Op::Sys, vec![Operand::Integer(call as i64), block.clone()]);
                if let Some(to) = to {
                    self.mov(block, to);
                }
            }
            Builtin::Block(call, result) => self.block(call, operands, result, to),
            Builtin::Open => self.open(operands, to),
            Builtin::Cell(address) => {
                if let Some(to) = to {
                    self.mov(Operand::Cell(number(address)), to);
                }
            }
            Builtin::ExitCode => {
                let (Some(to), [id]) = (to, &operands[..]) else { return };
                let offset = self.fresh();
                let shift = Operand::Integer(map::PAGE_BYTES.trailing_zeros().into());
                self.plain(Op::Shl, vec![id.clone(), shift, offset.clone()]);
                self.plain(Op::Add, vec![offset, Operand::Integer(map::EXIT_CODES.base as i64), to]);
            }
        }
    }

    fn instruction(&mut self, op: Op, mut operands: Vec<Operand>, is_real: bool, to: Option<Operand>) {
        let ty = if is_real { Type::D } else { Type::Q };
        let has_result = operands.len() < op.places(Attribute::None).len();
        if op == Op::Fma {
            let sum = operands.pop().unwrap_or(Operand::Real(0));
            let total = self.settled(sum);
            operands.push(total.clone());
            self.emit(op, ty, Attribute::None, operands);
            if let Some(to) = to {
                self.mov(total, to);
            }
            return;
        }
        if matches!(op, Op::Fill | Op::Find) {
            operands[0] = self.byte(operands[0].clone());
        }
        if has_result {
            let result = to.unwrap_or_else(|| self.fresh());
            operands.push(result);
        }
        let ty = if op.types() == Types::Untyped { Type::Q } else { ty };
        self.emit(op, ty, Attribute::None, operands);
    }

    /// A byte operand reads one byte of memory or slot; a constant must be one.
    fn byte(&mut self, operand: Operand) -> Operand {
        match operand {
            Operand::Integer(value) => Operand::Integer(i64::from(value as u8)),
            Operand::Address(_) => self.settled(operand),
            other => other,
        }
    }

    /// The arguments of a system call, with length before address where there is text.
    fn block(&mut self, call: u64, operands: Vec<Operand>, result: Option<usize>, to: Option<Operand>) {
        // Sources say (address, length), the machine takes {length, address}.
        let order: &[usize] = match (call, operands.len()) {
            (2 | 9, 2) => &[1, 0],
            (3, 3) => &[1, 0, 2],
            _ => &[0, 1, 2],
        };
        let zero = Operand::Integer(0);
        // {bytes, 0} allocates, {0, address} gives back.
        let operands = match (call, result, &operands[..]) {
            (5, Some(_), [bytes]) => vec![bytes.clone(), zero],
            (5, None, [address]) => vec![zero, address.clone()],
            _ => order.iter().filter_map(|index| operands.get(*index)).cloned().collect(),
        };
        for (index, operand) in operands.into_iter().enumerate() {
            self.mov(operand, Operand::Cell(number(SYSTEM_BLOCK + 8 * index as u64)));
        }
        self.plain(Op::Sys, vec![Operand::Integer(call as i64), Operand::Integer(SYSTEM_BLOCK as i64)]);
        if let (Some(index), Some(to)) = (result, to) {
            self.mov(Operand::Cell(number(SYSTEM_BLOCK + 8 * index as u64)), to);
        }
    }

    fn open(&mut self, operands: Vec<Operand>, to: Option<Operand>) {
        let [name, length, bytes] = &operands[..] else { return };
        let pointer = self.settled(bytes.clone());
        self.block(4, vec![length.clone(), name.clone()], None, None);
        let Operand::Variable(variable) = pointer else { return };
        let word = |index: u64| Operand::Cell(number(SYSTEM_BLOCK + 8 * index));
        self.mov(word(1), Operand::Memory(crate::code::Base::Variable(variable), 0));
        if let Some(to) = to {
            self.mov(word(0), to);
        }
    }

    pub(super) fn runner(&mut self, runner: &Runner, to: Option<Operand>) {
        let ranges = runner.using.iter().chain(&runner.watching).flat_map(|(base, bytes)| [base, bytes]);
        let values: Vec<&Value> = ranges.chain(&runner.arguments).collect();
        let operands = self.values(values);
        let (ranges, arguments) = operands.split_at(2 * (runner.using.len() + runner.watching.len()));
        let (using, watching) = ranges.split_at(2 * runner.using.len());
        let heap = self.list(HEAP_BLOCK, using);
        let watched = self.list(WATCH_BLOCK, watching);
        let constant = |name: String| Operand::Address(Symbolic { name: Some(name), offset: 0 });
        let first = constant(print::first(&runner.name));
        let op = if runner.is_persistent { Op::Neww } else { Op::Newr };
        self.plain(op, vec![constant(print::NOTHING.into()), heap, watched, first]);
        for (index, argument) in arguments.iter().enumerate() {
            self.mov(argument.clone(), Operand::CellPointer(number(cell::NEW_ARGUMENTS), 8 * index as i32));
        }
        if let Some(to) = to {
            self.mov(Operand::Cell(number(cell::NEW_ID)), to);
        }
    }

    /// A list of ranges in private memory; where it is.
    fn list(&mut self, block: u64, ranges: &[Operand]) -> Operand {
        if ranges.is_empty() {
            return Operand::Address(Symbolic { name: Some(print::NOTHING.into()), offset: 0 });
        }
        let count = Operand::Integer(ranges.len() as i64 / 2);
        for (index, operand) in [count].iter().chain(ranges).enumerate() {
            self.mov(operand.clone(), Operand::Cell(number(block + 8 * index as u64)));
        }
        Operand::Integer(block as i64)
    }
}

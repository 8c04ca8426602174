//! Operands, and the checks of pointers.
//!
//! Owns which accesses share a check: those of a block, and of blocks that only it leads to, that go by the same value of a
//! pointer and lie near each other. Must not know what is computed.

use super::Lower;
use crate::choice::Choices;
use crate::frame::offset;
use crate::limits::SPAN_BYTES_MAX;
use crate::shape::{Kind, kind, slots_of, written};
use crate::sys;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value, types};
use dvm_disa::code::Code;
use dvm_disa::instruction::{Instruction, Operand};
use dvm_disa::isa::{Op, Place};
use dvm_disa::memory::Access;
use dvm_disa::types::Type;
use std::collections::BTreeMap;
use std::ops::Range;

/// A place in machine code where memory is checked.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// Bytes that are checked.
    pub bytes: u64,
    /// What for.
    pub access: Access,
    /// Whether the address is always the same.
    pub is_fixed: bool,
}

/// A value that pointers are counted from: what a slot held at some place, or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Symbol {
    /// Of constant addresses.
    Zero,
    /// What a slot holds after the instruction, or before the block, at an address.
    Slot { slot: u8, at: u64, is_block: bool },
}

/// Bytes between two distances from a symbol.
#[derive(Clone, Copy, Debug)]
struct Span {
    symbol: Symbol,
    from: i128,
    to: i128,
    access: Access,
}

impl Span {
    fn covers(&self, other: &Self) -> bool {
        let is_allowed = self.access == Access::Store || other.access == Access::Load;
        self.symbol == other.symbol && self.from <= other.from && other.to <= self.to && is_allowed
    }
}

/// What is known of the pointers of a block.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    /// Where the row of blocks begins that only the one before leads to.
    origin: u64,
    symbols: BTreeMap<u8, (Symbol, i128)>,
    /// What will be accessed in this block.
    planned: Vec<Span>,
    /// What was checked, and where its first byte is.
    checked: Vec<(Span, Value)>,
}

impl Groups {
    /// Looks through a block before it is translated.
    pub fn begin(&mut self, code: &Code, choices: &Choices, block: Range<u32>, inherits: bool) {
        if !inherits {
            self.origin = code.step(block.start).map_or(0, |step| step.pc);
        }
        let mut ahead = self.clone();
        ahead.planned.clear();
        for (index, step) in block.filter_map(|index| Some((index, code.step(index)?))) {
            let Some(instruction) = &step.instruction else { continue };
            if choices.is_chosen(index) {
                written(instruction).into_iter().for_each(|slot| ahead.renew(slot, step.pc));
                continue;
            }
            if matches!(kind(instruction), Kind::Plain | Kind::Jump | Kind::Bulk) {
                for (operand, place) in instruction.operands().iter().zip(instruction.places()) {
                    let bytes = place.ty(instruction.ty(), instruction.attribute()).bytes();
                    let is_store = matches!(place, Place::Out | Place::OutQ | Place::OutTo | Place::InOut);
                    ahead.plan(*operand, bytes, if is_store { Access::Store } else { Access::Load });
                }
            }
            ahead.advance(step.pc, instruction);
        }
        self.planned = ahead.planned;
    }

    fn plan(&mut self, operand: Operand, bytes: usize, access: Access) {
        let (operand, bytes, access) = match operand {
            Operand::Indirect { cell, .. } => (Operand::Direct(cell), 8, Access::Load),
            _ => (operand, bytes, access),
        };
        let Some(span) = self.span(operand, bytes, access) else { return };
        for planned in self.planned.iter_mut().filter(|planned| planned.symbol == span.symbol) {
            let (from, to) = (planned.from.min(span.from), planned.to.max(span.to));
            if to - from <= i128::from(SPAN_BYTES_MAX) {
                let access = if span.access == Access::Store { Access::Store } else { planned.access };
                *planned = Span { from, to, access, ..*planned };
                return;
            }
        }
        self.planned.push(span);
    }

    /// The bytes of an operand in memory.
    fn span(&self, operand: Operand, bytes: usize, access: Access) -> Option<Span> {
        let (symbol, from) = match operand {
            Operand::Direct(address) => (Symbol::Zero, i128::from(address)),
            Operand::WindowIndirect { slot, displacement } => {
                let (symbol, distance) = self.pointer(slot);
                (symbol, distance + i128::from(displacement))
            }
            Operand::Immediate(_) | Operand::Code(_) | Operand::Window(_) | Operand::Indirect { .. } => return None,
        };
        Some(Span { symbol, from, to: from + bytes as i128, access })
    }

    fn pointer(&self, slot: u8) -> (Symbol, i128) {
        let unchanged = (Symbol::Slot { slot, at: self.origin, is_block: true }, 0);
        self.symbols.get(&slot).copied().unwrap_or(unchanged)
    }

    /// Takes note of what an instruction does to pointers.
    pub fn advance(&mut self, pc: u64, instruction: &Instruction) {
        if kind(instruction) == Kind::Call {
            for operand in instruction.operands() {
                slots_of(*operand).iter().for_each(|slot| self.renew(slot, pc));
            }
            return;
        }
        let Some(slot) = written(instruction) else { return };
        let [first, second] = [0, 1].map(|index| instruction.operand(index));
        let moved = match (instruction.op(), first, second) {
            (Op::Add, Operand::Window(from), Operand::Immediate(by))
            | (Op::Add, Operand::Immediate(by), Operand::Window(from)) => Some((from, i128::from(by))),
            (Op::Sub, Operand::Window(from), Operand::Immediate(by)) => Some((from, -i128::from(by))),
            (Op::Mov, Operand::Window(from), _) => Some((from, 0)),
            _ => None,
        };
        match moved.filter(|_| instruction.ty() == Type::Q) {
            Some((from, by)) => {
                let (symbol, distance) = self.pointer(from);
                self.symbols.insert(slot, (symbol, distance + by));
            }
            None => self.renew(slot, pc),
        }
    }

    /// A slot has a value that is counted from no other one.
    pub fn renew(&mut self, slot: u8, at: u64) {
        self.symbols.insert(slot, (Symbol::Slot { slot, at, is_block: false }, 0));
    }
}

impl Lower<'_, '_> {
    /// What an operand holds, zero-extended.
    pub fn value(&mut self, operand: Operand, ty: Type, pc: u64) -> Value {
        match operand {
            Operand::Immediate(value) => self.constant(value as u64 & ty.mask()),
            Operand::Code(address) => self.constant(address & ty.mask()),
            Operand::Window(slot) => {
                let value = self.builder.use_var(self.variable(slot));
                self.zero_extend(value, ty)
            }
            Operand::Direct(_) | Operand::Indirect { .. } | Operand::WindowIndirect { .. } => {
                let (host, distance) = self.host(operand, ty.bytes(), Access::Load, pc);
                let ins = self.builder.ins();
                match ty.bytes() {
                    1 => ins.uload8(types::I64, self.runner, host, distance),
                    2 => ins.uload16(types::I64, self.runner, host, distance),
                    4 => ins.uload32(self.runner, host, distance),
                    _ => ins.load(types::I64, self.runner, host, distance),
                }
            }
        }
    }

    /// Stores the low bytes of a value. Nothing that may fail comes after it in an instruction.
    pub fn put(&mut self, operand: Operand, ty: Type, value: Value, pc: u64) {
        match operand {
            Operand::Window(slot) => {
                let variable = self.variable(slot);
                let value = if ty.bytes() == 8 {
                    value
                } else {
                    let old = self.builder.use_var(variable);
                    let others = self.constant(!ty.mask());
                    let old = self.builder.ins().band(old, others);
                    let value = self.zero_extend(value, ty);
                    self.builder.ins().bor(old, value)
                };
                self.builder.def_var(variable, value);
                self.dirty.insert(slot);
            }
            Operand::Direct(_) | Operand::Indirect { .. } | Operand::WindowIndirect { .. } => {
                let (host, distance) = self.host(operand, ty.bytes(), Access::Store, pc);
                let ins = self.builder.ins();
                match ty.bytes() {
                    1 => ins.istore8(self.runner, value, host, distance),
                    2 => ins.istore16(self.runner, value, host, distance),
                    4 => ins.istore32(self.runner, value, host, distance),
                    _ => ins.store(self.runner, value, host, distance),
                };
            }
            Operand::Immediate(_) | Operand::Code(_) => unreachable!("stores to constants are the interpreter's"),
        }
    }

    pub fn zero_extend(&mut self, value: Value, ty: Type) -> Value {
        let Some(value) = self.reduce(value, ty) else { return value };
        self.builder.ins().uextend(types::I64, value)
    }

    pub fn sign_extend(&mut self, value: Value, ty: Type) -> Value {
        let Some(value) = self.reduce(value, ty) else { return value };
        self.builder.ins().sextend(types::I64, value)
    }

    /// The low bytes of a value; `None`: those are all.
    fn reduce(&mut self, value: Value, ty: Type) -> Option<Value> {
        let narrow = match ty.bytes() {
            1 => types::I8,
            2 => types::I16,
            4 => types::I32,
            _ => return None,
        };
        Some(self.builder.ins().ireduce(narrow, value))
    }

    /// Where an operand is in this process: an address, checked, and a distance from it.
    fn host(&mut self, operand: Operand, bytes: usize, access: Access, pc: u64) -> (Value, i32) {
        if let Operand::Indirect { cell, displacement } = operand {
            let base = self.value(Operand::Direct(cell), Type::Q, pc);
            let displacement = self.constant(i64::from(displacement) as u64);
            let address = self.builder.ins().iadd(base, displacement);
            let site = Site { bytes: bytes as u64, access, is_fixed: false };
            return (self.check(address, site, pc), 0);
        }
        let span = self.groups.span(operand, bytes, access).expect("the operand is in memory");
        if let Some((known, host)) = self.groups.checked.iter().find(|(known, _)| known.covers(&span)) {
            return (*host, (span.from - known.from) as i32);
        }
        let whole = self.groups.planned.iter().copied().find(|planned| planned.covers(&span)).unwrap_or(span);
        let (address, is_fixed) = match operand {
            Operand::WindowIndirect { slot, displacement } => {
                let value = self.builder.use_var(self.variable(slot));
                let distance = i128::from(displacement) + whole.from - span.from;
                let distance = self.constant(distance as i64 as u64);
                (self.builder.ins().iadd(value, distance), false)
            }
            _ => (self.constant(whole.from as u64), true),
        };
        let site = Site { bytes: (whole.to - whole.from) as u64, access: whole.access, is_fixed };
        let host = self.check(address, site, pc);
        self.groups.checked.push((whole, host));
        (host, (span.from - whole.from) as i32)
    }

    /// Where the bytes from an address on are; if they may not be accessed directly, the instruction is the interpreter's.
    fn check(&mut self, address: Value, site: Site, pc: u64) -> Value {
        let index = self.sites.len();
        self.sites.push(site);
        let [base, room, host] = offset::site(index).map(|offset| self.field(offset));
        let (ask, found) = (self.builder.create_block(), self.builder.create_block());
        self.builder.set_cold_block(ask);
        let result = self.builder.append_block_param(found, types::I64);
        if site.is_fixed {
            self.builder.ins().brif(host, found, &[host.into()], ask, &[]);
        } else {
            let distance = self.builder.ins().isub(address, base);
            let is_inside = self.builder.ins().icmp(IntCC::UnsignedLessThan, distance, room);
            let host = self.builder.ins().iadd(distance, host);
            self.builder.ins().brif(is_inside, found, &[host.into()], ask, &[]);
        }
        self.builder.seal_block(ask);
        self.builder.switch_to_block(ask);
        let index = self.constant(index as u64);
        let callee = self.constant(sys::miss_address());
        let call = self.builder.ins().call_indirect(self.miss_signature, callee, &[self.frame, index, address]);
        let asked = self.builder.inst_results(call)[0];
        let exit = self.exit(pc);
        self.builder.ins().brif(asked, found, &[asked.into()], exit, &[]);
        self.builder.seal_block(found);
        self.builder.switch_to_block(found);
        result
    }
}

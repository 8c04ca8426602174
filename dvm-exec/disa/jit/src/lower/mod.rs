//! From a unit to the code generator's instructions.
//!
//! Owns blocks, fuel and the ways out, on which every slot that changed goes back to the window. Must not know the machine.
//!
//! An instruction whose checks fail changes nothing: code stops before it, and the interpreter executes it and finds the trap.

mod access;
mod bulk;
mod float;
mod integer;

use crate::frame::{offset, status};
use crate::shape::{End, Kind, Shape, Slots, Target, kind, slots_of, written};
use crate::sys;
use access::Groups;
pub use access::Site;
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{
    AbiParam, AliasRegion, AliasRegionData, Block, Function, InstBuilder, MemFlagsData, SigRef, Signature, Value, types,
};
use cranelift_codegen::isa::CallConv;
use cranelift_frontend::{FunctionBuilder, Switch, Variable};
use dvm_disa::code::{Code, Step};
use dvm_disa::instruction::{Instruction, Operand};
use dvm_disa::isa::Op;
use dvm_disa::types::{Attribute, Condition, Type};
use std::ops::Range;

/// An address in the text.
#[derive(Clone, Copy)]
enum Place {
    Constant(u64),
    Value(Value),
}

/// A way out that is still to be written.
struct Exit {
    block: Block,
    pc: Place,
    /// The instruction that jumped; `None`: nobody did, the one at `pc` is the interpreter's.
    last: Option<u64>,
    /// Instructions executed and not yet paid for.
    unpaid: u64,
    dirty: Slots,
}

/// The translation of one unit.
struct Lower<'a, 'b> {
    builder: &'a mut FunctionBuilder<'b>,
    code: &'a Code,
    shape: &'a Shape,
    slots: Vec<Option<Variable>>,
    left: Variable,
    frame: Value,
    own: MemFlagsData,
    runner: MemFlagsData,
    step_signature: SigRef,
    miss_signature: SigRef,
    bulk_signature: SigRef,
    blocks: Vec<Block>,
    exits: Vec<Exit>,
    /// The way out of the instruction under way, once there is one.
    exit: Option<Block>,
    dirty: Slots,
    unpaid: u64,
    groups: Groups,
    /// By block: what was unpaid, and what was known of pointers, where it ended.
    ends: Vec<Option<(u64, Groups)>>,
    sites: Vec<Site>,
}

/// Fills a function with a unit; gives its sites.
pub fn lower(builder: &mut FunctionBuilder<'_>, code: &Code, shape: &Shape) -> Vec<Site> {
    let word = AbiParam::new(types::I64);
    let mut signature = |takes: usize, returns: usize| {
        let mut signature = Signature::new(CallConv::SystemV);
        signature.params = vec![word; takes];
        signature.returns = vec![word; returns];
        builder.import_signature(signature)
    };
    let (step_signature, miss_signature, bulk_signature) = (signature(1, 1), signature(3, 1), signature(4, 2));
    let entry = builder.create_block();
    builder.append_block_params_for_function_params(entry);
    builder.switch_to_block(entry);
    builder.seal_block(entry);
    let frame = builder.block_params(entry)[0];
    let [own, runner] = [0, 1].map(|region| flags(builder.func, region));
    let mut slots = vec![None; 256];
    shape.slots.iter().for_each(|slot| slots[usize::from(slot)] = Some(builder.declare_var(types::I64)));
    let left = builder.declare_var(types::I64);
    let blocks: Vec<Block> = shape.blocks.iter().map(|_| builder.create_block()).collect();
    let ends = shape.blocks.iter().map(|_| None).collect();
    let mut lower = Lower {
        builder,
        code,
        shape,
        slots,
        left,
        frame,
        own,
        runner,
        step_signature,
        miss_signature,
        bulk_signature,
        blocks,
        exits: Vec::new(),
        exit: None,
        dirty: Slots::default(),
        unpaid: 0,
        groups: Groups::default(),
        ends,
        sites: Vec::new(),
    };
    lower.enter();
    shape.order.iter().for_each(|block| lower.block(*block));
    lower.write_exits();
    lower.builder.seal_all_blocks();
    lower.sites
}

/// Of memory that cannot trap. What is in different regions does not overlap.
fn flags(function: &mut Function, user_id: u32) -> MemFlagsData {
    let data = AliasRegionData { user_id, description: "".into() };
    let region: AliasRegion = function.dfg.alias_regions.insert(data);
    MemFlagsData::new().with_notrap().with_alias_region(Some(region))
}

impl Lower<'_, '_> {
    fn constant(&mut self, value: u64) -> Value {
        self.builder.ins().iconst(types::I64, value as i64)
    }

    fn field(&mut self, offset: i32) -> Value {
        self.builder.ins().load(types::I64, self.own, self.frame, offset)
    }

    fn set_field(&mut self, offset: i32, value: Value) {
        self.builder.ins().store(self.own, value, self.frame, offset);
    }

    fn variable(&self, slot: u8) -> Variable {
        self.slots[usize::from(slot)].expect("all slots of a unit have variables")
    }

    fn enter(&mut self) {
        let left = self.field(offset::LEFT);
        self.builder.def_var(self.left, left);
        self.reload(self.shape.slots);
        self.builder.ins().jump(self.blocks[0], &[]);
    }

    fn reload(&mut self, slots: Slots) {
        let window = self.field(offset::WINDOW);
        for slot in slots.iter() {
            let value = self.builder.ins().load(types::I64, self.own, window, i32::from(slot) * 8);
            self.builder.def_var(self.variable(slot), value);
        }
    }

    /// Writes slots back to the window.
    fn write_back(&mut self, slots: Slots) {
        if slots == Slots::default() {
            return;
        }
        let window = self.field(offset::WINDOW);
        for slot in slots.iter() {
            let value = self.builder.use_var(self.variable(slot));
            self.builder.ins().store(self.own, value, window, i32::from(slot) * 8);
        }
    }

    fn block(&mut self, index: usize) {
        let shape = self.shape;
        let block = &shape.blocks[index];
        self.builder.switch_to_block(self.blocks[index]);
        self.dirty = block.dirty;
        let inherited = block.single.filter(|_| !block.is_checked).and_then(|before| self.ends[before].clone());
        let inherits = inherited.is_some();
        (self.unpaid, self.groups) = inherited.unwrap_or_default();
        self.groups.begin(self.code, &shape.choices, block.first..block.end, inherits);
        if block.is_checked {
            let first = self.code.step(block.first).map_or(0, |step| step.pc);
            self.check_fuel(shape.cost(index), first);
        }
        for at in block.first..block.end {
            let code = self.code;
            let Some(step) = code.step(at) else { continue };
            let Some(instruction) = &step.instruction else { continue };
            match kind(instruction) {
                Kind::Plain if shape.choices.is_chosen(at) => continue,
                Kind::Plain => {
                    self.plain(step, instruction);
                    self.exit = None;
                    self.unpaid += 1;
                }
                Kind::Bulk => {
                    self.bulk(step, instruction);
                    self.check_fuel(shape.cost_from(code, index, at + 1), step.next_pc);
                }
                Kind::Call => {
                    self.call(step, instruction);
                    self.check_fuel(shape.cost_from(code, index, at + 1), step.next_pc);
                }
                Kind::Jump => match shape.choices.around(at) {
                    Some(around) => self.choose(step, instruction, around),
                    None => return self.jump(index, step, instruction),
                },
                Kind::Stop => {
                    let exit = self.exit(step.pc);
                    self.builder.ins().jump(exit, &[]);
                    self.exit = None;
                    return;
                }
            }
            self.groups.advance(step.pc, instruction);
        }
        let last = self.code.step(block.end - 1).map_or(0, |step| step.pc);
        if let End::Fall(target) = block.ends {
            self.pay_for(&[target]);
            self.ends[index] = Some((self.unpaid, self.groups.clone()));
            let to = self.way_to(target, last);
            self.builder.ins().jump(to, &[]);
        }
    }

    /// The way out before the instruction at `pc`.
    fn exit(&mut self, pc: u64) -> Block {
        if let Some(block) = self.exit {
            return block;
        }
        let block = self.way_out(Place::Constant(pc), None);
        self.exit = Some(block);
        block
    }

    /// Goes on only if `holds`; else the instruction at `pc` is the interpreter's.
    fn guard(&mut self, holds: Value, pc: u64) {
        let exit = self.exit(pc);
        let on = self.builder.create_block();
        self.builder.ins().brif(holds, on, &[], exit, &[]);
        self.builder.seal_block(on);
        self.builder.switch_to_block(on);
    }

    fn check_fuel(&mut self, cost: u64, pc: u64) {
        if cost > 0 {
            let left = self.builder.use_var(self.left);
            let cost = self.constant(cost);
            let is_enough = self.builder.ins().icmp(IntCC::SignedGreaterThanOrEqual, left, cost);
            self.guard(is_enough, pc);
            self.exit = None;
        }
    }

    /// Subtracts what is unpaid.
    fn pay(&mut self) {
        if self.unpaid > 0 {
            let left = self.builder.use_var(self.left);
            let unpaid = self.constant(self.unpaid);
            let left = self.builder.ins().isub(left, unpaid);
            self.builder.def_var(self.left, left);
            self.unpaid = 0;
        }
    }

    /// Whether what follows there goes on counting: ways out pay for themselves.
    fn goes_on(&self, target: Target) -> bool {
        match target {
            Target::Block(block) => self.shape.blocks[block].single.is_some() && !self.shape.blocks[block].is_checked,
            Target::Out(_) => true,
        }
    }

    /// Pays before a branch, unless what it leads to goes on counting. Gives the one of two targets that has to pay on the way there,
    /// so that the other one, which is executed as often at least, pays once with what follows.
    fn pay_for(&mut self, targets: &[Target]) -> Option<Target> {
        let depth = |target: Target| match target {
            Target::Block(block) => self.shape.blocks[block].depth,
            Target::Out(_) => 0,
        };
        let (on, pay): (Vec<Target>, Vec<Target>) = targets.iter().partition(|target| self.goes_on(**target));
        match (&on[..], &pay[..]) {
            (_, []) => None,
            ([on], [pays]) if depth(*on) >= depth(*pays) => Some(*pays),
            _ => {
                self.pay();
                None
            }
        }
    }

    /// The block of a target; one that leaves the unit if it is not in it.
    fn way_to(&mut self, target: Target, last: u64) -> Block {
        match target {
            Target::Block(block) => self.blocks[block],
            Target::Out(pc) => self.way_out(Place::Constant(pc), Some(last)),
        }
    }

    fn way_out(&mut self, pc: Place, last: Option<u64>) -> Block {
        let block = self.builder.create_block();
        self.builder.set_cold_block(block);
        self.exits.push(Exit { block, pc, last, unpaid: self.unpaid, dirty: self.dirty });
        block
    }

    fn write_exits(&mut self) {
        for exit in std::mem::take(&mut self.exits) {
            self.builder.switch_to_block(exit.block);
            self.builder.seal_block(exit.block);
            self.write_back(exit.dirty);
            let pc = match exit.pc {
                Place::Constant(pc) => self.constant(pc),
                Place::Value(pc) => pc,
            };
            self.set_field(offset::PC, pc);
            let last = exit.last.map_or(pc, |last| self.constant(last));
            self.set_field(offset::LAST, last);
            self.unpaid = exit.unpaid;
            self.pay();
            let left = self.builder.use_var(self.left);
            self.set_field(offset::LEFT, left);
            let status = self.constant(if exit.last.is_some() { status::LEFT } else { status::SURRENDER });
            self.builder.ins().return_(&[status]);
        }
    }

    /// Has the interpreter execute an instruction, and goes on.
    fn call(&mut self, step: &Step, instruction: &Instruction) {
        self.pay();
        self.write_back(self.dirty);
        self.dirty = Slots::default();
        let pc = self.constant(step.pc);
        self.set_field(offset::PC, pc);
        let left = self.builder.use_var(self.left);
        self.set_field(offset::LEFT, left);
        let callee = self.constant(sys::step_address());
        let call = self.builder.ins().call_indirect(self.step_signature, callee, &[self.frame]);
        let has_ended = self.builder.inst_results(call)[0];
        let (ended, on) = (self.builder.create_block(), self.builder.create_block());
        self.builder.set_cold_block(ended);
        self.builder.ins().brif(has_ended, ended, &[], on, &[]);
        self.builder.seal_block(ended);
        self.builder.seal_block(on);
        self.builder.switch_to_block(ended);
        let status = self.constant(status::ENDED);
        self.builder.ins().return_(&[status]);
        self.builder.switch_to_block(on);
        let left = self.field(offset::LEFT);
        self.builder.def_var(self.left, left);
        let mut changed = Slots::default();
        for operand in instruction.operands() {
            changed.extend(slots_of(*operand));
        }
        self.reload(changed);
    }

    /// A branch around a few instructions: they are executed, and what they change is chosen.
    fn choose(&mut self, step: &Step, instruction: &Instruction, around: Range<u32>) {
        let Attribute::Condition(condition) = instruction.attribute() else { return };
        let is_around = self.holds(instruction, condition, step.pc);
        self.exit = None;
        self.unpaid += 1;
        let code = self.code;
        for step in around.filter_map(|index| code.step(index)) {
            let Some((instruction, slot)) = step.instruction.as_ref().and_then(|of| Some((of, written(of)?))) else { continue };
            let old = self.builder.use_var(self.variable(slot));
            self.plain(step, instruction);
            let new = self.builder.use_var(self.variable(slot));
            let value = self.builder.ins().select(is_around, old, new);
            self.builder.def_var(self.variable(slot), value);
            self.groups.renew(slot, step.pc);
            self.unpaid += 1;
            // Who was led around it does not pay for it.
            let left = self.builder.use_var(self.left);
            let spared = self.builder.ins().uextend(types::I64, is_around);
            let left = self.builder.ins().iadd(left, spared);
            self.builder.def_var(self.left, left);
        }
        // The code generator puts arithmetic off until a store or the block's end needs it, behind all loads, and runs out of registers.
        // What is stored nobody reads, which it cannot know.
        let left = self.builder.use_var(self.left);
        self.builder.ins().store(self.runner, left, self.frame, offset::UNREAD);
    }

    /// Ends a block with a branch.
    fn jump(&mut self, index: usize, step: &Step, instruction: &Instruction) {
        let shape = self.shape;
        let End::Branch { taken, next } = &shape.blocks[index].ends else { return };
        let condition = match (instruction.op(), instruction.attribute()) {
            (Op::Br, Attribute::Condition(condition)) if condition != Condition::Always => {
                Some(self.holds(instruction, condition, step.pc))
            }
            _ => None,
        };
        let target = instruction.target().unwrap_or(Operand::Immediate(0));
        let address = if taken.is_none() { Some(self.value(target, Type::Q, step.pc)) } else { None };
        if instruction.op() == Op::Bl {
            let back = self.constant(step.next_pc);
            self.put(instruction.operand(1), Type::Q, back, step.pc);
        }
        self.exit = None;
        self.unpaid += 1;
        self.groups.advance(step.pc, instruction);
        let pays = match taken {
            Some(taken) => {
                let targets: Vec<Target> = [Some(*taken), *next].into_iter().flatten().collect();
                self.pay_for(&targets)
            }
            None => {
                self.pay();
                None
            }
        };
        self.ends[index] = Some((self.unpaid, self.groups.clone()));
        // A block of its own is also put where it is not in the way of what goes on.
        let mut way = |target| match target {
            target if Some(target) == pays => self.builder.create_block(),
            target => self.way_to(target, step.pc),
        };
        let on = next.map(&mut way);
        let to = match taken {
            Some(taken) => way(*taken),
            None => self.builder.create_block(),
        };
        match (condition, on) {
            (Some(condition), Some(on)) => self.builder.ins().brif(condition, to, &[], on, &[]),
            _ => self.builder.ins().jump(to, &[]),
        };
        if let Some(Target::Block(block)) = pays {
            let way = if *next == pays { on.unwrap_or(to) } else { to };
            self.builder.switch_to_block(way);
            self.builder.seal_block(way);
            self.pay();
            self.builder.ins().jump(self.blocks[block], &[]);
        }
        if let Some(address) = address {
            self.builder.seal_block(to);
            self.builder.switch_to_block(to);
            let mut switch = Switch::new();
            shape.returns.iter().for_each(|(pc, block)| switch.set_entry(u128::from(*pc), self.blocks[*block]));
            let out = self.way_out(Place::Value(address), Some(step.pc));
            switch.emit(self.builder, address, out);
        }
    }
}

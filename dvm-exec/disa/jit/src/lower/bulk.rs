//! Instructions over many bytes.
//!
//! Owns how they are handed to a function of ours, and to the interpreter if that declines. Must not know how the work is done.

use super::Lower;
use crate::frame::offset;
use crate::sys;
use cranelift_codegen::ir::{InstBuilder, Value};
use dvm_disa::code::Step;
use dvm_disa::instruction::Instruction;
use dvm_disa::isa::Op;
use dvm_disa::types::Type;

impl Lower<'_, '_> {
    /// Calls the function that does the work of an instruction; what it declines is the interpreter's, which comes back.
    pub fn bulk(&mut self, step: &Step, instruction: &Instruction) {
        let (callee, result) = match instruction.op() {
            Op::Copy => (sys::bulk::copy_address(), None),
            Op::Fill => (sys::bulk::fill_address(), None),
            Op::Cmpb => (sys::bulk::compare_address(), Some(3)),
            Op::Find => (sys::bulk::find_address(), Some(3)),
            _ => (sys::bulk::hash_address(), Some(2)),
        };
        self.pay();
        let mut arguments = [self.frame; 4];
        for index in 0..result.unwrap_or(3) {
            let is_byte = index == 0 && matches!(instruction.op(), Op::Fill | Op::Find);
            let ty = if is_byte { Type::B } else { Type::Q };
            arguments[index + 1] = self.value(instruction.operand(index), ty, step.pc);
        }
        self.exit = None;
        let left = self.builder.use_var(self.left);
        self.set_field(offset::LEFT, left);
        let [is_done, value] = self.ask(callee, &arguments);
        let [done, declined, on] = [(); 3].map(|()| self.builder.create_block());
        self.builder.set_cold_block(declined);
        self.builder.ins().brif(is_done, done, &[], declined, &[]);
        self.builder.seal_block(done);
        self.builder.seal_block(declined);
        self.builder.switch_to_block(declined);
        let dirty = self.dirty;
        self.call(step, instruction);
        self.builder.ins().jump(on, &[]);
        self.builder.switch_to_block(done);
        self.dirty = dirty;
        let left = self.field(offset::LEFT);
        self.builder.def_var(self.left, left);
        if let Some(index) = result {
            self.put(instruction.operand(index), Type::Q, value, step.pc);
        }
        self.builder.ins().jump(on, &[]);
        self.builder.seal_block(on);
        self.builder.switch_to_block(on);
    }

    fn ask(&mut self, callee: u64, arguments: &[Value]) -> [Value; 2] {
        let callee = self.constant(callee);
        let call = self.builder.ins().call_indirect(self.bulk_signature, callee, arguments);
        let results = self.builder.inst_results(call);
        [results[0], results[1]]
    }
}

//! Shadows: the root's threads that stand for the program's threads on other hosts.
//!
//! Owns the root's end of a thread's connection. Must not know what a call does.

use super::calls::{self, Class, Prepared};
use super::clone::{self, CloneRequest};
use super::connection::{Connection, ConnectionError};
use super::execute::execute;
use super::husk::Root;
use super::moving::Passage;
use super::service::{self, Member};
use super::sigframe::{SignalInfo, ThreadState};
use super::signals::{self, ALL_BLOCKED};
use super::thread::Task;
use super::trace;
use super::wire::{Call, Message, Return, SignalOrder, ThreadStart};
use crate::sys::context::Block;
use crate::sys::cpu::Scheduling;
use crate::sys::signal::{FAULT_BITS, SIGSYS_BIT, replace_mask};
use std::sync::Arc;

struct Shadow<'a> {
    root: &'static Root,
    task: &'a Task,
    member: &'a Member,
    block: Block,
    connection: Connection,
}

/// Starts the thread on its host and serves its calls until it ends, or leaves: then it gives what the thread goes on with.
pub fn serve(root: &'static Root, task: &Arc<Task>, passage: Passage) -> Option<Passage> {
    let Some(member) = service::of_host(root, task.host()) else {
        root.fail(&format!("thread {} was placed on host {}, which does not exist", task.tid, task.host()));
    };
    let connection = match member.connection() {
        Ok(connection) => connection,
        Err(reason) => {
            root.lose_husk(&member.name, &reason);
            return None;
        }
    };
    let block = match Block::install(false) {
        Ok(block) => block,
        Err(error) => root.fail(&format!("alternate stack for thread {}: {error}", task.tid)),
    };
    let mut shadow = Shadow { root, task, member, block, connection };
    let start = passage.unpack(shadow.block.context());
    replace_mask(start.mask & !FAULT_BITS);
    let served = shadow.run(start);
    replace_mask(u64::MAX);
    let Shadow { block, connection, .. } = shadow;
    let left = match served {
        Ok(left) => {
            member.give_back(connection);
            left
        }
        Err(error) => {
            root.lose_husk(&member.name, &format!("connection of thread {}: {error}", task.tid));
            None
        }
    };
    let Some(left) = left else {
        signals::leave_signals(root.pid(), task.tid, block.context());
        return None;
    };
    Some(Passage::after(left, block.context()))
}

impl Shadow<'_> {
    fn run(&mut self, mut start: Box<ThreadStart>) -> Result<Option<Box<ThreadStart>>, ConnectionError> {
        start.is_traced = trace::is_on();
        start.scheduling = Some(Scheduling::of(self.task.tid)).filter(|own| *own != self.root.scheduling);
        self.connection.sender.send(&Message::Start(start))?;
        loop {
            let message = match self.connection.receiver.receive(Some(self.block.context().arrival())) {
                Err(ConnectionError::Interrupted) => {
                    self.block.context().clear_arrival();
                    self.member.kick(self.task.tid, None);
                    continue;
                }
                other => other?,
            };
            let answer = match message {
                Message::Call(call) => self.signalled(self.call(&call)),
                Message::Clone { call, state, mask } => self.signalled(self.clone_thread(&call, *state, mask)),
                Message::SetMask(mask) => Message::Return(self.take_signal(mask)),
                Message::Fault { info, ip, is_blocked } => Message::Return(self.fault(info, ip, is_blocked)),
                Message::MapQuery { address } => self.look_up(address),
                Message::ExitThread { status } => {
                    self.root.note_exit(status);
                    return Ok(None);
                }
                Message::Depart(start) => return Ok(Some(start)),
                other => self.root.fail(&format!("host {} sent {other:?}, which is out of place", self.member.name)),
            };
            self.connection.sender.send(&answer)?;
        }
    }

    /// What came while the call ran is asked for before the program goes on, as if it had been taken on the way out.
    fn signalled(&self, answer: Return) -> Message {
        let context = self.block.context();
        context.clear_arrival();
        Message::Return(Return { is_signalled: context.is_signalled(), ..answer })
    }

    fn call(&self, call: &Call) -> Return {
        self.root.figures.count_call(call.number);
        let flag = self.block.context().flag();
        let number = i64::from(call.number);
        if call.inputs.is_empty() && call.outputs.is_empty() {
            let value = execute(self.root, self.task, flag, number, &call.arguments);
            self.grant_new_memory(number, &call.arguments, value);
            return Return { value, ..Return::default() };
        }
        let prepared = match calls::classify(u64::from(call.number), &call.arguments) {
            Class::Marshal(shape) => Prepared::new(call, shape),
            _ => None,
        };
        let Some(mut prepared) = prepared else {
            return Return { value: -i64::from(libc::EINVAL), ..Return::default() };
        };
        let value = execute(self.root, self.task, flag, number, &prepared.arguments());
        prepared.finish(value)
    }

    /// What a memory call has just made accessible is used at once, so its rights need not be asked for.
    fn grant_new_memory(&self, number: i64, arguments: &[u64; 6], value: i64) {
        let address = match number {
            libc::SYS_mmap | libc::SYS_mremap if value > 0 => value as u64,
            libc::SYS_mprotect if value == 0 => arguments[0],
            libc::SYS_brk if value > 0 => value as u64 - 1,
            _ => return,
        };
        self.member.grant(address);
    }

    fn clone_thread(&self, call: &Call, state: ThreadState, mask: u64) -> Return {
        self.root.figures.count_call(call.number);
        let value = clone::start(self.root, self.task, &CloneRequest::from_arguments(&call.arguments), state, mask);
        Return { value, ..Return::default() }
    }

    /// The thread now blocks `mask`: the next signal it may take comes to it, others go back to the process.
    fn take_signal(&self, mask: u64) -> Return {
        let context = self.block.context();
        let wanted = mask & !SIGSYS_BIT;
        replace_mask(mask & !FAULT_BITS);
        let mut order = None;
        while let Some(info) = context.take(wanted) {
            let action = self.root.actions.for_delivery(info.signal());
            if action.handler > 1 {
                order = Some(SignalOrder { info, action });
                break;
            }
            signals::perform_default(self.root, &info, action);
            replace_mask(mask & !FAULT_BITS);
        }
        // A thread library unblocks in a moment.
        while mask != ALL_BLOCKED
            && let Some(info) = context.take_blocked(wanted & !FAULT_BITS)
        {
            signals::give_back(self.root.pid(), self.task.tid, &info);
        }
        let running = order.as_ref().map_or(mask, |order| order.action.running_mask(order.info.signal(), mask));
        replace_mask(running & !FAULT_BITS);
        context.clear_arrival();
        let is_signalled = context.recheck(running & !SIGSYS_BIT);
        Return { signal: order, is_signalled, ..Return::default() }
    }

    fn fault(&self, info: SignalInfo, ip: u64, is_blocked: bool) -> Return {
        if !is_blocked {
            let action = self.root.actions.for_delivery(info.signal());
            if action.handler > 1 {
                return Return { signal: Some(SignalOrder { info, action }), ..Return::default() };
            }
        }
        self.root.die_of_fault(self.task.tid, &self.member.name, &info, ip)
    }

    fn look_up(&self, address: u64) -> Message {
        service::map_answer(address, self.root.space.lookup(address))
    }
}

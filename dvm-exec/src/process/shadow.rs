//! Shadows: the root's threads that stand for the program's threads on other hosts.
//!
//! Owns the root's end of a thread's connection. Must not know what a call does.

use super::calls::{self, Class, Prepared};
use super::clone::{self, CloneRequest};
use super::connection::{Connection, ConnectionError};
use super::execute::execute;
use super::husk::{Ending, Root};
use super::service::{self, Member};
use super::sigframe::{SignalInfo, ThreadState};
use super::signals::bit;
use super::thread::Task;
use super::wire::{Call, Message, Return, SignalOrder, ThreadStart};
use super::{say, vma};
use crate::sys::call;
use crate::sys::context::Block;
use crate::sys::signal::replace_mask;
use std::sync::Arc;

/// `si_code` of a signal sent to one thread.
const SI_TKILL: i32 = -6;

struct Shadow<'a> {
    root: &'static Root,
    task: &'a Task,
    member: &'a Member,
    block: Block,
    connection: Connection,
}

/// Starts the thread on its host and serves its calls until it ends, or leaves: then it gives what the thread goes on with.
pub fn serve(root: &'static Root, task: &Arc<Task>, start: &ThreadStart) -> Option<Box<ThreadStart>> {
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
    replace_mask(start.mask);
    let served = shadow.run(start);
    replace_mask(u64::MAX);
    match served {
        Ok(left) => {
            // Signals that came after it left find it where it goes on.
            while let Some(info) = shadow.block.context().take_blocked(u64::MAX) {
                shadow.give_back_signal(&info);
            }
            member.give_back(shadow.connection);
            left
        }
        Err(error) => {
            root.lose_husk(&member.name, &format!("connection of thread {}: {error}", task.tid));
            None
        }
    }
}

impl Shadow<'_> {
    fn run(&mut self, start: &ThreadStart) -> Result<Option<Box<ThreadStart>>, ConnectionError> {
        self.connection.sender.send(&Message::Start(Box::new(start.clone())))?;
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
                Message::Call(call) => Message::Return(self.call(&call)),
                Message::Clone { call, state, mask } => Message::Return(self.clone_thread(&call, *state, mask)),
                Message::SetMask(mask) => Message::Return(Return { signal: self.take_signal(mask), ..Return::default() }),
                Message::Fault { info, ip } => Message::Return(self.fault(info, ip)),
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

    fn call(&mut self, call: &Call) -> Return {
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

    fn clone_thread(&mut self, call: &Call, state: ThreadState, mask: u64) -> Return {
        self.root.figures.count_call(call.number);
        let value = match CloneRequest::parse(libc::SYS_clone, &call.arguments) {
            Ok(request) => clone::start(self.root, &request, state, mask),
            Err(error) => -i64::from(error),
        };
        Return { value, ..Return::default() }
    }

    /// The thread now blocks `mask`: signals it may take come to it, others go back to the process.
    fn take_signal(&mut self, mask: u64) -> Option<SignalOrder> {
        replace_mask(mask);
        let context = self.block.context();
        let mut found = None;
        while let Some(info) = context.take(mask) {
            let action = self.root.actions.for_delivery(info.signal());
            if action.handler > 1 {
                found = Some(SignalOrder { info, action });
                break;
            }
        }
        while let Some(info) = context.take_blocked(mask) {
            self.give_back_signal(&info);
        }
        found
    }

    fn give_back_signal(&self, info: &SignalInfo) {
        let (pid, signal, address) = (self.root.pid as u64, info.signal() as u64, info.0.as_ptr() as u64);
        if info.code() == SI_TKILL {
            call::raw(libc::SYS_rt_tgsigqueueinfo, &[pid, self.task.tid as u64, signal, address, 0, 0]);
        } else {
            call::raw(libc::SYS_rt_sigqueueinfo, &[pid, signal, address, 0, 0, 0]);
        }
    }

    fn fault(&mut self, info: SignalInfo, ip: u64) -> Return {
        let signal = info.signal();
        if signal != libc::SIGKILL {
            let action = self.root.actions.for_delivery(signal);
            if action.handler > 1 {
                return Return { signal: Some(SignalOrder { info, action }), ..Return::default() };
            }
        }
        let (tid, host, address) = (self.task.tid, &self.member.name, info.address());
        say::line(&format!("fatal signal {signal} in thread {tid} on host {host} at {ip:#x}, address {address:#x}"));
        let signal = if signal == libc::SIGKILL { libc::SIGSEGV } else { signal };
        debug_assert!(bit(signal) != 0);
        self.root.finish(Ending::Signal(signal))
    }

    fn look_up(&self, address: u64) -> Message {
        match self.root.space.lookup(address) {
            Some(found) => Message::MapAnswer { range: found.range, protection: found.protection, mapped: found.mapped },
            None => Message::MapAnswer { range: address..address + 1, protection: vma::Protection::NONE, mapped: false },
        }
    }
}

//! Every system call of the program arrives here, on the thread that made it.
//!
//! Owns the choice between answering on this host and asking the root, and what surrounds a call: thread end, signals.
//! Must not know how the root executes a call; that is [`super::execute`].

use super::calls::{self, Class};
use super::check;
use super::clone::{self, CloneRequest};
use super::execute;
use super::husk;
use super::local;
use super::member;
use super::moving;
use super::signals;
use super::thread::{Side, Thread, current};
use crate::sys::context::{Context, Verdict};
use crate::sys::cpu;
use crate::sys::signal::{Frame, Register};

/// What became of a call.
pub enum Outcome {
    /// The program gets this.
    Value(i64),
    /// The thread has ended.
    End,
}

/// Entered from the SIGSYS handler, on the thread's alternate stack, with the husk's FS base.
pub fn handle_call(context: &Context, frame: Frame) -> Verdict {
    let Some(thread) = current() else { return Verdict::Resume };
    let number = frame.get(Register::Rax) as i64;
    let order = [Register::Rdi, Register::Rsi, Register::Rdx, Register::R10, Register::R8, Register::R9];
    let arguments = order.map(|register| frame.get(register));
    if let Side::Child(child) = &thread.side {
        child.admit(number, &arguments);
    }
    let mut call = Some((number, arguments));
    if number == libc::SYS_rt_sigreturn {
        signals::return_from_handler(&thread, context, frame);
        call = None;
    } else {
        match perform(&thread, context, frame, number, &arguments) {
            Outcome::Value(value) => frame.set(Register::Rax, value as u64),
            Outcome::End => return Verdict::Leave,
        }
    }
    match &thread.side {
        Side::Root(_) => signals::end_call(&husk::expect_root().actions, &thread, context, frame, call),
        Side::Child(child) => signals::end_call(&child.actions, &thread, context, frame, call),
        Side::Member(_) => member::end_call(&thread, context, frame, call),
    }
    moving::depart(&thread, context, frame).unwrap_or(Verdict::Resume)
}

fn perform(thread: &Thread, context: &Context, frame: Frame, number: i64, arguments: &[u64; 6]) -> Outcome {
    let class = calls::classify(number as u64, arguments);
    if check::is_on() {
        check::note(number, arguments, &class);
    }
    match class {
        Class::Answer(value) => return Outcome::Value(value),
        Class::Refuse(refusal) if refusal.quiet => return Outcome::Value(-i64::from(refusal.errno)),
        Class::Local => {
            if let Some(value) = local::answer(thread, context, number, arguments) {
                return Outcome::Value(value);
            }
        }
        Class::Thread | Class::Signal => {
            if let Some(outcome) = perform_bookkeeping(thread, context, frame, number, arguments) {
                return outcome;
            }
        }
        // The root names what it refuses on the job's stderr.
        Class::Delegate | Class::Marshal(_) | Class::Memory | Class::Refuse(_) => {}
    }
    let arguments = calls::without_pinning(number as u64, *arguments);
    Outcome::Value(match &thread.side {
        Side::Root(task) => execute::execute(husk::expect_root(), task, context.flag(), number, &arguments),
        Side::Child(child) => child.call(husk::expect_root(), context, number, &arguments),
        Side::Member(link) => member::delegate(&mut link.borrow_mut(), context, number, &arguments, &class),
    })
}

/// Calls about the thread itself that need its frame or its masks.
fn perform_bookkeeping(thread: &Thread, context: &Context, frame: Frame, number: i64, arguments: &[u64; 6]) -> Option<Outcome> {
    let value = match number {
        libc::SYS_exit => {
            end_thread(thread, arguments[0] as i32);
            return Some(Outcome::End);
        }
        libc::SYS_clone | libc::SYS_clone3 | libc::SYS_fork | libc::SYS_vfork => {
            start_thread(thread, context, frame, number, arguments)
        }
        libc::SYS_rt_sigprocmask => signals::change_mask(thread, context, frame, arguments),
        libc::SYS_sigaltstack => local::change_alternate_stack(thread, frame.rsp(), arguments),
        libc::SYS_gettid => i64::from(thread.tid),
        libc::SYS_execve | libc::SYS_execveat => {
            if let Side::Member(link) = &thread.side {
                member::tell_whole_mask(thread, &mut link.borrow_mut());
            }
            return None;
        }
        _ => return None,
    };
    Some(Outcome::Value(value))
}

fn end_thread(thread: &Thread, status: i32) {
    match &thread.side {
        Side::Root(_) => husk::expect_root().note_exit(status),
        Side::Child(_) => cpu::exit(status),
        Side::Member(link) => member::end_thread(&mut link.borrow_mut(), status),
    }
}

fn start_thread(thread: &Thread, context: &Context, frame: Frame, number: i64, arguments: &[u64; 6]) -> i64 {
    let request = match CloneRequest::parse(number, arguments) {
        Ok(request) => request,
        Err(error) => return -i64::from(error),
    };
    let state = frame.state(context.app_fs());
    match &thread.side {
        Side::Child(child) => child.refuse_child(),
        Side::Root(task) => clone::start(husk::expect_root(), task, &request, state, thread.mask.get()),
        Side::Member(link) => member::start_thread(&mut link.borrow_mut(), context, &request, state, thread.mask.get()),
    }
}

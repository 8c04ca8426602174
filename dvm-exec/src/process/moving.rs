//! A thread's way from one host to another.
//!
//! Owns what is packed when it leaves, and how it goes on where it arrives: it starts at an address where nothing is, and the
//! fault's frame is filled with what it left with, so that the kernel restores all of it. Must not decide who moves.

use super::husk;
use super::member;
use super::say;
use super::sigframe::{self, Registers, ThreadState};
use super::signals::{self, bit};
use super::thread::{Side, Thread};
use super::wire::ThreadStart;
use crate::sys::LINE;
use crate::sys::call;
use crate::sys::context::{Context, Verdict};
use crate::sys::signal::{Frame, replace_mask};

/// Where a thread that arrives starts; no program can map it.
const ARRIVAL: u64 = 8;
/// The native signal that has a thread leave the program's code. Nothing but the husks sends it with this code and value.
pub const MOVE: i32 = 64;
/// Bytes below the stack pointer that belong to the function that runs.
const RED_ZONE_BYTES: u64 = 128;
/// Wishes that can wait for one thread: one an interval, until they are withdrawn.
const WISHES_MAX: usize = 16;
const MOVE_CODE: i32 = -77;

/// What a thread takes along beside what every new thread has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Luggage {
    /// Registers to go on with.
    pub registers: Registers,
    /// Floating-point state as the kernel saved it; empty for a thread that is new.
    pub floating: Vec<u8>,
}

impl Luggage {
    /// Whether this is a thread that was somewhere before.
    pub fn is_some(&self) -> bool {
        !self.floating.is_empty()
    }
}

/// Packs the thread that would go on from `frame`.
pub fn pack(thread: &Thread, context: &Context, frame: Frame) -> ThreadStart {
    let registers = frame.registers();
    let mut state: ThreadState = frame.state(context.app_fs());
    state.registers.rip = ARRIVAL;
    ThreadStart {
        state,
        mask: thread.mask.get(),
        tid: thread.tid,
        pid: thread.pid,
        clear_tid: 0,
        altstack: thread.alternate.get(),
        luggage: Luggage { registers, floating: frame.float_state() },
    }
}

/// The mask with which an arriving thread starts natively: its first fault must be delivered.
pub fn mask_of_arrival(mask: u64) -> u64 {
    mask & !bit(libc::SIGSEGV)
}

/// Whether this fault is a thread's arrival; then `frame` goes on where the thread was.
pub fn arrive(thread: &Thread, context: &Context, frame: Frame) -> bool {
    if frame.rip() != ARRIVAL {
        return false;
    }
    let luggage = thread.luggage.take();
    if !luggage.is_some() {
        return false;
    }
    let accepted = sigframe::accept_floating(&luggage.floating, &frame.float_state());
    match accepted {
        Ok(floating) => frame.set_float_state(&floating),
        Err(error) => {
            let reason = format!("thread {} cannot go on here: {error}", thread.tid);
            match &thread.side {
                Side::Root(_) => husk::expect_root().fail(&reason),
                Side::Member(_) => member::fail(&reason),
            }
        }
    }
    frame.set_registers(&luggage.registers);
    match &thread.side {
        Side::Root(_) => {
            frame.set_mask(thread.mask.get());
            signals::end_call(husk::expect_root(), thread, context, frame, None);
        }
        Side::Member(_) => {
            // Signal frames are written while faults are blocked, so the stacks must have their rights here before that.
            for stack in [luggage.registers.rsp.wrapping_sub(RED_ZONE_BYTES + 1), thread.alternate.get().address] {
                if stack != 0 && stack < LINE {
                    member::resolve(stack, 0);
                }
            }
            // What came for it while it was under way waits at the root.
            context.raise_flag();
            member::end_call(thread, context, frame, None);
        }
    }
    true
}

/// Whether this signal is a husk's wish that the thread moves.
pub fn is_wish(signal: i32, code: i32) -> bool {
    signal == MOVE && code == MOVE_CODE
}

/// The thread leaves, if it shall and nothing holds it, in place of going on from `frame`. The native mask may be changed:
/// only for the end of a handler, which restores it.
pub fn depart(thread: &Thread, context: &Context, frame: Frame) -> Option<Verdict> {
    match &thread.side {
        Side::Root(task) => {
            task.wanted()?;
            // From here on signals wait in the kernel, for wherever the thread goes on.
            replace_mask(u64::MAX);
            if context.is_signalled() {
                return None;
            }
            thread.departing.replace(Some(Box::new(pack(thread, context, frame))));
        }
        Side::Member(link) => {
            if !member::may_anybody_move() {
                return None;
            }
            replace_mask(u64::MAX);
            if !member::shall_move(thread.tid) || context.is_signalled() {
                return None;
            }
            let start = pack(thread, context, frame);
            if !member::send_departure(&mut link.borrow_mut(), start) {
                return None;
            }
        }
    }
    Some(Verdict::Leave)
}

/// Drops the wishes that wait for the calling thread, which has left: they would break off calls of its shadow.
pub fn forget_wishes() {
    let (wishes, no_time) = (bit(MOVE), [0_u64; 2]);
    let arguments = [&raw const wishes as u64, 0, no_time.as_ptr() as u64, 8, 0, 0];
    for _ in 0..WISHES_MAX {
        if call::raw(libc::SYS_rt_sigtimedwait, &arguments) != i64::from(MOVE) {
            return;
        }
    }
}

/// Interrupts kernel thread `carrier` of this process if it is in the program's code. One that is in a call sees at its end
/// that it shall move; a call is not broken off for it.
pub fn interrupt(carrier: i32) {
    let doing = std::fs::read_to_string(format!("/proc/self/task/{carrier}/syscall")).unwrap_or_default();
    if !(doing.starts_with("running") || doing.starts_with("-1")) {
        return;
    }
    let mut info = [0_u32; 32];
    info[0] = MOVE as u32;
    info[2] = MOVE_CODE as u32;
    let process = u64::from(std::process::id());
    // A thread that has just ended needs not be interrupted.
    let sent = call::raw(libc::SYS_rt_tgsigqueueinfo, &[process, carrier as u64, MOVE as u64, info.as_ptr() as u64, 0, 0]);
    if sent < 0 && sent != -i64::from(libc::ESRCH) {
        say::line(&format!("thread {carrier} cannot be interrupted to move: error {}", -sent));
    }
}

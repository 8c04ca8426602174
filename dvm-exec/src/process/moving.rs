//! A thread's way from one host to another.
//!
//! Owns what is packed when it leaves, and how it goes on where it arrives: it starts at an address where nothing is, and the
//! fault's frame is filled with what it left with, so that the kernel restores all of it. Must not decide who moves.

use super::ask::ThreadUsage;
use super::husk;
use super::local;
use super::member;
use super::placement::Placement;
use super::say;
use super::sigframe::{self, Registers, SIGINFO_BYTES, SignalInfo, ThreadState};
use super::signals::{self, bit};
use super::thread::{Side, Thread};
use super::wire::ThreadStart;
use crate::sys::context::{Context, Verdict};
use crate::sys::signal::{FAULT_BITS, Frame, replace_mask};
use crate::sys::{LINE, call, cpu};

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
    /// What it has used so far, wherever it was.
    pub used: ThreadUsage,
}

impl Luggage {
    /// Whether this is a thread that was somewhere before.
    pub fn is_some(&self) -> bool {
        !self.floating.is_empty()
    }
}

/// A thread of the program between two hosts, or before its first.
#[derive(Debug, Default)]
pub struct Passage {
    /// What it goes on with.
    pub start: Box<ThreadStart>,
    /// Signals that the root had caught for it, oldest first.
    pub waiting: Vec<SignalInfo>,
}

impl Passage {
    /// A new thread.
    pub fn new(start: ThreadStart) -> Self {
        Self { start: Box::new(start), waiting: Vec::new() }
    }

    /// A thread has left the kernel thread of `context`, whose native mask blocks everything.
    pub fn after(start: Box<ThreadStart>, context: &Context) -> Self {
        let mut waiting: Vec<SignalInfo> = std::iter::from_fn(|| context.take_blocked(u64::MAX)).collect();
        waiting.extend(forget_wishes());
        Self { start, waiting }
    }

    /// It goes on at the kernel thread of `context`, whose native mask blocks everything.
    pub fn unpack(self, context: &Context) -> Box<ThreadStart> {
        self.waiting.iter().for_each(|info| context.queue(info));
        self.start
    }
}

/// Whether threads of this job move; only for the root.
pub fn is_wanted() -> bool {
    husk::root().is_some_and(|root| root.options.placement() == Placement::Auto)
}

/// Packs the thread that would go on from `frame`.
pub fn pack(thread: &Thread, context: &Context, frame: Frame) -> ThreadStart {
    let registers = frame.registers();
    let mut state: ThreadState = frame.state(context.app_fs());
    state.registers.rip = ARRIVAL;
    let used = ThreadUsage::of(cpu::thread_id()).since(&local::used_before(thread));
    ThreadStart {
        state,
        mask: thread.mask.get(),
        tid: thread.tid,
        pid: thread.pid,
        altstack: thread.alternate.get(),
        luggage: Luggage { registers, floating: frame.float_state(), used },
        // How it is scheduled and whether it is traced the root knows.
        ..ThreadStart::default()
    }
}

/// The mask with which a thread starts natively that has `mask` otherwise: nothing may come before it has arrived.
pub fn mask_at_start(start: &ThreadStart, mask: u64) -> u64 {
    if start.luggage.is_some() { !FAULT_BITS } else { mask }
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
    match sigframe::accept_floating(&luggage.floating, &frame.float_state()) {
        Ok(floating) => frame.set_float_state(&floating),
        Err(error) => fail(thread, &format!("thread {} cannot go on here: {error}", thread.tid)),
    }
    frame.set_registers(&luggage.registers);
    // From here on as at the end of a call: signals are queued until they are looked at, faults come through.
    context.hold(frame);
    replace_mask(!FAULT_BITS);
    match &thread.side {
        Side::Root(_) => {
            frame.set_mask(thread.mask.get() & !FAULT_BITS);
            signals::end_call(&husk::expect_root().actions, thread, context, frame, None);
        }
        Side::Child(_) => fail(thread, "a child arrived from another host"),
        Side::Member(_) => {
            // The frame of a handler for faults is written while these are blocked, so the stacks must have their rights here
            // before that.
            for stack in [luggage.registers.rsp.wrapping_sub(RED_ZONE_BYTES + 1), thread.alternate.get().address] {
                if stack != 0 && stack < LINE {
                    member::judge_fault(stack, 0);
                }
            }
            frame.set_mask(!signals::native_member_signals());
            member::end_call(thread, context, frame, None);
        }
    }
    true
}

fn fail(thread: &Thread, reason: &str) -> ! {
    match &thread.side {
        Side::Root(_) | Side::Child(_) => husk::expect_root().fail(reason),
        Side::Member(_) => member::fail(reason),
    }
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
        Side::Child(_) => return None,
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

/// Drops the wishes that wait for the calling thread, which has left: they would break off calls of its shadow. The program may
/// have a use for the signal, too: gives what it was sent.
fn forget_wishes() -> Vec<SignalInfo> {
    let (wishes, no_time) = (bit(MOVE), [0_u64; 2]);
    let mut others = Vec::new();
    for _ in 0..WISHES_MAX {
        let mut info = SignalInfo([0; SIGINFO_BYTES]);
        let arguments = [&raw const wishes as u64, info.0.as_mut_ptr() as u64, no_time.as_ptr() as u64, 8, 0, 0];
        if call::raw(libc::SYS_rt_sigtimedwait, &arguments) != i64::from(MOVE) {
            break;
        }
        if !is_wish(MOVE, info.code()) {
            others.push(info);
        }
    }
    others
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

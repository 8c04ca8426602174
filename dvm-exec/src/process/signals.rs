//! Signals of the program: its actions, and delivery to a thread on whatever host it runs.
//!
//! Owns the table of actions, the catcher's decisions and the way of a handler's frame onto the program's stack. Must not
//! hold a lock while program memory is touched, nor allocate where husk code was interrupted.

use super::husk::{self, Root};
use super::member;
use super::sigframe::{self, Action, Delivery, FaultWords, SignalInfo, UCONTEXT_BYTES};
use super::thread::{Side, Thread, current};
use super::{calls, moving, say};
use crate::sys::asm;
use crate::sys::context::{Context, Phase, Verdict};
use crate::sys::signal::{Disposition, Frame, Register, SIGSYS_BIT, set_disposition};
use crate::sys::{LINE, user};
use std::sync::{Mutex, MutexGuard, PoisonError};

const SIGNALS: usize = 65;
/// Bits of SIGKILL and SIGSTOP, which nobody blocks.
const UNBLOCKABLE: u64 = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1);
/// The native signal that interrupts a thread on a member.
pub const KICK: i32 = libc::SIGURG;

/// What the program wants done with each signal.
pub struct Actions {
    table: Mutex<[Action; SIGNALS]>,
}

impl Default for Actions {
    fn default() -> Self {
        Self { table: Mutex::new([Action::default(); SIGNALS]) }
    }
}

/// Whether `signal` reports what the thread itself did.
pub fn is_fault(signal: i32) -> bool {
    matches!(signal, libc::SIGSEGV | libc::SIGBUS | libc::SIGFPE | libc::SIGILL | libc::SIGTRAP)
}

/// The bit of `signal` in a mask.
pub fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

impl Actions {
    fn lock(&self) -> MutexGuard<'_, [Action; SIGNALS]> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The action for `signal`, as it is used now: SA_RESETHAND takes effect.
    pub fn for_delivery(&self, signal: i32) -> Action {
        let mut table = self.lock();
        let action = table[signal as usize];
        if action.handler > 1 && action.flags & libc::SA_RESETHAND as u32 as u64 != 0 {
            table[signal as usize].handler = 0;
            set_native(signal, &Action::default()).unwrap_or(());
        }
        action
    }

    /// Takes over what is ignored since before the program.
    pub fn inherit(&self) {
        let mut table = self.lock();
        for signal in 1..SIGNALS {
            if crate::sys::signal::is_ignored(signal as i32) {
                table[signal].handler = 1;
            }
        }
    }

    /// rt_sigaction of the program.
    pub fn call(&self, arguments: &[u64; 6]) -> i64 {
        let [signal, new, old, bytes, _, _] = *arguments;
        let signal = signal as usize;
        if signal == 0 || signal >= SIGNALS || bytes != 8 {
            return -i64::from(libc::EINVAL);
        }
        let mut incoming = [0_u8; 32];
        if new != 0 && user::read(new, &mut incoming).is_err() {
            return -i64::from(libc::EFAULT);
        }
        let number = signal as i32;
        if new != 0 && (number == libc::SIGKILL || number == libc::SIGSTOP) {
            return -i64::from(libc::EINVAL);
        }
        let former = {
            let mut table = self.lock();
            let former = table[signal];
            if new != 0 {
                let action = Action::from_bytes(&incoming);
                table[signal] = action;
                if let Err(error) = set_native(number, &action) {
                    return -i64::from(error.raw_os_error().unwrap_or(libc::EINVAL));
                }
            }
            former
        };
        if old != 0 && user::write(old, &former.to_bytes()).is_err() {
            return -i64::from(libc::EFAULT);
        }
        0
    }
}

fn set_native(signal: i32, action: &Action) -> Result<(), std::io::Error> {
    let disposition = match action.handler {
        _ if signal == libc::SIGSYS || signal == moving::MOVE => return Ok(()),
        _ if signal == libc::SIGSEGV || signal == libc::SIGBUS => Disposition::Catch,
        0 => Disposition::Default,
        1 => Disposition::Ignore,
        _ => Disposition::Catch,
    };
    set_disposition(signal, disposition)
}

/// Entered for every caught signal but SIGSYS.
pub fn handle_signal(context: &Context, signal: i32, info: &SignalInfo, frame: Frame) -> Verdict {
    if is_fault(signal) && info.code() > 0 {
        return handle_fault(context, info, frame);
    }
    if moving::is_wish(signal, info.code()) {
        return handle_wish(context, frame);
    }
    let is_kick = husk::root().is_none();
    if context.phase(&frame) == Phase::Husk {
        if is_kick {
            context.raise_flag();
        } else {
            context.queue(info);
        }
        if let Some(landing) = asm::call_landing(frame.rip()) {
            frame.set(Register::Rip, landing);
        }
        return Verdict::Resume;
    }
    let (Some(thread), resumed) = (current(), context.resumed_frame(frame)) else { return Verdict::Resume };
    match &thread.side {
        Side::Root(_) => {
            let action = husk::expect_root().actions.for_delivery(signal);
            deliver(&thread, context, resumed, info, action, thread.mask.get())
        }
        Side::Member(_) => member::take_signals(&thread, context, resumed),
    }
}

/// The thread shall go to another host; out of a call it goes at the call's end.
fn handle_wish(context: &Context, frame: Frame) -> Verdict {
    if context.phase(&frame) == Phase::Husk {
        return Verdict::Resume;
    }
    let (Some(thread), resumed) = (current(), context.resumed_frame(frame)) else { return Verdict::Resume };
    moving::depart(&thread, context, resumed).unwrap_or(Verdict::Resume)
}

fn handle_fault(context: &Context, info: &SignalInfo, frame: Frame) -> Verdict {
    if context.phase(&frame) == Phase::Program && current().is_some_and(|thread| moving::arrive(&thread, context, frame)) {
        return Verdict::Resume;
    }
    let (signal, address) = (info.signal(), info.address());
    let is_program_address = signal == libc::SIGSEGV && address < LINE;
    if is_program_address && husk::root().is_none() && member::resolve(address, frame.get(Register::Error)) {
        return Verdict::Resume;
    }
    if let Some(landing) = asm::fault_landing(frame.rip()) {
        frame.set(Register::Rip, landing);
        return Verdict::Resume;
    }
    let thread = current();
    let Some(thread) = thread.filter(|_| context.phase(&frame) == Phase::Program) else {
        say::line(&format!("internal fault: signal {signal} at {:#x}, address {address:#x}", frame.rip()));
        // Back to the instruction, which now ends the process with the right status.
        set_disposition(signal, Disposition::Default).unwrap_or(());
        return Verdict::Resume;
    };
    match &thread.side {
        Side::Root(_) => {
            let root = husk::expect_root();
            let action = root.actions.for_delivery(signal);
            if action.handler > 1 && thread.mask.get() & bit(signal) == 0 {
                return deliver(&thread, context, frame, info, action, thread.mask.get());
            }
            root.prepare_death(128 + signal);
            set_disposition(signal, Disposition::Default).unwrap_or(());
            Verdict::Resume
        }
        Side::Member(link) => {
            let order = member::report_fault(&mut link.borrow_mut(), info, frame.rip());
            deliver(&thread, context, frame, &order.info, order.action, thread.mask.get())
        }
    }
}

/// Lets `frame` go on in the program's handler. `running_mask` is the mask the handler's own is added to.
pub fn deliver(
    thread: &Thread,
    context: &Context,
    frame: Frame,
    info: &SignalInfo,
    action: Action,
    running_mask: u64,
) -> Verdict {
    if action.handler <= 1 {
        return Verdict::Resume;
    }
    let registers = frame.registers();
    let floating = frame.float_state();
    let fault =
        FaultWords { error: frame.get(Register::Error), trap: frame.get(Register::Trap), address: frame.get(Register::Address) };
    let (mask, altstack) = (thread.mask.get(), thread.alternate.get());
    let delivery = Delivery { info, action, registers: &registers, floating: &floating, mask, altstack, fault };
    let built = match sigframe::build(&delivery) {
        Ok(built) => built,
        Err(error) => return die(thread, frame, &error.to_string()),
    };
    if user::write(built.address, &built.bytes).is_err() {
        return die(thread, frame, "the program's stack has no room for a signal frame");
    }
    frame.set_registers(&built.registers);
    thread.alternate.set(built.altstack);
    set_mask(thread, context, frame, built.mask | (running_mask & !mask));
    Verdict::Resume
}

fn die(thread: &Thread, frame: Frame, reason: &str) -> Verdict {
    say::line(&format!("thread {}: {reason}", thread.tid));
    match &thread.side {
        Side::Root(_) => husk::expect_root().finish(husk::Ending::Signal(libc::SIGSEGV)),
        Side::Member(link) => {
            let info = SignalInfo::fault(libc::SIGKILL, 0, frame.rip());
            member::report_fault(&mut link.borrow_mut(), &info, frame.rip());
            Verdict::Resume
        }
    }
}

/// Makes `mask` the program's mask of the thread that will go on from `frame`.
pub fn set_mask(thread: &Thread, context: &Context, frame: Frame, mask: u64) {
    let mask = mask & !UNBLOCKABLE;
    thread.mask.set(mask);
    match &thread.side {
        Side::Root(_) => frame.set_mask(mask),
        Side::Member(link) => {
            if member::tell_mask(&mut link.borrow_mut(), mask) {
                context.raise_flag();
            }
        }
    }
}

/// rt_sigprocmask of the program.
pub fn change_mask(thread: &Thread, context: &Context, frame: Frame, arguments: &[u64; 6]) -> i64 {
    let [how, new, old, bytes, _, _] = *arguments;
    if bytes != 8 {
        return -i64::from(libc::EINVAL);
    }
    let former = thread.mask.get();
    if new != 0 {
        let Ok(given) = user::read_u64(new) else { return -i64::from(libc::EFAULT) };
        let mask = match how as i32 {
            libc::SIG_BLOCK => former | given,
            libc::SIG_UNBLOCK => former & !given,
            libc::SIG_SETMASK => given,
            _ => return -i64::from(libc::EINVAL),
        };
        if mask & !UNBLOCKABLE != former {
            set_mask(thread, context, frame, mask);
        }
    }
    if old != 0 && user::write(old, &former.to_le_bytes()).is_err() {
        return -i64::from(libc::EFAULT);
    }
    0
}

/// rt_sigreturn of the program.
pub fn return_from_handler(thread: &Thread, context: &Context, frame: Frame) -> Verdict {
    let mut bytes = [0_u8; UCONTEXT_BYTES];
    if user::read(frame.rsp(), &mut bytes).is_err() {
        return die(thread, frame, "rt_sigreturn without a frame");
    }
    let restored = sigframe::parse(&bytes);
    let own = frame.float_state();
    let floating = if restored.floating_address == 0 {
        Vec::new()
    } else {
        match user::read_vec(restored.floating_address, own.len()) {
            Ok(floating) => floating,
            Err(_) => return die(thread, frame, "rt_sigreturn without floating-point state"),
        }
    };
    if !floating.is_empty() {
        match sigframe::accept_floating(&floating, &own) {
            Ok(accepted) => frame.set_float_state(&accepted),
            Err(error) => return die(thread, frame, &error.to_string()),
        }
    }
    frame.set_registers(&restored.registers);
    thread.alternate.set(restored.altstack);
    set_mask(thread, context, frame, restored.mask);
    Verdict::Resume
}

/// The mask a call like rt_sigsuspend waits with, if `number` is one.
pub fn temporary_mask(number: i64, arguments: &[u64; 6]) -> Option<u64> {
    let address = match number {
        libc::SYS_rt_sigsuspend => arguments[0],
        libc::SYS_ppoll => arguments[3],
        libc::SYS_epoll_pwait | libc::SYS_epoll_pwait2 => arguments[4],
        libc::SYS_pselect6 => user::read_u64(arguments[5]).ok()?,
        _ => return None,
    };
    if address == 0 { None } else { user::read_u64(address).ok() }
}

/// What is done after a call of the program, before it goes on: signals queued meanwhile, at the root.
pub fn end_call(root: &Root, thread: &Thread, context: &Context, frame: Frame, call: Option<(i64, [u64; 6])>) {
    let mut call = call;
    loop {
        let temporary =
            call.and_then(|(number, arguments)| if context.is_signalled() { temporary_mask(number, &arguments) } else { None });
        while let Some(info) = context.take(temporary.unwrap_or_else(|| thread.mask.get())) {
            let action = root.actions.for_delivery(info.signal());
            if action.handler <= 1 {
                continue;
            }
            if let Some((number, _)) = call.take() {
                restart_if_wanted(frame, number, action);
            }
            deliver(thread, context, frame, &info, action, temporary.unwrap_or_else(|| thread.mask.get()));
        }
        if let Some((number, _)) = call.take()
            && frame.get(Register::Rax) as i64 == -i64::from(libc::EINTR)
            && calls::is_restartable(number as u64)
        {
            // What broke the call off is not for the program.
            repeat(frame, number);
        }
        if !context.is_signalled_on_exit() {
            return;
        }
    }
}

/// A call broken off by a signal whose handler wants it restarted goes back to its instruction.
pub fn restart_if_wanted(frame: Frame, number: i64, action: Action) {
    let was_interrupted = frame.get(Register::Rax) as i64 == -i64::from(libc::EINTR);
    let wants = action.flags & libc::SA_RESTART as u64 != 0;
    if was_interrupted && wants && calls::is_restartable(number as u64) {
        repeat(frame, number);
    }
}

/// Sets `frame` back to the call's instruction.
pub fn repeat(frame: Frame, number: i64) {
    frame.set(Register::Rax, number as u64);
    frame.set(Register::Rip, frame.rip() - 2);
}

/// The signals that reach a thread natively on a member: kicks and its own faults.
pub fn native_member_signals() -> u64 {
    [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, KICK, moving::MOVE]
        .into_iter()
        .fold(0, |mask, signal| mask | bit(signal))
}

/// Natively catches what every husk needs: system calls and faults.
///
/// # Errors
/// The kernel's error.
pub fn install(is_root: bool, may_move: bool) -> Result<(), std::io::Error> {
    set_disposition(libc::SIGSYS, Disposition::Dispatch)?;
    set_disposition(libc::SIGSEGV, Disposition::Catch)?;
    set_disposition(libc::SIGBUS, Disposition::Catch)?;
    if may_move {
        set_disposition(moving::MOVE, Disposition::Catch)?;
    }
    if !is_root {
        for signal in [libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, KICK] {
            set_disposition(signal, Disposition::Catch)?;
        }
    }
    debug_assert_eq!(SIGSYS_BIT & UNBLOCKABLE, 0);
    Ok(())
}

//! Signals of the program: its actions, and delivery to a thread on whatever host it runs.
//!
//! Owns the table of actions, the catcher's decisions and the way of a handler's frame onto the program's stack. Must not
//! hold a lock while program memory is touched, nor allocate where husk code was interrupted.

use super::features;
use super::husk::{self, Root};
use super::interrupted::BrokenCall;
use super::member;
use super::moving;
use super::say;
use super::sigframe::{self, Action, Delivery, FaultWords, SignalInfo, UCONTEXT_BYTES};
use super::thread::{Side, Thread, current};
use super::vma::Found;
use crate::sys::context::{Context, Phase, Verdict};
use crate::sys::signal::{
    Disposition, FAULT_BITS, Frame, Register, SIGSYS_BIT, replace_mask, set_disposition, set_disposition_with,
};
use crate::sys::{LINE, asm, call, user};
use std::sync::{Mutex, MutexGuard, PoisonError};

const SIGNALS: usize = 65;
/// Bits of SIGKILL and SIGSTOP, which nobody blocks.
const UNBLOCKABLE: u64 = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1);
/// The mask by which thread libraries keep everything off for a moment: what comes meanwhile waits for its end.
pub const ALL_BLOCKED: u64 = !UNBLOCKABLE;
/// sa_flags that rt_sigaction knows; others are taken away, as the kernel does.
const KNOWN_FLAGS: u64 = 0xdc00_0807;
/// Flags that change what the kernel itself does with children.
const CHILD_FLAGS: u64 = (libc::SA_NOCLDSTOP | libc::SA_NOCLDWAIT) as u64;
/// `si_code` of a signal the kernel sends by itself.
const SI_KERNEL: i32 = 0x80;
/// `si_code` of a signal sent to one thread.
const SI_TKILL: i32 = -6;
/// `si_code` of a segmentation fault where nothing is mapped, and where something is.
const SEGV_MAPERR: i32 = 1;
const SEGV_ACCERR: i32 = 2;
/// The native signal that interrupts a thread on a member.
pub const KICK: i32 = libc::SIGURG;

/// What the program wants done with each signal.
#[derive(Debug)]
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

/// Whether the husk catches `signal` whatever the program wants done with it.
fn is_always_caught(signal: i32) -> bool {
    is_fault(signal) || (signal == moving::MOVE && moving::is_wanted())
}

/// Whether the kernel writes a core file when `signal` ends a process.
pub fn dumps_core(signal: i32) -> bool {
    is_fault(signal) || matches!(signal, libc::SIGABRT | libc::SIGQUIT | libc::SIGSYS | libc::SIGXCPU | libc::SIGXFSZ)
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

    /// No action changes until the guard is dropped, so that a forked child finds them whole.
    pub fn freeze(&self) -> impl Drop {
        self.lock()
    }

    /// What a child starts with.
    pub fn copy(&self) -> Self {
        Self { table: Mutex::new(*self.lock()) }
    }

    /// Every handler gives way to the default action, here and in this process.
    pub fn drop_handlers(&self) {
        for (signal, action) in self.lock().iter_mut().enumerate().filter(|(_, action)| action.handler > 1) {
            *action = Action::default();
            set_native(signal as i32, action).unwrap_or(());
        }
    }

    /// Signals that the program ignores but the husk must catch; the next program shall find them ignored.
    pub fn ignored_but_caught(&self) -> impl Iterator<Item = i32> {
        let table = *self.lock();
        (1..SIGNALS as i32)
            .filter(|signal| is_always_caught(*signal) || *signal == libc::SIGSYS)
            .filter(move |signal| table[*signal as usize].handler == 1)
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

    /// Signals the program ignores and those it catches.
    pub fn masks(&self) -> (u64, u64) {
        let table = self.lock();
        let of = |is_wanted: fn(u64) -> bool| {
            (1..SIGNALS).filter(|signal| is_wanted(table[*signal].handler)).fold(0, |mask, signal| mask | bit(signal as i32))
        };
        (of(|handler| handler == 1), of(|handler| handler > 1))
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
                let mut action = Action::from_bytes(&incoming);
                action.flags &= KNOWN_FLAGS;
                action.mask &= !UNBLOCKABLE;
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
        _ if signal == libc::SIGSYS => return Ok(()),
        _ if is_always_caught(signal) => Disposition::Catch,
        0 => Disposition::Default,
        1 => Disposition::Ignore,
        _ => Disposition::Catch,
    };
    set_disposition_with(signal, disposition, action.flags & CHILD_FLAGS)
}

/// Entered for every caught signal but SIGSYS.
pub fn handle_signal(context: &Context, signal: i32, info: &SignalInfo, frame: Frame) -> Verdict {
    if is_fault(signal) && info.code() > 0 {
        return handle_fault(context, info, frame);
    }
    if moving::is_wish(signal, info.code()) {
        return handle_wish(context, frame);
    }
    if signal == libc::SIGSYS {
        // Its entry keeps nothing off.
        replace_mask(!FAULT_BITS);
        if let Some(thread) = current()
            && let Side::Child(child) = &thread.side
        {
            child.check_time();
        }
    }
    let is_kick = husk::root().is_none();
    if context.phase(&frame) == Phase::Husk {
        if is_kick {
            context.raise_flag();
        } else {
            context.queue(info);
            // Others wait in the kernel, in its order, until this one is looked at.
            frame.set_mask(!FAULT_BITS);
        }
        if let Some(landing) = asm::call_landing(frame.rip(), frame.get(Register::Rcx)) {
            frame.set(Register::Rip, landing);
        }
        return Verdict::Resume;
    }
    let (Some(thread), resumed) = (current(), context.resumed_frame(frame)) else { return Verdict::Resume };
    match &thread.side {
        Side::Root(_) => {
            if thread.mask.get() & bit(signal) & FAULT_BITS != 0 {
                // Never blocked natively: it waits here.
                context.queue(info);
                return Verdict::Resume;
            }
            let root = husk::expect_root();
            let action = root.actions.for_delivery(signal);
            if action.handler <= 1 {
                perform_default(root, info, action);
                return Verdict::Resume;
            }
            deliver(&thread, context, resumed, info, action, thread.mask.get())
        }
        Side::Child(child) => {
            if thread.mask.get() & bit(signal) & FAULT_BITS != 0 {
                context.queue(info);
                return Verdict::Resume;
            }
            let action = child.actions.for_delivery(signal);
            if action.handler <= 1 {
                child.perform_default(info, action);
                return Verdict::Resume;
            }
            deliver(&thread, context, resumed, info, action, thread.mask.get())
        }
        Side::Member(_) => member::take_signals(&thread, context, resumed),
    }
}

/// The thread shall go to another host; out of a call it goes at the call's end.
fn handle_wish(context: &Context, frame: Frame) -> Verdict {
    if context.phase(&frame) == Phase::Husk {
        if let Some(landing) = asm::wish_landing(frame.rip(), frame.get(Register::Rax)) {
            frame.set(Register::Rip, landing);
        }
        return Verdict::Resume;
    }
    let (Some(thread), resumed) = (current(), context.resumed_frame(frame)) else { return Verdict::Resume };
    moving::depart(&thread, context, resumed).unwrap_or(Verdict::Resume)
}

fn handle_fault(context: &Context, info: &SignalInfo, frame: Frame) -> Verdict {
    if context.phase(&frame) == Phase::Program && current().is_some_and(|thread| moving::arrive(&thread, context, frame)) {
        return Verdict::Resume;
    }
    // A trapped CPUID is a general protection fault, which comes without an address.
    let is_protection = info.signal() == libc::SIGSEGV && info.code() == SI_KERNEL;
    if is_protection && features::answer(frame, context.phase(&frame) == Phase::Program) {
        return Verdict::Resume;
    }
    let Some(judged) = judge_access(context, info, frame) else { return Verdict::Resume };
    let info = &judged;
    let (signal, address) = (info.signal(), info.address());
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
            let is_blocked = thread.mask.get() & bit(signal) != 0;
            if !is_blocked {
                let action = root.actions.for_delivery(signal);
                if action.handler > 1 {
                    return deliver(&thread, context, frame, info, action, thread.mask.get());
                }
            }
            let host = root.hosts.first().map_or("this", |host| host.name.as_str());
            root.die_of_fault(thread.tid, host, info, frame.rip())
        }
        Side::Child(child) => {
            let action = child.actions.for_delivery(signal);
            if action.handler > 1 && thread.mask.get() & bit(signal) == 0 {
                return deliver(&thread, context, frame, info, action, thread.mask.get());
            }
            set_disposition(signal, Disposition::Default).unwrap_or(());
            Verdict::Resume
        }
        Side::Member(link) => {
            let is_blocked = thread.mask.get() & bit(signal) != 0;
            let order = member::report_fault(&mut link.borrow_mut(), info, frame.rip(), is_blocked);
            deliver(&thread, context, frame, &order.info, order.action, thread.mask.get())
        }
    }
}

/// What becomes of a signal that was caught while it had a handler and is looked at when it has none, or that is always
/// caught: nothing if it is ignored, else the kernel's default.
pub fn perform_default(root: &Root, info: &SignalInfo, action: Action) {
    if stops_or_passes(root.pid(), info.signal(), action) {
        return;
    }
    root.finish(husk::Ending::Signal(info.signal()));
}

/// Carries out a default that does not end process `pid`; false if it is to end.
pub fn stops_or_passes(pid: i32, signal: i32, action: Action) -> bool {
    match signal {
        _ if action.handler == 1 => true,
        libc::SIGCHLD | libc::SIGURG | libc::SIGWINCH | libc::SIGCONT => true,
        libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU => {
            call::raw(libc::SYS_kill, &[pid as u64, libc::SIGSTOP as u64, 0, 0, 0, 0]);
            true
        }
        _ => false,
    }
}

/// Sends a signal that was caught, but is blocked by now, to whom it was meant for. The kernel lets only the first
/// thread repeat what others than the program itself have sent; from another thread such a signal loses who sent it.
pub fn give_back(pid: i32, tid: i32, info: &SignalInfo) {
    let (process, signal, address) = (pid as u64, info.signal() as u64, info.0.as_ptr() as u64);
    let given = if info.code() == SI_TKILL {
        call::raw(libc::SYS_rt_tgsigqueueinfo, &[process, tid as u64, signal, address, 0, 0])
    } else {
        call::raw(libc::SYS_rt_sigqueueinfo, &[process, signal, address, 0, 0, 0])
    };
    if given < 0 {
        call::raw(libc::SYS_kill, &[process, signal, 0, 0, 0, 0]);
    }
}

/// A thread has ended: what it caught for the process is for others.
pub fn leave_signals(pid: i32, tid: i32, context: &Context) {
    while let Some(info) = context.take_blocked(u64::MAX) {
        if info.code() != SI_TKILL {
            give_back(pid, tid, &info);
        }
    }
}

/// What a fault is to the program; `None` if it may go on. Natively all of its space is mapped.
fn judge_access(context: &Context, info: &SignalInfo, frame: Frame) -> Option<SignalInfo> {
    const BUS_ADRERR: i32 = 2;
    let address = info.address();
    let is_access = info.signal() == libc::SIGSEGV && matches!(info.code(), SEGV_MAPERR | SEGV_ACCERR) && address < LINE;
    if !is_access {
        return Some(*info);
    }
    let error = frame.get(Register::Error);
    let found = match husk::root() {
        None => member::judge_fault(address, error)?,
        // In a call the husk may be the one that changes the map.
        Some(_) if context.phase(&frame) != Phase::Program => return Some(*info),
        Some(root) => root.space.judge_fault(address, error)?,
    };
    Some(match found {
        Found::Hole => SignalInfo::fault(libc::SIGSEGV, SEGV_MAPERR, address),
        Found::Area => SignalInfo::fault(libc::SIGSEGV, SEGV_ACCERR, address),
        Found::BeyondFile => SignalInfo::fault(libc::SIGBUS, BUS_ADRERR, address),
    })
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
    frame.reset_float_state();
    thread.alternate.set(built.altstack);
    set_mask(thread, context, frame, action.running_mask(info.signal(), running_mask), Lasts::Briefly);
    Verdict::Resume
}

fn die(thread: &Thread, frame: Frame, reason: &str) -> Verdict {
    say::line(&format!("thread {}: {reason}", thread.tid));
    match &thread.side {
        Side::Root(_) => husk::expect_root().finish(husk::Ending::Signal(libc::SIGSEGV)),
        Side::Child(child) => child.die(libc::SIGSEGV),
        Side::Member(link) => {
            let info = SignalInfo::fault(libc::SIGSEGV, 0, frame.rip());
            member::report_fault(&mut link.borrow_mut(), &info, frame.rip(), true);
            Verdict::Resume
        }
    }
}

/// How long a mask is meant to hold; for a short time, what it blocks beyond the former one needs not be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasts {
    /// Until a handler returns or a thread library has done its work.
    Briefly,
    /// Until the program says otherwise.
    Long,
}

/// Makes `mask` the program's mask of the thread that will go on from `frame`.
fn set_mask(thread: &Thread, context: &Context, frame: Frame, mask: u64, lasts: Lasts) {
    let mask = mask & !UNBLOCKABLE;
    thread.mask.set(mask);
    match &thread.side {
        Side::Root(_) | Side::Child(_) => {
            // Faults of the husk on the program's behalf must reach their handler, too.
            frame.set_mask(mask & !FAULT_BITS);
            context.recheck(mask & !SIGSYS_BIT);
        }
        Side::Member(link) => {
            let lasts = if mask == ALL_BLOCKED { Lasts::Briefly } else { lasts };
            if member::tell_mask(&mut link.borrow_mut(), mask, lasts) {
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
            set_mask(thread, context, frame, mask, Lasts::Long);
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
    set_mask(thread, context, frame, restored.mask, Lasts::Long);
    Verdict::Resume
}

/// What is done after a call of the program, before it goes on: signals queued meanwhile, at the root.
pub fn end_call(actions: &Actions, thread: &Thread, context: &Context, frame: Frame, call: Option<(i64, [u64; 6])>) {
    let mut broken = BrokenCall::of(frame, call);
    loop {
        let was_signalled = context.is_signalled();
        if was_signalled {
            deliver_queued(actions, thread, context, frame, &mut broken);
        }
        if let Some(broken) = broken.take() {
            broken.end_unhandled(frame, was_signalled);
        }
        if !context.is_signalled_on_exit() {
            return;
        }
    }
}

fn deliver_queued(actions: &Actions, thread: &Thread, context: &Context, frame: Frame, broken: &mut Option<BrokenCall>) {
    let mut temporary = broken.and_then(|call| call.temporary_mask());
    while let Some(info) = context.take(temporary.unwrap_or_else(|| thread.mask.get()) & !SIGSYS_BIT) {
        let action = actions.for_delivery(info.signal());
        if action.handler <= 1 {
            match &thread.side {
                Side::Child(child) => child.perform_default(&info, action),
                Side::Root(_) | Side::Member(_) => perform_default(husk::expect_root(), &info, action),
            }
            continue;
        }
        if let Some(broken) = broken.take() {
            broken.end_by(frame, &action);
        }
        let running = temporary.take().unwrap_or_else(|| thread.mask.get());
        deliver(thread, context, frame, &info, action, running);
    }
    let mask = thread.mask.get() & !(SIGSYS_BIT | FAULT_BITS);
    while let Some(info) = context.take_blocked(mask) {
        replace_mask(mask);
        give_back(thread.pid, thread.tid, &info);
    }
    // One that came on the way into the program left everything blocked.
    frame.set_mask(thread.mask.get() & !FAULT_BITS);
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
    for signal in [libc::SIGFPE, libc::SIGILL, libc::SIGTRAP] {
        set_disposition(signal, Disposition::Catch)?;
    }
    if !is_root {
        set_disposition(KICK, Disposition::Catch)?;
    }
    debug_assert_eq!(SIGSYS_BIT & UNBLOCKABLE, 0);
    Ok(())
}

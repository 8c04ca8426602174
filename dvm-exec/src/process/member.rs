//! The program's threads on a member: each asks its shadow at the root over its own connection.
//!
//! Owns that conversation, from a thread's start to its end. Must not execute calls, except those that
//! [`super::local`] answers.

use super::ask::ThreadUsage;
use super::calls::{Class, marshal};
use super::clone::CloneRequest;
use super::connection::{Connection, ConnectionError};
use super::features;
use super::interrupted::BrokenCall;
use super::memberhusk::{Carrier, MemberHusk, member};
use super::moving;
use super::say;
use super::sigframe::{SignalInfo, ThreadState};
use super::signals::{self, Lasts, deliver};
use super::thread::{Side, Thread, set_current};
use super::trace::Traced;
use super::vma::Found;
use super::wire::{Call, Message, Return, SignalOrder, ThreadStart};
use crate::sys::context::{Block, Context, Verdict};
use crate::sys::cpu::Scheduling;
use crate::sys::signal::{Frame, replace_mask};
use crate::sys::{cpu, user};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

/// Calls whose results the root writes by itself, so that they cannot travel in husk memory.
const RAW: [i64; 4] = [libc::SYS_prlimit64, libc::SYS_getrlimit, libc::SYS_readlink, libc::SYS_readlinkat];

/// A thread's connection to its shadow.
pub struct Link {
    connection: Option<Connection>,
    /// The mask the shadow was told last.
    told: u64,
    /// Signals that came as the answer to a new mask, to be delivered at the end of the call.
    kept: VecDeque<SignalOrder>,
    /// More wait at the root.
    is_signalled: bool,
    /// What the kernel thread had used before this thread of the program, less what that used elsewhere.
    used_before: ThreadUsage,
    /// The thread's number, if its calls are told to the root's `--strace`.
    traced: Option<i32>,
}

impl Link {
    /// What the kernel thread had used before this thread of the program, less what that used elsewhere.
    pub fn used_before(&self) -> ThreadUsage {
        self.used_before
    }

    /// Asks the shadow. A broken connection ends this husk: the root is gone, or will end the job.
    fn ask(&mut self, message: &Message) -> Return {
        let answer = self.connection().ask(message);
        match member().check(answer) {
            Message::Return(answer) => {
                self.is_signalled |= answer.is_signalled;
                answer
            }
            other => member().fail(&format!("the root answered {other:?}, which is out of place")),
        }
    }

    /// Tells the shadow the mask; it sets the handler's own if a signal comes back.
    fn set_mask(&mut self, mask: u64) -> Option<SignalOrder> {
        self.is_signalled = false;
        let order = self.ask(&Message::SetMask(mask)).signal;
        self.told = order.as_ref().map_or(mask, |order| order.action.running_mask(order.info.signal(), mask));
        order
    }

    fn connection(&mut self) -> &mut Connection {
        match &mut self.connection {
            Some(connection) => connection,
            None => member().fail("a thread without a connection made a call"),
        }
    }
}

/// Runs threads that come over `connection`, one after the other, until the root closes it.
pub fn carry(husk: &'static MemberHusk, connection: Connection) {
    let block = match Block::install(true) {
        Ok(block) => block,
        Err(error) => husk.fail(&format!("alternate stack: {error}")),
    };
    let mut connection = connection;
    loop {
        match connection.receiver.receive(None) {
            Ok(Message::Start(start)) => connection = run(husk, &block, connection, &start),
            Ok(other) => husk.fail(&format!("the root sent {other:?} instead of a thread")),
            Err(ConnectionError::Closed) => return,
            Err(error) => husk.fail(&format!("connection to the root: {error}")),
        }
    }
}

fn run(husk: &'static MemberHusk, block: &Block, connection: Connection, start: &ThreadStart) -> Connection {
    let number = cpu::thread_id();
    let carrier = Carrier { tid: number, before: ThreadUsage::of(number).before(&start.luggage.used) };
    let link = Link {
        is_signalled: false,
        connection: Some(connection),
        told: start.mask,
        kept: VecDeque::new(),
        used_before: carrier.before,
        traced: start.is_traced.then_some(start.tid),
    };
    let thread = Rc::new(Thread {
        tid: start.tid,
        pid: start.pid,
        mask: Cell::new(start.mask),
        alternate: Cell::new(start.altstack),
        luggage: Cell::new(start.luggage.clone()),
        departing: RefCell::default(),
        side: Side::Member(Box::new(RefCell::new(link))),
    });
    set_current(Rc::clone(&thread));
    block.context().lower_flag();
    if husk.add_carrier(start.tid, carrier) {
        block.context().raise_flag();
    }
    replace_mask(moving::mask_at_start(start, !signals::native_member_signals()));
    let usual = Scheduling::of(0);
    if let Some(scheduling) = start.scheduling
        && scheduling.apply(0) < 0
    {
        say::line(&format!("a thread on host {} cannot be scheduled as its creator is: {scheduling:?}", husk.name()));
    }
    features::trap(true);
    let ran = block.run(&start.state);
    features::trap(false);
    replace_mask(u64::MAX);
    if Scheduling::of(0) != usual && usual.apply(0) < 0 {
        say::line(&format!("a kernel thread on host {} stays as the program had it scheduled", husk.name()));
    }
    husk.remove_carrier(start.tid, carrier.tid);
    if let Err(error) = ran {
        husk.fail(&format!("syscall user dispatch refused: {error}; linux 5.11 or newer is needed"));
    }
    let Side::Member(link) = &thread.side else { husk.fail("a thread of the root ran on a member") };
    let connection = link.borrow_mut().connection.take();
    match connection {
        Some(connection) => connection,
        None => husk.fail("a thread lost its connection"),
    }
}

/// Takes the signals that wait at the root, while the thread is in the program, and lets `frame` go on with them.
pub fn take_signals(thread: &Thread, context: &Context, frame: Frame) -> Verdict {
    context.lower_flag();
    take_all(thread, context, frame, &mut None);
    Verdict::Resume
}

/// Delivers what the root has for the thread.
fn take_all(thread: &Thread, context: &Context, frame: Frame, broken: &mut Option<BrokenCall>) {
    let Side::Member(link) = &thread.side else { return };
    let mut temporary = broken.and_then(|call| call.temporary_mask());
    loop {
        let asked = temporary.take();
        let mask = asked.unwrap_or_else(|| thread.mask.get());
        let order = {
            let mut link = link.borrow_mut();
            link.kept.pop_front().or_else(|| link.set_mask(mask))
        };
        match order {
            Some(order) => {
                if let Some(broken) = broken.take() {
                    broken.end_by(frame, &order.action);
                }
                deliver(thread, context, frame, &order.info, order.action, mask);
            }
            // The shadow must have the thread's own mask again.
            None if asked.is_some() => continue,
            None => {}
        }
        let link = link.borrow();
        if link.kept.is_empty() && !link.is_signalled {
            return;
        }
    }
}

/// Whether the program may touch `address` as the fault with this error code did, after asking the root; else what is there.
pub fn judge_fault(address: u64, error: u64) -> Option<Found> {
    match member().ask_map(address) {
        Some((protection, _)) if protection.allows(error) => None,
        Some((_, found)) => Some(found),
        None => Some(Found::Hole),
    }
}

/// Tells the root of a fault that the program may have a handler for. The job ends if it has none.
pub fn report_fault(link: &mut Link, info: &SignalInfo, ip: u64, is_blocked: bool) -> SignalOrder {
    match link.ask(&Message::Fault { info: *info, ip, is_blocked }).signal {
        Some(order) => order,
        None => member().fail("the root neither handled a fault nor ended the job"),
    }
}

/// The thread's mask has changed; the shadow must know at once if it blocks a signal that the program does not, and of
/// lasting masks also if the program blocks one that it does not. True if the end of the call must look for signals.
pub fn tell_mask(link: &mut Link, mask: u64, lasts: Lasts) -> bool {
    if link.told & !mask == 0 && (lasts == Lasts::Briefly || mask & !link.told == 0) {
        return false;
    }
    let order = link.set_mask(mask);
    link.kept.extend(order);
    !link.kept.is_empty() || link.is_signalled
}

/// A call is about to hand the mask on to another program: the shadow's must be the program's.
pub fn tell_whole_mask(thread: &Thread, link: &mut Link) {
    let mask = thread.mask.get();
    if link.told != mask {
        link.told = mask;
        let answer = link.ask(&Message::SetMask(mask));
        link.kept.extend(answer.signal);
    }
}

/// What is done after a call, before the program goes on: signals.
pub fn end_call(thread: &Thread, context: &Context, frame: Frame, call: Option<(i64, [u64; 6])>) {
    let mut broken = BrokenCall::of(frame, call);
    loop {
        let was_signalled = context.is_signalled();
        if was_signalled {
            context.lower_flag();
            take_all(thread, context, frame, &mut broken);
        }
        if let Some(broken) = broken.take() {
            broken.end_unhandled(frame, was_signalled);
        }
        if !context.is_signalled_on_exit() {
            return;
        }
    }
}

/// Whether some thread here shall go to another host; takes no lock.
pub fn may_anybody_move() -> bool {
    member().may_anybody_move()
}

/// Whether thread `tid` shall go to another host.
pub fn shall_move(tid: i32) -> bool {
    member().shall_move(tid)
}

/// Sends a thread away that has left its stack; false if signals hold it here.
pub fn send_departure(link: &mut Link, start: ThreadStart) -> bool {
    if !link.kept.is_empty() {
        return false;
    }
    let sent = link.connection().sender.send(&Message::Depart(Box::new(start)));
    member().check(sent);
    true
}

/// Ends this husk because it cannot go on.
pub fn fail(reason: &str) -> ! {
    member().fail(reason)
}

struct Guarded;

impl marshal::Memory for Guarded {
    fn read(&mut self, address: u64, out: &mut [u8]) -> bool {
        user::read(address, out).is_ok()
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        user::write(address, bytes).is_ok()
    }
}

/// Has the shadow execute a call, its small buffers in the message.
pub fn delegate(link: &mut Link, context: &Context, number: i64, arguments: &[u64; 6], class: &Class) -> i64 {
    if number == libc::SYS_futex
        && let Some(value) = futex_at_once(arguments)
    {
        return value;
    }
    let shape = match class {
        Class::Marshal(shape) if !RAW.contains(&number) => Some(*shape),
        _ => None,
    };
    let packed = shape.and_then(|shape| marshal::pack(number as u32, *arguments, shape, &mut Guarded));
    let is_packed = packed.is_some();
    let raw = || Call { number: number as u32, arguments: *arguments, ..Call::default() };
    let started = Instant::now();
    let answer = link.ask(&Message::Call(packed.unwrap_or_else(raw)));
    member().count_call(number as u32, started.elapsed());
    if let Some(tid) = link.traced {
        let call = Traced { host: member().name(), tid, number, arguments, value: answer.value, latency: started.elapsed() };
        member().trace(call.line());
    }
    if answer.is_signalled {
        context.raise_flag();
    }
    if let Some(shape) = shape.filter(|_| is_packed)
        && !marshal::unpack(*arguments, shape, &answer, &mut Guarded)
    {
        return -i64::from(libc::EFAULT);
    }
    answer.value
}

/// A futex wait for a value that is no longer there fails without asking: the word here is as true as at the root.
fn futex_at_once(arguments: &[u64; 6]) -> Option<i64> {
    let command = arguments[1] as i32 & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);
    if command != libc::FUTEX_WAIT && command != libc::FUTEX_WAIT_BITSET {
        return None;
    }
    if !arguments[0].is_multiple_of(4) {
        return None;
    }
    let seen = user::read_u32(arguments[0]).ok()?;
    (seen != arguments[2] as u32).then_some(-i64::from(libc::EAGAIN))
}

/// The thread leaves its stack for ever.
pub fn end_thread(link: &mut Link, status: i32) {
    let sent = link.connection().sender.send(&Message::ExitThread { status });
    member().check(sent);
}

/// Starts a thread of the program, where the root chooses, or a child process, at the root.
pub fn start_thread(link: &mut Link, context: &Context, request: &CloneRequest, state: ThreadState, mask: u64) -> i64 {
    let arguments = request.to_arguments();
    let call = Call { number: libc::SYS_clone as u32, arguments, ..Call::default() };
    let started = Instant::now();
    let answer = link.ask(&Message::Clone { call, state: Box::new(state), mask });
    member().count_call(libc::SYS_clone as u32, started.elapsed());
    let value = answer.value;
    if let Some(tid) = link.traced {
        let number = libc::SYS_clone;
        let call = Traced { host: member().name(), tid, number, arguments: &arguments, value, latency: started.elapsed() };
        member().trace(call.line());
    }
    if answer.is_signalled {
        context.raise_flag();
    }
    value
}

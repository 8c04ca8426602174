//! The program's threads on a member: each asks its shadow at the root over its own connection.
//!
//! Owns that conversation, from a thread's start to its end. Must not execute calls, except those that
//! [`super::local`] answers.

use super::calls::{self, Class, marshal};
use super::clone::CloneRequest;
use super::connection::{Connection, ConnectionError};
use super::memberhusk::{MemberHusk, member};
use super::sigframe::{SignalInfo, ThreadState};
use super::signals::{self, deliver, repeat, restart_if_wanted, temporary_mask};
use super::thread::{Side, Thread, set_current};
use super::wire::{Call, Message, Return, SignalOrder, ThreadStart};
use crate::sys::context::{Block, Context, Verdict};
use crate::sys::signal::{Frame, Register, replace_mask};
use crate::sys::{cpu, user};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Instant;

/// Calls whose results the root writes by itself, so that they cannot travel in husk memory.
const RAW: [i64; 4] = [libc::SYS_prlimit64, libc::SYS_getrlimit, libc::SYS_readlink, libc::SYS_readlinkat];
/// Bits of a page fault's error code.
const FAULT_WRITE: u64 = 2;
const FAULT_EXECUTE: u64 = 16;

/// A thread's connection to its shadow.
pub struct Link {
    connection: Option<Connection>,
    /// The mask the shadow was told last.
    told: u64,
    /// Signals that came as the answer to a new mask, to be delivered at the end of the call.
    kept: VecDeque<SignalOrder>,
}

impl Link {
    /// Asks the shadow. A broken connection ends this husk: the root is gone, or will end the job.
    fn ask(&mut self, message: &Message) -> Return {
        let answer = self.connection().ask(message);
        match member().check(answer) {
            Message::Return(answer) => answer,
            other => member().fail(&format!("the root answered {other:?}, which is out of place")),
        }
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
    let thread = Rc::new(Thread {
        tid: start.tid,
        pid: start.pid,
        mask: Cell::new(start.mask),
        alternate: Cell::new(start.altstack),
        luggage: Cell::new(start.luggage.clone()),
        departing: RefCell::default(),
        side: Side::Member(RefCell::new(Link { connection: Some(connection), told: start.mask, kept: VecDeque::new() })),
    });
    set_current(Rc::clone(&thread));
    block.context().lower_flag();
    husk.add_carrier(start.tid, cpu::thread_id());
    replace_mask(!signals::native_member_signals());
    let ran = block.run(&start.state);
    replace_mask(u64::MAX);
    husk.remove_carrier(start.tid, cpu::thread_id());
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
    take_all(thread, context, frame, None, None);
    Verdict::Resume
}

/// Delivers what the root has for the thread; true if there was something.
fn take_all(thread: &Thread, context: &Context, frame: Frame, mut call: Option<i64>, temporary: Option<u64>) -> bool {
    let Side::Member(link) = &thread.side else { return false };
    let mut any = false;
    loop {
        let mask = temporary.filter(|_| !any).unwrap_or_else(|| thread.mask.get());
        let order = {
            let mut link = link.borrow_mut();
            link.kept.pop_front().or_else(|| {
                link.told = mask;
                link.ask(&Message::SetMask(mask)).signal
            })
        };
        let Some(order) = order else { return any };
        any = true;
        if let Some(number) = call.take() {
            restart_if_wanted(frame, number, order.action);
        }
        deliver(thread, context, frame, &order.info, order.action, mask);
    }
}

/// Whether the program may touch `address` as the fault with this error code did, now or after asking the root.
pub fn resolve(address: u64, error: u64) -> bool {
    let Some((protection, _)) = member().ask_map(address) else { return false };
    let needed = match error {
        error if error & FAULT_WRITE != 0 => libc::PROT_WRITE,
        error if error & FAULT_EXECUTE != 0 => libc::PROT_EXEC,
        _ => libc::PROT_READ,
    };
    protection.bits() & needed != 0
}

/// Tells the root of a fault that the program may have a handler for. The job ends if it has none.
pub fn report_fault(link: &mut Link, info: &SignalInfo, rip: u64) -> SignalOrder {
    let mut info = *info;
    if info.signal() == libc::SIGSEGV && member().is_hole(info.address()) {
        // All pages are mapped natively; the program shall see that this one is not.
        const SEGV_MAPERR: i32 = 1;
        info = SignalInfo::fault(libc::SIGSEGV, SEGV_MAPERR, info.address());
    }
    match link.ask(&Message::Fault { info, ip: rip }).signal {
        Some(order) => order,
        None => member().fail("the root neither handled a fault nor ended the job"),
    }
}

/// The thread's mask has changed; the shadow must know at once if it blocks a signal that the program does not. True if
/// a signal came back, to be delivered before the program goes on.
pub fn tell_mask(link: &mut Link, mask: u64) -> bool {
    if link.told & !mask != 0 {
        link.told = mask;
        let answer = link.ask(&Message::SetMask(mask));
        if let Some(order) = answer.signal {
            link.kept.push_back(order);
            return true;
        }
    }
    false
}

/// What is done after a call, before the program goes on: signals.
pub fn end_call(thread: &Thread, context: &Context, frame: Frame, call: Option<(i64, [u64; 6])>) {
    let was_interrupted = call.is_some() && frame.get(Register::Rax) as i64 == -i64::from(libc::EINTR);
    let mut ask = was_interrupted;
    let mut call = call;
    loop {
        if context.is_signalled() || ask {
            context.lower_flag();
            let temporary = call.and_then(|(number, arguments)| temporary_mask(number, &arguments));
            let any = take_all(thread, context, frame, call.map(|(number, _)| number), temporary);
            if let (false, true, Some((number, _))) = (any, was_interrupted, call)
                && calls::is_restartable(number as u64)
            {
                repeat(frame, number);
            }
            call = None;
            ask = false;
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
pub fn delegate(link: &mut Link, number: i64, arguments: &[u64; 6], class: &Class) -> i64 {
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
    let seen = user::read_u32(arguments[0]).ok()?;
    (seen != arguments[2] as u32).then_some(-i64::from(libc::EAGAIN))
}

/// The thread leaves its stack for ever.
pub fn end_thread(link: &mut Link, status: i32) {
    let sent = link.connection().sender.send(&Message::ExitThread { status });
    member().check(sent);
}

/// Starts a thread of the program; where it runs is the root's choice.
pub fn start_thread(link: &mut Link, request: &CloneRequest, state: ThreadState, mask: u64) -> i64 {
    let arguments = [request.flags, request.stack_top, request.parent_tid, request.child_tid, request.tls, 0];
    let call = Call { number: libc::SYS_clone as u32, arguments, ..Call::default() };
    let started = Instant::now();
    let value = link.ask(&Message::Clone { call, state: Box::new(state), mask }).value;
    member().count_call(libc::SYS_clone as u32, started.elapsed());
    value
}

//! A child of the program, from its birth to its own program or its end. All of this runs in the child's process.
//!
//! Owns what is the child's alone: signal actions, the signal its parent's death sends, its rules. Must not change the job.

use super::request::{CALLS_MAX, goes_on};
use crate::process::execute::execute;
use crate::process::husk::Root;
use crate::process::sigframe::{Action, SignalInfo};
use crate::process::signals::{Actions, stops_or_passes};
use crate::process::thread::Task;
use crate::process::{calls, limits, say};
use crate::sys::call;
use crate::sys::context::Context;
use crate::sys::process::SharedPage;
use crate::sys::signal::{Disposition, set_disposition};
use crate::sys::{cpu, user};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Status of a child that cannot go on, as shells give it to programs that cannot be run.
const REFUSED_STATUS: i32 = 126;

/// A child of the program.
#[derive(Debug)]
pub struct Child {
    /// What the calls of a thread need.
    pub task: Arc<Task>,
    /// What it wants done with each signal.
    pub actions: Actions,
    /// Why its memory is a copy by page, with which it cannot go on; none: it is the program's own.
    pub copied: Option<&'static str>,
    /// What its parent sees of it.
    pub seen: Rc<Seen>,
    calls: Cell<u32>,
}

/// What parent and child tell each other.
#[derive(Debug)]
pub struct Seen(SharedPage);

impl Seen {
    /// Nothing has been said.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn new() -> Result<Self, std::io::Error> {
        SharedPage::new().map(Self)
    }

    /// The call the child is in or made last, plus one; 0 before the first.
    fn call(&self) -> &AtomicU32 {
        &self.0.words()[0]
    }

    /// The signal it wants when its parent dies, 0 for none.
    pub fn death_signal(&self) -> &AtomicU32 {
        &self.0.words()[1]
    }

    /// Raised by the parent when the child's time is over.
    pub fn is_overdue(&self) -> &AtomicU32 {
        &self.0.words()[2]
    }

    /// Raised by the child when it ends because it went on without a program of its own.
    pub fn is_refused(&self) -> &AtomicU32 {
        &self.0.words()[3]
    }
}

impl Child {
    /// A child that has not made a call yet.
    pub fn new(task: Arc<Task>, actions: Actions, copied: Option<&'static str>, seen: Rc<Seen>) -> Self {
        Self { task, actions, copied, seen, calls: Cell::new(0) }
    }

    /// Makes a call of the child; does not return where the child ends by it.
    pub fn call(&self, root: &'static Root, context: &Context, number: i64, arguments: &[u64; 6]) -> i64 {
        match number {
            libc::SYS_exit | libc::SYS_exit_group => cpu::exit(arguments[0] as i32),
            libc::SYS_execve | libc::SYS_execveat => super::replace::in_child(root, self, number, arguments),
            libc::SYS_rt_sigaction => self.actions.call(arguments),
            libc::SYS_prctl if arguments[0] == libc::PR_SET_PDEATHSIG as u64 => self.set_death_signal(arguments[1]),
            libc::SYS_prctl if arguments[0] == libc::PR_GET_PDEATHSIG as u64 => self.tell_death_signal(arguments[1]),
            libc::SYS_prlimit64 | libc::SYS_getrlimit | libc::SYS_setrlimit if limits::is_child_s_own(number, arguments) => {
                call::raw(number, arguments)
            }
            // Its timers count what it uses itself.
            libc::SYS_setitimer
            | libc::SYS_getitimer
            | libc::SYS_timer_create
            | libc::SYS_timer_settime
            | libc::SYS_timer_gettime
            | libc::SYS_timer_delete => call::raw_unless(context.flag(), number, arguments),
            _ => execute(root, &self.task, context.flag(), number, arguments),
        }
    }

    /// A child of a child is refused.
    #[expect(clippy::unused_self, reason = "only a child is refused")]
    pub fn refuse_child(&self) -> i64 {
        say::refused("a child's own fork", "a child of the program gets a program of its own first");
        -i64::from(libc::ENOSYS)
    }

    /// Judges a call before it is made: ends a copy that shows that it goes on without a program of its own.
    pub fn admit(&self, number: i64, arguments: &[u64; 6]) {
        if self.copied.is_none() {
            return;
        }
        self.check_time();
        self.seen.call().store(number as u32 + 1, Ordering::Relaxed);
        self.calls.set(self.calls.get() + 1);
        if goes_on(number, arguments) {
            self.refuse(&format!("the child called {}", calls::name(number as u64)));
        }
        if self.calls.get() > CALLS_MAX {
            self.refuse(&format!("the child made more than {CALLS_MAX} calls"));
        }
    }

    /// Ends a copy whose time is over, which the parent says with a SIGSYS.
    pub fn check_time(&self) {
        if self.seen.is_overdue().load(Ordering::Relaxed) == 0 {
            return;
        }
        let last = self.seen.call().load(Ordering::Relaxed);
        let doing = match last.checked_sub(1) {
            Some(number) => format!("in or after {}", calls::name(u64::from(number))),
            None => "before its first call".to_owned(),
        };
        self.refuse(&format!("after {} s the child was still there, {doing}", super::birth::COPY_LONGEST.as_secs()));
    }

    fn refuse(&self, what: &str) -> ! {
        let pid = self.task.tid;
        self.seen.is_refused().store(1, Ordering::Relaxed);
        let why = self.copied.unwrap_or("it is the program's own memory");
        say::line(&format!("fork without exec is not supported: {what}; child {pid} ends with status {REFUSED_STATUS} ({why})"));
        cpu::exit(REFUSED_STATUS)
    }

    fn set_death_signal(&self, signal: u64) -> i64 {
        if signal > 64 {
            return -i64::from(libc::EINVAL);
        }
        self.seen.death_signal().store(signal as u32, Ordering::Relaxed);
        0
    }

    fn tell_death_signal(&self, address: u64) -> i64 {
        let signal = self.seen.death_signal().load(Ordering::Relaxed);
        if user::store_u32(address, signal).is_err() { -i64::from(libc::EFAULT) } else { 0 }
    }

    /// What becomes of a signal without a handler.
    pub fn perform_default(&self, info: &SignalInfo, action: Action) {
        if !stops_or_passes(self.task.tid, info.signal(), action) {
            self.die(info.signal());
        }
    }

    /// Ends the child as `signal` does.
    pub fn die(&self, signal: i32) -> ! {
        set_disposition(signal, Disposition::Default).unwrap_or(());
        crate::sys::signal::replace_mask(0);
        call::raw(libc::SYS_tgkill, &[self.task.tid as u64, self.task.tid as u64, signal as u64, 0, 0, 0]);
        cpu::exit(128 + signal)
    }
}

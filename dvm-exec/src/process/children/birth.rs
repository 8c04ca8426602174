//! Makes children, and waits until they have left the program's memory.
//!
//! Owns the thread on which a child is born, the copying of pages it touches, and its deadline. Must not know what its calls do.
//!
//! A fork of a program that is at home and small gets all of its memory at once and is on its own ([`super::whole`]); else
//!
//! ```text
//!  thread of the program, or its shadow      thread of the birth                      child
//!  fork: waits ---------------------------> copies the process --------------------> maps the space anew
//!                                           answers its faults with own pages, <---- runs the program's code
//!                                           which stay as they are ([`super::still`])
//!                                           the socket closes <--------------------- execve or exit
//!  goes on with the child's number <------- ends
//! ```
//!
//! With vfork the child runs on the program's memory itself, so there is nothing to answer; the kernel says when it has left.
//! In both, the thread that asked stands still, so locks it took for the fork stay taken, and the child finds whole what they
//! protect.

use super::child::{Child, Seen};
use super::contents::Contents;
use super::request::{self, Kind};
use super::still::Still;
use super::whole;
use crate::process::clone::{CLEAR_ACTIONS, CloneRequest, STACK_BYTES};
use crate::process::husk::{self, Ending, Root};
use crate::process::limits::{self, Room};
use crate::process::sigframe::{AltStack, ThreadState};
use crate::process::signals::Actions;
use crate::process::thread::{Side, Task, Thread, clear_current, current, set_current};
use crate::process::view::cpuset::CpuSet;
use crate::process::vma::PAGE_BYTES;
use crate::process::{check, descriptors, say};
use crate::sys::context::Block;
use crate::sys::process::{self, Forked};
use crate::sys::signal::{FAULT_BITS, replace_mask};
use crate::sys::user::{self, BadAddress};
use crate::sys::{call, cpu};
use dsm_wire::PageNumber;
use dvm_api::socket;
use std::cell::{Cell, RefCell};
use std::io::Error;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use uffd_dsm::{Copied, CopyError, CopyFaults};

/// How long a forked child may take to get a program of its own, or to end.
pub const COPY_LONGEST: Duration = Duration::from_secs(10);
/// How long others may be kept from changing what it has copied: it may wait for one of them.
const STILL_LONGEST: Duration = Duration::from_secs(2);
/// How long it may take to say that it was too slow.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// Status of a child that could not be born, and of a program that lives by children it cannot have.
pub(super) const STILLBORN_STATUS: i32 = 126;
/// Refused copies in a row after which the program ends: a server that replaces its workers would go on so for ever.
const REFUSED_IN_A_ROW_MAX: u32 = 64;

/// One copy of the process at a time: no child inherits the socket of another, whose end its parent waits for.
static COPYING: Mutex<()> = Mutex::new(());
static REFUSED_IN_A_ROW: AtomicU32 = AtomicU32::new(0);

/// Makes a child process that goes on from `state`; returns its number when it has left the program's memory, or a negative
/// error.
pub fn start(root: &'static Root, request: &CloneRequest, state: ThreadState, mask: u64) -> i64 {
    let kind = match request::judge(request) {
        Ok(kind) => kind,
        Err(refused) => {
            say::refused("this kind of fork", refused.reason);
            return -i64::from(refused.errno);
        }
    };
    let asker = current();
    let altstack = asker.as_ref().map_or(AltStack::default(), |asker| asker.alternate.get());
    let wish = asker.as_ref().and_then(|asker| if let Side::Root(task) = &asker.side { task.wish() } else { None });
    let birth = Birth { root, request: *request, kind, state, mask, altstack, wish };
    let (sender, receiver) = channel();
    let former = replace_mask(u64::MAX);
    let spawned = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || birth.run(&sender));
    let born = spawned.map(|_| receiver.recv());
    replace_mask(former);
    let pid = match born {
        Ok(Ok(Ok(pid))) => pid,
        Ok(Ok(Err(error))) => return -i64::from(error.raw_os_error().unwrap_or(libc::EAGAIN)),
        Ok(Err(_)) | Err(_) => return -i64::from(libc::EAGAIN),
    };
    match tell_parent(request, pid) {
        Ok(()) => i64::from(pid),
        Err(BadAddress) => -i64::from(libc::EFAULT),
    }
}

fn tell_parent(request: &CloneRequest, pid: i32) -> Result<(), BadAddress> {
    if request.has(libc::CLONE_PIDFD) {
        // A child that was waited for already has no descriptor; it needs none.
        let descriptor = process::open_process(pid).map_or(-1, IntoRawFd::into_raw_fd);
        user::store_u32(request.pidfd, descriptor as u32)?;
    } else if request.has(libc::CLONE_PARENT_SETTID) {
        user::store_u32(request.parent_tid, pid as u32)?;
    }
    Ok(())
}

/// A child that is to be born.
pub(super) struct Birth {
    /// The job.
    pub root: &'static Root,
    /// What was asked for.
    pub request: CloneRequest,
    kind: Kind,
    /// Where it goes on.
    pub state: ThreadState,
    /// Signals blocked there.
    pub mask: u64,
    /// The alternate stack of the thread that asked.
    pub altstack: AltStack,
    /// The processors it wishes to run on.
    pub wish: Option<CpuSet>,
}

impl Birth {
    fn run(self, sender: &Sender<Result<i32, Error>>) {
        let made = Seen::new().map(Rc::new).and_then(|seen| {
            let pid = match self.kind {
                Kind::Copy => self.copy(&seen),
                Kind::Beside => self.run_beside(&seen),
            };
            pid.map(|pid| (pid, seen))
        });
        let (pid, seen) = match made {
            Ok(made) => made,
            // One who no longer waits needs no answer.
            Err(error) => return sender.send(Err(error)).unwrap_or(()),
        };
        let wants_signal = seen.death_signal().load(Ordering::Relaxed) != 0;
        let opened = || {
            let _room = limits::room();
            process::open_process(pid).and_then(descriptors::hide).ok()
        };
        let child = if wants_signal { opened() } else { None };
        sender.send(Ok(pid)).unwrap_or(());
        if let Some(child) = child {
            // To the kernel this thread is the parent whose death the child wants to hear of.
            while let Ok([false]) = process::wait_readable([child.as_fd()], None) {}
            descriptors::reveal(&child);
        }
    }

    fn run_beside(&self, seen: &Rc<Seen>) -> Result<i32, Error> {
        let signal = (self.request.flags & 0xff) as i32;
        let mut kept = Kept::default();
        let actions = Cell::new(Some(self.root.actions.copy()));
        let pid = process::run_beside(signal, || {
            let actions = actions.take().unwrap_or_default();
            let child = |task| Child::new(task, actions, None, Rc::clone(seen));
            self.live(child, &mut kept)
        });
        // All of it was made by the child, which is gone.
        if let Some(thread) = kept.thread.take().filter(|_| clear_current()) {
            if let Side::Child(child) = &thread.side {
                process::forget_clones(child);
            }
            process::forget_clones(&thread);
        }
        pid
    }

    fn copy(&self, seen: &Rc<Seen>) -> Result<i32, Error> {
        if self.root.space.is_own() {
            return whole::copy_own(self);
        }
        let is_home = self.root.is_home();
        let changes = self.root.space.hold_changes();
        let contents = if *is_home { Contents::of(self.root) } else { Err("a thread of the program has been on another host") };
        match contents {
            Ok(contents) => whole::copy(self, (is_home, changes), contents),
            Err(reason) => {
                drop(is_home);
                self.copy_by_page(changes, seen, reason)
            }
        }
    }

    /// Forks when nobody is in the middle of a change that the child would find half done; memory calls are held back by the caller.
    pub(super) fn fork(&self) -> Result<Forked, Error> {
        let root = self.root;
        let tables = (root.space.map(), root.sites.freeze(), root.tasks.freeze(), root.actions.freeze());
        let statics = (check::freeze(), descriptors::freeze(), say::freeze(), limits::freeze(root));
        let forked = process::fork();
        drop((tables, statics));
        forked
    }

    fn copy_by_page(&self, changes: MutexGuard<'_, ()>, seen: &Rc<Seen>, reason: &'static str) -> Result<i32, Error> {
        let copying = copying();
        let room = limits::room();
        let (ours, theirs) = process::packet_pair()?;
        let (ours, theirs) = (descriptors::hide(ours)?, descriptors::hide(theirs)?);
        let actions = self.root.actions.copy();
        match self.fork() {
            Ok(Forked::Child) => {
                drop(changes);
                close(ours);
                self.live_as_copy((actions, reason), seen, &theirs)
            }
            Ok(Forked::Parent(pid)) => {
                close(theirs);
                drop(copying);
                feed((pid, &ours), seen, room, Still::new(&self.root.space, changes), self.own_pages());
                close(ours);
                self.count(seen);
                Ok(pid)
            }
            Err(error) => {
                close(ours);
                close(theirs);
                Err(error)
            }
        }
    }

    /// Addresses in the pages that the thread that forked uses: stack and thread-local storage.
    const fn own_pages(&self) -> [u64; 4] {
        let (stack, local) = (self.state.registers.rsp, self.state.fs_base);
        [stack, stack.wrapping_sub(PAGE_BYTES), stack.wrapping_add(PAGE_BYTES), local]
    }

    /// Ends the program if it does nothing but make children that are refused.
    fn count(&self, seen: &Seen) {
        if seen.is_refused().load(Ordering::Relaxed) == 0 {
            return REFUSED_IN_A_ROW.store(0, Ordering::Relaxed);
        }
        let refused = REFUSED_IN_A_ROW.fetch_add(1, Ordering::Relaxed) + 1;
        if refused >= REFUSED_IN_A_ROW_MAX {
            say::line(&format!(
                "{refused} forked children in a row had to be ended: the program ends with status {STILLBORN_STATUS}; run it natively, \
                 or without processes of its own if it can do so"
            ));
            self.root.finish(Ending::Exit(STILLBORN_STATUS));
        }
    }

    /// In the child's process.
    fn live_as_copy(&self, (actions, reason): (Actions, &'static str), seen: &Rc<Seen>, parent: &OwnedFd) -> ! {
        let mapped = Copied::map(husk::userfaultfd_device(), descriptors::hide).map_err(Error::other).and_then(|copied| {
            socket::send(parent.as_fd(), &0_u8, &[copied.userfaultfd()]).map_err(Error::other)?;
            self.root.space.become_copy(copied)
        });
        if let Err(error) = mapped {
            say::line(&format!("a forked child cannot copy the program's memory: {error}"));
            cpu::exit(STILLBORN_STATUS);
        }
        self.live(|task| Child::new(task, actions, Some(reason), Rc::clone(seen)), &mut Kept::default())
    }

    /// In the child's process: runs the program's code until it ends or has another program.
    fn live(&self, child: impl FnOnce(std::sync::Arc<Task>) -> Child, kept: &mut Kept) -> ! {
        die_with_parent(self.root.pid());
        limits::hand_to_child(self.root);
        let pid = cpu::thread_id();
        let child = child(Task::new(pid, 0, 0));
        if self.request.flags & CLEAR_ACTIONS != 0 {
            child.actions.drop_handlers();
        }
        let side = Side::Child(Rc::new(child));
        let thread = Rc::new(Thread {
            tid: pid,
            pid,
            mask: Cell::new(self.mask),
            alternate: Cell::default(),
            luggage: Cell::default(),
            departing: RefCell::default(),
            side,
        });
        set_current(Rc::clone(&thread));
        kept.thread = Some(thread);
        match Block::install(true) {
            Ok(block) => {
                let block = kept.block.insert(block);
                replace_mask(self.mask & !FAULT_BITS);
                if self.request.has(libc::CLONE_CHILD_SETTID) {
                    // As for threads, a bad address is ignored.
                    user::store_u32(self.request.child_tid, pid as u32).unwrap_or(());
                }
                if let Err(error) = block.run(&self.state) {
                    say::line(&format!("syscall user dispatch refused in a child: {error}; linux 5.11 or newer is needed"));
                }
            }
            Err(error) => say::line(&format!("alternate stack for child {pid}: {error}")),
        }
        cpu::exit(STILLBORN_STATUS)
    }
}

/// What a child on the same memory leaves behind there.
#[derive(Default)]
struct Kept {
    thread: Option<Rc<Thread>>,
    block: Option<Block>,
}

/// Keeps other copies from beginning.
pub(super) fn copying() -> MutexGuard<'static, ()> {
    COPYING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Closes a hidden descriptor.
pub(super) fn close(descriptor: OwnedFd) {
    descriptors::reveal(&descriptor);
}

/// A child must not outlive the process whose memory it is made of.
fn die_with_parent(parent: i32) {
    set_death_signal(libc::SIGKILL);
    if call::raw(libc::SYS_getppid, &[0; 6]) != i64::from(parent) {
        cpu::exit(STILLBORN_STATUS);
    }
}

/// The signal that the kernel sends when the thread ends that made this process, 0 for none.
pub fn set_death_signal(signal: i32) {
    call::raw(libc::SYS_prctl, &[libc::PR_SET_PDEATHSIG as u64, signal as u64, 0, 0, 0, 0]);
}

/// The userfaultfd that a child sends.
pub(super) fn receive_faults(child: &OwnedFd) -> Option<CopyFaults> {
    let (_, mut descriptors) = socket::receive::<u8>(child.as_fd()).ok()?;
    descriptors.pop().and_then(|faults| descriptors::hide(faults).ok()).map(CopyFaults::new)
}

/// Answers a copy's faults until it has left its copy; kills it if that fails or takes too long.
fn feed((pid, child): (i32, &OwnedFd), seen: &Seen, room: Room, still: Still<'_>, own: [u64; 4]) {
    // Signals are blocked here, so nothing else cuts this short.
    if let Ok([false]) = process::wait_readable([child.as_fd()], Some(COPY_LONGEST)) {
        say::line(&format!("forked child {pid} is killed: it has not mapped its memory within {} s", COPY_LONGEST.as_secs()));
        return send(pid, libc::SIGKILL);
    }
    // A child that could not be born has said why.
    let Some(faults) = receive_faults(child) else { return };
    drop(room);
    let begun = Instant::now();
    if let Ok(addresses) = still.pin_usual(own) {
        // A child that is gone has closed its socket.
        addresses.into_iter().all(|address| faults.give_own(PageNumber::containing(address)).is_ok());
    }
    let mut still = Some(still);
    let mut latest = begun + COPY_LONGEST;
    let mut is_told = false;
    loop {
        still = still.filter(|_| begun.elapsed() < STILL_LONGEST);
        let next = if still.is_some() { latest.min(begun + STILL_LONGEST) } else { latest };
        let left = next.saturating_duration_since(Instant::now());
        let ready = process::wait_readable([child.as_fd(), faults.descriptor()], Some(left + Duration::from_millis(1)));
        let failed = match ready {
            Ok([true, _]) => break,
            Ok([_, true]) => {
                match faults.serve(|page| still.as_ref().map_or(Ok(()), |still| still.pin_touched(page.address()))) {
                    Ok(()) | Err(CopyError::Gone) => None,
                    Err(error) => Some(error.to_string()),
                }
            }
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        };
        let is_late = Instant::now() >= latest;
        if let Some(reason) = failed.or_else(|| (is_told && is_late).then(|| "it does not end by itself".to_owned())) {
            say::line(&format!("forked child {pid} is killed: {reason}"));
            send(pid, libc::SIGKILL);
            break;
        }
        if is_late {
            is_told = true;
            latest = Instant::now() + LAST_WORDS;
            seen.is_overdue().store(1, Ordering::Relaxed);
            send(pid, libc::SIGSYS);
        }
    }
    // Before anything that another thread may hold while it waits to write.
    drop(still);
    descriptors::reveal(&faults.descriptor());
}

/// Sends a signal to a child.
pub(super) fn send(pid: i32, signal: i32) {
    call::raw(libc::SYS_kill, &[pid as u64, signal as u64, 0, 0, 0, 0]);
}

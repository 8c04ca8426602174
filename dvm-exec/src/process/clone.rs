//! Starting threads: what clone and clone3 ask for, where the new thread goes, and what is done when it ends.
//!
//! Owns the birth and death of the program's threads at the root. Must not know how a remote thread is carried.

use super::ask::ThreadUsage;
use super::children;
use super::features;
use super::husk::Root;
use super::moving::{self, Passage};
use super::shadow;
use super::sigframe::ThreadState;
use super::signals;
use super::thread::{Side, Task, Thread, set_current};
use super::view::cpuset::CpuSet;
use super::wire::ThreadStart;
use crate::sys::context::Block;
use crate::sys::signal::{FAULT_BITS, replace_mask};
use crate::sys::user::{self, BadAddress};
use crate::sys::{call, cpu};
use libc::{FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};

/// Stack of a kernel thread of ours, in bytes; program code never runs on it.
pub const STACK_BYTES: usize = 256 * 1024;
/// Entries of a robust futex list that are looked at, as the kernel limits it.
const ROBUST_ENTRIES_MAX: usize = 2048;
/// CLONE_CLEAR_SIGHAND, of clone3 only.
pub const CLEAR_ACTIONS: u64 = 1 << 32;
const THREAD_FLAGS: u64 = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND) as u64;

/// What clone or clone3 was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloneRequest {
    /// `CLONE_*` flags, with the signal that tells of a process's end in the lowest byte.
    pub flags: u64,
    /// Stack pointer of the child, 0 to keep the parent's.
    pub stack_top: u64,
    /// Where the parent finds the child's number.
    pub parent_tid: u64,
    /// Where the child finds its number, and the word cleared at its end.
    pub child_tid: u64,
    /// FS base of the child.
    pub tls: u64,
    /// Where the parent finds a descriptor of a child process.
    pub pidfd: u64,
}

impl CloneRequest {
    /// Reads the arguments of clone, clone3, fork or vfork.
    ///
    /// # Errors
    /// EFAULT or EINVAL as the kernel would answer.
    pub fn parse(number: i64, arguments: &[u64; 6]) -> Result<Self, i32> {
        let signal = libc::SIGCHLD as u64;
        match number {
            libc::SYS_fork => return Ok(Self { flags: signal, ..Self::default() }),
            libc::SYS_vfork => {
                return Ok(Self { flags: (libc::CLONE_VM | libc::CLONE_VFORK) as u64 | signal, ..Self::default() });
            }
            libc::SYS_clone => {
                let [flags, stack_top, parent_tid, child_tid, tls, _] = *arguments;
                let flags = u64::from(flags as u32);
                // One argument serves both.
                let pidfd = if flags & libc::CLONE_PIDFD as u64 != 0 { parent_tid } else { 0 };
                return Self { flags, stack_top, parent_tid, child_tid, tls, pidfd }.checked();
            }
            _ => {}
        }
        let mut words = [0_u64; 8];
        let bytes = (arguments[1] as usize).min(64);
        if bytes < 64 {
            return Err(libc::EINVAL);
        }
        for (at, word) in words.iter_mut().enumerate() {
            *word = user::read_u64(arguments[0] + at as u64 * 8).map_err(|BadAddress| libc::EFAULT)?;
        }
        let [flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_bytes, tls] = words;
        if flags & 0xff != 0 || exit_signal > 64 {
            return Err(libc::EINVAL);
        }
        let stack_top = if stack == 0 { 0 } else { stack + stack_bytes };
        Self { flags: flags | exit_signal, stack_top, parent_tid, child_tid, tls, pidfd }.checked()
    }

    /// Flags that need or exclude each other.
    fn checked(self) -> Result<Self, i32> {
        let has = |flag| self.has(flag);
        let is_contradictory = has(libc::CLONE_THREAD) && !has(libc::CLONE_SIGHAND)
            || has(libc::CLONE_SIGHAND) && !has(libc::CLONE_VM)
            || has(libc::CLONE_SIGHAND) && self.flags & CLEAR_ACTIONS != 0
            || has(libc::CLONE_FS) && (has(libc::CLONE_NEWNS) || has(libc::CLONE_NEWUSER))
            || has(libc::CLONE_THREAD) && (has(libc::CLONE_NEWPID) || has(libc::CLONE_NEWUSER))
            || has(libc::CLONE_PIDFD) && has(libc::CLONE_PARENT_SETTID) && self.pidfd == self.parent_tid;
        if is_contradictory { Err(libc::EINVAL) } else { Ok(self) }
    }

    /// As the arguments of a call that carries all of it.
    pub fn to_arguments(self) -> [u64; 6] {
        [self.flags, self.stack_top, self.parent_tid, self.child_tid, self.tls, self.pidfd]
    }

    /// From [`CloneRequest::to_arguments`].
    pub fn from_arguments(arguments: &[u64; 6]) -> Self {
        let [flags, stack_top, parent_tid, child_tid, tls, pidfd] = *arguments;
        Self { flags, stack_top, parent_tid, child_tid, tls, pidfd }
    }

    /// Whether this flag is set.
    pub fn has(&self, flag: i32) -> bool {
        self.flags & u64::from(flag as u32) != 0
    }
}

/// Starts a thread or a child process of `parent` that goes on from `state`; returns its number or a negative error.
pub fn start(root: &'static Root, parent: &Task, request: &CloneRequest, mut state: ThreadState, mask: u64) -> i64 {
    state.registers.rax = 0;
    if request.stack_top != 0 {
        state.registers.rsp = request.stack_top;
    }
    if request.has(libc::CLONE_SETTLS) {
        state.fs_base = request.tls;
    }
    if request.flags & THREAD_FLAGS != THREAD_FLAGS {
        return children::start(root, request, state, mask);
    }
    let wish = parent.wish();
    let host = root.place(wish.as_ref());
    root.note_leaving(host);
    let (sender, receiver) = channel();
    let birth = Birth { root, request: *request, state, mask, host, wish };
    let former = replace_mask(u64::MAX);
    let spawned = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || birth.run(&sender));
    replace_mask(former);
    match spawned.map(|_| receiver.recv()) {
        Ok(Ok(tid)) => i64::from(tid),
        Ok(Err(_)) | Err(_) => -i64::from(libc::EAGAIN),
    }
}

struct Birth {
    root: &'static Root,
    request: CloneRequest,
    state: ThreadState,
    mask: u64,
    host: usize,
    wish: Option<CpuSet>,
}

impl Birth {
    fn run(self, sender: &Sender<i32>) {
        // The thread that started this one may run the program.
        features::trap(false);
        let tid = cpu::thread_id();
        let clear_tid = if self.request.has(libc::CLONE_CHILD_CLEARTID) { self.request.child_tid } else { 0 };
        let start = ThreadStart { state: self.state, mask: self.mask, tid, pid: self.root.pid(), ..ThreadStart::default() };
        let task = Task::new(tid, self.host, clear_tid);
        task.set_wish(self.wish);
        // A bad address is the program's mistake; the kernel ignores it here as well.
        if self.request.has(libc::CLONE_PARENT_SETTID) {
            user::store_u32(self.request.parent_tid, tid as u32).unwrap_or(());
        }
        if self.request.has(libc::CLONE_CHILD_SETTID) {
            user::store_u32(self.request.child_tid, tid as u32).unwrap_or(());
        }
        self.root.sites.note_thread(tid, self.host, self.request.stack_top);
        self.root.tasks.add(&task);
        self.root.figures.count_thread(self.host);
        if sender.send(tid).is_err() {
            return;
        }
        let mut host = self.host;
        let mut passage = Passage::new(start);
        loop {
            let left = if host == 0 { carry(self.root, &task, passage) } else { shadow::serve(self.root, &task, passage) };
            let Some(left) = left else { break };
            let former = std::mem::replace(&mut host, task.depart());
            passage = left;
            if host != former {
                self.root.autoplace.note(tid, host);
                self.root.figures.count_thread(host);
            }
        }
        bury(self.root, &task);
    }
}

/// Runs program code on the calling thread, at the root, until the program's thread ends, or leaves: then it gives what the
/// thread goes on with.
pub fn carry(root: &'static Root, task: &Arc<Task>, passage: Passage) -> Option<Passage> {
    let block = match Block::install(true) {
        Ok(block) => block,
        Err(error) => root.fail(&format!("alternate stack for thread {}: {error}", task.tid)),
    };
    let start = passage.unpack(block.context());
    if start.luggage.is_some() {
        task.set_used_before(ThreadUsage::of(task.tid).before(&start.luggage.used));
    }
    let thread = Rc::new(Thread {
        tid: task.tid,
        pid: root.pid(),
        mask: Cell::new(start.mask),
        alternate: Cell::new(start.altstack),
        luggage: Cell::new(start.luggage.clone()),
        departing: RefCell::default(),
        side: Side::Root(Arc::clone(task)),
    });
    set_current(Rc::clone(&thread));
    features::trap(true);
    replace_mask(moving::mask_at_start(&start, start.mask & !FAULT_BITS));
    let ran = block.run(&start.state);
    replace_mask(u64::MAX);
    features::trap(false);
    if let Err(error) = ran {
        root.fail(&format!("syscall user dispatch refused: {error}; linux 5.11 or newer is needed"));
    }
    let Some(left) = thread.departing.take() else {
        signals::leave_signals(root.pid(), task.tid, block.context());
        return None;
    };
    Some(Passage::after(left, block.context()))
}

/// What the kernel does at the end of a thread, done by us: the robust list, the word to clear, the last one out.
pub fn bury(root: &'static Root, task: &Arc<Task>) {
    walk_robust_list(task);
    let word = task.clear_tid.load(Ordering::Relaxed);
    if word != 0 && user::store_u32(word, 0).is_ok() {
        wake_all_kinds(word);
    }
    if root.tasks.remove(task.tid) {
        root.finish(super::husk::Ending::Exit(root.last_exit.load(Ordering::Relaxed)));
    }
}

fn wake_all_kinds(word: u64) {
    for kind in [libc::FUTEX_WAKE, libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG] {
        call::raw(libc::SYS_futex, &[word, kind as u64, 1, 0, 0, 0]);
    }
}

fn walk_robust_list(task: &Task) {
    let head = task.robust.load(Ordering::Relaxed);
    if head == 0 {
        return;
    }
    let walk = || -> Result<(), BadAddress> {
        let (offset, pending) = (user::read_u64(head + 8)?, user::read_u64(head + 16)?);
        let mut entry = user::read_u64(head)?;
        for _ in 0..ROBUST_ENTRIES_MAX {
            if entry & !1 == head {
                break;
            }
            let next = user::read_u64(entry & !1)?;
            if entry != pending {
                release_robust(entry, offset, task.tid, false)?;
            }
            entry = next;
        }
        if pending != 0 {
            release_robust(pending, offset, task.tid, true)?;
        }
        Ok(())
    };
    // A list in memory that is gone is left alone, as the kernel does.
    walk().unwrap_or(());
}

/// Marks one lock as left behind by its owner. An `is_pending` one may have been unlocked without its waiter being woken.
fn release_robust(entry: u64, offset: u64, tid: i32, is_pending: bool) -> Result<(), BadAddress> {
    let word = (entry & !1).wrapping_add(offset);
    if !word.is_multiple_of(4) {
        return Err(BadAddress);
    }
    let mut seen = user::read_u32(word)?;
    if is_pending && seen == 0 {
        wake_all_kinds(word);
    }
    while seen & FUTEX_TID_MASK == tid as u32 {
        let dead = (seen & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
        let now = user::exchange_u32(word, seen, dead)?;
        if now == seen {
            if seen & FUTEX_WAITERS != 0 {
                wake_all_kinds(word);
            }
            break;
        }
        seen = now;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contradictory_flags() {
        let errno = |number, arguments: [u64; 6]| CloneRequest::parse(number, &arguments).err();
        let clone = |flags: i32| errno(libc::SYS_clone, [u64::from(flags as u32), 0, 0, 0, 0, 0]);
        let (vm, actions, thread) = (libc::CLONE_VM, libc::CLONE_SIGHAND, libc::CLONE_THREAD);
        assert_eq!(clone(vm | actions | thread), None);
        assert_eq!(clone(libc::SIGCHLD), None);
        assert_eq!(clone(vm | libc::CLONE_VFORK | libc::SIGCHLD), None);
        assert_eq!(clone(thread), Some(libc::EINVAL));
        assert_eq!(clone(vm | thread), Some(libc::EINVAL));
        assert_eq!(clone(actions), Some(libc::EINVAL));
        assert_eq!(clone(libc::CLONE_NEWNS | libc::CLONE_FS), Some(libc::EINVAL));
        assert_eq!(clone(libc::CLONE_PIDFD | libc::CLONE_PARENT_SETTID), Some(libc::EINVAL), "one argument serves both");
        assert_eq!(errno(libc::SYS_clone3, [0, 8, 0, 0, 0, 0]), Some(libc::EINVAL));
        let both = [CLEAR_ACTIONS | (vm | actions) as u64, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(errno(libc::SYS_clone3, [both.as_ptr() as u64, 64, 0, 0, 0, 0]), Some(libc::EINVAL));
    }
}

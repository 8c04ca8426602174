//! Starting threads: what clone and clone3 ask for, where the new thread goes, and what is done when it ends.
//!
//! Owns the birth and death of the program's threads at the root. Must not know how a remote thread is carried.

use super::husk::Root;
use super::moving;
use super::say;
use super::shadow;
use super::sigframe::ThreadState;
use super::thread::{Side, Task, Thread, set_current};
use super::wire::ThreadStart;
use crate::sys::context::Block;
use crate::sys::signal::replace_mask;
use crate::sys::user::{self, BadAddress};
use crate::sys::{call, cpu};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Sender, channel};

/// Stack of a kernel thread of ours, in bytes; program code never runs on it.
pub const STACK_BYTES: usize = 256 * 1024;
/// Entries of a robust futex list that are looked at, as the kernel limits it.
const ROBUST_ENTRIES_MAX: usize = 2048;
const FUTEX_OWNER_DIED: u32 = 0x4000_0000;
const FUTEX_WAITERS: u32 = 0x8000_0000;
const FUTEX_TID_MASK: u32 = 0x3fff_ffff;
const THREAD_FLAGS: u64 = (libc::CLONE_VM | libc::CLONE_THREAD | libc::CLONE_SIGHAND) as u64;

/// What clone or clone3 was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CloneRequest {
    /// `CLONE_*` flags.
    pub flags: u64,
    /// Stack pointer of the child, 0 to keep the parent's.
    pub stack_top: u64,
    /// Where the parent finds the child's number.
    pub parent_tid: u64,
    /// Where the child finds its number, and the word cleared at its end.
    pub child_tid: u64,
    /// FS base of the child.
    pub tls: u64,
}

impl CloneRequest {
    /// Reads the arguments of clone or clone3.
    ///
    /// # Errors
    /// EFAULT or EINVAL as the kernel would answer.
    pub fn parse(number: i64, arguments: &[u64; 6]) -> Result<Self, i32> {
        if number == libc::SYS_clone {
            let [flags, stack_top, parent_tid, child_tid, tls, _] = *arguments;
            return Ok(Self { flags, stack_top, parent_tid, child_tid, tls });
        }
        let mut words = [0_u64; 8];
        let bytes = (arguments[1] as usize).min(64);
        if bytes < 64 {
            return Err(libc::EINVAL);
        }
        for (at, word) in words.iter_mut().enumerate() {
            *word = user::read_u64(arguments[0] + at as u64 * 8).map_err(|BadAddress| libc::EFAULT)?;
        }
        let [flags, _pidfd, child_tid, parent_tid, _exit_signal, stack, stack_bytes, tls] = words;
        let stack_top = if stack == 0 { 0 } else { stack + stack_bytes };
        Ok(Self { flags, stack_top, parent_tid, child_tid, tls })
    }

    fn has(&self, flag: i32) -> bool {
        self.flags & flag as u64 != 0
    }
}

/// Starts a thread that goes on from `state`; returns its number or a negative error.
pub fn start(root: &'static Root, request: &CloneRequest, mut state: ThreadState, mask: u64) -> i64 {
    if request.flags & THREAD_FLAGS != THREAD_FLAGS {
        say::refused("fork, vfork or posix_spawn", "programs cannot start other programs yet");
        return -i64::from(libc::ENOSYS);
    }
    state.registers.rax = 0;
    if request.stack_top != 0 {
        state.registers.rsp = request.stack_top;
    }
    if request.has(libc::CLONE_SETTLS) {
        state.fs_base = request.tls;
    }
    let host = root.place();
    let (sender, receiver) = channel();
    let birth = Birth { root, request: *request, state, mask, host };
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
}

impl Birth {
    fn run(self, sender: &Sender<i32>) {
        let tid = cpu::thread_id();
        let clear_tid = if self.request.has(libc::CLONE_CHILD_CLEARTID) { self.request.child_tid } else { 0 };
        let mut start = ThreadStart { state: self.state, mask: self.mask, tid, pid: self.root.pid, ..ThreadStart::default() };
        let task = Task::new(tid, self.host, clear_tid);
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
        loop {
            let left = if host == 0 { carry(self.root, &task, &start) } else { shadow::serve(self.root, &task, &start) };
            let Some(left) = left else { break };
            let former = std::mem::replace(&mut host, task.depart());
            moving::forget_wishes();
            start = *left;
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
pub fn carry(root: &'static Root, task: &Arc<Task>, start: &ThreadStart) -> Option<Box<ThreadStart>> {
    let block = match Block::install(true) {
        Ok(block) => block,
        Err(error) => root.fail(&format!("alternate stack for thread {}: {error}", task.tid)),
    };
    let thread = Rc::new(Thread {
        tid: task.tid,
        pid: root.pid,
        mask: Cell::new(start.mask),
        alternate: Cell::new(start.altstack),
        luggage: Cell::new(start.luggage.clone()),
        departing: RefCell::default(),
        side: Side::Root(Arc::clone(task)),
    });
    set_current(Rc::clone(&thread));
    replace_mask(if start.luggage.is_some() { moving::mask_of_arrival(start.mask) } else { start.mask });
    let ran = block.run(&start.state);
    replace_mask(u64::MAX);
    if let Err(error) = ran {
        root.fail(&format!("syscall user dispatch refused: {error}; linux 5.11 or newer is needed"));
    }
    thread.departing.take()
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
                release_robust((entry & !1).wrapping_add(offset), task.tid)?;
            }
            entry = next;
        }
        if pending != 0 {
            release_robust((pending & !1).wrapping_add(offset), task.tid)?;
        }
        Ok(())
    };
    // A list in memory that is gone is left alone, as the kernel does.
    walk().unwrap_or(());
}

fn release_robust(word: u64, tid: i32) -> Result<(), BadAddress> {
    let mut seen = user::read_u32(word)?;
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

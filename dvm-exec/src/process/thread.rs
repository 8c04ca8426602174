//! The program's threads as the husks know them.
//!
//! Owns what is remembered per thread: at the root ([`Task`], one per thread of the program, wherever it runs) and on
//! the host where it runs ([`Thread`]). Must not know how calls are executed.

use super::ask::ThreadUsage;
use super::children::Child;
use super::member::Link;
use super::moving::Luggage;
use super::sigframe::AltStack;
use super::view::cpuset::CpuSet;
use super::wire::ThreadStart;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Stands for no host.
const NOWHERE: usize = usize::MAX;

/// A thread of the program as the root remembers it; its number is the one the program sees.
#[derive(Debug)]
pub struct Task {
    /// Thread number.
    pub tid: i32,
    host: AtomicUsize,
    /// Host it shall go to, if any.
    wanted: AtomicUsize,
    /// Since when.
    wanted_since: Mutex<Option<Instant>>,
    /// Word to clear and wake when it ends, 0 for none.
    pub clear_tid: AtomicU64,
    /// Head of the robust futex list, 0 for none.
    pub robust: AtomicU64,
    /// Processors the program wishes it to run on; none: all.
    wish: Mutex<Option<CpuSet>>,
    used_before: Mutex<ThreadUsage>,
}

impl Task {
    /// A task with no words to clear yet.
    pub fn new(tid: i32, host: usize, clear_tid: u64) -> Arc<Self> {
        Arc::new(Self {
            tid,
            host: AtomicUsize::new(host),
            wanted: AtomicUsize::new(NOWHERE),
            wanted_since: Mutex::default(),
            clear_tid: AtomicU64::new(clear_tid),
            robust: AtomicU64::new(0),
            wish: Mutex::default(),
            used_before: Mutex::default(),
        })
    }

    /// Host it runs on, an index into the job's members; 0 is the root.
    pub fn host(&self) -> usize {
        self.host.load(Ordering::Relaxed)
    }

    /// Host it shall go to.
    pub fn wanted(&self) -> Option<usize> {
        Some(self.wanted.load(Ordering::Relaxed)).filter(|host| *host != NOWHERE)
    }

    /// It has left its host: gives the one it goes on at, which is the former if it need no longer go.
    pub fn depart(&self) -> usize {
        if let Some(host) = Some(self.wanted.swap(NOWHERE, Ordering::Relaxed)).filter(|host| *host != NOWHERE) {
            self.host.store(host, Ordering::Relaxed);
        }
        self.host()
    }

    /// Processors the program wishes it to run on; none: all.
    pub fn wish(&self) -> Option<CpuSet> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The program wishes it to run there.
    pub fn set_wish(&self, wish: Option<CpuSet>) {
        *self.wish.lock().unwrap_or_else(PoisonError::into_inner) = wish;
    }

    /// What its kernel thread at the root had used when it began to run there.
    pub fn used_before(&self) -> ThreadUsage {
        *self.used_before.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It begins to run at the root, where its kernel thread has used so much.
    pub fn set_used_before(&self, used: ThreadUsage) {
        *self.used_before.lock().unwrap_or_else(PoisonError::into_inner) = used;
    }
}

/// All living tasks, by number.
#[derive(Debug, Default)]
pub struct Tasks {
    living: Mutex<BTreeMap<i32, Arc<Task>>>,
}

impl Tasks {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<i32, Arc<Task>>> {
        self.living.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No task starts or ends until the guard is dropped, so that a forked child finds the table whole.
    pub fn freeze(&self) -> impl Drop {
        self.lock()
    }

    /// In a forked child: `task` is the only one.
    pub fn become_one(&self, task: &Arc<Task>) {
        *self.lock() = BTreeMap::from([(task.tid, Arc::clone(task))]);
    }

    /// A task starts.
    pub fn add(&self, task: &Arc<Task>) {
        self.lock().insert(task.tid, Arc::clone(task));
    }

    /// A task has ended; true if it was the last one.
    pub fn remove(&self, tid: i32) -> bool {
        let mut living = self.lock();
        living.remove(&tid);
        living.is_empty()
    }

    /// The living task of this number.
    pub fn find(&self, tid: i32) -> Option<Arc<Task>> {
        self.lock().get(&tid).cloned()
    }

    /// How many live.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// How many live on `host`.
    pub fn count_on(&self, host: usize) -> usize {
        self.lock().values().filter(|task| task.host() == host).count()
    }

    /// Number and host of each.
    pub fn places(&self) -> Vec<(i32, usize)> {
        self.lock().values().map(|task| (task.tid, task.host())).collect()
    }

    /// Task `tid` shall go to `host`, if it still lives.
    pub fn ask_to_move(&self, tid: i32, host: usize) {
        if let Some(task) = self.lock().get(&tid) {
            *task.wanted_since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            task.wanted.store(host, Ordering::Relaxed);
        }
    }

    /// Numbers and present hosts of those who shall go.
    pub fn asked_to_move(&self) -> Vec<(i32, usize)> {
        self.lock().values().filter(|task| task.wanted().is_some()).map(|task| (task.tid, task.host())).collect()
    }

    /// Those who should have gone for longer than `latest` stay.
    pub fn let_stay(&self, latest: Duration) {
        for task in self.lock().values().filter(|task| task.wanted().is_some()) {
            let since = *task.wanted_since.lock().unwrap_or_else(PoisonError::into_inner);
            if since.is_some_and(|since| since.elapsed() > latest) {
                task.wanted.store(NOWHERE, Ordering::Relaxed);
            }
        }
    }
}

/// Where the thread's system calls go.
pub enum Side {
    /// Its kernel thread is the root's own.
    Root(Arc<Task>),
    /// It is a child of the program, in a process of its own at the root.
    Child(Rc<Child>),
    /// It runs on another host; its shadow is at the other end of the link.
    Member(Box<RefCell<Link>>),
}

/// The thread that runs on the calling kernel thread.
pub struct Thread {
    /// Thread number the program sees.
    pub tid: i32,
    /// Process number the program sees.
    pub pid: i32,
    /// Signals the program blocks.
    pub mask: Cell<u64>,
    /// The program's alternate signal stack.
    pub alternate: Cell<AltStack>,
    /// What it brought along from another host, until it has arrived.
    pub luggage: Cell<Luggage>,
    /// What it leaves with, at the root.
    pub departing: RefCell<Option<Box<ThreadStart>>>,
    /// Where its calls go.
    pub side: Side,
}

thread_local! {
    static CURRENT: RefCell<Option<Rc<Thread>>> = const { RefCell::new(None) };
}

/// Makes `thread` the one that runs on the calling kernel thread; replaces the one before.
pub fn set_current(thread: Rc<Thread>) {
    CURRENT.with(|slot| *slot.borrow_mut() = Some(thread));
}

/// Nothing runs on the calling kernel thread any more; false if whoever ran there ended in the middle of this module.
pub fn clear_current() -> bool {
    CURRENT.with(|slot| slot.try_borrow_mut().map(|mut thread| *thread = None).is_ok())
}

/// The program thread that runs here, if any.
pub fn current() -> Option<Rc<Thread>> {
    CURRENT.with(|slot| slot.borrow().clone())
}

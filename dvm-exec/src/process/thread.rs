//! The program's threads as the husks know them.
//!
//! Owns what is remembered per thread: at the root ([`Task`], one per thread of the program, wherever it runs) and on
//! the host where it runs ([`Thread`]). Must not know how calls are executed.

use super::children::Child;
use super::member::Link;
use super::sigframe::AltStack;
use super::view::cpuset::CpuSet;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A thread of the program as the root remembers it; its number is the one the program sees.
#[derive(Debug)]
pub struct Task {
    /// Thread number.
    pub tid: i32,
    /// Host it runs on, an index into the job's members; 0 is the root.
    pub host: usize,
    /// Word to clear and wake when it ends, 0 for none.
    pub clear_tid: AtomicU64,
    /// Head of the robust futex list, 0 for none.
    pub robust: AtomicU64,
    /// Processors the program wishes it to run on; none: all.
    wish: Mutex<Option<CpuSet>>,
}

impl Task {
    /// A task with no words to clear yet.
    pub fn new(tid: i32, host: usize, clear_tid: u64) -> Arc<Self> {
        Arc::new(Self { tid, host, clear_tid: AtomicU64::new(clear_tid), robust: AtomicU64::new(0), wish: Mutex::default() })
    }

    /// Processors the program wishes it to run on; none: all.
    pub fn wish(&self) -> Option<CpuSet> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The program wishes it to run there.
    pub fn set_wish(&self, wish: Option<CpuSet>) {
        *self.wish.lock().unwrap_or_else(PoisonError::into_inner) = wish;
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

    /// Whether there is such a task.
    pub fn is_living(&self, tid: i32) -> bool {
        self.lock().contains_key(&tid)
    }

    /// Head of a task's robust futex list, if there is such a task.
    pub fn robust_list(&self, tid: i32) -> Option<u64> {
        self.lock().get(&tid).map(|task| task.robust.load(Ordering::Relaxed))
    }

    /// How many live on `host`.
    pub fn count_on(&self, host: usize) -> usize {
        self.lock().values().filter(|task| task.host == host).count()
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

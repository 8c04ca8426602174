//! A space with its view and pager in one process, and a loop that answers faults.
#![expect(dead_code, clippy::unwrap_used, reason = "each test file uses its own part, and fails by panicking")]

pub mod sys;

use std::io::Write;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dsm_wire::{PAGE_BYTES, PageNumber, PageRange};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use uffd_dsm::{Access, Backing, Drained, Fault, Pager, View, ViewError};

/// Any page works; this one is far from the ends.
pub const FIRST: PageNumber = PageNumber(0x2_0000_0000);

/// A view has fixed addresses: one test at a time.
static ONE_VIEW: Mutex<()> = Mutex::new(());

pub struct Space {
    pub view: View,
    pub pager: Pager,
    _alone: MutexGuard<'static, ()>,
}

/// A space whose view is attached; `None`, with a line that says why, where userfaultfd is not permitted.
pub fn space(test: &str) -> Option<Space> {
    let space = detached_space(test)?;
    let Space { view, mut pager, _alone } = space;
    pager.attach_view(view.userfaultfd().try_clone_to_owned().unwrap()).unwrap();
    Some(Space { view, pager, _alone })
}

/// Keeps other tests of this process from mapping a view, and from starting children, until dropped.
pub fn alone() -> MutexGuard<'static, ()> {
    ONE_VIEW.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`space`], with a pager that does not know the view yet.
pub fn detached_space(test: &str) -> Option<Space> {
    let alone = alone();
    let device = uffd_dsm::open_userfaultfd_device().ok();
    let backing = Backing::create(test).unwrap();
    match View::map(backing.as_fd(), device.as_ref().map(AsFd::as_fd)) {
        Ok(view) => Some(Space { view, pager: Pager::new(backing), _alone: alone }),
        Err(error @ (ViewError::UserfaultfdRefused { .. } | ViewError::FeaturesMissing { .. })) => {
            skip(test, &error);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Says past the test harness, which would swallow it, that `test` did not run.
pub fn skip(test: &str, reason: &dyn std::fmt::Display) {
    std::io::stderr().write_all(format!("skipped: {test}: {reason}\n").as_bytes()).unwrap();
}

pub fn allow(view: &View, first: PageNumber, count: u64, access: Access) {
    view.protect(PageRange::new(first, count), access).unwrap();
}

/// Waits at most `milliseconds` for faults.
pub fn next_faults(pager: &mut Pager, milliseconds: u16) -> Vec<Fault> {
    let mut faults = Vec::new();
    let fd = pager.fault_fd().unwrap();
    poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], PollTimeout::from(milliseconds)).unwrap();
    while pager.drain_faults(&mut faults).unwrap() == Drained::More {}
    faults
}

/// Answers faults with `answer` until `is_done`.
pub fn serve(pager: &mut Pager, is_done: &AtomicBool, mut answer: impl FnMut(&mut Pager, Fault)) {
    while !is_done.load(Ordering::Acquire) {
        for fault in next_faults(pager, 5) {
            answer(pager, fault);
        }
    }
}

/// Runs `program` in a thread of its own while faults are answered with `answer`; returns its result.
pub fn run<T: Send>(space: &mut Space, program: impl FnOnce(&View) -> T + Send, answer: impl FnMut(&mut Pager, Fault)) -> T {
    let is_done = AtomicBool::new(false);
    let (view, pager) = (&space.view, &mut space.pager);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let done = Done(&is_done);
            let result = program(view);
            drop(done);
            result
        });
        serve(pager, &is_done, answer);
        thread.join().unwrap()
    })
}

/// Raised on drop, so that a failing program ends the loop that serves it.
pub struct Done<'a>(pub &'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A page whose bytes tell pages apart.
pub fn pattern(seed: u64) -> [u8; PAGE_BYTES] {
    let mut bytes = [0; PAGE_BYTES];
    for (index, word) in bytes.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *word = (seed << 16 | index as u64).to_ne_bytes();
    }
    bytes
}

/// Word `index` of [`pattern`].
pub const fn pattern_word(seed: u64, index: u64) -> u64 {
    seed << 16 | index
}

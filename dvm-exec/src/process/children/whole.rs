//! Forked children that have all of the program's memory: from then on programs of their own, on this host alone.
//!
//! Owns how such a child gets its memory and becomes a root without members. Must not know which pages there are.
//!
//! ```text
//!  thread of the program     thread of the birth                      child
//!  fork: waits ------------> copies the process --------------------> maps the space anew
//!                            fills it with all there is <------------ waits
//!  goes on <---------------- ends ---------------------------------> runs the program's code, may fork again
//! ```
//!
//! If the program has more threads than the one that forks, nobody writes while the child is filled ([`super::still`]).
//!
//! A fork of such a child is one of the kernel: its memory is private already.

use super::birth::{Birth, COPY_LONGEST, STILLBORN_STATUS, close, copying, receive_faults, send};
use super::contents::Contents;
use super::still::Still;
use crate::process::clone::{CLEAR_ACTIONS, bury, carry};
use crate::process::copied::inherit;
use crate::process::husk;
use crate::process::limits::{self, Room};
use crate::process::moving::Passage;
use crate::process::thread::Task;
use crate::process::wire::ThreadStart;
use crate::process::{descriptors, say, trace};
use crate::sys::process::{self, Forked};
use crate::sys::{call, cpu, user};
use dvm_api::socket;
use std::io::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicI32, Ordering};
use uffd_dsm::{Copied, Own};

/// The thread that made this process, 0 for none.
static MOTHER: AtomicI32 = AtomicI32::new(0);
/// How often it is looked whether that thread has ended.
const LOOKS_MAX: u32 = 10_000;
const LOOK_PAUSE: std::time::Duration = std::time::Duration::from_micros(100);

/// Makes a child with all of `contents`; returns its number once it has them. Nothing leaves this host meanwhile.
pub(super) fn copy(
    birth: &Birth,
    (is_home, changes): (MutexGuard<'_, bool>, MutexGuard<'_, ()>),
    contents: Contents<'_>,
) -> Result<i32, Error> {
    let copying = copying();
    let room = limits::room();
    let (ours, theirs) = process::packet_pair()?;
    let (ours, theirs) = (descriptors::hide(ours)?, descriptors::hide(theirs)?);
    let mother = cpu::thread_id();
    match birth.fork() {
        Ok(Forked::Child) => {
            drop((is_home, changes, copying));
            close(ours);
            become_own(birth, theirs, room, mother)
        }
        Ok(Forked::Parent(pid)) => {
            close(theirs);
            drop(copying);
            let still = Still::new(&birth.root.space, changes);
            let has_others = birth.root.tasks.count() > 1;
            if let Err(reason) = give(&ours, contents, still, has_others) {
                say::line(&format!("forked child {pid} is killed: {reason}"));
                send(pid, libc::SIGKILL);
            }
            close(ours);
            Ok(pid)
        }
        Err(error) => {
            close(ours);
            close(theirs);
            Err(error)
        }
    }
}

/// Makes a child of a process that is itself such a child.
pub(super) fn copy_own(birth: &Birth) -> Result<i32, Error> {
    let copying = copying();
    let changes = birth.root.space.hold_changes();
    let mother = cpu::thread_id();
    match birth.fork()? {
        Forked::Child => {
            drop((changes, copying));
            live(birth, mother)
        }
        Forked::Parent(pid) => Ok(pid),
    }
}

fn give(child: &OwnedFd, contents: Contents<'_>, still: Still<'_>, has_others: bool) -> Result<(), String> {
    // Signals are blocked here, so nothing else cuts this short.
    if let Ok([false]) = process::wait_readable([child.as_fd()], Some(COPY_LONGEST)) {
        return Err(format!("it has not mapped its memory within {} s", COPY_LONGEST.as_secs()));
    }
    // A child that could not be born has said why.
    let Some(faults) = receive_faults(child) else { return Ok(()) };
    let stopped = if has_others { still.stop_writers() } else { Ok(()) };
    let given = stopped.and_then(|()| contents.give(&faults).map_err(|error| error.to_string()));
    // Before anything that another thread may hold while it waits to write.
    drop(still);
    descriptors::reveal(&faults.descriptor());
    drop(faults);
    given?;
    socket::send(child.as_fd(), &0_u8, &[]).map_err(|error| error.to_string())
}

/// In the child's process: gets its memory and goes on with it.
fn become_own(birth: &Birth, parent: OwnedFd, room: Room, mother: i32) -> ! {
    match receive(birth, &parent) {
        Ok(own) => birth.root.space.become_own(own),
        Err(error) => {
            say::line(&format!("a forked child cannot copy the program's memory: {error}"));
            cpu::exit(STILLBORN_STATUS);
        }
    }
    close(parent);
    // What is the job's must not live as long as this process: its agent waits for the end of the root's connection.
    say::leave_stderr();
    descriptors::close_hidden_but(trace::descriptor());
    drop(room);
    live(birth, mother)
}

fn receive(birth: &Birth, parent: &OwnedFd) -> Result<Own, Error> {
    let copied = Copied::map(husk::userfaultfd_device(), descriptors::hide).map_err(Error::other)?;
    birth.root.space.map().areas().try_for_each(|area| inherit(&copied, area))?;
    socket::send(parent.as_fd(), &0_u8, &[copied.userfaultfd()]).map_err(Error::other)?;
    // A parent that has ended has closed its side.
    let (_, _) = socket::receive::<u8>(parent.as_fd()).map_err(Error::other)?;
    descriptors::reveal(&copied.userfaultfd());
    Ok(copied.keep())
}

/// In the child's process: runs the program's code until it ends or has another program.
fn live(birth: &Birth, mother: i32) -> ! {
    let (root, request) = (birth.root, &birth.request);
    let pid = cpu::thread_id();
    MOTHER.store(mother, Ordering::Relaxed);
    let clear_tid = if request.has(libc::CLONE_CHILD_CLEARTID) { request.child_tid } else { 0 };
    let task = Task::new(pid, 0, clear_tid);
    task.set_wish(birth.wish.clone());
    root.become_own(&task);
    if request.flags & CLEAR_ACTIONS != 0 {
        root.actions.drop_handlers();
    }
    if request.has(libc::CLONE_CHILD_SETTID) {
        // As for threads, a bad address is ignored.
        user::store_u32(request.child_tid, pid as u32).unwrap_or(());
    }
    let start =
        ThreadStart { state: birth.state, mask: birth.mask, tid: pid, pid, altstack: birth.altstack, ..ThreadStart::default() };
    carry(root, &task, Passage::new(start));
    bury(root, &task);
    loop {
        call::raw(libc::SYS_pause, &[0; 6]);
    }
}

/// Waits until the thread has ended that made this process: to the kernel it was the parent whose death a child may want to hear
/// of.
pub fn await_mother() {
    let mother = MOTHER.swap(0, Ordering::Relaxed);
    if mother == 0 {
        return;
    }
    let parent = call::raw(libc::SYS_getppid, &[0; 6]) as u64;
    for _ in 0..LOOKS_MAX {
        if call::raw(libc::SYS_tgkill, &[parent, mother as u64, 0, 0, 0, 0]) < 0 {
            return;
        }
        std::thread::sleep(LOOK_PAUSE);
    }
}

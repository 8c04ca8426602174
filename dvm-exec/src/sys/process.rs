//! New processes: a copy of this one, or one on the same memory; and the words that parent and child both see.
//!
//! Owns the calls that make them. Must not know what the child is for.

use super::call;
use std::io::Error;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Bytes of the stack on which a child starts that shares its parent's memory.
const STACK_BYTES: usize = 256 * 1024;
const PAGE_BYTES: u64 = 4096;
/// Words of a [`SharedPage`].
pub const SHARED_WORDS: usize = 4;

/// Which process comes back from [`fork`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forked {
    /// The one that called; the child's number.
    Parent(i32),
    /// The new one, with the calling thread alone.
    Child,
}

/// Copies this process. The C library's own locks are consistent in the child; those of the caller are the caller's concern.
///
/// # Errors
/// The kernel's error.
pub fn fork() -> Result<Forked, Error> {
    // SAFETY: the child runs on with a copy of this thread; locks that other threads held are never waited for, because the
    // caller has taken all that the child uses.
    match unsafe { libc::fork() } {
        -1 => Err(Error::last_os_error()),
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid)),
    }
}

/// Runs `body` in a new process on the same memory, with descriptors, signal actions and limits of its own, while the calling
/// thread stands still; returns the child's number when it has ended or has another program. `signal` tells the parent's
/// process of its end.
///
/// # Errors
/// The kernel's error.
pub fn run_beside(signal: i32, mut body: impl FnMut()) -> Result<i32, Error> {
    let mut stack = vec![0_u128; STACK_BYTES / size_of::<u128>()];
    let mut body: &mut dyn FnMut() = &mut body;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | signal;
    let argument = (&raw mut body).cast::<libc::c_void>();
    // SAFETY: the stack is ours, 16-byte aligned, and the child's alone: this thread, with which the child shares its thread
    // locals, stands still until the child has left the memory. `body` outlives the child for the same reason.
    let result = unsafe { libc::clone(enter, stack.as_mut_ptr_range().end.cast(), flags, argument) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}

extern "C" fn enter(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `run_beside` passes the address of its `body`, which nobody else uses meanwhile.
    let body = unsafe { &mut *argument.cast::<&mut dyn FnMut()>() };
    body();
    0
}

/// Takes back the references to `value` that a child left behind when it ended in the middle of a function.
pub fn forget_clones<T>(value: &Rc<T>) {
    while Rc::strong_count(value) > 1 {
        // SAFETY: the callers' child shared this memory and is gone; this thread has one reference, so all others were the
        // child's and nobody will use or drop them.
        unsafe { Rc::decrement_strong_count(Rc::as_ptr(value)) };
    }
}

/// Words that this process and its children all see.
#[derive(Debug)]
pub struct SharedPage(*const [AtomicU32; SHARED_WORDS]);

impl SharedPage {
    /// Words that are all 0.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn new() -> Result<Self, Error> {
        let flags = (libc::MAP_SHARED | libc::MAP_ANONYMOUS) as u64;
        let access = (libc::PROT_READ | libc::PROT_WRITE) as u64;
        let address = call::checked(libc::SYS_mmap, &[0, PAGE_BYTES, access, flags, u64::MAX, 0])?;
        Ok(Self(std::ptr::with_exposed_provenance(address as usize)))
    }

    /// The words.
    #[must_use]
    pub fn words(&self) -> &[AtomicU32; SHARED_WORDS] {
        // SAFETY: the mapping is larger, lives as long as this value, and is only ever used through atomics.
        unsafe { &*self.0 }
    }
}

impl Drop for SharedPage {
    fn drop(&mut self) {
        call::raw(libc::SYS_munmap, &[self.0.expose_provenance() as u64, PAGE_BYTES, 0, 0, 0, 0]);
    }
}

/// A pair of packet sockets, connected to each other.
///
/// # Errors
/// The kernel's error.
pub fn packet_pair() -> Result<(OwnedFd, OwnedFd), Error> {
    let mut raw: [RawFd; 2] = [-1; 2];
    let kind = (libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC) as u64;
    call::checked(libc::SYS_socketpair, &[libc::AF_UNIX as u64, kind, 0, raw.as_mut_ptr() as u64, 0, 0])?;
    // SAFETY: the kernel has just made both descriptors for us.
    Ok(unsafe { (OwnedFd::from_raw_fd(raw[0]), OwnedFd::from_raw_fd(raw[1])) })
}

/// A descriptor for process `pid`, readable once that has ended.
///
/// # Errors
/// The kernel's error; ESRCH when it was waited for already.
pub fn open_process(pid: i32) -> Result<OwnedFd, Error> {
    let raw = call::checked(libc::SYS_pidfd_open, &[pid as u64, 0, 0, 0, 0, 0])?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as RawFd) })
}

/// Waits until one of `descriptors` is readable or closed at its other end, at most for `longest`; says which are.
///
/// # Errors
/// The kernel's error, never EINTR.
pub fn wait_readable<const COUNT: usize>(
    descriptors: [BorrowedFd<'_>; COUNT],
    longest: Option<Duration>,
) -> Result<[bool; COUNT], Error> {
    let mut polled = descriptors.map(|descriptor| libc::pollfd { fd: descriptor.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    let milliseconds = longest.map_or(-1, |longest| longest.as_millis().min(i32::MAX as u128) as i32);
    // SAFETY: the array is ours and as long as said.
    match unsafe { libc::poll(polled.as_mut_ptr(), COUNT as libc::nfds_t, milliseconds) } {
        -1 => match Error::last_os_error() {
            error if error.raw_os_error() == Some(libc::EINTR) => Ok([false; COUNT]),
            error => Err(error),
        },
        _ => Ok(polled.map(|polled| polled.revents != 0)),
    }
}

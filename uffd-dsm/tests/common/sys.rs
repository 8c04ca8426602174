//! System calls the tests need and Rust cannot check.
#![expect(unsafe_code, reason = "read(2) into the view and pidfd_getfd have no safe form")]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use uffd_dsm::View;

/// `read(2)` from `source` straight into the view, so that the kernel is the one who faults.
pub fn read_into_view(_view: &View, address: u64, bytes: usize, source: BorrowedFd<'_>) -> Result<usize, Errno> {
    let target = std::ptr::with_exposed_provenance_mut::<libc::c_void>(address as usize);
    // SAFETY: `_view` keeps the addresses mapped, and no reference to them exists; outside it the call fails with EFAULT.
    Errno::result(unsafe { libc::read(source.as_raw_fd(), target, bytes) }).map(|bytes| bytes as usize)
}

/// A duplicate of descriptor `fd` of process `pid`.
pub fn fd_of_process(pid: u32, fd: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: both calls take integers only.
    let pidfd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: a new descriptor that nobody else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd as i32) };
    // SAFETY: integers only.
    let copy = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), fd, 0) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(copy as i32) })
}

/// Runs `part` in a copy of this process, which then ends; gives the copy's number.
pub fn fork_for(part: impl FnOnce()) -> Result<nix::unistd::Pid, Errno> {
    // SAFETY: the child uses the C library's allocator, which is whole after a fork, and no lock of another thread.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Parent { child } => Ok(child),
        nix::unistd::ForkResult::Child => {
            let is_done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(part)).is_ok();
            // SAFETY: ends the child without running what the parent has registered for its own end.
            unsafe { libc::_exit(if is_done { 0 } else { 1 }) }
        }
    }
}

/// The descriptor under another number, which nobody has.
pub fn move_to(descriptor: OwnedFd, number: i32) -> std::io::Result<OwnedFd> {
    // SAFETY: integers only.
    Errno::result(unsafe { libc::dup3(descriptor.as_raw_fd(), number, libc::O_CLOEXEC) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

//! The control plane's only unsafe: kernel calls for which no safe wrapper exists.
//!
//! Owns one call per function, made safe. Must not decide anything.
#![expect(unsafe_code, reason = "kernel interfaces without a safe wrapper")]

use dvm_api::socket::INHERITED;
use nix::errno::Errno;
use nix::sys::socket::SockFlag;
use std::fs::File;
use std::io;
use std::mem::{size_of, size_of_val};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

const HWCAP2_FSGSBASE: u64 = 2;
const PR_SET_SYSCALL_USER_DISPATCH: i32 = 59;
/// `_IO(0xAA, 0x00)` of /dev/userfaultfd.
const USERFAULTFD_IOC_NEW: u64 = 0xaa00;
/// `_IOWR(0xAA, 0x3f, struct uffdio_api)`.
const UFFDIO_API: u64 = 0xc018_aa3f;
const UFFD_API: u64 = 0xaa;

/// Who a husk runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Other groups.
    pub groups: Vec<u32>,
}

/// Makes `command` start as `credentials` with `control` as descriptor 3, in its own session, dying with this thread.
///
/// Without the right to change users nothing is changed, and `credentials` must be the caller's own.
pub fn start_as(command: &mut Command, credentials: Credentials, control: OwnedFd, may_change_user: bool) {
    let parent = std::process::id();
    // SAFETY: the closure runs between fork and exec and calls only async-signal-safe functions: setgroups, setresgid,
    // setresuid, setsid, prctl, getppid and dup2 are bare system calls; nothing in it allocates or takes a lock.
    unsafe {
        command.pre_exec(move || {
            if may_change_user {
                checked(libc::setgroups(credentials.groups.len(), credentials.groups.as_ptr()))?;
                checked(libc::setresgid(credentials.gid, credentials.gid, credentials.gid))?;
                checked(libc::setresuid(credentials.uid, credentials.uid, credentials.uid))?;
            }
            checked(libc::setsid())?;
            // After the change of user, which clears it.
            checked(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            if libc::getppid().cast_unsigned() != parent {
                return Err(io::Error::from_raw_os_error(libc::ESRCH));
            }
            if control.as_raw_fd() == INHERITED {
                checked(libc::fcntl(INHERITED, libc::F_SETFD, 0))?;
            } else {
                checked(libc::dup2(control.as_raw_fd(), INHERITED))?;
            }
            Ok(())
        });
    }
}

fn checked(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Descriptor of process `pid`, readable once it has exited.
///
/// # Errors
/// ESRCH when there is no such process.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd, Errno> {
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    let raw = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us; it fits in an int like every descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(raw as RawFd) })
}

/// Kills the process of `pidfd`; a process already gone is fine.
///
/// # Errors
/// EPERM for another user's process.
pub fn pidfd_kill(pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
    pidfd_signal(pidfd, libc::SIGKILL)
}

/// Sends `signal` to the process of `pidfd`; a process already gone is fine.
///
/// # Errors
/// EPERM for another user's process.
pub fn pidfd_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Errno> {
    let null = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed; the call reads nothing else of ours.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, null, 0) };
    match Errno::result(result) {
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Supplementary groups that the process at the other end of Unix socket `socket` had when it connected.
///
/// # Errors
/// The kernel's error.
pub fn peer_groups(socket: BorrowedFd<'_>) -> Result<Vec<u32>, Errno> {
    let mut groups = vec![0_u32; crate::limits::GROUPS_MAX];
    let mut bytes = size_of_val(groups.as_slice()) as libc::socklen_t;
    // SAFETY: `groups` has `bytes` writable bytes, and `bytes` is a live socklen_t; the kernel writes no more than it says.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_PEERGROUPS, groups.as_mut_ptr().cast(), &raw mut bytes)
    };
    Errno::result(result)?;
    groups.truncate(bytes as usize / size_of::<u32>());
    Ok(groups)
}

/// Another descriptor, close-on-exec, for what `source` refers to.
///
/// # Errors
/// The kernel's error, EMFILE as a rule.
pub fn duplicate(source: &impl AsRawFd) -> Result<OwnedFd, Errno> {
    // SAFETY: `source` owns its descriptor and lives for the whole call, so the number is open while it is borrowed.
    let borrowed = unsafe { BorrowedFd::borrow_raw(source.as_raw_fd()) };
    borrowed.try_clone_to_owned().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EMFILE)))
}

/// MTU of network interface `name`, in bytes. Asks the kernel, because /sys may show another network namespace.
///
/// # Errors
/// ENODEV when there is no such interface.
pub fn interface_mtu(socket: BorrowedFd<'_>, name: &str) -> Result<u32, Errno> {
    // SAFETY: ifreq is plain numbers and a union of such; all zero is one of its values.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() {
        return Err(Errno::ENODEV);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    // SAFETY: SIOCGIFMTU reads the NUL-terminated name and writes the MTU inside this live ifreq.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU, &raw mut request) })?;
    // SAFETY: the successful SIOCGIFMTU has just written this member of the union.
    Ok(u32::try_from(unsafe { request.ifr_ifru.ifru_mtu }).unwrap_or(0))
}

/// Whether the kernel lets user space switch FS by instruction.
#[must_use]
pub fn has_fsgsbase() -> bool {
    // SAFETY: getauxval only reads the auxiliary vector of this process.
    unsafe { libc::getauxval(libc::AT_HWCAP2) & HWCAP2_FSGSBASE != 0 }
}

/// Whether the kernel has Syscall User Dispatch: turns it off for this thread, where it is off anyway.
#[must_use]
pub fn has_syscall_user_dispatch() -> bool {
    let none: libc::c_ulong = 0;
    // SAFETY: PR_SYS_DISPATCH_OFF with zero arguments changes nothing and touches no memory.
    unsafe { libc::prctl(PR_SET_SYSCALL_USER_DISPATCH, none, none, none, none) == 0 }
}

/// Feature bits that a userfaultfd made from `device` (/dev/userfaultfd) offers.
///
/// # Errors
/// The kernel's error.
pub fn userfaultfd_features(device: &File) -> Result<u64, Errno> {
    // SAFETY: USERFAULTFD_IOC_NEW takes flags by value.
    let raw = Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, libc::O_CLOEXEC) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    let userfaultfd = unsafe { OwnedFd::from_raw_fd(raw) };
    let mut api = [UFFD_API, 0, 0];
    // SAFETY: UFFDIO_API reads and writes one struct uffdio_api: three u64, which `api` is.
    Errno::result(unsafe { libc::ioctl(userfaultfd.as_raw_fd(), UFFDIO_API, api.as_mut_ptr()) })?;
    Ok(api[1])
}

/// Has the runtime watch `descriptor`.
///
/// # Errors
/// The kernel's error: this kind cannot be watched.
pub fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd gives the same open number for as long as it lives, and the AsyncFd owns it.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor, interest) };
    Ok(watched?)
}

/// Accepts one connection, close-on-exec and non-blocking.
///
/// # Errors
/// EAGAIN when none waits, EMFILE when there are no descriptors left.
pub fn accept(listening: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let raw = nix::sys::socket::accept4(listening.as_raw_fd(), flags)?;
    // SAFETY: accept4 has just made this descriptor for us and nothing else has seen the number.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

//! One userfaultfd: creation, registration and the ioctls that fill, protect and release pages.
//!
//! Owns the kernel structures and request numbers. Must not retry, and must not know which page is whose.
#![expect(unsafe_code, reason = "ioctl, userfaultfd and preadv2 have no safe wrappers")]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use dsm_wire::{PAGE_BYTES, PageNumber, PageRange};
use linux_raw_sys::general::{
    UFFD_API, UFFD_FEATURE_EXACT_ADDRESS, UFFD_FEATURE_MINOR_SHMEM, UFFD_FEATURE_MISSING_SHMEM, UFFD_FEATURE_PAGEFAULT_FLAG_WP,
    UFFD_FEATURE_THREAD_ID, UFFD_FEATURE_WP_HUGETLBFS_SHMEM, UFFDIO_COPY_MODE_WP, UFFDIO_REGISTER_MODE_MINOR,
    UFFDIO_REGISTER_MODE_MISSING, UFFDIO_REGISTER_MODE_WP, uffdio_api, uffdio_continue, uffdio_copy, uffdio_poison, uffdio_range,
    uffdio_register, uffdio_writeprotect, uffdio_zeropage,
};
use nix::errno::Errno;

use crate::fault::MESSAGE_BYTES;

/// A userfaultfd, shared with whoever else holds a duplicate.
#[derive(Debug)]
pub(crate) struct Uffd(OwnedFd);

/// Which faults a registration reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Watching {
    /// Also a mapping that is missing for a page whose bytes are there.
    pub(crate) minor: bool,
}

/// The userfaultfd ioctl whose argument is a `T`.
struct Request<T>(libc::c_ulong, std::marker::PhantomData<T>);

impl<T> Request<T> {
    const fn new(number: u32, write_back: bool) -> Self {
        let direction = IOC_READ | if write_back { IOC_WRITE } else { 0 };
        let size = (size_of::<T>() as u32) << IOC_SIZE_SHIFT;
        Self((direction | size | UFFDIO << IOC_TYPE_SHIFT | number) as libc::c_ulong, std::marker::PhantomData)
    }
}

const IOC_WRITE: u32 = 1 << 30;
const IOC_READ: u32 = 2 << 30;
const IOC_SIZE_SHIFT: u32 = 16;
const IOC_TYPE_SHIFT: u32 = 8;
const UFFDIO: u32 = 0xAA;

const API: Request<uffdio_api> = Request::new(0x3F, true);
const REGISTER: Request<uffdio_register> = Request::new(0x00, true);
const UNREGISTER: Request<uffdio_range> = Request::new(0x01, false);
const WAKE: Request<uffdio_range> = Request::new(0x02, false);
const COPY: Request<uffdio_copy> = Request::new(0x03, true);
const ZEROPAGE: Request<uffdio_zeropage> = Request::new(0x04, true);
const WRITEPROTECT: Request<uffdio_writeprotect> = Request::new(0x06, true);
const CONTINUE: Request<uffdio_continue> = Request::new(0x07, true);
const POISON: Request<uffdio_poison> = Request::new(0x08, true);

const USERFAULTFD_IOC_NEW: libc::c_ulong = (UFFDIO << IOC_TYPE_SHIFT) as libc::c_ulong;
const CONTINUE_MODE_WP: u64 = 1 << 1;
const WRITEPROTECT_MODE_WP: u64 = 1 << 0;
const CREATE_FLAGS: libc::c_int = libc::O_CLOEXEC | libc::O_NONBLOCK;

const _: () = assert!(COPY.0 == linux_raw_sys::ioctl::UFFDIO_COPY as libc::c_ulong);
const _: () = assert!(UNREGISTER.0 == linux_raw_sys::ioctl::UFFDIO_UNREGISTER as libc::c_ulong);
const _: () = assert!(WAKE.0 == linux_raw_sys::ioctl::UFFDIO_WAKE as libc::c_ulong);
const _: () = assert!(WRITEPROTECT.0 == linux_raw_sys::ioctl::UFFDIO_WRITEPROTECT as libc::c_ulong);

impl Uffd {
    /// Makes a userfaultfd for this process from an open `/dev/userfaultfd`, which needs no capability.
    pub(crate) fn from_device(device: BorrowedFd<'_>) -> Result<Self, Errno> {
        // SAFETY: USERFAULTFD_IOC_NEW takes its flags by value and reads and writes no memory of ours; on another kind of
        // device the number is refused (it is reserved for userfaultfd).
        let fd = Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), USERFAULTFD_IOC_NEW, CREATE_FLAGS) })?;
        // SAFETY: the call succeeded, so `fd` is a new descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes a userfaultfd for this process by system call, which needs CAP_SYS_PTRACE or `vm.unprivileged_userfaultfd`.
    pub(crate) fn from_system_call() -> Result<Self, Errno> {
        // SAFETY: userfaultfd(2) takes one integer and touches no memory of ours.
        let fd = Errno::result(unsafe { libc::syscall(libc::SYS_userfaultfd, CREATE_FLAGS) })?;
        // SAFETY: the call succeeded, so the value is a new descriptor (they fit an int) that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }))
    }

    /// Takes over a descriptor that is known to be a userfaultfd.
    pub(crate) const fn from_owned(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Gives the descriptor away.
    pub(crate) fn into_owned(self) -> OwnedFd {
        self.0
    }

    /// Asks for the interface and the features the pager needs.
    ///
    /// No event of the address space (fork, remap, remove, unmap) is asked for: those make the kernel refuse fills with
    /// EAGAIN until they are read, and the executor itself knows what it maps.
    pub(crate) fn enable(&self, watching: Watching) -> Result<(), Errno> {
        let mut features = UFFD_FEATURE_PAGEFAULT_FLAG_WP
            | UFFD_FEATURE_MISSING_SHMEM
            | UFFD_FEATURE_THREAD_ID
            | UFFD_FEATURE_EXACT_ADDRESS
            | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
        if watching.minor {
            features |= UFFD_FEATURE_MINOR_SHMEM;
        }
        let mut argument = uffdio_api { api: u64::from(UFFD_API), features: u64::from(features), ioctls: 0 };
        self.call(&API, &mut argument)
    }

    /// Watches `range` for missing pages and writes to protected ones. The range must be mapped in this process.
    pub(crate) fn register(&self, range: PageRange, watching: Watching) -> Result<(), Errno> {
        let mut mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP;
        if watching.minor {
            mode |= UFFDIO_REGISTER_MODE_MINOR;
        }
        self.call(&REGISTER, &mut uffdio_register { range: span(range), mode: u64::from(mode), ioctls: 0 })
    }

    /// Watches `range` no longer.
    pub(crate) fn unregister(&self, range: PageRange) -> Result<(), Errno> {
        self.call(&UNREGISTER, &mut span(range))
    }

    /// Fills an absent page with what the calling process has at the same address, and wakes who waits.
    pub(crate) fn copy_own(&self, page: PageNumber) -> Result<(), Errno> {
        let (address, bytes) = (page.address(), PAGE_BYTES as u64);
        self.call(&COPY, &mut uffdio_copy { dst: address, src: address, len: bytes, mode: 0, copy: 0 })
    }

    /// Fills absent pages from `first` on with `bytes`, maps them and wakes who waits. Returns the pages done.
    pub(crate) fn copy(&self, first: PageNumber, bytes: &[u8], protect: bool) -> Result<u64, Errno> {
        assert!(bytes.len().is_multiple_of(PAGE_BYTES) && !bytes.is_empty(), "whole pages are copied");
        let mut argument = uffdio_copy {
            dst: first.address(),
            src: bytes.as_ptr().expose_provenance() as u64,
            len: bytes.len() as u64,
            mode: if protect { u64::from(UFFDIO_COPY_MODE_WP) } else { 0 },
            copy: 0,
        };
        let result = self.call(&COPY, &mut argument);
        pages_done(result, argument.copy, bytes.len() as u64)
    }

    /// Fills absent pages with zeros, maps them writable and wakes who waits. Returns the pages done.
    pub(crate) fn zeropage(&self, range: PageRange) -> Result<u64, Errno> {
        let mut argument = uffdio_zeropage { range: span(range), mode: 0, zeropage: 0 };
        let result = self.call(&ZEROPAGE, &mut argument);
        pages_done(result, argument.zeropage, argument.range.len)
    }

    /// Maps pages whose bytes are in the memfd already and wakes who waits. Returns the pages done.
    pub(crate) fn map_present(&self, range: PageRange, protect: bool) -> Result<u64, Errno> {
        let mode = if protect { CONTINUE_MODE_WP } else { 0 };
        let mut argument = uffdio_continue { range: span(range), mode, mapped: 0 };
        let result = self.call(&CONTINUE, &mut argument);
        pages_done(result, argument.mapped, argument.range.len)
    }

    /// Forbids writes to `range`. When it returns no thread of the process can write it any more. Wakes nobody.
    pub(crate) fn protect(&self, range: PageRange) -> Result<(), Errno> {
        self.call(&WRITEPROTECT, &mut uffdio_writeprotect { range: span(range), mode: WRITEPROTECT_MODE_WP })
    }

    /// Allows writes to `range` and wakes who waits.
    pub(crate) fn unprotect(&self, range: PageRange) -> Result<(), Errno> {
        self.call(&WRITEPROTECT, &mut uffdio_writeprotect { range: span(range), mode: 0 })
    }

    /// Wakes who waits for a page of `range`; they fault again if they still have reason to.
    pub(crate) fn wake(&self, range: PageRange) -> Result<(), Errno> {
        self.call(&WAKE, &mut span(range))
    }

    /// Makes every access to an absent page a SIGBUS, and wakes who waits.
    pub(crate) fn poison(&self, range: PageRange) -> Result<(), Errno> {
        self.call(&POISON, &mut uffdio_poison { range: span(range), mode: 0, updated: 0 })
    }

    /// Reads messages into `buffer` and returns how many; never blocks, even if another holder of the descriptor took its
    /// O_NONBLOCK away.
    pub(crate) fn read_messages(&self, buffer: &mut [[u8; MESSAGE_BYTES]]) -> Result<usize, Errno> {
        let target = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: size_of_val(buffer) };
        // SAFETY: `target` describes exactly `buffer`, which is borrowed for the call and valid for any byte values;
        // offset -1 means the descriptor's own position.
        let bytes = Errno::result(unsafe { libc::preadv2(self.0.as_raw_fd(), &raw const target, 1, -1, libc::RWF_NOWAIT) });
        match bytes {
            Ok(bytes) => Ok(bytes as usize / MESSAGE_BYTES),
            // Before linux 6.10 a userfaultfd takes no RWF_NOWAIT.
            Err(Errno::EOPNOTSUPP) => {
                let bytes = nix::unistd::read(&self.0, buffer.as_flattened_mut())?;
                Ok(bytes / MESSAGE_BYTES)
            }
            Err(errno) => Err(errno),
        }
    }

    fn call<T>(&self, request: &Request<T>, argument: &mut T) -> Result<(), Errno> {
        // SAFETY: `Request<T>` ties the number to its argument type, and the number carries `size_of::<T>()`, so the kernel
        // reads and writes inside `argument`, which is borrowed for the call; all structures are plain integers. What the
        // call does to memory: it fills, maps, unmaps or protects pages of a registered range, which is only ever a
        // `Mapping`, to which no reference exists; COPY reads its source, which `copy` borrows and which for `copy_own` the
        // kernel itself checks.
        Errno::result(unsafe { libc::ioctl(self.0.as_raw_fd(), request.0, std::ptr::from_mut(argument)) }).map(drop)
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

const fn span(range: PageRange) -> uffdio_range {
    uffdio_range { start: range.first.address(), len: range.count * PAGE_BYTES as u64 }
}

/// Pages done by a ranged call: a part done is success, and the next call tells why the rest was not.
fn pages_done(result: Result<(), Errno>, bytes_done: i64, bytes_asked: u64) -> Result<u64, Errno> {
    match (result, u64::try_from(bytes_done)) {
        (Ok(()), _) => Ok(bytes_asked / PAGE_BYTES as u64),
        (Err(Errno::EAGAIN), Ok(bytes)) if bytes > 0 => Ok(bytes / PAGE_BYTES as u64),
        (Err(errno), _) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_results() {
        assert_eq!(pages_done(Ok(()), 8192, 8192), Ok(2));
        assert_eq!(pages_done(Err(Errno::EAGAIN), 4096, 8192), Ok(1));
        assert_eq!(pages_done(Err(Errno::EAGAIN), 0, 8192), Err(Errno::EAGAIN));
        assert_eq!(pages_done(Err(Errno::EAGAIN), -11, 8192), Err(Errno::EAGAIN), "the field holds a negative errno");
        assert_eq!(pages_done(Err(Errno::EEXIST), -17, 8192), Err(Errno::EEXIST));
    }
}

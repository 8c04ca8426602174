//! Mappings of program memory and the few of our own at fixed addresses.
//!
//! Owns the calls that change the address space below the line. Must not know which ranges the program asked for.

use super::{LINE, VIEW_FIRST, call};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::Error;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Makes an anonymous file as large as the program's address space; it costs nothing until it is touched.
///
/// # Errors
/// The kernel's error.
pub fn make_space_file() -> Result<OwnedFd, Error> {
    let name = c"dvm-space".as_ptr() as u64;
    let raw = call::checked(libc::SYS_memfd_create, &[name, u64::from(libc::MFD_CLOEXEC), 0, 0, 0, 0])?;
    // SAFETY: the kernel has just made this descriptor for us.
    let file = unsafe { OwnedFd::from_raw_fd(raw as RawFd) };
    call::checked(libc::SYS_ftruncate, &[raw, LINE, 0, 0, 0, 0])?;
    Ok(file)
}

/// Maps the whole program space from `file` at equal addresses, without any access.
///
/// # Errors
/// The kernel's error; EEXIST when something of the husk already lies below the line.
pub fn map_space(file: BorrowedFd<'_>) -> Result<(), Error> {
    let flags = libc::MAP_SHARED | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    let arguments = [VIEW_FIRST, LINE - VIEW_FIRST, 0, flags as u64, file.as_raw_fd() as u64, VIEW_FIRST];
    call::checked(libc::SYS_mmap, &arguments)?;
    // Children have copies.
    call::checked(libc::SYS_madvise, &[VIEW_FIRST, LINE - VIEW_FIRST, libc::MADV_DONTFORK as u64, 0, 0, 0]).map(drop)
}

/// Sets the access rights of program pages.
///
/// # Errors
/// The kernel's error; EINVAL outside the program's space.
pub fn protect(first: u64, bytes: u64, protection: i32) -> Result<(), Error> {
    if first < VIEW_FIRST || bytes > LINE || first > LINE - bytes {
        return Err(Error::from_raw_os_error(libc::EINVAL));
    }
    call::checked(libc::SYS_mprotect, &[first, bytes, protection as u64, 0, 0, 0]).map(drop)
}

/// Forgets the contents of a range of a space file; the mapping shows zeros afterwards.
///
/// # Errors
/// The kernel's error.
pub fn punch(file: BorrowedFd<'_>, first: u64, bytes: u64) -> Result<(), Error> {
    let mode = (libc::FALLOC_FL_KEEP_SIZE | libc::FALLOC_FL_PUNCH_HOLE) as u64;
    call::checked(libc::SYS_fallocate, &[file.as_raw_fd() as u64, mode, first, bytes, 0, 0]).map(drop)
}

/// Maps `bytes` at `address` above the line, with access `protection`.
///
/// # Errors
/// The kernel's error; EINVAL for an address below the line.
pub fn map_bytes(address: u64, bytes: &[u8], protection: i32) -> Result<(), Error> {
    let length = (bytes.len() as u64).next_multiple_of(4096);
    if address < LINE {
        return Err(Error::from_raw_os_error(libc::EINVAL));
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    let writable = (libc::PROT_READ | libc::PROT_WRITE) as u64;
    call::checked(libc::SYS_mmap, &[address, length, writable, flags as u64, u64::MAX, 0])?;
    // SAFETY: the range was mapped by the call above and MAP_FIXED_NOREPLACE says that nobody else had it.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len()) };
    call::checked(libc::SYS_mprotect, &[address, length, protection as u64, 0, 0, 0]).map(drop)
}

/// Moves a descriptor to number `floor` or above, close-on-exec.
///
/// # Errors
/// The kernel's error; EINVAL when the descriptor limit is below `floor`.
pub fn move_up(descriptor: OwnedFd, floor: u64) -> Result<OwnedFd, Error> {
    let raw = descriptor.as_raw_fd() as u64;
    let moved = call::checked(libc::SYS_fcntl, &[raw, libc::F_DUPFD_CLOEXEC as u64, floor, 0, 0, 0])?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(moved as RawFd) })
}

/// Takes over descriptor `raw` that this process was started with or has just made.
///
/// # Errors
/// EBADF when it is not open.
pub fn adopt(raw: RawFd) -> Result<OwnedFd, Error> {
    call::checked(libc::SYS_fcntl, &[raw as u64, libc::F_GETFD as u64, 0, 0, 0, 0])?;
    // SAFETY: the descriptor is open and, by the callers' contract (inherited or just made), nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Makes a file of `text` without a place, named after `path`. `floor` is where numbers are nobody's but ours.
///
/// # Errors
/// The kernel's error.
pub fn file_of_text(path: &[u8], text: &[u8], floor: u64) -> Result<OwnedFd, Error> {
    const NAME_BYTES_MAX: usize = 249;
    let name = CString::new(&path[..path.len().min(NAME_BYTES_MAX)]).map_err(|_| Error::from_raw_os_error(libc::EINVAL))?;
    let mut file = File::from(move_up(anonymous_file(&name)?.into(), floor)?);
    std::io::Write::write_all(&mut file, text)?;
    Ok(file.into())
}

/// Opens `file` once more, read-only, and gives the number away, which is the lowest free one.
///
/// # Errors
/// The kernel's error.
pub fn open_again(file: &OwnedFd, is_cloexec: bool) -> Result<RawFd, Error> {
    let link = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(|_| Error::from_raw_os_error(libc::EINVAL))?;
    let flags = libc::O_RDONLY | if is_cloexec { libc::O_CLOEXEC } else { 0 };
    call::checked(libc::SYS_openat, &[libc::AT_FDCWD as u64, link.as_ptr() as u64, flags as u64, 0, 0, 0]).map(|raw| raw as RawFd)
}

/// Copies `bytes` to `address` as the result of a call: by the kernel, which refuses what the caller may not write.
///
/// # Errors
/// EFAULT, or the kernel's error when it lacks memory.
pub fn copy_by_kernel(address: u64, bytes: &[u8]) -> Result<(), Error> {
    let mut file = anonymous_file(c"dvm-result")?;
    std::io::Write::write_all(&mut file, bytes)?;
    let mut done = 0;
    while done < bytes.len() as u64 {
        let left = bytes.len() as u64 - done;
        match call::checked(libc::SYS_pread64, &[file.as_raw_fd() as u64, address + done, left, done, 0, 0])? {
            0 => return Err(Error::from_raw_os_error(libc::EFAULT)),
            count => done += count,
        }
    }
    Ok(())
}

fn anonymous_file(name: &CStr) -> Result<File, Error> {
    let arguments = [name.as_ptr() as u64, u64::from(libc::MFD_CLOEXEC), 0, 0, 0, 0];
    let raw = call::checked(libc::SYS_memfd_create, &arguments)? as RawFd;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { File::from_raw_fd(raw) })
}

/// Connects to the packet socket at `path`.
///
/// # Errors
/// The kernel's error; ENAMETOOLONG for a path that does not fit.
pub fn connect_packets(path: &Path) -> Result<OwnedFd, Error> {
    let path = path.as_os_str().as_bytes();
    // SAFETY: sockaddr_un is plain bytes; all-zero is valid.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    if path.len() >= address.sun_path.len() {
        return Err(Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    for (to, from) in address.sun_path.iter_mut().zip(path) {
        *to = *from as libc::c_char;
    }
    let kind = (libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC) as u64;
    let raw = call::checked(libc::SYS_socket, &[libc::AF_UNIX as u64, kind, 0, 0, 0, 0])?;
    // SAFETY: the kernel has just made this descriptor for us.
    let socket = unsafe { OwnedFd::from_raw_fd(raw as RawFd) };
    let bytes = size_of::<libc::sockaddr_un>() as u64;
    call::checked(libc::SYS_connect, &[raw, &raw const address as u64, bytes, 0, 0, 0])?;
    Ok(socket)
}

/// Closes descriptor `raw` behind the back of its owner, who never uses it again.
pub fn close_raw(raw: RawFd) {
    call::raw(libc::SYS_close, &[raw as u64, 0, 0, 0, 0, 0]);
}

/// Keeps shared memory, which the view is, out of core files: it is huge, and most pages are on other hosts.
pub fn keep_view_out_of_cores() {
    // A kernel without core files has no such switch.
    std::fs::write("/proc/self/coredump_filter", "0x31").unwrap_or(());
}

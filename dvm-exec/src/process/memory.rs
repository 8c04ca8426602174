//! The program's memory at the root: the map's decisions carried out on the view, on every host and on contents.
//!
//! Owns the order in which effects happen and who may be in the middle of a memory call. Must not decide what a call
//! changes; that is [`super::vma`].
//!
//! Locks: `operation` is held by threads of the program for a whole call and may wait for pages and members; `map` is
//! held for looking and changing only, never while program memory is touched, so service threads may take it.

use super::copied::{CopiedMemory, OwnMemory};
use super::limits;
use super::say;
use super::vma::{
    AddressSpace, Area, AreaKind, Change, Effect, FileIdentity, FileSource, Found, Lookup, MapRequest, PAGE_BYTES, Protection,
    RemapRequest,
};
use crate::sys::signal::replace_mask;
use crate::sys::{call, mapping};
use dsm_wire::{PageNumber, PageRange};
use std::fs::File;
use std::io::Error;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use uffd_dsm::{Copied, Own, ViewError};

/// Largest area without access that counts as a stack's guard.
const GUARD_BYTES_MAX: u64 = 1 << 20;
/// Bytes copied at once when an area moves.
const COPY_BYTES: usize = 256 << 10;
/// Threads that fetch what is copied, and bytes each fetches at once.
const FETCHERS_MAX: u64 = 8;
const FETCH_BYTES: u64 = 64 << 10;
/// Bytes read from a file into the program's memory per call.
const READ_BYTES_MAX: u64 = 1 << 20;

/// The view of the space and those who keep its contents.
pub trait Memory: Send + Sync {
    /// Gives pages these rights in this process.
    ///
    /// # Errors
    /// The kernel's error.
    fn protect(&self, range: &Range<u64>, protection: i32) -> Result<(), Error>;

    /// Takes rights from pages on every other host; returns when all have done it.
    ///
    /// # Errors
    /// A member that cannot be reached.
    fn protect_elsewhere(&self, range: &Range<u64>, protection: i32) -> Result<(), Error>;

    /// Forgets contents on every host; returns when it is done.
    ///
    /// # Errors
    /// The agent's refusal.
    fn discard(&self, range: &Range<u64>) -> Result<(), Error>;

    /// Forgets contents of pages with a source on every host: they have their file's bytes again; returns when it is done.
    ///
    /// # Errors
    /// The agent's refusal.
    fn reload(&self, range: &Range<u64>) -> Result<(), Error>;

    /// Lets a file, from `offset` on, be the first content of pages. Returns false, with nothing done, if they are to be read in.
    fn source(&self, range: &Range<u64>, fd: i32, offset: u64) -> bool;

    /// The file of the contents on this host, if there is one.
    fn contents(&self) -> Option<BorrowedFd<'_>>;

    /// Whether all contents are on this host, and always were.
    fn is_home(&self) -> bool;

    /// Lets nobody change the pages at these addresses, on any host, until [`Memory::unpin`]; returns when they are at rest.
    ///
    /// # Errors
    /// The agent's reason.
    fn pin(&self, _addresses: &[u64]) -> Result<(), String> {
        Ok(())
    }

    /// Lets go of the pages that are kept.
    fn unpin(&self) {}

    /// Lets nobody change anything on this host, until [`Memory::let_write`]; returns when nobody does.
    ///
    /// # Errors
    /// The agent's reason.
    fn stop_writers(&self) -> Result<(), String> {
        Ok(())
    }

    /// Lets them go on.
    fn let_write(&self) {}
}

/// Memory of one process without an agent, for development.
pub struct LocalMemory {
    file: OwnedFd,
}

impl LocalMemory {
    /// Makes and maps an empty space.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn new() -> Result<Self, Error> {
        let file = super::descriptors::hide(mapping::make_space_file()?)?;
        mapping::map_space(file.as_fd())?;
        Ok(Self { file })
    }
}

impl Memory for LocalMemory {
    fn protect(&self, range: &Range<u64>, protection: i32) -> Result<(), Error> {
        mapping::protect(range.start, range.end - range.start, protection)
    }

    fn protect_elsewhere(&self, _range: &Range<u64>, _protection: i32) -> Result<(), Error> {
        Ok(())
    }

    fn discard(&self, range: &Range<u64>) -> Result<(), Error> {
        mapping::punch(self.file.as_fd(), range.start, range.end - range.start)
    }

    fn reload(&self, _range: &Range<u64>) -> Result<(), Error> {
        Ok(())
    }

    fn source(&self, _range: &Range<u64>, _fd: i32, _offset: u64) -> bool {
        false
    }

    fn contents(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn is_home(&self) -> bool {
        true
    }
}

/// The pages of a range of addresses.
pub fn pages(range: &Range<u64>) -> PageRange {
    PageRange::new(PageNumber::containing(range.start), (range.end - range.start).div_ceil(PAGE_BYTES))
}

/// As the kernel said it.
pub fn of_view(error: ViewError) -> Error {
    match error {
        ViewError::Refused { errno, .. } => Error::from_raw_os_error(errno as i32),
        other => Error::other(other.to_string()),
    }
}

/// The program's address space at the root.
pub struct Space {
    memory: Box<dyn Memory>,
    /// In a forked child, what it has instead.
    copied: OnceLock<CopiedMemory>,
    /// In one that has all of it.
    own: OnceLock<OwnMemory>,
    operation: Mutex<()>,
    map: Mutex<AddressSpace>,
}

impl Space {
    /// An empty space on `memory`.
    pub fn new(memory: Box<dyn Memory>) -> Self {
        Self {
            memory,
            copied: OnceLock::new(),
            own: OnceLock::new(),
            operation: Mutex::new(()),
            map: Mutex::new(AddressSpace::new()),
        }
    }

    /// The map, for a short look.
    pub fn map(&self) -> MutexGuard<'_, AddressSpace> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets no memory call begin or be under way until the guard is dropped, so that the map is that of the pages.
    pub fn hold_changes(&self) -> MutexGuard<'_, ()> {
        self.operation.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the pages at `addresses` as they are, wherever threads run, until [`Space::unpin`].
    ///
    /// # Errors
    /// The agent's reason.
    pub fn pin(&self, addresses: &[u64]) -> Result<(), String> {
        self.memory().pin(addresses)
    }

    /// Lets go of the pages that are kept.
    pub fn unpin(&self) {
        self.memory().unpin();
    }

    /// At home: keeps all pages as they are, until [`Space::let_write`].
    ///
    /// # Errors
    /// The agent's reason.
    pub fn stop_writers(&self) -> Result<(), String> {
        self.memory().stop_writers()
    }

    /// Lets writers go on.
    pub fn let_write(&self) {
        self.memory().let_write();
    }

    /// In a forked child: its memory is `copied` from now on, with the areas and rights of the map.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn become_copy(&self, copied: Copied) -> Result<(), Error> {
        let copied = self.copied.get_or_init(|| CopiedMemory::new(copied));
        // The parent itself cannot read what has no rights.
        self.map().areas().filter(|area| area.protection != Protection::NONE).try_for_each(|area| copied.inherit(area))
    }

    /// In a forked child that has all of the program's memory in `own`, with the areas and rights of the map.
    pub fn become_own(&self, own: Own) {
        self.own.get_or_init(|| OwnMemory::new(own));
        self.map().note_all_copied();
    }

    /// Whether this process is a forked child, which must not use what its parent shares with other hosts.
    pub fn is_copy(&self) -> bool {
        self.copied.get().is_some() || self.is_own()
    }

    /// Whether this process is a forked child that has all of it.
    pub fn is_own(&self) -> bool {
        self.own.get().is_some()
    }

    /// Whether all contents are on this host, and always were.
    pub fn is_home(&self) -> bool {
        self.memory().is_home()
    }

    /// Where the contents of all pages are, at their addresses, while no other host has any.
    pub fn contents(&self) -> Option<BorrowedFd<'_>> {
        self.memory().contents()
    }

    fn memory(&self) -> &dyn Memory {
        match (self.own.get(), self.copied.get()) {
            (Some(own), _) => own,
            (None, Some(copied)) => copied,
            (None, None) => &*self.memory,
        }
    }

    /// What is at `address`.
    pub fn lookup(&self, address: u64) -> Option<Lookup> {
        self.map().lookup(address)
    }

    /// A free place; nobody else maps before the program runs.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn find_free(&self, bytes: u64, alignment: u64) -> Result<u64, Error> {
        self.map().find_free(bytes, alignment).map_err(|error| Error::from_raw_os_error(error.errno()))
    }

    /// Puts an area of the program's image.
    ///
    /// # Errors
    /// The map's or the kernel's error.
    pub fn place(&self, area: Area) -> Result<(), Error> {
        let change = self.map().place(area);
        match self.carry_out(change) {
            value if value < 0 => Err(Error::from_raw_os_error(-value as i32)),
            _ => Ok(()),
        }
    }

    /// Whether a thread of the program at the root may go on after a fault with this error code, now or after whoever changes the
    /// map has carried it out; else what is at the address.
    pub fn judge_fault(&self, address: u64, error: u64) -> Option<Found> {
        let _operation = self.operation.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(found) = self.map().look(address) else { return Some(Found::Hole) };
        let is_allowed = found.protection.allows(error);
        // Without effect, unless a call that failed half-way left less than the map says.
        let is_done = is_allowed && self.memory().protect(&found.range, found.protection.bits()).is_ok();
        if is_done { None } else { Some(found.found) }
    }

    /// What a fault at `address` is likely to mean, if that is worth a line.
    pub fn explain(&self, address: u64) -> Option<String> {
        let map = self.map();
        let found = map.look(address)?;
        let above = map.kind_at(found.range.end)?;
        let is_guard = found.found == Found::Area && found.protection == Protection::NONE;
        let bytes = found.range.end - found.range.start;
        match (above, found.found) {
            (AreaKind::Stack, Found::Hole) => Some(format!("stack overflow: {address:#x} is below the first thread's stack")),
            (AreaKind::Anonymous { .. }, _) if is_guard && bytes <= GUARD_BYTES_MAX => {
                Some(format!("{address:#x} is in a guard of {bytes} bytes, as below a thread's stack: stack overflow?"))
            }
            _ => None,
        }
    }

    /// A memory call of the program: `number` is one of the class Memory.
    pub fn call(&self, number: i64, arguments: &[u64; 6]) -> i64 {
        let [first, second, third, fourth, fifth, sixth] = *arguments;
        let source = if number == libc::SYS_mmap { file_source(fourth, fifth, sixth) } else { Ok(None) };
        let file = match source {
            Ok(file) => file,
            Err(error) => return -i64::from(error.raw_os_error().unwrap_or(libc::EBADF)),
        };
        let _operation = self.operation.lock().unwrap_or_else(PoisonError::into_inner);
        if number == libc::SYS_mremap && third > second && self.is_of_lost_file(first) {
            say::refused("mremap", "the file of the mapping that is to grow is no longer found by its name");
            return -i64::from(libc::ENOMEM);
        }
        let change = match number {
            libc::SYS_mmap => {
                self.map().map(&MapRequest { address: first, bytes: second, protection: third, flags: fourth, file })
            }
            libc::SYS_munmap => self.map().unmap(first, second),
            libc::SYS_mprotect => self.map().protect(first, second, third),
            libc::SYS_brk => self.map().set_break(first),
            libc::SYS_madvise => self.map().advise(first, second, third),
            libc::SYS_mremap => self.map().remap(RemapRequest {
                old_address: first,
                old_bytes: second,
                new_bytes: third,
                flags: fourth,
                new_address: fifth,
            }),
            _ => {
                let result = self.map().covered(first, second, third, number);
                Change { result, effects: Vec::new() }
            }
        };
        if number == libc::SYS_mincore && change.result.is_ok() {
            // Where a page is differs by host; all of them are somewhere.
            let resident = vec![1; second.div_ceil(PAGE_BYTES) as usize];
            drop(_operation);
            return crate::sys::user::write(third, &resident).map_or(-i64::from(libc::EFAULT), |()| 0);
        }
        if let Err(super::vma::MapError::Refused(reason)) = change.result {
            say::refused(super::calls::name(number as u64), reason);
        }
        let mapped = if number == libc::SYS_mmap { change.result.ok() } else { None };
        let value = self.carry_out(change);
        if let Some(start) = mapped.filter(|_| value < 0) {
            // What could not be read is not mapped.
            let undone = self.map().unmap(start, second);
            self.carry_out(undone);
        }
        value
    }

    fn is_of_lost_file(&self, address: u64) -> bool {
        let file = match self.map().kind_at(address) {
            Some(AreaKind::File { file, .. }) => file.clone(),
            _ => return false,
        };
        open_again(&file).is_none()
    }

    fn carry_out(&self, change: Change) -> i64 {
        for effect in &change.effects {
            if let Err(error) = self.apply(effect) {
                return -i64::from(error.raw_os_error().unwrap_or(libc::ENOMEM));
            }
        }
        change.return_value()
    }

    fn apply(&self, effect: &Effect) -> Result<(), Error> {
        match effect {
            Effect::Protect { range, protection } => self.memory().protect(range, protection.bits()),
            Effect::ProtectDown { range, protection } => {
                self.memory().protect(range, protection.bits())?;
                self.memory().protect_elsewhere(range, protection.bits())
            }
            Effect::Discard { range } => self.memory().discard(range),
            Effect::Reload { range } => self.memory().reload(range),
            Effect::Source { range, fd, offset } => {
                if !self.memory().source(range, *fd, *offset) {
                    self.map().note_copied(range);
                    self.memory().protect(range, libc::PROT_READ | libc::PROT_WRITE)?;
                    read_file(range, *fd, *offset)?;
                    self.memory().protect(range, libc::PROT_NONE)?;
                }
                Ok(())
            }
            Effect::ReadFile { range, fd, offset } => read_file(range, *fd, *offset).map(drop),
            Effect::ReadAgain { range, file, offset } => match open_again(file) {
                Some(file) => clear(&(read_file(range, file.as_raw_fd(), *offset)?..range.end)),
                None => Ok(()),
            },
            Effect::Copy { from, to, bytes } => copy(*from, *to, *bytes),
        }
    }
}

/// Reads a file into pages; returns the address of the first byte that it does not have.
fn read_file(range: &Range<u64>, fd: i32, offset: u64) -> Result<u64, Error> {
    let mut done = 0;
    while range.start + done < range.end {
        let bytes = (range.end - range.start - done).min(READ_BYTES_MAX);
        let read = call::checked(libc::SYS_pread64, &[fd as u64, range.start + done, bytes, offset + done, 0, 0])?;
        if read == 0 {
            break;
        }
        done += read;
    }
    Ok(range.start + done)
}

/// The file of a mapping, if it is still found by its name.
pub fn open_again(file: &FileIdentity) -> Option<File> {
    let _room = limits::room();
    let opened = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(&*file.name).ok()?;
    let found = opened.metadata().ok()?;
    let device = (libc::major(found.dev()), libc::minor(found.dev()));
    (found.file_type().is_file() && (device, found.ino()) == (file.device, file.inode)).then_some(opened)
}

/// Fills program memory with zeros.
fn clear(range: &Range<u64>) -> Result<(), Error> {
    let zeros = [0; PAGE_BYTES as usize];
    for at in range.clone().step_by(zeros.len()) {
        let part = &zeros[..zeros.len().min((range.end - at) as usize)];
        crate::sys::user::write(at, part).map_err(|_| Error::from_raw_os_error(libc::EFAULT))?;
    }
    Ok(())
}

/// Copies while other threads bring the pages to this host: one fault at a time would wait for each page's way.
fn copy(from: u64, to: u64, bytes: u64) -> Result<(), Error> {
    let next = AtomicU64::new(from);
    let fetch = || loop {
        let at = next.fetch_add(FETCH_BYTES, Ordering::Relaxed);
        if at >= from + bytes {
            return;
        }
        // Whatever it cannot bring, the copy itself waits for, or fails on.
        let part = FETCH_BYTES.min(from + bytes - at);
        call::raw(libc::SYS_madvise, &[at, part, libc::MADV_POPULATE_READ as u64, 0, 0, 0]);
    };
    let count = (bytes / COPY_BYTES as u64).min(FETCHERS_MAX);
    let former = replace_mask(u64::MAX);
    std::thread::scope(|scope| {
        for _ in 0..count {
            let spawned = std::thread::Builder::new().stack_size(super::clone::STACK_BYTES).spawn_scoped(scope, fetch);
            if spawned.is_err() {
                // With fewer of them it takes longer.
                break;
            }
        }
        replace_mask(former);
        copy_behind(from, to, bytes)
    })
}

fn copy_behind(from: u64, to: u64, bytes: u64) -> Result<(), Error> {
    let mut buffer = vec![0_u8; COPY_BYTES];
    let mut done = 0;
    while done < bytes {
        let part = &mut buffer[..(bytes - done).min(COPY_BYTES as u64) as usize];
        let bad = |_| Error::from_raw_os_error(libc::EFAULT);
        crate::sys::user::read(from + done, part).map_err(bad)?;
        // Pages of zeros are left out: they cost nothing as long as nobody touches them.
        for (index, page) in part.chunks(PAGE_BYTES as usize).enumerate() {
            if page != &[0; PAGE_BYTES as usize][..page.len()] {
                crate::sys::user::write(to + done + index as u64 * PAGE_BYTES, page).map_err(bad)?;
            }
        }
        done += part.len() as u64;
    }
    Ok(())
}

/// The file behind descriptor `fd` of an mmap with these flags; none for memory without a file.
fn file_source(flags: u64, fd: u64, offset: u64) -> Result<Option<FileSource>, Error> {
    if flags & libc::MAP_ANONYMOUS as u64 != 0 {
        return Ok(None);
    }
    let error = Error::from_raw_os_error;
    let fd = fd as u32 as i32;
    if super::descriptors::is_hidden(fd as u64) {
        return Err(error(libc::EBADF));
    }
    let opened = call::checked(libc::SYS_fcntl, &[fd as u64, libc::F_GETFL as u64, 0, 0, 0, 0])? as i32;
    if opened & libc::O_PATH != 0 {
        return Err(error(libc::EBADF));
    }
    if opened & libc::O_ACCMODE == libc::O_WRONLY {
        return Err(error(libc::EACCES));
    }
    let link = format!("/proc/self/fd/{fd}");
    let metadata = std::fs::metadata(&link).map_err(|_| error(libc::EBADF))?;
    let kind = metadata.file_type();
    if kind.is_char_device() && metadata.rdev() == libc::makedev(1, 5) {
        // /dev/zero
        return Ok(None);
    }
    if !kind.is_file() && !kind.is_block_device() {
        return Err(error(libc::ENODEV));
    }
    let device = metadata.dev();
    let file = FileIdentity {
        name: String::from_utf8_lossy(std::fs::read_link(&link)?.as_os_str().as_bytes()).into(),
        device: (libc::major(device), libc::minor(device)),
        inode: metadata.ino(),
    };
    let is_writable = opened & libc::O_ACCMODE == libc::O_RDWR;
    Ok(Some(FileSource { fd, offset, file, bytes: kind.is_file().then_some(metadata.len()), is_writable }))
}

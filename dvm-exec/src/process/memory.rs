//! The program's memory at the root: the map's decisions carried out on the view, on every host and on contents.
//!
//! Owns the order in which effects happen and who may be in the middle of a memory call. Must not decide what a call
//! changes; that is [`super::vma`].
//!
//! Locks: `operation` is held by threads of the program for a whole call and may wait for pages and members; `map` is
//! held for looking and changing only, never while program memory is touched, so service threads may take it.

use super::agent::Agent;
use super::say;
use super::service::{self, Member};
use super::vma::{
    AddressSpace, Area, Change, Effect, FileIdentity, FileSource, Lookup, MapRequest, PAGE_BYTES, Protection, RemapRequest,
};
use crate::exit::Failure;
use crate::sys::{call, mapping};
use dsm_wire::{PageNumber, PageRange};
use std::io::Error;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use uffd_dsm::{Access, Copied, View, ViewError};

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
}

/// A view of the space in this process, its faults served by the agent.
pub struct ViewMemory {
    view: View,
}

/// Maps the view and prepares it to be handed over: returns it and a hidden duplicate of its userfaultfd, which must stay
/// open as long as the program runs.
///
/// # Errors
/// What the pager refused, with the fix.
pub fn map_view(space: &OwnedFd, device: &OwnedFd) -> Result<(ViewMemory, OwnedFd), Failure> {
    let view = View::map(space.as_fd(), Some(device.as_fd())).map_err(|error| Failure::Unsupported(format!("{error}")))?;
    let number = view.userfaultfd().as_raw_fd();
    let hidden = super::descriptors::duplicate_hidden(number)
        .ok_or_else(|| Failure::Internal("the userfaultfd cannot be duplicated".to_owned()))?;
    // The view lives as long as the process and no longer uses its own descriptor, which the program would see.
    mapping::close_raw(number);
    Ok((ViewMemory { view }, hidden))
}

impl ViewMemory {
    /// Gives pages these rights in this process.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn protect(&self, range: &Range<u64>, protection: i32) -> Result<(), Error> {
        self.view.protect(pages(range), Access::from_bits(protection)).map_err(of_view)
    }
}

fn pages(range: &Range<u64>) -> PageRange {
    PageRange::new(PageNumber::containing(range.start), (range.end - range.start).div_ceil(PAGE_BYTES))
}

fn of_view(error: ViewError) -> Error {
    match error {
        ViewError::Refused { errno, .. } => Error::from_raw_os_error(errno as i32),
        other => Error::other(other.to_string()),
    }
}

/// The program's memory at the root of a job on several hosts.
pub struct JobMemory {
    view: ViewMemory,
    agent: Arc<Agent>,
    members: Arc<OnceLock<Vec<Arc<Member>>>>,
}

impl JobMemory {
    /// The memory behind `view`; `members` are filled in once they are connected.
    pub fn new(view: ViewMemory, agent: Arc<Agent>, members: Arc<OnceLock<Vec<Arc<Member>>>>) -> Self {
        Self { view, agent, members }
    }
}

impl Memory for JobMemory {
    fn protect(&self, range: &Range<u64>, protection: i32) -> Result<(), Error> {
        self.view.protect(range, protection)
    }

    fn protect_elsewhere(&self, range: &Range<u64>, protection: i32) -> Result<(), Error> {
        let members = self.members.get().map_or(&[][..], Vec::as_slice);
        service::protect_everywhere(members, range, Protection::from_bits(protection as u64));
        Ok(())
    }

    fn discard(&self, range: &Range<u64>) -> Result<(), Error> {
        self.agent.discard(range.start, range.end - range.start).map_err(Error::other)
    }
}

/// The memory of a forked child: its own, filled from the program's as it is touched.
struct CopiedMemory(Copied);

impl Memory for CopiedMemory {
    fn protect(&self, range: &Range<u64>, protection: i32) -> Result<(), Error> {
        self.0.protect(pages(range), Access::from_bits(protection)).map_err(of_view)
    }

    fn protect_elsewhere(&self, _range: &Range<u64>, _protection: i32) -> Result<(), Error> {
        Ok(())
    }

    fn discard(&self, range: &Range<u64>) -> Result<(), Error> {
        self.0.forget(pages(range)).map_err(of_view)
    }
}

/// The program's address space at the root.
pub struct Space {
    memory: Box<dyn Memory>,
    /// In a forked child, what it has instead.
    copied: OnceLock<CopiedMemory>,
    operation: Mutex<()>,
    map: Mutex<AddressSpace>,
}

impl Space {
    /// An empty space on `memory`.
    pub fn new(memory: Box<dyn Memory>) -> Self {
        Self { memory, copied: OnceLock::new(), operation: Mutex::new(()), map: Mutex::new(AddressSpace::new()) }
    }

    /// The map, for a short look.
    pub fn map(&self) -> MutexGuard<'_, AddressSpace> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets no memory call begin or be under way until the guards are dropped, so that a forked child finds the map whole.
    pub fn freeze(&self) -> (MutexGuard<'_, ()>, MutexGuard<'_, AddressSpace>) {
        let operation = self.operation.lock().unwrap_or_else(PoisonError::into_inner);
        (operation, self.map())
    }

    /// In a forked child: its memory is `copied` from now on, with the areas and rights of the map.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn become_copy(&self, copied: Copied) -> Result<(), Error> {
        let CopiedMemory(copied) = self.copied.get_or_init(|| CopiedMemory(copied));
        let map = self.map();
        // The parent itself cannot read what has no rights.
        let mut readable = map.areas().filter(|area| area.protection != Protection::NONE);
        readable
            .try_for_each(|area| copied.inherit(pages(&area.range), Access::from_bits(area.protection.bits())).map_err(of_view))
    }

    fn memory(&self) -> &dyn Memory {
        match self.copied.get() {
            Some(copied) => copied,
            None => &*self.memory,
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

    /// A memory call of the program: `number` is one of the class Memory.
    pub fn call(&self, number: i64, arguments: &[u64; 6]) -> i64 {
        let [first, second, third, fourth, fifth, sixth] = *arguments;
        let source = if number == libc::SYS_mmap { file_source(fourth, fifth, sixth) } else { Ok(None) };
        let file = match source {
            Ok(file) => file,
            Err(error) => return -i64::from(error.raw_os_error().unwrap_or(libc::EBADF)),
        };
        let _operation = self.operation.lock().unwrap_or_else(PoisonError::into_inner);
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
                let result = self.map().covered(first, second);
                Change { result, effects: Vec::new() }
            }
        };
        if let Err(super::vma::MapError::Refused(reason)) = change.result {
            say::refused(super::calls::name(number as u64), reason);
        }
        self.carry_out(change)
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
            Effect::ReadFile { range, fd, offset } => read_file(range, *fd, *offset),
            Effect::Copy { from, to, bytes } => copy(*from, *to, *bytes),
        }
    }
}

fn read_file(range: &Range<u64>, fd: i32, offset: u64) -> Result<(), Error> {
    let mut done = 0;
    while range.start + done < range.end {
        let bytes = (range.end - range.start - done).min(READ_BYTES_MAX);
        let read = call::checked(libc::SYS_pread64, &[fd as u64, range.start + done, bytes, offset + done, 0, 0])?;
        if read == 0 {
            break;
        }
        done += read;
    }
    Ok(())
}

fn copy(from: u64, to: u64, bytes: u64) -> Result<(), Error> {
    let mut page = [0_u8; 4096];
    let mut done = 0;
    while done < bytes {
        let part = &mut page[..(bytes - done).min(4096) as usize];
        let bad = |_| Error::from_raw_os_error(libc::EFAULT);
        crate::sys::user::read(from + done, part).map_err(bad)?;
        if part.iter().any(|byte| *byte != 0) {
            crate::sys::user::write(to + done, part).map_err(bad)?;
        }
        done += part.len() as u64;
    }
    Ok(())
}

/// The file behind descriptor `fd` of an mmap with these flags.
fn file_source(flags: u64, fd: u64, offset: u64) -> Result<Option<FileSource>, Error> {
    if flags & libc::MAP_ANONYMOUS as u64 != 0 {
        return Ok(None);
    }
    let fd = fd as u32 as i32;
    if super::descriptors::is_hidden(fd as u64) {
        return Err(Error::from_raw_os_error(libc::EBADF));
    }
    let link = format!("/proc/self/fd/{fd}");
    let metadata = std::fs::metadata(&link).map_err(|_| Error::from_raw_os_error(libc::EBADF))?;
    let path = std::fs::read_link(&link)?;
    let device = std::os::unix::fs::MetadataExt::dev(&metadata);
    let file = FileIdentity {
        name: String::from_utf8_lossy(path.as_os_str().as_bytes()).into(),
        device: (libc::major(device), libc::minor(device)),
        inode: std::os::unix::fs::MetadataExt::ino(&metadata),
    };
    Ok(Some(FileSource { fd, offset, file }))
}

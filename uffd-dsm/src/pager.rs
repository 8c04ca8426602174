//! Page operations on one space of one host: install, protect, read, take, drop.
//!
//! Owns the memfd, the userfaultfd of the attached view, and the order of the two in each operation. Decides nothing: the
//! protocol says which operation a page needs, and the pager makes it true for every case the kernel can be in. Never
//! touches a mapping, so it can never wait for a page.
//!
//! The memfd is the truth. A hole is a page of zeros; a page with bytes may be mapped or not; whether it may be written is
//! the view's write protection. Each operation returns after it has taken effect in every thread of the executor.
//!
//! ```text
//!                install            protect
//!   hole ----------------> mapped, writable ----> mapped, read-only
//!    ^   install (shared)             ^                 |  |
//!    |------------------------------- | ----------------+  |
//!    |   take, drop_pages             +--- unprotect ------+
//!    +---- poison ----> SIGBUS ---- install, drop_pages ---->
//! ```

mod sourced;

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use dsm_wire::{PAGE_BYTES, PageNumber, PageRange};
use nix::errno::Errno;

use crate::backing::Backing;
use crate::census::Census;
use crate::content::{PageBytes, ZERO_PAGE, is_zero_page};
use crate::error::PagerError;
use crate::fault::{Drained, Fault, MESSAGE_BYTES, decode};
use crate::layout::{is_inside, whole_space};
use crate::limits::{
    BUSY_RETRIES_MAX, FAULTS_PER_DRAIN_MAX, INSTALL_PAGES_MAX, MESSAGES_PER_READ_MAX, POISONED_PAGES_MAX, REPLACE_RETRIES_MAX,
};
use crate::ranged::{Step, Walk};
use crate::source::Sources;
use crate::sys::Uffd;

/// The pager of one space: all page operations, in the one thread that owns the space.
///
/// Works without a view too (a host that only keeps pages): then pages live in the memfd alone, and a view attached later
/// finds them. Every operation may fail with [`PagerError::ViewGone`]; after [`Pager::detach_view`] it works again.
#[derive(Debug)]
pub struct Pager {
    backing: Backing,
    uffd: Option<Uffd>,
    zero_install: ZeroInstall,
    staging: Box<[u8]>,
    poisoned: BTreeSet<PageNumber>,
    census: Census,
    sources: Sources,
    stats: PagerStats,
}

/// The bytes of one page to install.
#[derive(Clone, Copy, Debug)]
pub enum PageSource<'a> {
    /// All zero.
    Zero,
    /// These bytes.
    Bytes(&'a PageBytes),
}

/// What [`Pager::refresh`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refreshed {
    /// The bytes were there and are mapped now.
    Mapped,
    /// The page was mapped; its protection was set and who waited was woken.
    Woken,
    /// The page was a hole and is a mapped page of zeros now.
    Filled,
    /// No view watches the page.
    Unwatched,
}

/// How pages of zeros are installed; they differ in cost only (`docs/measurements.md`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroInstall {
    /// One ZEROPAGE ioctl for the range.
    #[default]
    ZeroPage,
    /// `fallocate`, then one CONTINUE ioctl for the range.
    AllocateContinue,
    /// `fallocate`, then WAKE: the kernel maps each page when it is touched. Only for a view that does not watch minor faults.
    AllocateWake,
    /// COPY from a page of zeros, page by page.
    Copy,
}

/// Counters since the pager was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PagerStats {
    /// Faults handed up, duplicates included.
    pub faults: u64,
    /// Messages of the kernel that are not faults; none is asked for.
    pub foreign_events: u64,
    /// Pages installed as zeros.
    pub zero_pages: u64,
    /// Pages installed with bytes.
    pub copied_pages: u64,
    /// Pages of an install that had bytes already.
    pub present_pages: u64,
    /// Pages of an install that no view watches.
    pub unwatched_pages: u64,
    /// Pages taken or read out.
    pub read_pages: u64,
    /// Pages read from the files behind them.
    pub source_pages: u64,
    /// Holes that the protocol believed mapped and that were filled with zeros.
    pub refreshed_holes: u64,
    /// Poisoned pages above the limit, which can not be healed.
    pub poisoned_for_good: u64,
}

impl Pager {
    /// A pager of `backing`, without a view.
    #[must_use]
    pub fn new(backing: Backing) -> Self {
        Self {
            backing,
            uffd: None,
            zero_install: ZeroInstall::default(),
            staging: vec![0; INSTALL_PAGES_MAX * PAGE_BYTES].into_boxed_slice(),
            poisoned: BTreeSet::new(),
            census: Census::default(),
            sources: Sources::default(),
            stats: PagerStats::default(),
        }
    }

    /// Chooses how pages of zeros are installed.
    #[must_use]
    pub const fn with_zero_install(mut self, zero_install: ZeroInstall) -> Self {
        self.zero_install = zero_install;
        self
    }

    /// Serves the view behind `userfaultfd` from now on. Threads that wait already fault again, so that a pager that takes
    /// over from a dead one hears of them.
    ///
    /// # Errors
    /// When a view is attached, or the descriptor is not a userfaultfd.
    pub fn attach_view(&mut self, userfaultfd: OwnedFd) -> Result<(), PagerError> {
        if self.uffd.is_some() {
            return Err(PagerError::ViewAttached);
        }
        // The descriptor comes from the executor, which is not trusted: an ioctl on anything else could do anything.
        let link = std::fs::read_link(format!("/proc/self/fd/{}", userfaultfd.as_raw_fd()));
        let found = link.map_or_else(|error| error.to_string(), |target| target.display().to_string());
        if found != "anon_inode:[userfaultfd]" {
            return Err(PagerError::NotUserfaultfd { found });
        }
        let uffd = Uffd::from_owned(userfaultfd);
        let space = whole_space();
        uffd.wake(space).map_err(|errno| PagerError::of("UFFDIO_WAKE", space.first, errno))?;
        self.uffd = Some(uffd);
        Ok(())
    }

    /// Lets the view go; pages stay in the memfd. Threads of a living executor that wait go on waiting, because the
    /// executor keeps its own duplicate.
    pub fn detach_view(&mut self) {
        self.uffd = None;
        self.poisoned.clear();
    }

    /// The descriptor that becomes readable when a thread faults; `None` without a view.
    #[must_use]
    pub fn fault_fd(&self) -> Option<BorrowedFd<'_>> {
        self.uffd.as_ref().map(Uffd::as_fd)
    }

    /// The memfd.
    #[must_use]
    pub const fn backing(&self) -> &Backing {
        &self.backing
    }

    /// Pages that take memory: counted as they come and go, and by the kernel now and then.
    ///
    /// # Errors
    /// When the kernel refuses `fstat`.
    pub fn resident(&mut self) -> Result<u64, PagerError> {
        self.census.resident(&self.backing)
    }

    /// Counters since the pager was made.
    #[must_use]
    pub const fn stats(&self) -> PagerStats {
        self.stats
    }

    /// Appends the waiting faults to `faults`. Never blocks. The same page may come several times, also from one thread.
    ///
    /// # Errors
    /// When the kernel refuses the read.
    pub fn drain_faults(&mut self, faults: &mut Vec<Fault>) -> Result<Drained, PagerError> {
        let Some(uffd) = &self.uffd else { return Ok(Drained::Empty) };
        let mut messages = [[0; MESSAGE_BYTES]; MESSAGES_PER_READ_MAX];
        for _ in 0..FAULTS_PER_DRAIN_MAX / MESSAGES_PER_READ_MAX {
            let count = match uffd.read_messages(&mut messages) {
                Ok(count) => count,
                Err(Errno::EAGAIN) => return Ok(Drained::Empty),
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(PagerError::of("read(userfaultfd)", PageNumber(0), errno)),
            };
            for message in &messages[..count] {
                match decode(message) {
                    Some(fault) => {
                        self.stats.faults += 1;
                        faults.push(fault);
                    }
                    None => self.stats.foreign_events += 1,
                }
            }
            // A short read means the queue was empty at that moment; what comes later makes the descriptor readable again.
            if count < MESSAGES_PER_READ_MAX {
                return Ok(Drained::Empty);
            }
        }
        Ok(Drained::More)
    }

    /// Makes the holes of `range` writable pages of zeros and wakes who waits. A page that has bytes keeps them and becomes
    /// writable.
    ///
    /// # Errors
    /// [`PagerError::Busy`] with the pages done, or any refusal of the kernel.
    pub fn install_zero(&mut self, range: PageRange) -> Result<(), PagerError> {
        check_inside(range)?;
        self.stats.zero_pages += range.count;
        let Some(uffd) = &self.uffd else { return Ok(()) };
        let count = self.census.begin();
        let mut fresh = range.count;
        match self.zero_install {
            ZeroInstall::ZeroPage | ZeroInstall::Copy => {}
            ZeroInstall::AllocateContinue => self.backing.allocate(range)?,
            ZeroInstall::AllocateWake => {
                self.backing.allocate(range)?;
                return uffd.wake(range).map_err(|errno| PagerError::of("UFFDIO_WAKE", range.first, errno));
            }
        }
        let mut walk = Walk::new("zero install", range);
        while let Some(part) = walk.part() {
            let result = match self.zero_install {
                ZeroInstall::ZeroPage => uffd.zeropage(part),
                ZeroInstall::AllocateContinue => uffd.map_present(part, false),
                ZeroInstall::Copy | ZeroInstall::AllocateWake => uffd.copy(part.first, &ZERO_PAGE, false),
            };
            match walk.advance(result)? {
                Step::Go => {}
                Step::Present(page) => {
                    self.stats.present_pages += 1;
                    fresh -= 1;
                    map_again(uffd, page, true)?;
                }
                Step::Unmapped(_) => {
                    self.stats.unwatched_pages += 1;
                    fresh -= 1;
                }
            }
        }
        if self.zero_install != ZeroInstall::AllocateContinue {
            self.census.add(count, fresh);
        }
        self.forget_poison(range);
        Ok(())
    }

    /// Gives the pages from `first` on these bytes, writable or read-only, and wakes who waits. Bytes a page has are replaced.
    ///
    /// # Errors
    /// [`PagerError::TooManyPages`] above [`INSTALL_PAGES_MAX`]; [`PagerError::Busy`] with the pages done, which must not be
    /// installed again; or any refusal of the kernel.
    pub fn install(&mut self, first: PageNumber, sources: &[PageSource<'_>], writable: bool) -> Result<(), PagerError> {
        let range = PageRange::new(first, sources.len() as u64);
        check_inside(range)?;
        if sources.len() > INSTALL_PAGES_MAX {
            return Err(PagerError::TooManyPages { count: sources.len(), max: INSTALL_PAGES_MAX });
        }
        let count = self.census.begin();
        let Some(uffd) = &self.uffd else { return self.install_unwatched(range, sources) };
        let mut irregular = 0;
        let bytes: &[u8] = match sources {
            [PageSource::Zero] => &ZERO_PAGE,
            [PageSource::Bytes(bytes)] => *bytes,
            _ => stage(&mut self.staging, sources),
        };
        let mut walk = Walk::new("UFFDIO_COPY", range);
        while let Some(part) = walk.part() {
            let at = (part.first.0 - first.0) as usize * PAGE_BYTES;
            let result = uffd.copy(part.first, &bytes[at..at + part.count as usize * PAGE_BYTES], !writable);
            match walk.advance(result)? {
                Step::Go => {}
                Step::Present(page) => {
                    self.stats.present_pages += 1;
                    irregular += 1;
                    replace(&self.backing, uffd, page, page_of(bytes, page.0 - first.0), writable)?;
                }
                Step::Unmapped(page) => {
                    self.stats.unwatched_pages += 1;
                    irregular += 1;
                    self.backing.write(page, page_of(bytes, page.0 - first.0))?;
                }
            }
        }
        if irregular == 0 {
            self.census.add(count, range.count);
        }
        self.stats.copied_pages += range.count;
        self.forget_poison(range);
        Ok(())
    }

    /// Allows writes to `page` and wakes who waits.
    ///
    /// # Errors
    /// Any refusal of the kernel.
    pub fn unprotect(&mut self, page: PageNumber) -> Result<(), PagerError> {
        self.unprotect_run(one(page)?)
    }

    /// [`Pager::unprotect`] for a run of pages, in one call.
    ///
    /// # Errors
    /// Any refusal of the kernel; then some pages of the run may be writable.
    pub fn unprotect_run(&mut self, range: PageRange) -> Result<(), PagerError> {
        check_inside(range)?;
        let Some(uffd) = &self.uffd else { return Ok(()) };
        settle("UFFDIO_WRITEPROTECT", range.first, || uffd.unprotect(range))
    }

    /// Forbids writes to `page`. When it returns no store, system call or device emulation of the executor changes the page.
    ///
    /// # Errors
    /// Any refusal of the kernel.
    pub fn protect(&mut self, page: PageNumber) -> Result<(), PagerError> {
        self.protect_run(one(page)?)
    }

    /// [`Pager::protect`] for a run of pages, in one call: the processors that run the executor are interrupted once.
    ///
    /// # Errors
    /// Any refusal of the kernel; then some pages of the run may be protected.
    pub fn protect_run(&mut self, range: PageRange) -> Result<(), PagerError> {
        if !is_inside(range) {
            return Err(PagerError::outside(range));
        }
        self.load(range)?;
        let Some(uffd) = &self.uffd else { return Ok(()) };
        settle("UFFDIO_WRITEPROTECT", range.first, || uffd.protect(range))
    }

    /// Forbids writes to every page that has bytes, in as many calls as there are runs of them. When it returns no thread of the
    /// executor changes one.
    ///
    /// # Errors
    /// Any refusal of the kernel; then some pages may be protected.
    pub fn protect_all(&mut self) -> Result<(), PagerError> {
        let Some(uffd) = &self.uffd else { return Ok(()) };
        let mut from = PageNumber(0);
        while let Some(run) = self.backing.next_run(from)? {
            settle("UFFDIO_WRITEPROTECT", run.first, || uffd.protect(run))?;
            from = run.end();
        }
        Ok(())
    }

    /// Copies the bytes of `page` out and says whether all are zero. Protect the page first, or its bytes may be torn.
    ///
    /// # Errors
    /// Any refusal of the kernel.
    pub fn read(&mut self, page: PageNumber, bytes: &mut PageBytes) -> Result<bool, PagerError> {
        self.load(one(page)?)?;
        self.backing.read(page, bytes)?;
        self.stats.read_pages += 1;
        Ok(is_zero_page(bytes))
    }

    /// Takes `page` away: its last bytes are in `bytes`, and it is a hole. Says whether all bytes are zero.
    ///
    /// Wakes nobody: a thread that waits for the page goes on waiting until the next install.
    ///
    /// # Errors
    /// Any refusal of the kernel; then the page may be protected, but has its bytes.
    pub fn take(&mut self, page: PageNumber, bytes: &mut PageBytes) -> Result<bool, PagerError> {
        self.protect(page)?;
        let is_zero = self.read(page, bytes)?;
        let count = self.census.begin();
        self.backing.punch(PageRange::new(page, 1))?;
        self.census.remove_one(count);
        Ok(is_zero)
    }

    /// Makes `range` a hole; bytes in it are lost. Takes a range of any size; costs what its pages cost.
    ///
    /// # Errors
    /// Any refusal of the kernel.
    pub fn drop_pages(&mut self, range: PageRange) -> Result<(), PagerError> {
        check_inside(range)?;
        let count = self.census.begin();
        self.backing.punch(range)?;
        // One that has a source may be a hole.
        if range.count == 1 && self.sources.end_of(range.first).is_none() {
            self.census.remove_one(count);
        }
        // Emptying a page leaves the poison in the page table; only a fill takes it away.
        let poisoned: Vec<_> = self.poisoned.range(range.first..range.end()).copied().collect();
        for page in poisoned {
            self.install(page, &[PageSource::Zero], false)?;
            self.backing.punch(PageRange::new(page, 1))?;
        }
        Ok(())
    }

    /// Answers a fault on a page that is believed to be there: maps it again, sets its protection, or only wakes.
    ///
    /// # Errors
    /// [`PagerError::Busy`], or any refusal of the kernel.
    pub fn refresh(&mut self, page: PageNumber, writable: bool) -> Result<Refreshed, PagerError> {
        self.read_source(one(page)?)?;
        let Some(uffd) = &self.uffd else { return Ok(Refreshed::Unwatched) };
        let refreshed = map_again(uffd, page, writable)?;
        self.poisoned.remove(&page);
        if refreshed == Refreshed::Filled {
            self.stats.refreshed_holes += 1;
            self.census.begin();
        }
        Ok(refreshed)
    }

    /// Makes every touch of `page` a SIGBUS, because its bytes are lost; wakes who waits. Undone by an install or a drop.
    ///
    /// # Errors
    /// [`PagerError::PoisonUnsupported`] before linux 6.6, or any refusal of the kernel.
    pub fn poison(&mut self, page: PageNumber) -> Result<(), PagerError> {
        let range = one(page)?;
        self.census.begin();
        for _ in 0..REPLACE_RETRIES_MAX {
            self.backing.punch(range)?;
            let Some(uffd) = &self.uffd else { return Ok(()) };
            match uffd.poison(range) {
                Ok(()) => {
                    if self.poisoned.len() < POISONED_PAGES_MAX {
                        self.poisoned.insert(page);
                    } else {
                        self.stats.poisoned_for_good += 1;
                    }
                    return Ok(());
                }
                // Poisoned already, or filled since.
                Err(Errno::EEXIST) if self.poisoned.contains(&page) => {
                    return settle("UFFDIO_WAKE", page, || uffd.wake(range));
                }
                Err(Errno::EEXIST | Errno::EAGAIN) => {}
                Err(Errno::ENOENT) => return Ok(()),
                Err(Errno::EINVAL | Errno::ENOTTY) => return Err(PagerError::PoisonUnsupported { page }),
                Err(errno) => return Err(PagerError::of("UFFDIO_POISON", page, errno)),
            }
        }
        Err(PagerError::Contended { page, times: REPLACE_RETRIES_MAX })
    }

    fn install_unwatched(&mut self, range: PageRange, sources: &[PageSource<'_>]) -> Result<(), PagerError> {
        for (page, source) in range.pages().zip(sources) {
            match source {
                PageSource::Zero => self.backing.punch(PageRange::new(page, 1))?,
                PageSource::Bytes(bytes) => self.backing.write(page, bytes)?,
            }
        }
        self.stats.copied_pages += range.count;
        Ok(())
    }

    /// Forgets that pages of `range` were poisoned: they have been filled, which took the poison away.
    fn forget_poison(&mut self, range: PageRange) {
        while let Some(page) = self.poisoned.range(range.first..range.end()).next().copied() {
            self.poisoned.remove(&page);
        }
    }
}

fn check_inside(range: PageRange) -> Result<(), PagerError> {
    if is_inside(range) { Ok(()) } else { Err(PagerError::outside(range)) }
}

fn one(page: PageNumber) -> Result<PageRange, PagerError> {
    let range = PageRange::new(page, 1);
    check_inside(range).map(|()| range)
}

fn page_of(bytes: &[u8], index: u64) -> &PageBytes {
    &bytes.as_chunks::<PAGE_BYTES>().0[index as usize]
}

/// Puts `sources` side by side, so that one ranged call installs them.
fn stage<'a>(staging: &'a mut [u8], sources: &[PageSource<'_>]) -> &'a [u8] {
    let (slots, _) = staging.as_chunks_mut::<PAGE_BYTES>();
    for (slot, source) in slots.iter_mut().zip(sources) {
        match source {
            PageSource::Zero => slot.fill(0),
            PageSource::Bytes(bytes) => slot.copy_from_slice(*bytes),
        }
    }
    &staging[..sources.len() * PAGE_BYTES]
}

/// Repeats a call on one page while the kernel is busy; a page outside every mapping needs nothing.
fn settle(operation: &'static str, page: PageNumber, call: impl Fn() -> Result<(), Errno>) -> Result<(), PagerError> {
    for _ in 0..BUSY_RETRIES_MAX {
        match call() {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(PagerError::of(operation, page, errno)),
        }
    }
    Err(PagerError::Busy { page, done: 0 })
}

/// Empties `page` and fills it with `bytes`: what it has is stale.
fn replace(backing: &Backing, uffd: &Uffd, page: PageNumber, bytes: &PageBytes, writable: bool) -> Result<(), PagerError> {
    let range = PageRange::new(page, 1);
    for _ in 0..REPLACE_RETRIES_MAX {
        backing.punch(range)?;
        match uffd.copy(page, bytes, !writable) {
            Ok(_) => return Ok(()),
            Err(Errno::EEXIST | Errno::EAGAIN) => {}
            Err(errno) => return Err(PagerError::of("UFFDIO_COPY", page, errno)),
        }
    }
    Err(PagerError::Contended { page, times: REPLACE_RETRIES_MAX })
}

/// Maps `page` with the bytes it has (zeros for a hole) and the protection asked for, and wakes who waits.
fn map_again(uffd: &Uffd, page: PageNumber, writable: bool) -> Result<Refreshed, PagerError> {
    let range = PageRange::new(page, 1);
    for _ in 0..BUSY_RETRIES_MAX {
        match uffd.map_present(range, !writable) {
            Ok(_) => return Ok(Refreshed::Mapped),
            Err(Errno::EEXIST) if writable => {
                return settle("UFFDIO_WRITEPROTECT", page, || uffd.unprotect(range)).map(|()| Refreshed::Woken);
            }
            Err(Errno::EEXIST) => {
                settle("UFFDIO_WRITEPROTECT", page, || uffd.protect(range))?;
                return settle("UFFDIO_WAKE", page, || uffd.wake(range)).map(|()| Refreshed::Woken);
            }
            Err(Errno::EFAULT) => match uffd.copy(page, &ZERO_PAGE, !writable) {
                Ok(_) => return Ok(Refreshed::Filled),
                Err(Errno::EEXIST | Errno::EAGAIN) => {}
                Err(errno) => return Err(PagerError::of("UFFDIO_COPY", page, errno)),
            },
            Err(Errno::ENOENT) => {
                return settle("UFFDIO_WAKE", page, || uffd.wake(range)).map(|()| Refreshed::Unwatched);
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(PagerError::of("UFFDIO_CONTINUE", page, errno)),
        }
    }
    Err(PagerError::Busy { page, done: 0 })
}

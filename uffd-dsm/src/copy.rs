//! A forked child's copy of a space: page by page, as the child touches them, or whole before it runs.
//!
//! Owns the child's private mapping ([`Copied`], [`Own`]) and the side that fills it from its own memory ([`CopyFaults`]). Must
//! not know hosts, nor when the copying ends.
//!
//! A fork cannot share the view: the userfaultfd does not watch a child, and stores of a child are not the parent's. The child
//! maps the space anew, without a file, and sends the userfaultfd of that mapping to its parent, which answers each fault with
//! the page it sees at the same address: its own fault for that page is the protocol's. Or the parent fills all there is
//! ([`CopyFaults::fill`]); then nobody watches the mapping any more, and the child keeps it as its own ([`Copied::keep`]).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dsm_wire::{PAGE_BYTES, PageNumber, PageRange};
use nix::errno::Errno;

use crate::fault::{MESSAGE_BYTES, decode};
use crate::layout::{is_inside, whole_space};
use crate::limits::MESSAGES_PER_READ_MAX;
use crate::sys::{Mapping, Uffd, Watching};
use crate::view::{Access, ViewError};

/// There are no bytes behind the mapping that are not mapped.
const WATCHING: Watching = Watching { minor: false };

/// The space as a forked child has it: empty and inaccessible at first.
#[derive(Debug)]
pub struct Copied {
    mapping: Mapping,
    uffd: Uffd,
}

/// The space of a child that was given all there is: an ordinary private mapping, where absent pages are zero.
#[derive(Debug)]
pub struct Own {
    mapping: Mapping,
}

/// The faults of a child, at its parent.
#[derive(Debug)]
pub struct CopyFaults {
    uffd: Uffd,
}

/// Why a child's page was not filled.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The child is gone, or has another program now.
    #[error("the child has no copy any more")]
    Gone,
    /// The parent no longer has the page.
    #[error("the memory at {address:#x} was unmapped in the parent after the fork")]
    Unmapped {
        /// Of the page.
        address: u64,
    },
    /// The page cannot be copied as long as it may change.
    #[error("the page at {address:#x} cannot be kept as it is: {reason}")]
    Moving {
        /// Of the page.
        address: u64,
        /// Why.
        reason: String,
    },
    /// The kernel refused.
    #[error("copying a page into the child failed ({errno})")]
    Refused {
        /// What it said.
        #[source]
        errno: Errno,
    },
}

impl Copied {
    /// Maps the space in a freshly forked child whose parent had a view, by an open `/dev/userfaultfd` if one is given.
    /// `settle` may move the userfaultfd to the number it shall keep.
    ///
    /// # Errors
    /// As [`View::map`](crate::View::map).
    pub fn map(
        device: Option<BorrowedFd<'_>>,
        settle: impl FnOnce(OwnedFd) -> std::io::Result<OwnedFd>,
    ) -> Result<Self, ViewError> {
        let uffd = match device {
            Some(device) => Uffd::from_device(device),
            None => Uffd::from_system_call(),
        }
        .map_err(|errno| ViewError::UserfaultfdRefused { errno })?;
        let uffd = Uffd::from_owned(settle(uffd.into_owned()).map_err(|error| ViewError::UserfaultfdRefused {
            errno: Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EMFILE as i32)),
        })?);
        uffd.enable(WATCHING).map_err(|errno| ViewError::FeaturesMissing { errno })?;
        let mapping = Mapping::anonymous(whole_space()).map_err(|errno| match errno {
            Errno::EEXIST => ViewError::AddressesTaken,
            _ => ViewError::Refused { operation: "mmap", errno, fix: "raise the address space limit (ulimit -v)" },
        })?;
        Ok(Self { mapping, uffd })
    }

    /// From now on absent pages of `range` are asked of the parent, and this process may access them so; elsewhere they are
    /// zero.
    ///
    /// # Errors
    /// When the range leaves the space, or the kernel has no room for one more split of the mapping.
    pub fn inherit(&self, range: PageRange, access: Access) -> Result<(), ViewError> {
        check_inside(range)?;
        self.uffd.register(range, WATCHING).map_err(|errno| ViewError::Refused {
            operation: "userfaultfd registration",
            errno,
            fix: "raise vm.max_map_count",
        })?;
        self.protect(range, access)
    }

    /// Everything was filled: absent pages are zero from now on, once the parent's userfaultfd is closed, too.
    #[must_use]
    pub fn keep(self) -> Own {
        Own { mapping: self.mapping }
    }

    /// The userfaultfd, for [`CopyFaults::new`] in the parent.
    #[must_use]
    pub fn userfaultfd(&self) -> BorrowedFd<'_> {
        self.uffd.as_fd()
    }

    /// Changes what this process may do with `range`.
    ///
    /// # Errors
    /// As [`View::protect`](crate::View::protect).
    pub fn protect(&self, range: PageRange, access: Access) -> Result<(), ViewError> {
        check_inside(range)?;
        let refused = |errno| ViewError::Refused { operation: "mprotect", errno, fix: "raise vm.max_map_count" };
        self.mapping.protect(range, access.bits()).map_err(refused)
    }

    /// Makes `range` zero, and this process's own: the parent is not asked for it any more.
    ///
    /// # Errors
    /// When the range leaves the space, or the kernel refuses.
    pub fn forget(&self, range: PageRange) -> Result<(), ViewError> {
        check_inside(range)?;
        let refused = |operation| move |errno| ViewError::Refused { operation, errno, fix: "raise vm.max_map_count" };
        self.uffd.unregister(range).map_err(refused("userfaultfd deregistration"))?;
        self.mapping.forget(range).map_err(refused("madvise"))
    }

    /// Reads the word at `address`; waits for its page like any load of the program.
    ///
    /// # Panics
    /// When `address` is not a multiple of 8 inside the space.
    pub fn load(&self, address: u64) -> u64 {
        self.mapping.load(address)
    }

    /// Writes the word at `address`; waits for its page like any store of the program.
    ///
    /// # Panics
    /// When `address` is not a multiple of 8 inside the space.
    pub fn store(&self, address: u64, value: u64) {
        self.mapping.store(address, value);
    }
}

impl Own {
    /// Changes what this process may do with `range`.
    ///
    /// # Errors
    /// As [`View::protect`](crate::View::protect).
    pub fn protect(&self, range: PageRange, access: Access) -> Result<(), ViewError> {
        check_inside(range)?;
        let refused = |errno| ViewError::Refused { operation: "mprotect", errno, fix: "raise vm.max_map_count" };
        self.mapping.protect(range, access.bits()).map_err(refused)
    }

    /// Makes `range` zero.
    ///
    /// # Errors
    /// When the range leaves the space, or the kernel refuses.
    pub fn forget(&self, range: PageRange) -> Result<(), ViewError> {
        check_inside(range)?;
        let refused = |errno| ViewError::Refused { operation: "madvise", errno, fix: "report it" };
        self.mapping.forget(range).map_err(refused)
    }

    /// Reads the word at `address`.
    ///
    /// # Panics
    /// When `address` is not a multiple of 8 inside the space.
    pub fn load(&self, address: u64) -> u64 {
        self.mapping.load(address)
    }
}

impl CopyFaults {
    /// The faults that `userfaultfd`, of a child's [`Copied`], reports.
    #[must_use]
    pub const fn new(userfaultfd: OwnedFd) -> Self {
        Self { uffd: Uffd::from_owned(userfaultfd) }
    }

    /// Readable when the child waits for a page.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.uffd.as_fd()
    }

    /// Fills the pages the child waits for with what the calling process has there; waits for pages that are elsewhere. `keep` is called
    /// before each, to keep it as it is from then on.
    ///
    /// # Errors
    /// [`CopyError`]; the child waits for ever then, and must be killed.
    pub fn serve(&self, mut keep: impl FnMut(PageNumber) -> Result<(), String>) -> Result<(), CopyError> {
        let mut messages = [[0; MESSAGE_BYTES]; MESSAGES_PER_READ_MAX];
        let count = match self.uffd.read_messages(&mut messages) {
            Ok(count) => count,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(()),
            Err(errno) => return Err(CopyError::Refused { errno }),
        };
        for fault in messages[..count].iter().filter_map(decode) {
            keep(fault.page).map_err(|reason| CopyError::Moving { address: fault.page.address(), reason })?;
            match self.uffd.copy_own(fault.page) {
                Ok(()) => {}
                // Filled for an earlier fault on the page, or the mapping is changing: the child looks again.
                Err(Errno::EEXIST | Errno::EAGAIN) => self.wake(PageRange::new(fault.page, 1))?,
                Err(Errno::ESRCH | Errno::ENOENT) => return Err(CopyError::Gone),
                Err(Errno::EFAULT) => return Err(CopyError::Unmapped { address: fault.page.address() }),
                Err(errno) => return Err(CopyError::Refused { errno }),
            }
        }
        Ok(())
    }

    /// Fills `page`, which the child may touch, with what the calling process has there. Nothing happens if it has it, or no use for it.
    ///
    /// # Errors
    /// [`CopyError::Gone`].
    pub fn give_own(&self, page: PageNumber) -> Result<(), CopyError> {
        match self.uffd.copy_own(page) {
            Err(Errno::ESRCH) => Err(CopyError::Gone),
            // What it turns out to need it will wait for.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Fills absent pages from `first` on with `bytes`, for a child that does not touch them yet.
    ///
    /// # Errors
    /// [`CopyError::Gone`] and [`CopyError::Refused`].
    ///
    /// # Panics
    /// When `bytes` are not whole pages.
    pub fn fill(&self, first: PageNumber, bytes: &[u8]) -> Result<(), CopyError> {
        let mut done = 0;
        while done < bytes.len() {
            let at = first.offset((done / PAGE_BYTES) as u64);
            match self.uffd.copy(at, &bytes[done..], false) {
                Ok(pages) => done += pages as usize * PAGE_BYTES,
                // The mapping is changing.
                Err(Errno::EAGAIN) => {}
                Err(Errno::ESRCH | Errno::ENOENT) => return Err(CopyError::Gone),
                Err(errno) => return Err(CopyError::Refused { errno }),
            }
        }
        Ok(())
    }

    fn wake(&self, range: PageRange) -> Result<(), CopyError> {
        self.uffd.wake(range).map_err(|errno| CopyError::Refused { errno })
    }
}

fn check_inside(range: PageRange) -> Result<(), ViewError> {
    if is_inside(range) { Ok(()) } else { Err(ViewError::OutsideSpace { first: range.first, count: range.count }) }
}

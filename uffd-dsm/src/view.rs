//! The executor's watched mapping of a space, and the userfaultfd that watches it.
//!
//! Owns the address range `[SPACE_FIRST_ADDRESS, SPACE_BYTES)` of this process and its native protections. Must not know
//! who answers the faults, and never changes a page's bytes except through ordinary loads and stores.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use dsm_wire::{PageNumber, PageRange};
use nix::errno::Errno;
use nix::sys::mman::ProtFlags;

use crate::layout::{SPACE_BYTES, SPACE_FIRST_ADDRESS, is_inside, whole_space};
use crate::sys::{Mapping, Uffd, Watching};

/// A space mapped into this process: inaccessible at first, every fault reported to who holds the userfaultfd.
///
/// One mapping and one registration cover the whole space. [`View::protect`] splits the mapping inside the kernel, and the
/// registration stays. Children of this process do not inherit the mapping, and core dumps leave it out.
///
/// Keep the view (it holds a duplicate of its userfaultfd) as long as a thread may touch the space: when the last duplicate
/// closes, threads that wait for a page go on with a page of zeros.
#[derive(Debug)]
pub struct View {
    // Dropped first: no userfaultfd without its mapping, but threads must not run on in an unwatched one.
    mapping: Mapping,
    uffd: Uffd,
}

/// What this process may do with pages, as in `mprotect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(ProtFlags);

/// Which faults a view reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Watch {
    /// Absent pages, writes to protected pages, and bytes that are there but not mapped. What a coherent space needs.
    #[default]
    MissingWriteMinor,
    /// Without the last: the kernel maps bytes that are there by itself. For measurements.
    MissingWrite,
}

/// Why a view could not be made or changed.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// No right to a userfaultfd that also reports faults of system calls.
    #[error("userfaultfd refused ({errno}): open /dev/userfaultfd as root and pass it on, or set vm.unprivileged_userfaultfd=1")]
    UserfaultfdRefused {
        /// What the kernel said.
        #[source]
        errno: Errno,
    },
    /// The kernel is too old.
    #[error("this kernel's userfaultfd lacks shared-memory write protection or minor faults ({errno}): use linux 5.19 or newer")]
    FeaturesMissing {
        /// What the kernel said.
        #[source]
        errno: Errno,
    },
    /// Something is mapped inside the space already.
    #[error(
        "addresses {SPACE_FIRST_ADDRESS:#x} to {SPACE_BYTES:#x} are not free in this process: link it position-independent \
         and run it with a finite stack limit"
    )]
    AddressesTaken,
    /// The mapping was refused.
    #[error("{operation} of the view failed ({errno}): {fix}")]
    Refused {
        /// The operation, by its kernel name.
        operation: &'static str,
        /// What the kernel said.
        #[source]
        errno: Errno,
        /// What to do.
        fix: &'static str,
    },
    /// The range leaves the space, or is empty.
    #[error("{count} pages from {first} are not inside the space")]
    OutsideSpace {
        /// First page of the range.
        first: PageNumber,
        /// Pages of the range.
        count: u64,
    },
}

impl Access {
    /// No access at all.
    pub const NONE: Self = Self(ProtFlags::PROT_NONE);
    /// Loads only.
    pub const READ: Self = Self(ProtFlags::PROT_READ);
    /// Loads and stores.
    pub const READ_WRITE: Self = Self(ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE));

    /// The access that `bits` (the third argument of `mprotect`) ask for; unknown bits are dropped.
    #[must_use]
    pub const fn from_bits(bits: i32) -> Self {
        let known = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE).union(ProtFlags::PROT_EXEC);
        Self(ProtFlags::from_bits_truncate(bits).intersection(known))
    }

    pub(crate) const fn bits(self) -> ProtFlags {
        self.0
    }
}

impl View {
    /// Maps the space of `memfd` and watches it, by an open `/dev/userfaultfd` if one is given, else by system call.
    ///
    /// Must run in the process that will touch the space, after its last `execve`.
    ///
    /// # Errors
    /// When there is no right to a userfaultfd, the kernel is too old, or the addresses are not free.
    pub fn map(memfd: BorrowedFd<'_>, device: Option<BorrowedFd<'_>>) -> Result<Self, ViewError> {
        Self::map_watched(memfd, device, Watch::default())
    }

    /// As [`View::map`], with a choice of the faults reported.
    ///
    /// # Errors
    /// As [`View::map`].
    pub fn map_watched(memfd: BorrowedFd<'_>, device: Option<BorrowedFd<'_>>, watch: Watch) -> Result<Self, ViewError> {
        let watching = Watching { minor: watch == Watch::MissingWriteMinor };
        let uffd = match device {
            Some(device) => Uffd::from_device(device),
            None => Uffd::from_system_call(),
        }
        .map_err(|errno| ViewError::UserfaultfdRefused { errno })?;
        uffd.enable(watching).map_err(|errno| ViewError::FeaturesMissing { errno })?;
        let mapping = Mapping::fixed(memfd, whole_space()).map_err(|errno| match errno {
            Errno::EEXIST => ViewError::AddressesTaken,
            _ => ViewError::Refused { operation: "mmap", errno, fix: "raise the address space limit (ulimit -v)" },
        })?;
        mapping.keep_private().map_err(|errno| ViewError::Refused { operation: "madvise", errno, fix: "report it" })?;
        uffd.register(mapping.range(), watching).map_err(|errno| ViewError::Refused {
            operation: "userfaultfd registration",
            errno,
            fix: "pass the memfd open for reading and writing",
        })?;
        Ok(Self { mapping, uffd })
    }

    /// The userfaultfd, to hand to the agent (`SCM_RIGHTS`) and give to [`Pager::attach_view`](crate::Pager::attach_view).
    #[must_use]
    pub fn userfaultfd(&self) -> BorrowedFd<'_> {
        self.uffd.as_fd()
    }

    /// Changes what this process may do with `range`: the program's own `mprotect`, independent of the page protocol.
    ///
    /// # Errors
    /// When the range leaves the space, or the kernel has no room for one more split of the mapping.
    pub fn protect(&self, range: PageRange, access: Access) -> Result<(), ViewError> {
        if !is_inside(range) {
            return Err(ViewError::OutsideSpace { first: range.first, count: range.count });
        }
        self.mapping.protect(range, access.0).map_err(|errno| ViewError::Refused {
            operation: "mprotect",
            errno,
            fix: "raise vm.max_map_count",
        })
    }

    /// Reads the word at `address`; waits for its page like any load of the program. SIGSEGV where access forbids it.
    ///
    /// # Panics
    /// When `address` is not a multiple of 8 inside the space.
    pub fn load(&self, address: u64) -> u64 {
        self.mapping.load(address)
    }

    /// Writes the word at `address`; waits for its page like any store of the program. SIGSEGV where access forbids it.
    ///
    /// # Panics
    /// When `address` is not a multiple of 8 inside the space.
    pub fn store(&self, address: u64, value: u64) {
        self.mapping.store(address, value);
    }
}

/// Opens `/dev/userfaultfd`, for passing on to processes that may not.
///
/// # Errors
/// When it is missing or not permitted.
pub fn open_userfaultfd_device() -> std::io::Result<File> {
    File::options().read(true).write(true).open("/dev/userfaultfd")
}

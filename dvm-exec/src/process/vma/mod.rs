//! The root's map of the program's address space: what is mapped, with which rights, and what each memory call changes.
//!
//! Owns areas, the allocator and the rules of mmap, munmap, mprotect, mremap, brk and madvise. Must not touch memory:
//! it answers with a list of [`Effect`]s, to be carried out in order before the call returns to the program.
//!
//! Invariants, kept by effects: a page of a hole is PROT_NONE on every host and reads as zero once mapped; the rights a
//! member host gives a page are never more than the map's; rights are lost by acknowledged broadcast only.

use std::ops::Range;
use std::sync::Arc;
use thiserror::Error;

mod advice;
mod areas;
mod place;
mod space;
#[cfg(test)]
mod tests;
mod text;

pub use space::AddressSpace;

/// Bytes of a page.
pub const PAGE_BYTES: u64 = 4096;
/// Bytes of an extent, the unit in which homes are given out.
pub const EXTENT_BYTES: u64 = 2 << 20;
/// First address of the space.
pub const SPACE_START: u64 = 0x1_0000;
/// End of the space.
pub const SPACE_END: u64 = 0x5000_0000_0000;
/// Where the kernel's choices start: blocks smaller than an extent.
pub const ARENA_START: u64 = 0x1000_0000_0000;
/// Blocks of an extent and more, and thread stacks; each has its extents for itself.
pub const ARENA_LARGE_START: u64 = 0x1100_0000_0000;
/// Blocks that were moved to grow, each with room to grow again.
pub const ARENA_GROWN_START: u64 = 0x2800_0000_0000;
/// Where pages can have a file as their source.
pub const ARENA_SOURCED_START: u64 = dvm_api::SOURCED_START;
/// File mappings from this size on are read by page, not at once.
pub const SOURCED_BYTES_MIN: u64 = 1 << 20;
/// Areas a program may have, as `vm.max_map_count`.
pub const AREAS_MAX: usize = 65_530;

/// Rights of a program on pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Protection(u8);

impl Protection {
    /// No access.
    pub const NONE: Self = Self(0);
    /// PROT_READ.
    pub const READ: Self = Self(1);
    /// PROT_WRITE.
    pub const WRITE: Self = Self(2);
    /// PROT_EXEC.
    pub const EXECUTE: Self = Self(4);
    /// PROT_READ and PROT_WRITE.
    pub const READ_WRITE: Self = Self(3);

    /// From PROT_* bits; others are dropped.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        Self((bits & 7) as u8)
    }

    /// As PROT_* bits.
    #[must_use]
    pub const fn bits(self) -> i32 {
        self.0 as i32
    }

    /// All rights of both.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether an access may go on that faulted with this error code. As on x86, whatever may be written or executed may be read.
    #[must_use]
    pub const fn allows(self, error: u64) -> bool {
        const WRITE: u64 = 2;
        const EXECUTE: u64 = 16;
        match error {
            error if error & WRITE != 0 => self.contains(Self::WRITE),
            error if error & EXECUTE != 0 => self.contains(Self::EXECUTE),
            _ => self.0 != 0,
        }
    }

    /// Whether all of `other`'s rights are among these.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A file behind a mapping, as `/proc/self/maps` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// Its path.
    pub name: Arc<str>,
    /// Major and minor number of its device.
    pub device: (u32, u32),
    /// Its inode.
    pub inode: u64,
}

/// What an area is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AreaKind {
    /// MAP_ANONYMOUS, private or shared: one process, so only madvise and `maps` tell them apart.
    Anonymous {
        /// MAP_SHARED.
        shared: bool,
    },
    /// A file's bytes, as they are when they are read: all at once when it was mapped, or by page.
    File {
        /// Which file.
        file: FileIdentity,
        /// Offset of the area's first byte.
        offset: u64,
        /// MAP_SHARED, read-only: a snapshot.
        shared: bool,
        /// Where in the file no page of the area has a byte of it any more: a multiple of a page.
        end: u64,
    },
    /// The first thread's stack.
    Stack,
    /// brk.
    Heap,
}

/// A run of pages of one kind and one protection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    /// Addresses.
    pub range: Range<u64>,
    /// Rights.
    pub protection: Protection,
    /// What it is.
    pub kind: AreaKind,
}

/// What the caller must do, in order, before the call returns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Give these pages this protection at the root. Members ask when they fault.
    Protect {
        /// Pages.
        range: Range<u64>,
        /// Exactly these rights.
        protection: Protection,
    },
    /// Give these pages this protection on every host, acknowledged, before going on; only for pages of which a member
    /// may have rights, because it has looked them up.
    ProtectDown {
        /// Pages.
        range: Range<u64>,
        /// Exactly these rights at the root; at most these on members.
        protection: Protection,
    },
    /// Forget the contents on all hosts; the pages read as zero afterwards.
    Discard {
        /// Pages.
        range: Range<u64>,
    },
    /// As [`Effect::Discard`], for pages with a source: they have the bytes of their file afterwards.
    Reload {
        /// Pages.
        range: Range<u64>,
    },
    /// The file's bytes from `offset` on are what these pages hold at first, which were discarded or never used, and lie where
    /// pages can have a source. The caller may read them in instead, and say so by [`AddressSpace::note_copied`].
    Source {
        /// Pages.
        range: Range<u64>,
        /// The program's descriptor.
        fd: i32,
        /// Offset of the first byte.
        offset: u64,
    },
    /// Read the file into these pages, from `offset`; what is beyond its end stays zero. They are writable at the root now.
    ReadFile {
        /// Pages.
        range: Range<u64>,
        /// The program's descriptor.
        fd: i32,
        /// Offset of the first byte.
        offset: u64,
    },
    /// As [`Effect::ReadFile`] by the file's name, over what the pages hold; what is beyond its end becomes zero. The contents
    /// stay if no such file is found there any more.
    ReadAgain {
        /// Pages.
        range: Range<u64>,
        /// Which file.
        file: FileIdentity,
        /// Offset of the first byte.
        offset: u64,
    },
    /// Copy contents at the root; `from` is readable and `to` writable there now.
    Copy {
        /// First byte of the old place.
        from: u64,
        /// First byte of the new place.
        to: u64,
        /// How many.
        bytes: u64,
    },
}

/// Why a memory call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MapError {
    /// EINVAL.
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
    /// ENOMEM.
    #[error("no memory: {0}")]
    NoMemory(&'static str),
    /// EEXIST.
    #[error("something is mapped there already")]
    Exists,
    /// EACCES.
    #[error("access denied: {0}")]
    Access(&'static str),
    /// EPERM.
    #[error("not permitted: {0}")]
    NotPermitted(&'static str),
    /// EFAULT.
    #[error("bad address: {0}")]
    BadAddress(&'static str),
    /// ENODEV, to be named on the job's stderr.
    #[error("refused: {0}")]
    Refused(&'static str),
    /// EOPNOTSUPP.
    #[error("not supported: {0}")]
    NotSupported(&'static str),
}

impl MapError {
    /// The errno Linux gives.
    #[must_use]
    pub fn errno(self) -> i32 {
        match self {
            Self::Invalid(_) => libc::EINVAL,
            Self::NoMemory(_) => libc::ENOMEM,
            Self::Exists => libc::EEXIST,
            Self::Access(_) => libc::EACCES,
            Self::NotPermitted(_) => libc::EPERM,
            Self::BadAddress(_) => libc::EFAULT,
            Self::Refused(_) => libc::ENODEV,
            Self::NotSupported(_) => libc::EOPNOTSUPP,
        }
    }
}

/// What came of a call: its result, and effects to carry out even if it failed half-way, as Linux does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Change {
    /// The call's result.
    pub result: Result<u64, MapError>,
    /// To be done in order.
    pub effects: Vec<Effect>,
}

impl Change {
    /// The number a system call returns.
    #[must_use]
    pub fn return_value(&self) -> i64 {
        match self.result {
            Ok(value) => value as i64,
            Err(error) => -i64::from(error.errno()),
        }
    }
}

impl Area {
    /// The pages that can be touched at all: those of a file mapping beyond its end cannot.
    #[must_use]
    pub fn reach(&self) -> Range<u64> {
        let bytes = match self.kind {
            AreaKind::File { offset, end, .. } => end.saturating_sub(offset),
            AreaKind::Anonymous { .. } | AreaKind::Stack | AreaKind::Heap => u64::MAX,
        };
        self.range.start..self.range.end.min(self.range.start.saturating_add(bytes))
    }
}

/// A file given to mmap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSource {
    /// The program's descriptor.
    pub fd: i32,
    /// Offset.
    pub offset: u64,
    /// What it is.
    pub file: FileIdentity,
    /// Its size, if it has one: a regular file.
    pub bytes: Option<u64>,
    /// Whether the descriptor may write it.
    pub is_writable: bool,
}

/// mmap's arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapRequest {
    /// `addr`.
    pub address: u64,
    /// `length`.
    pub bytes: u64,
    /// `prot`, as given.
    pub protection: u64,
    /// `flags`, as given.
    pub flags: u64,
    /// The file; `None` exactly with MAP_ANONYMOUS.
    pub file: Option<FileSource>,
}

/// mremap's arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemapRequest {
    /// `old_address`.
    pub old_address: u64,
    /// `old_size`.
    pub old_bytes: u64,
    /// `new_size`.
    pub new_bytes: u64,
    /// `flags`.
    pub flags: u64,
    /// `new_address`.
    pub new_address: u64,
}

/// What a member needs to know about an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The whole area, or the whole hole, in which the address lies.
    pub range: Range<u64>,
    /// Its rights; NONE for a hole and beyond a file's end.
    pub protection: Protection,
    /// What it is.
    pub found: Found,
}

/// What is at an address, as far as it matters for the signal of a thread that may not touch it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing: SEGV_MAPERR.
    Hole,
    /// An area that does not allow it: SEGV_ACCERR.
    Area,
    /// A file mapping, beyond the file's end: SIGBUS.
    BeyondFile,
}

//! The bytes of a space on this host: one sparse memfd whose file offset is the address.
//!
//! Owns the memfd and reads, writes and empties pages in it by system calls. Must not know whether anybody maps it.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use dsm_wire::{PAGE_BYTES, PageNumber, PageRange};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, FcntlArg, SealFlag, fallocate, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::uio::{pread, pwrite};
use nix::unistd::{Whence, ftruncate, lseek};

use crate::content::PageBytes;
use crate::error::PagerError;
use crate::layout::SPACE_BYTES;

const STAT_BLOCK_BYTES: u64 = 512;

/// The sparse memfd of a space. A hole is a page of zeros that takes no memory.
#[derive(Debug)]
pub struct Backing {
    memfd: File,
}

impl Backing {
    /// Makes an empty memfd of the size of a space; `name` shows in `/proc/<pid>/maps`.
    ///
    /// # Errors
    /// When the kernel refuses the memfd or its size (a file size limit, for one).
    pub fn create(name: &str) -> Result<Self, PagerError> {
        let memfd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)
            .map_err(|errno| PagerError::Backing { operation: "memfd_create", errno })?;
        ftruncate(&memfd, SPACE_BYTES as i64).map_err(|errno| PagerError::Backing { operation: "ftruncate", errno })?;
        // The executor holds this memfd too: it must not be able to cut it under the agent.
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&memfd, FcntlArg::F_ADD_SEALS(seals))
            .map_err(|errno| PagerError::Backing { operation: "fcntl(F_ADD_SEALS)", errno })?;
        Ok(Self { memfd: memfd.into() })
    }

    /// Takes over a memfd made by [`Backing::create`] in another process.
    ///
    /// # Errors
    /// When its size is not that of a space.
    pub fn from_fd(memfd: OwnedFd) -> Result<Self, PagerError> {
        let memfd = File::from(memfd);
        let bytes = Self::metadata(&memfd)?.len();
        if bytes != SPACE_BYTES {
            return Err(PagerError::BackingSize { bytes, expected: SPACE_BYTES });
        }
        Ok(Self { memfd })
    }

    /// Memory the space takes on this host now, in bytes.
    ///
    /// # Errors
    /// When the kernel refuses `fstat`.
    pub fn resident_bytes(&self) -> Result<u64, PagerError> {
        Ok(Self::metadata(&self.memfd)?.blocks() * STAT_BLOCK_BYTES)
    }

    /// Copies the bytes of `page` out; a hole reads as zeros.
    pub(crate) fn read(&self, page: PageNumber, bytes: &mut PageBytes) -> Result<(), PagerError> {
        match pread(&self.memfd, bytes, page.address() as i64) {
            Ok(PAGE_BYTES) => Ok(()),
            Ok(_) => Err(PagerError::of("pread", page, Errno::EIO)),
            Err(errno) => Err(PagerError::of("pread", page, errno)),
        }
    }

    /// Copies `bytes` into the page at `page`, making it if it is a hole.
    pub(crate) fn write(&self, page: PageNumber, bytes: &PageBytes) -> Result<(), PagerError> {
        match pwrite(&self.memfd, bytes, page.address() as i64) {
            Ok(PAGE_BYTES) => Ok(()),
            Ok(_) => Err(PagerError::of("pwrite", page, Errno::ENOSPC)),
            Err(errno) => Err(PagerError::of("pwrite", page, errno)),
        }
    }

    /// Whether `page` is no hole.
    pub(crate) fn is_present(&self, page: PageNumber) -> Result<bool, PagerError> {
        match lseek(&self.memfd, page.address() as i64, Whence::SeekData) {
            Ok(offset) => Ok(offset as u64 == page.address()),
            Err(Errno::ENXIO) => Ok(false),
            Err(errno) => Err(PagerError::of("lseek(SEEK_DATA)", page, errno)),
        }
    }

    /// The first run of pages from `from` on that are no holes.
    pub(crate) fn next_run(&self, from: PageNumber) -> Result<Option<PageRange>, PagerError> {
        let failed = |operation, errno| PagerError::of(operation, from, errno);
        let start = match lseek(&self.memfd, from.address() as i64, Whence::SeekData) {
            Ok(offset) => PageNumber::containing(offset as u64),
            Err(Errno::ENXIO) => return Ok(None),
            Err(errno) => return Err(failed("lseek(SEEK_DATA)", errno)),
        };
        let end =
            lseek(&self.memfd, start.address() as i64, Whence::SeekHole).map_err(|errno| failed("lseek(SEEK_HOLE)", errno))?;
        Ok(Some(PageRange::new(start, end as u64 / PAGE_BYTES as u64 - start.0)))
    }

    /// Makes `range` a hole: frees its pages and takes them out of every mapping before it returns.
    pub(crate) fn punch(&self, range: PageRange) -> Result<(), PagerError> {
        self.fallocate(range, FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE)
            .map_err(|errno| PagerError::of("fallocate(punch hole)", range.first, errno))
    }

    /// Gives the holes of `range` pages of zeros.
    pub(crate) fn allocate(&self, range: PageRange) -> Result<(), PagerError> {
        self.fallocate(range, FallocateFlags::empty()).map_err(|errno| PagerError::of("fallocate", range.first, errno))
    }

    fn fallocate(&self, range: PageRange, flags: FallocateFlags) -> Result<(), Errno> {
        let bytes = range.count * PAGE_BYTES as u64;
        loop {
            match fallocate(&self.memfd, flags, range.first.address() as i64, bytes as i64) {
                Err(Errno::EINTR) => {}
                other => return other,
            }
        }
    }

    fn metadata(memfd: &File) -> Result<std::fs::Metadata, PagerError> {
        memfd.metadata().map_err(|error| PagerError::Backing {
            operation: "fstat",
            errno: Errno::from_raw(error.raw_os_error().unwrap_or(0)),
        })
    }
}

impl AsFd for Backing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.memfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_read_write_punch() {
        let backing = Backing::create("backing-test").unwrap();
        let page = PageNumber(0x4_fff0_0000);
        let mut bytes = [1; PAGE_BYTES];
        backing.read(page, &mut bytes).unwrap();
        assert_eq!(bytes, [0; PAGE_BYTES]);
        assert_eq!(backing.resident_bytes().unwrap(), 0, "reading a hole takes no memory");
        backing.write(page, &[7; PAGE_BYTES]).unwrap();
        backing.read(page, &mut bytes).unwrap();
        assert_eq!((bytes, backing.resident_bytes().unwrap()), ([7; PAGE_BYTES], PAGE_BYTES as u64));
        backing.punch(crate::whole_space()).unwrap();
        assert_eq!(backing.resident_bytes().unwrap(), 0);
    }

    #[test]
    fn foreign_memfd_is_refused() {
        let other = memfd_create("other", MFdFlags::MFD_CLOEXEC).unwrap();
        assert!(matches!(Backing::from_fd(other), Err(PagerError::BackingSize { bytes: 0, .. })));
        let mine = Backing::create("mine").unwrap();
        assert!(Backing::from_fd(mine.as_fd().try_clone_to_owned().unwrap()).is_ok());
    }
}

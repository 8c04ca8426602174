//! The memory of a forked child: filled from its parent's as it is touched, or its own.
//!
//! Owns how memory calls are carried out there. Must not ask other hosts, nor its parent.

use super::memory::{Memory, of_view, pages};
use super::vma::Area;
use std::io::Error;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use uffd_dsm::{Access, Copied, Own};

/// Filled from the program's as it is touched.
pub struct CopiedMemory(Copied);

impl CopiedMemory {
    /// Without any area.
    pub const fn new(copied: Copied) -> Self {
        Self(copied)
    }

    /// Has an area of the parent's.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn inherit(&self, area: &Area) -> Result<(), Error> {
        inherit(&self.0, area)
    }
}

/// Lets `copied` have an area of the parent's, with its rights as far as its file reaches.
///
/// # Errors
/// The kernel's error.
pub fn inherit(copied: &Copied, area: &Area) -> Result<(), Error> {
    let reach = area.reach();
    if reach.is_empty() {
        return Ok(());
    }
    copied.inherit(pages(&reach), Access::from_bits(area.protection.bits())).map_err(of_view)
}

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

    fn reload(&self, _range: &Range<u64>) -> Result<(), Error> {
        // The parent's pages may have changed since; a child on its way to a program of its own has no use for this.
        Err(Error::from_raw_os_error(libc::ENOSYS))
    }

    fn source(&self, _range: &Range<u64>, _fd: i32, _offset: u64) -> bool {
        false
    }

    fn contents(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn is_home(&self) -> bool {
        true
    }
}

/// All of it is the child's own.
pub struct OwnMemory(Own);

impl OwnMemory {
    /// That of `own`.
    pub const fn new(own: Own) -> Self {
        Self(own)
    }
}

impl Memory for OwnMemory {
    fn protect(&self, range: &Range<u64>, protection: i32) -> Result<(), Error> {
        self.0.protect(pages(range), Access::from_bits(protection)).map_err(of_view)
    }

    fn protect_elsewhere(&self, _range: &Range<u64>, _protection: i32) -> Result<(), Error> {
        Ok(())
    }

    fn discard(&self, range: &Range<u64>) -> Result<(), Error> {
        self.0.forget(pages(range)).map_err(of_view)
    }

    fn reload(&self, _range: &Range<u64>) -> Result<(), Error> {
        // No page has a source here.
        Err(Error::from_raw_os_error(libc::ENOSYS))
    }

    fn source(&self, _range: &Range<u64>, _fd: i32, _offset: u64) -> bool {
        false
    }

    fn contents(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn is_home(&self) -> bool {
        true
    }
}

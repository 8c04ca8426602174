//! Anonymous memory whose address does not move: what the kernel reads from and writes to.
//!
//! Owns mapping and unmapping. Must not know what lies inside.
#![expect(unsafe_code, reason = "mmap and munmap")]

use std::io;
use std::ptr::{self, NonNull};

/// Zeroed, page-aligned memory, populated on use.
pub(crate) struct Region {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the region is plain memory that nothing else knows of; it is tied to no thread.
unsafe impl Send for Region {}

impl Region {
    /// Maps `bytes` bytes, at least one.
    pub(crate) fn new(bytes: usize) -> io::Result<Region> {
        let bytes = bytes.max(1);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no existing memory.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Region { start, bytes })
    }

    /// Address of byte `offset`.
    ///
    /// # Panics
    /// When `length` bytes from `offset` are not all inside.
    pub(crate) fn at(&self, offset: usize, length: usize) -> *mut u8 {
        assert!(offset.checked_add(length).is_some_and(|end| end <= self.bytes), "inside the region");
        // SAFETY: offset is inside the mapping, just checked.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// Gives the memory up without unmapping it, because the kernel may still write to it.
    pub(crate) fn leak(&mut self) {
        self.bytes = 0;
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.bytes != 0 {
            // SAFETY: start and bytes are those of our own mapping, and every borrow of it ended with self.
            unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
        }
    }
}

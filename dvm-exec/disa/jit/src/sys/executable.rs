//! Memory that can be executed and no longer be written.
//!
//! Owns the mapping. Must not know what is in it.

use std::io;
use std::ptr;

/// Machine code in a mapping of its own.
#[derive(Debug)]
pub struct Executable {
    start: *mut libc::c_void,
    bytes: usize,
}

// SAFETY: nobody writes to the mapping after it was made, and executing it is reading.
unsafe impl Send for Executable {}
// SAFETY: the same.
unsafe impl Sync for Executable {}

impl Executable {
    /// A copy of the code.
    ///
    /// # Errors
    /// The system has no memory, or refuses to make it executable.
    pub fn new(code: &[u8]) -> io::Result<Self> {
        let bytes = code.len().max(1);
        let (rights, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, rights, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let executable = Self { start, bytes };
        // SAFETY: the mapping is new, ours alone, writable, and as long as the code at least.
        unsafe { ptr::copy_nonoverlapping(code.as_ptr(), start.cast(), code.len()) };
        // SAFETY: the mapping is ours, and nothing writes to it from here on.
        if unsafe { libc::mprotect(start, bytes, libc::PROT_READ | libc::PROT_EXEC) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(executable)
    }

    /// Its first byte.
    pub const fn start(&self) -> *const u8 {
        self.start.cast_const().cast()
    }
}

impl Drop for Executable {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and whoever executes it borrows this.
        let result = unsafe { libc::munmap(self.start, self.bytes) };
        debug_assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }
}

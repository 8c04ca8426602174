//! The synthetic vdso: one ELF image, the same bytes at the same address on every host, that jumps through a table page
//! of the host into that host's real vdso, and adds the host's clock correction.
//!
//! Owns the image, the table's layout and the reading of the real vdso's symbols. Must not map anything.

use std::ops::Range;
use thiserror::Error;

/// Where the image is mapped, read and execute, host-local. Above the program's space and below any PIE of the husk.
pub const IMAGE_ADDRESS: u64 = 0x5000_1000_0000;
/// Bytes reserved for the image.
pub const IMAGE_BYTES: u64 = 0x2000;
/// Where the table page is mapped, read-only once written, host-local.
pub const TABLE_ADDRESS: u64 = IMAGE_ADDRESS + IMAGE_BYTES;
/// Bytes of the table page.
pub const TABLE_BYTES: u64 = 0x1000;

/// What the image calls and adds on this host.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Address of the host's `__vdso_clock_gettime`.
    pub clock_gettime: u64,
    /// Address of the host's `__vdso_gettimeofday`.
    pub gettimeofday: u64,
    /// Address of the host's `__vdso_time`.
    pub time: u64,
    /// Address of the host's `__vdso_clock_getres`.
    pub clock_getres: u64,
    /// Address of the host's `__vdso_getcpu`.
    pub getcpu: u64,
    /// 1 if a correction is to be added to clocks that count from the boot.
    pub correction_active: u64,
    /// Whole seconds of the correction, rounded down.
    pub correction_seconds: i64,
    /// The rest, 0..1_000_000_000.
    pub correction_nanoseconds: u64,
    /// First cluster-wide processor number of this host, added by getcpu.
    pub processor_first: u64,
}

/// Why the real vdso cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum VdsoError {
    /// Not an ELF image as the kernel maps it.
    #[error("the kernel's vdso is malformed: {0}")]
    Malformed(&'static str),
    /// A function is missing.
    #[error("the kernel's vdso lacks {0}")]
    Missing(&'static str),
}

impl Table {
    /// The table for a host whose vdso, with these bytes, is mapped at `address` (AT_SYSINFO_EHDR).
    ///
    /// # Errors
    /// [`VdsoError`]; then the program gets no AT_SYSINFO_EHDR.
    pub fn for_host(_vdso: &[u8], _address: u64) -> Result<Self, VdsoError> {
        todo!()
    }

    /// Lets clocks that count from the boot show `correction_ns` more than the host's own: on a member
    /// `-monotonic_offset_ns`, at the root 0.
    #[must_use]
    pub fn with_correction(self, _correction_ns: i64) -> Self {
        todo!()
    }

    /// The bytes to write at [`TABLE_ADDRESS`].
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        todo!()
    }
}

/// Whether the correction applies to this clock id (MONOTONIC, MONOTONIC_RAW, MONOTONIC_COARSE, BOOTTIME).
#[must_use]
pub fn is_corrected(clock: u64) -> bool {
    matches!(clock, 1 | 4 | 6 | 7)
}

/// The image to write at [`IMAGE_ADDRESS`]; the same on all hosts.
#[must_use]
pub fn image() -> Vec<u8> {
    todo!()
}

/// Finds the vdso in the text of `/proc/self/maps`.
#[must_use]
pub fn find_in_maps(_maps: &str) -> Option<Range<u64>> {
    todo!()
}

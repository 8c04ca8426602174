//! How many pages of a space take memory on this host.
//!
//! Owns the count between two of the kernel's. Must not know which pages they are.

use crate::backing::Backing;
use crate::error::PagerError;
use dsm_wire::PAGE_BYTES;

/// Changes after which the kernel is asked, though nothing was unclear: an executor that vanishes may leave less than was counted.
const CHANGES_MAX: u32 = 1024;

/// The count; unclear from each [`Census::begin`] until what began is counted.
#[derive(Debug, Default)]
pub(crate) struct Census {
    pages: u64,
    is_unclear: bool,
    changes: u32,
}

/// What was known before a change.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Before {
    is_unclear: bool,
}

impl Census {
    /// A change begins. What fails or takes another course than usual is never counted, and stays unclear.
    pub(crate) fn begin(&mut self) -> Before {
        self.changes += 1;
        Before { is_unclear: std::mem::replace(&mut self.is_unclear, true) }
    }

    /// The change has made `count` pages.
    pub(crate) fn add(&mut self, before: Before, count: u64) {
        self.pages += count;
        self.is_unclear = before.is_unclear;
    }

    /// The change has taken one page away.
    pub(crate) fn remove_one(&mut self, before: Before) {
        self.pages = self.pages.saturating_sub(1);
        self.is_unclear = before.is_unclear;
    }

    /// Pages that take memory now.
    pub(crate) fn resident(&mut self, backing: &Backing) -> Result<u64, PagerError> {
        if self.is_unclear || self.changes >= CHANGES_MAX {
            self.pages = backing.resident_bytes()? / PAGE_BYTES as u64;
            (self.is_unclear, self.changes) = (false, 0);
        }
        Ok(self.pages)
    }
}

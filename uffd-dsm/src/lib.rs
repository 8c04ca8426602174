//! The pager: the memory of one space on one host.
//!
//! Owns the memfd that holds a space's pages ([`Backing`]), the executor's watched mapping of it ([`View`]), and the
//! userfaultfd through which the agent hears of faults and installs, protects and takes pages ([`Pager`]). Must not know
//! who holds a page elsewhere, what a message is, or what time it is.
//!
//! The executor and the agent are usually two processes: the executor makes the `View` and hands its userfaultfd over; the
//! agent makes the `Pager` from the same memfd and attaches it. The agent never maps the memfd: it goes through `pread`,
//! `pwrite` and ioctls, so it can neither fault on a page it serves nor hold a reference to a shared page.
//!
//! Needs Linux 5.19 (shmem write-protect markers); [`Pager::poison`] needs 6.6.

mod backing;
mod census;
mod content;
mod copy;
mod deferred;
mod error;
mod fault;
mod layout;
pub mod limits;
mod pager;
mod pool;
mod ranged;
mod source;
mod sys;
mod view;

pub use backing::Backing;
pub use content::{PageBytes, is_zero_page};
pub use copy::{Copied, CopyError, CopyFaults, Own};
pub use deferred::Deferred;
pub use error::PagerError;
pub use fault::{Drained, Fault};
pub use layout::{SPACE_BYTES, SPACE_FIRST_ADDRESS, whole_space};
pub use pager::{PageSource, Pager, PagerStats, Refreshed, ZeroInstall};
pub use pool::{PageBuffer, PagePool};
pub use view::{Access, View, ViewError, Watch, open_userfaultfd_device};

//! The program's memory on several hosts: a view of the space, whose faults the agent serves.
//!
//! Owns how memory calls are carried out there, at the root by agent and members. Must not decide what a call changes.

use super::agent::Agent;
use super::limits;
use super::memory::{Memory, of_view, pages};
use super::service::{self, Member};
use super::vma::Protection;
use crate::exit::Failure;
use crate::sys::mapping;
use std::io::Error;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use uffd_dsm::{Access, View};

/// A view of the space in this process, its faults served by the agent.
pub struct ViewMemory {
    view: View,
}

/// Maps the view and prepares it to be handed over: returns it and a hidden duplicate of its userfaultfd, which must stay
/// open as long as the program runs.
///
/// # Errors
/// What the pager refused, with the fix.
pub fn map_view(space: &OwnedFd, device: &OwnedFd) -> Result<(ViewMemory, OwnedFd), Failure> {
    let view = View::map(space.as_fd(), Some(device.as_fd())).map_err(|error| Failure::Unsupported(format!("{error}")))?;
    let number = view.userfaultfd().as_raw_fd();
    let hidden = super::descriptors::duplicate_hidden(number)
        .ok_or_else(|| Failure::Internal("the userfaultfd cannot be duplicated".to_owned()))?;
    // The view lives as long as the process and no longer uses its own descriptor, which the program would see.
    mapping::close_raw(number);
    Ok((ViewMemory { view }, hidden))
}

impl ViewMemory {
    /// Gives pages these rights in this process.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn protect(&self, range: &Range<u64>, protection: i32) -> Result<(), Error> {
        self.view.protect(pages(range), Access::from_bits(protection)).map_err(of_view)
    }
}

/// The program's memory at the root of a job on several hosts.
pub struct JobMemory {
    view: ViewMemory,
    space: OwnedFd,
    agent: Arc<Agent>,
    members: Arc<OnceLock<Vec<Arc<Member>>>>,
}

impl JobMemory {
    /// The memory behind `view` of the file `space`; `members` are filled in once they are connected.
    pub fn new(view: ViewMemory, space: OwnedFd, agent: Arc<Agent>, members: Arc<OnceLock<Vec<Arc<Member>>>>) -> Self {
        Self { view, space, agent, members }
    }
}

impl Memory for JobMemory {
    fn protect(&self, range: &Range<u64>, protection: i32) -> Result<(), Error> {
        self.view.protect(range, protection)
    }

    fn protect_elsewhere(&self, range: &Range<u64>, protection: i32) -> Result<(), Error> {
        let members = self.members.get().map_or(&[][..], Vec::as_slice);
        service::protect_everywhere(members, range, Protection::from_bits(protection as u64));
        Ok(())
    }

    fn discard(&self, range: &Range<u64>) -> Result<(), Error> {
        self.agent.discard(range.start, range.end - range.start, false).map_err(Error::other)
    }

    fn reload(&self, range: &Range<u64>) -> Result<(), Error> {
        self.agent.discard(range.start, range.end - range.start, true).map_err(Error::other)
    }

    fn source(&self, range: &Range<u64>, fd: i32, offset: u64) -> bool {
        let _room = limits::room();
        // The program may close its own at any time.
        let Some(file) = super::descriptors::duplicate_hidden(fd) else { return false };
        let bytes = range.end - range.start;
        let source = || self.agent.source(range.start, bytes, file.as_fd(), offset).is_ok();
        // A fault that came too late for the pages' former use may have touched one.
        let is_sourced = source() || (self.discard(range).is_ok() && source());
        super::descriptors::reveal(&file);
        is_sourced
    }

    fn contents(&self) -> Option<BorrowedFd<'_>> {
        Some(self.space.as_fd())
    }

    fn is_home(&self) -> bool {
        self.agent.is_home()
    }

    fn pin(&self, addresses: &[u64]) -> Result<(), String> {
        self.agent.pin(addresses)
    }

    fn unpin(&self) {
        self.agent.unpin();
    }

    fn stop_writers(&self) -> Result<(), String> {
        self.agent.stop_writers()
    }

    fn let_write(&self) {
        self.agent.let_write();
    }
}

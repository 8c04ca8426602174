//! Carries out the protocol's page operations on the pager.
//!
//! Owns the page buffers and the operations the kernel put off. Must not know frames, peers or why a page moves.

use dsm_proto::{BufferId, Contents, Nanos, OpId, OpResult, PageContent, PageOp};
use dsm_wire::{PageNumber, PageRange};
use std::os::fd::{BorrowedFd, OwnedFd};
use uffd_dsm::limits::INSTALL_PAGES_MAX;
use uffd_dsm::{Deferred, Drained, Fault, PageBuffer, PageBytes, PagePool, PageSource, Pager, PagerError, PagerStats};

/// Buffers of one shard: 256 MiB of pages on their way.
const BUFFERS_MAX: u32 = 1 << 16;
/// Buffers kept back from arriving frames, so that an order to give pages up can always be carried out.
const BUFFERS_RESERVED: usize = 1 << 10;
/// Pause before an operation is tried again that the kernel (or a lack of buffers) put off, in nanoseconds.
const RETRY_NS: u64 = 50_000;

const _: () = assert!(BUFFERS_RESERVED < BUFFERS_MAX as usize);

/// Pager, buffers, and operations put off.
#[derive(Debug)]
pub(super) struct Pages {
    pager: Pager,
    pool: PagePool,
    deferred: Deferred<(OpId, PageOp)>,
    view_lost: bool,
}

impl Pages {
    pub(super) fn new(pager: Pager) -> Self {
        Self { pager, pool: PagePool::new(BUFFERS_MAX), deferred: Deferred::new(RETRY_NS), view_lost: false }
    }

    /// Serves the view behind `userfaultfd`.
    pub(super) fn attach_view(&mut self, userfaultfd: OwnedFd) -> Result<(), PagerError> {
        self.pager.attach_view(userfaultfd)
    }

    /// Pages of `range` come from `file` at first.
    pub(super) fn add_source(&mut self, range: PageRange, file: OwnedFd, offset: u64) -> Result<(), PagerError> {
        self.pager.add_source(range, file, offset)
    }

    /// They are zero at first again.
    pub(super) fn remove_source(&mut self, range: PageRange) {
        self.pager.remove_source(range);
    }

    /// Makes every page that is mapped read-only. Returns false if the kernel is busy; then some may be.
    pub(super) fn protect_all(&mut self) -> Result<bool, PagerError> {
        match self.pager.protect_all() {
            Ok(()) => Ok(true),
            Err(PagerError::Busy { .. }) => Ok(false),
            Err(PagerError::ViewGone) => {
                self.view_lost = true;
                self.pager.detach_view();
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn fault_fd(&self) -> Option<BorrowedFd<'_>> {
        self.pager.fault_fd()
    }

    /// Appends what waits on the userfaultfd.
    pub(super) fn drain_faults(&mut self, faults: &mut Vec<Fault>) -> Result<Drained, PagerError> {
        self.pager.drain_faults(faults)
    }

    pub(super) fn stats(&self) -> PagerStats {
        self.pager.stats()
    }

    /// Pages that take memory here.
    pub(super) fn resident(&mut self) -> Result<u64, PagerError> {
        self.pager.resident()
    }

    /// Buffers in use.
    pub(super) fn buffers_taken(&self) -> usize {
        self.pool.taken_count()
    }

    /// Whether the view's process has died since the last call.
    pub(super) fn take_view_lost(&mut self) -> bool {
        std::mem::take(&mut self.view_lost)
    }

    /// Copies arrived pages into buffers; `None` when buffers are short, and the frame must be dropped.
    pub(super) fn keep(&mut self, pages: &[PageBytes]) -> Option<Contents> {
        if self.pool.free_count() < BUFFERS_RESERVED + pages.len() {
            return None;
        }
        let mut contents = Contents::EMPTY;
        for page in pages {
            let buffer = self.pool.take()?;
            self.pool.bytes_mut(buffer).copy_from_slice(page);
            assert!(contents.push(PageContent::Buffer(BufferId(buffer.0))), "the wire carries at most 16 pages a frame");
        }
        Some(contents)
    }

    /// The bytes of a buffer.
    pub(super) fn bytes(&self, buffer: BufferId) -> &PageBytes {
        self.pool.bytes(PageBuffer(buffer.0))
    }

    /// Gives a buffer back.
    pub(super) fn free(&mut self, buffer: BufferId) {
        self.pool.give_back(PageBuffer(buffer.0));
    }

    /// When an operation put off is due.
    pub(super) fn due(&self) -> Option<Nanos> {
        self.deferred.due_ns().map(Nanos)
    }

    /// The next operation put off that is due.
    pub(super) fn retry(&mut self, now: Nanos) -> Option<(OpId, PageOp)> {
        self.deferred.retry(now.0)
    }

    /// Carries `op` out. `None`: put off, [`Pages::retry`] hands it out again.
    ///
    /// # Errors
    /// What the pager cannot do at all; the space is dead then.
    pub(super) fn execute(&mut self, now: Nanos, id: OpId, op: PageOp) -> Result<Option<OpResult>, PagerError> {
        match self.attempt(op) {
            Ok(Some(result)) => Ok(Some(result)),
            Ok(None) => self.put_off(now, id, op),
            Err(PagerError::Busy { done, .. }) => {
                let rest = self.rest_of(op, done);
                self.put_off(now, id, rest)
            }
            Err(PagerError::ViewGone) => {
                // The executor died: pages stay in the memfd for the other hosts until the job is ended.
                self.view_lost = true;
                self.pager.detach_view();
                self.execute(now, id, op)
            }
            Err(error) => Err(error),
        }
    }

    /// How many of the operations that `follow` continue `op`, so that one call carries all of them out: read-only installs, drops, or
    /// leaves to write, of pages that follow each other.
    pub(super) fn continued_by<'a>(op: &PageOp, follow: impl Iterator<Item = &'a PageOp>) -> usize {
        let first = op.range().first;
        let mut end = op.range().end();
        let continues = |next: &&PageOp| {
            let is_alike = matches!(
                (op, next),
                (PageOp::Install { writable: false, .. }, PageOp::Install { writable: false, .. })
                    | (PageOp::Drop { .. }, PageOp::Drop { .. })
                    | (PageOp::Unprotect { .. }, PageOp::Unprotect { .. })
            );
            let range = next.range();
            let fits = is_alike && range.first == end && range.end().0 - first.0 <= INSTALL_PAGES_MAX as u64;
            end = range.end();
            fits
        };
        follow.take_while(continues).count()
    }

    /// Carries `op` out with those that continue it (see [`Pages::continued_by`]) in one call. Returns false if the kernel is busy or
    /// the view is gone: then each is to be carried out alone. Some may be done by then, which does no harm: nobody can have written to
    /// a page installed read-only, and the rest may be done twice.
    ///
    /// # Errors
    /// What the pager cannot do at all.
    pub(super) fn operate_run<'a>(
        &mut self,
        op: &'a PageOp,
        follow: impl Iterator<Item = &'a PageOp> + Clone,
    ) -> Result<bool, PagerError> {
        let first = op.range().first;
        let count = std::iter::once(op).chain(follow.clone()).map(|part| part.range().count).sum();
        let range = PageRange::new(first, count);
        let done = match op {
            PageOp::Install { .. } => {
                let contents = std::iter::once(op).chain(follow).flat_map(|part| match part {
                    PageOp::Install { contents, .. } => contents.as_slice(),
                    _ => &[],
                });
                self.install(first, contents, false)
            }
            PageOp::Drop { .. } => self.pager.drop_pages(range),
            PageOp::Unprotect { .. } => self.pager.unprotect_run(range),
            _ => return Ok(false),
        };
        match done {
            Ok(()) => Ok(true),
            Err(PagerError::Busy { .. } | PagerError::ViewGone) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn put_off(&mut self, now: Nanos, id: OpId, op: PageOp) -> Result<Option<OpResult>, PagerError> {
        match self.deferred.push(now.0, (id, op)) {
            Ok(()) => Ok(None),
            Err((_, op)) => Err(PagerError::Busy { page: op.range().first, done: 0 }),
        }
    }

    /// One attempt; `Ok(None)` when buffers are short.
    fn attempt(&mut self, op: PageOp) -> Result<Option<OpResult>, PagerError> {
        match op {
            PageOp::InstallZero { range } => self.pager.install_zero(range)?,
            PageOp::Install { first, contents, writable } => self.install(first, contents.as_slice().iter(), writable)?,
            PageOp::Unprotect { page } => self.pager.unprotect(page)?,
            PageOp::ProtectRead { range } => {
                self.pager.protect_run(range)?;
                return self.read(range);
            }
            PageOp::Read { range } => return self.read(range),
            PageOp::Take { page } => {
                let take = |pager: &mut Pager, bytes: &mut PageBytes| pager.take(page, bytes);
                return self.fill(take).map(|taken| taken.map(|content| OpResult::Contents(Contents::one(content))));
            }
            PageOp::Drop { range } => self.pager.drop_pages(range)?,
            PageOp::Refresh { range, writable } => {
                self.pager.read_source(range)?;
                self.pager.refresh(range.first, writable).map(drop)?;
            }
            PageOp::Poison { page } => self.pager.poison(page)?,
        }
        Ok(Some(OpResult::Done))
    }

    /// Installs up to [`INSTALL_PAGES_MAX`] pages from `first` and gives their buffers back.
    fn install<'a>(
        &mut self,
        first: PageNumber,
        contents: impl Iterator<Item = &'a PageContent> + Clone,
        writable: bool,
    ) -> Result<(), PagerError> {
        let mut sources = [PageSource::Zero; INSTALL_PAGES_MAX];
        let mut count = 0;
        for (slot, content) in sources.iter_mut().zip(contents.clone()) {
            if let PageContent::Buffer(buffer) = content {
                *slot = PageSource::Bytes(self.pool.bytes(PageBuffer(buffer.0)));
            }
            count += 1;
        }
        self.pager.install(first, &sources[..count], writable)?;
        for content in contents {
            if let PageContent::Buffer(buffer) = content {
                self.free(*buffer);
            }
        }
        Ok(())
    }

    fn read(&mut self, range: PageRange) -> Result<Option<OpResult>, PagerError> {
        let mut contents = Contents::EMPTY;
        for page in range.pages() {
            let read = self.fill(|pager, bytes| pager.read(page, bytes));
            match read {
                Ok(Some(content)) => assert!(contents.push(content), "the protocol reads at most 16 pages at once"),
                Ok(None) | Err(_) => {
                    for buffer in contents.buffers() {
                        self.free(buffer);
                    }
                    return read.map(|_| None);
                }
            }
        }
        Ok(Some(OpResult::Contents(contents)))
    }

    /// Fills a buffer by `fill`, which says whether all bytes are zero; `None` when there is no buffer.
    fn fill(
        &mut self,
        fill: impl FnOnce(&mut Pager, &mut PageBytes) -> Result<bool, PagerError>,
    ) -> Result<Option<PageContent>, PagerError> {
        let Some(buffer) = self.pool.take() else { return Ok(None) };
        let is_zero = fill(&mut self.pager, self.pool.bytes_mut(buffer));
        if matches!(is_zero, Ok(false)) {
            return Ok(Some(PageContent::Buffer(BufferId(buffer.0))));
        }
        self.pool.give_back(buffer);
        is_zero.map(|_| Some(PageContent::Zero))
    }

    /// What is left of `op` after its first `done` pages.
    fn rest_of(&mut self, op: PageOp, done: u64) -> PageOp {
        match op {
            PageOp::InstallZero { range } => {
                PageOp::InstallZero { range: PageRange::new(range.first.offset(done), range.count - done) }
            }
            PageOp::Install { first, contents, writable } => {
                let mut rest = Contents::EMPTY;
                for (index, content) in contents.as_slice().iter().enumerate() {
                    match content {
                        PageContent::Buffer(buffer) if (index as u64) < done => self.free(*buffer),
                        PageContent::Zero if (index as u64) < done => {}
                        kept => assert!(rest.push(*kept), "a part is no longer than the whole"),
                    }
                }
                PageOp::Install { first: first.offset(done), contents: rest, writable }
            }
            whole @ (PageOp::Unprotect { .. }
            | PageOp::ProtectRead { .. }
            | PageOp::Read { .. }
            | PageOp::Take { .. }
            | PageOp::Drop { .. }
            | PageOp::Refresh { .. }
            | PageOp::Poison { .. }) => whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drops(first: u64, count: u64) -> PageOp {
        PageOp::Drop { range: PageRange::new(PageNumber(first), count) }
    }

    #[test]
    fn operations_go_together_while_they_are_alike_and_their_pages_follow_each_other() {
        let unprotect = |page| PageOp::Unprotect { page: PageNumber(page) };
        let zeros = |first, writable| PageOp::Install { first: PageNumber(first), contents: Contents::zero(2), writable };
        for (op, follow, expected) in [
            (drops(7, 1), vec![drops(8, 1), drops(9, 2), drops(11, 1)], 3),
            (drops(7, 1), vec![drops(8, 1), drops(10, 1)], 1),
            (drops(7, 1), vec![unprotect(8), drops(8, 1)], 0),
            (unprotect(7), vec![unprotect(8), unprotect(9), drops(10, 1)], 2),
            (unprotect(7), vec![unprotect(6)], 0),
            (zeros(7, false), vec![zeros(9, false), zeros(11, true)], 1),
            (zeros(7, true), vec![zeros(9, true)], 0),
            (drops(0, INSTALL_PAGES_MAX as u64), vec![drops(INSTALL_PAGES_MAX as u64, 1)], 0),
        ] {
            assert_eq!(Pages::continued_by(&op, follow.iter()), expected, "{op:?}, then {follow:?}");
        }
    }
}

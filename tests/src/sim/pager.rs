//! A fake pager: one host's pages, as its threads see them, and the buffers that carry their bytes.
//!
//! Owns what is mapped and what it contains; a page's bytes are one stamp. Must not know the protocol: an operation
//! that does not fit what is mapped is an error of the node.

use dsm_proto::{BufferId, Contents, FaultKind, OpResult, PageContent, PageOp};
use dsm_wire::{PageNumber, PageRange};
use std::collections::{BTreeMap, BTreeSet};

/// Names one write of the whole run; 0 is the zero page.
pub type Stamp = u64;

/// Pages read ahead of a page with a source.
pub const AHEAD_PAGES: u64 = 5;

/// What a host may do with a page it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rights {
    /// Its threads read it.
    Read,
    /// Its threads read and write it.
    Write,
    /// Its threads die of it.
    Poison,
}

/// A page a host has.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    /// Contents.
    pub stamp: Stamp,
    /// Rights.
    pub rights: Rights,
    /// The page is here, but threads fault on it until it is mapped again.
    pub is_hidden: bool,
}

/// What an access of a thread comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It read this, or wrote over it.
    Hit(Stamp),
    /// It stops.
    Fault,
    /// The page is lost.
    Killed,
}

/// One host's pages and buffers.
#[derive(Clone, Debug, Default)]
pub struct Pager {
    pages: BTreeMap<PageNumber, Mapping>,
    buffers: BTreeMap<BufferId, Stamp>,
    buffer_last: u32,
    /// What pages hold that the node believes here and that are not.
    sources: BTreeMap<PageNumber, Stamp>,
    /// Pages of these that were read.
    read: BTreeSet<PageNumber>,
    /// Threads that wait, and for what.
    pub parked: Vec<(usize, PageNumber, FaultKind)>,
}

impl Pager {
    /// The page, if it is here.
    #[must_use]
    pub fn mapping(&self, page: PageNumber) -> Option<Mapping> {
        self.pages.get(&page).copied()
    }

    /// From now on the pages of `range` hold `stamp_of` them at first; or nothing.
    pub fn set_source(&mut self, range: PageRange, stamp_of: Option<fn(PageNumber) -> Stamp>) {
        for page in range.pages() {
            self.read.remove(&page);
            match stamp_of {
                Some(stamp_of) => self.sources.insert(page, stamp_of(page)),
                None => self.sources.remove(&page),
            };
        }
    }

    /// Brings a page from its source, if it has one and is not here.
    fn load(&mut self, page: PageNumber) {
        if let (Some(stamp), false) = (self.sources.get(&page).copied(), self.pages.contains_key(&page)) {
            self.read.insert(page);
            self.pages.insert(page, Mapping { stamp, rights: Rights::Write, is_hidden: false });
        }
    }

    /// Brings those after `page` that were never read, too.
    fn load_ahead(&mut self, page: PageNumber) {
        self.load(page);
        for next in (1..=AHEAD_PAGES).map(|offset| page.offset(offset)) {
            if self.read.contains(&next) {
                return;
            }
            self.load(next);
        }
    }

    /// A thread accesses a page; a write leaves `stamp` there.
    pub fn access(&mut self, page: PageNumber, kind: FaultKind, stamp: Stamp) -> Access {
        let Some(mapping) = self.pages.get_mut(&page) else { return Access::Fault };
        match (mapping.rights, kind) {
            (Rights::Poison, _) => Access::Killed,
            _ if mapping.is_hidden => Access::Fault,
            (Rights::Read, FaultKind::Write) => Access::Fault,
            (Rights::Read | Rights::Write, FaultKind::Read) => Access::Hit(mapping.stamp),
            (Rights::Write, FaultKind::Write) => Access::Hit(std::mem::replace(&mut mapping.stamp, stamp)),
        }
    }

    /// The kernel loses the mapping of a page, not the page.
    pub fn hide(&mut self, page: PageNumber) {
        if let Some(mapping) = self.pages.get_mut(&page).filter(|mapping| mapping.rights != Rights::Poison) {
            mapping.is_hidden = true;
        }
    }

    /// A buffer with this page in it.
    pub fn fill(&mut self, stamp: Stamp) -> BufferId {
        self.buffer_last += 1;
        let buffer = BufferId(self.buffer_last);
        self.buffers.insert(buffer, stamp);
        buffer
    }

    /// The page in a buffer.
    ///
    /// # Errors
    /// If the buffer was freed.
    pub fn peek(&self, buffer: BufferId) -> Result<Stamp, String> {
        self.buffers.get(&buffer).copied().ok_or_else(|| format!("buffer {} is used after it was freed", buffer.0))
    }

    /// Frees a buffer.
    ///
    /// # Errors
    /// If it was freed before.
    pub fn free(&mut self, buffer: BufferId) -> Result<(), String> {
        self.buffers.remove(&buffer).map(|_| ()).ok_or_else(|| format!("buffer {} is freed twice", buffer.0))
    }

    /// Buffers in use.
    #[must_use]
    pub fn buffers_in_use(&self) -> usize {
        self.buffers.len()
    }

    /// Carries out an operation: its result, and the pages whose waiting threads wake.
    ///
    /// # Errors
    /// If it does not fit what is mapped.
    pub fn carry_out(&mut self, op: &PageOp) -> Result<(OpResult, Option<PageRange>), String> {
        match *op {
            PageOp::InstallZero { range } => {
                for page in range.pages() {
                    if self.sources.contains_key(&page) {
                        return Err(format!("page {page} has a source and is filled with zeros"));
                    }
                    self.map(page, 0, Rights::Write)?;
                }
                Ok((OpResult::Done, Some(range)))
            }
            PageOp::Install { first, contents, writable } => {
                let rights = if writable { Rights::Write } else { Rights::Read };
                for (offset, content) in contents.as_slice().iter().enumerate() {
                    let stamp = match content {
                        PageContent::Zero => 0,
                        PageContent::Buffer(buffer) => {
                            let stamp = self.peek(*buffer)?;
                            self.free(*buffer)?;
                            stamp
                        }
                    };
                    self.map(first.offset(offset as u64), stamp, rights)?;
                }
                Ok((OpResult::Done, Some(op.range())))
            }
            PageOp::Unprotect { page } => {
                self.mapped(page, op)?.rights = Rights::Write;
                Ok((OpResult::Done, Some(op.range())))
            }
            PageOp::ProtectRead { range } => {
                for page in range.pages() {
                    self.mapped(page, op)?.rights = Rights::Read;
                }
                self.read(range, op)
            }
            PageOp::Read { range } => self.read(range, op),
            PageOp::Take { page } => {
                let result = self.read(op.range(), op);
                self.pages.remove(&page);
                result
            }
            PageOp::Drop { range } => {
                let gone: Vec<PageNumber> = self.pages.range(range.first..range.end()).map(|(page, _)| *page).collect();
                for page in gone {
                    self.pages.remove(&page);
                }

                Ok((OpResult::Done, None))
            }
            PageOp::Refresh { page, writable } => {
                if !self.pages.contains_key(&page) {
                    self.load_ahead(page);
                }
                let mapping = self.mapped(page, op)?;
                mapping.is_hidden = false;
                if writable != (mapping.rights == Rights::Write) {
                    return Err(format!("page {page} has other rights than {op:?} says"));
                }
                Ok((OpResult::Done, Some(op.range())))
            }
            PageOp::Poison { page } => {
                self.pages.insert(page, Mapping { stamp: 0, rights: Rights::Poison, is_hidden: false });
                Ok((OpResult::Done, Some(op.range())))
            }
        }
    }

    fn map(&mut self, page: PageNumber, stamp: Stamp, rights: Rights) -> Result<(), String> {
        match self.pages.insert(page, Mapping { stamp, rights, is_hidden: false }) {
            None => Ok(()),
            Some(old) => Err(format!("page {page} is installed over {old:?}")),
        }
    }

    fn mapped(&mut self, page: PageNumber, op: &PageOp) -> Result<&mut Mapping, String> {
        self.load(page);
        let mapping = self.pages.get_mut(&page).filter(|mapping| mapping.rights != Rights::Poison);
        mapping.ok_or_else(|| format!("page {page} is not here for {op:?}"))
    }

    fn read(&mut self, range: PageRange, op: &PageOp) -> Result<(OpResult, Option<PageRange>), String> {
        let mut contents = Contents::EMPTY;
        for page in range.pages() {
            let stamp = self.mapped(page, op)?.stamp;
            let content = if stamp == 0 { PageContent::Zero } else { PageContent::Buffer(self.fill(stamp)) };
            contents.push(content);
        }
        Ok((OpResult::Contents(contents), None))
    }
}

//! Files whose bytes are the first content of pages.
//!
//! Owns which page comes from which file, and the reading. Must not know when a page is wanted.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use dsm_wire::{ExtentNumber, PAGE_BYTES, PAGES_PER_EXTENT, PageNumber, PageRange};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::statfs::{FUSE_SUPER_MAGIC, fstatfs};
use nix::sys::uio::pread;

use crate::error::PagerError;
use crate::limits::SOURCE_FILES_MAX;

const WORDS: usize = PAGES_PER_EXTENT as usize / 64;

/// A run of pages of one file.
#[derive(Clone, Debug)]
struct Run {
    end: PageNumber,
    file: Arc<File>,
    /// Of the first page's first byte.
    offset: u64,
}

/// Pages by number, and the file behind each.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    runs: BTreeMap<PageNumber, Run>,
    files: Vec<(u64, u64, Arc<File>)>,
    /// One bit a page that was read and may be with another host now, by extent: also after its drop here.
    read: BTreeMap<ExtentNumber, [u64; WORDS]>,
}

impl Sources {
    /// `range` begins with the bytes of `file` from `offset` on; what was there before does not count any more.
    ///
    /// # Errors
    /// [`PagerError::NoSource`] for what is no regular file open for reading, may wait for other programs, or is one too many.
    pub(crate) fn add(&mut self, range: PageRange, file: OwnedFd, offset: u64) -> Result<(), PagerError> {
        let file = self.accept(File::from(file))?;
        self.remove(range);
        self.runs.insert(range.first, Run { end: range.end(), file, offset });
        Ok(())
    }

    pub(crate) fn remove(&mut self, range: PageRange) {
        while let Some((&first, run)) = self.runs.range(..range.end()).next_back() {
            if run.end <= range.first {
                break;
            }
            let run = run.clone();
            self.runs.remove(&first);
            if run.end > range.end() {
                let offset = run.offset + (range.end().0 - first.0) * PAGE_BYTES as u64;
                self.runs.insert(range.end(), Run { offset, ..run.clone() });
            }
            if first < range.first {
                self.runs.insert(first, Run { end: range.first, ..run });
            }
        }
        self.files.retain(|(.., file)| Arc::strong_count(file) > 1);
        self.forget_read(range);
    }

    fn forget_read(&mut self, range: PageRange) {
        let last = PageNumber(range.end().0.saturating_sub(1)).extent();
        self.read.retain(|extent, words| {
            if (range.first.extent()..=last).contains(extent) {
                let is_in = |index: usize| range.contains(extent.page(index));
                (0..PAGES_PER_EXTENT as usize)
                    .filter(|index| is_in(*index))
                    .for_each(|index| words[index / 64] &= !(1 << (index % 64)));
            }
            words.iter().any(|word| *word != 0)
        });
    }

    /// The pages from `page` on, `count` at most, of one run, of which all but the first were never read. Counts them as read.
    pub(crate) fn take_unread(&mut self, page: PageNumber, count: usize) -> usize {
        let Some(end) = self.end_of(page) else { return 0 };
        let count = count.min((end.0 - page.0) as usize);
        for index in 0..count {
            let next = page.offset(index as u64);
            let bit = 1 << (next.index_in_extent() % 64);
            let word = &mut self.read.entry(next.extent()).or_default()[next.index_in_extent() / 64];
            if index > 0 && *word & bit != 0 {
                return index;
            }
            *word |= bit;
        }
        count
    }

    /// The end of the run that `page` is in, if it has a source.
    pub(crate) fn end_of(&self, page: PageNumber) -> Option<PageNumber> {
        self.runs.range(..=page).next_back().map(|(_, run)| run.end).filter(|end| page < *end)
    }

    /// Reads the pages from `first` on, all of one run, into `bytes`; what lies beyond the file's end is zero.
    pub(crate) fn read(&self, first: PageNumber, bytes: &mut [u8]) -> Result<(), PagerError> {
        let Some((start, run)) = self.runs.range(..=first).next_back() else { return Ok(()) };
        let offset = run.offset + (first.0 - start.0) * PAGE_BYTES as u64;
        let mut done = 0;
        while done < bytes.len() {
            match pread(&run.file, &mut bytes[done..], (offset + done as u64) as i64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(PagerError::SourceRead { page: first, offset, errno }),
            }
        }
        bytes[done..].fill(0);
        Ok(())
    }

    fn accept(&mut self, file: File) -> Result<Arc<File>, PagerError> {
        let refuse = |found: &str| PagerError::NoSource { found: found.to_owned() };
        let metadata = file.metadata().map_err(|error| refuse(&error.to_string()))?;
        let flags = fcntl(&file, FcntlArg::F_GETFL).map_err(|errno| refuse(errno.desc()))?;
        let flags = OFlag::from_bits_retain(flags);
        let is_readable = flags & OFlag::O_ACCMODE != OFlag::O_WRONLY && !flags.intersects(OFlag::O_PATH | OFlag::O_DIRECT);
        if !metadata.is_file() || !is_readable {
            return Err(refuse("no regular file open for buffered reading"));
        }
        // A reader of such a file may have to wait for the program whose pages it reads it for.
        if fstatfs(&file).is_ok_and(|system| system.filesystem_type() == FUSE_SUPER_MAGIC) {
            return Err(refuse("a file of a FUSE file system"));
        }
        let known = self.files.iter().find(|(device, inode, _)| (*device, *inode) == (metadata.dev(), metadata.ino()));
        if let Some((.., known)) = known {
            return Ok(Arc::clone(known));
        }
        if self.files.len() >= SOURCE_FILES_MAX {
            return Err(refuse("a file more than the limit"));
        }
        let file = Arc::new(file);
        self.files.push((metadata.dev(), metadata.ino(), Arc::clone(&file)));
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::io::Write;

    #[test]
    fn cut_runs_keep_their_offsets() {
        let mut file = File::from(memfd_create("source", MFdFlags::MFD_CLOEXEC).unwrap());
        let bytes: Vec<u8> = (0..10_u8).flat_map(|page| [page; PAGE_BYTES]).collect();
        file.write_all(&bytes[..9 * PAGE_BYTES + 1]).unwrap();
        let mut sources = Sources::default();
        sources.add(PageRange::new(PageNumber(100), 10), file.into(), 0).unwrap();
        sources.remove(PageRange::new(PageNumber(103), 2));
        let ends = [99, 100, 102, 103, 104, 105, 109, 110].map(|page| sources.end_of(PageNumber(page)).map(|end| end.0));
        assert_eq!(ends, [None, Some(103), Some(103), None, None, Some(110), Some(110), None]);
        let mut read = vec![9; 2 * PAGE_BYTES];
        sources.read(PageNumber(107), &mut read).unwrap();
        assert_eq!(read, bytes[7 * PAGE_BYTES..9 * PAGE_BYTES]);
        sources.read(PageNumber(109), &mut read[..PAGE_BYTES]).unwrap();
        assert_eq!((read[0], &read[1..PAGE_BYTES]), (9, &[0; PAGE_BYTES - 1][..]), "zero after the end");
        sources.remove(PageRange::new(PageNumber(0), 1000));
        assert!(sources.files.is_empty());
    }

    #[test]
    fn what_was_read_is_not_read_ahead() {
        let file = File::from(memfd_create("source", MFdFlags::MFD_CLOEXEC).unwrap());
        let mut sources = Sources::default();
        sources.add(PageRange::new(PageNumber(500), 30), file.into(), 0).unwrap();
        assert_eq!(sources.take_unread(PageNumber(515), 1), 1);
        assert_eq!(sources.take_unread(PageNumber(505), 64), 10);
        assert_eq!(sources.take_unread(PageNumber(515), 64), 15, "the first one may come back");
        sources.forget_read(PageRange::new(PageNumber(512), 2));
        assert_eq!(sources.take_unread(PageNumber(512), 64), 2);
    }

    #[test]
    fn only_files_are_sources() {
        let mut sources = Sources::default();
        let (pipe, _end) = nix::unistd::pipe().unwrap();
        let refused = sources.add(PageRange::new(PageNumber(100), 1), pipe, 0);
        assert!(matches!(refused, Err(PagerError::NoSource { .. })), "{refused:?}");
    }
}

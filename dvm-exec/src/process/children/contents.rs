//! All that a program at home has in memory, for a forked child.
//!
//! Owns which pages those are, whether they can be given whole, and where their bytes come from. Must not know what the child
//! does with them.
//!
//! At home every page is either in the space's file or was never touched. One that was not is zero, or, if it has a source,
//! has the bytes of its file, which are read here: the space stays as it is.

use crate::process::husk::Root;
use crate::process::memory::open_again;
use crate::process::vma::{Area, AreaKind, PAGE_BYTES, Protection};
use crate::sys::call;
use dsm_wire::PageNumber;
use std::fs::File;
use std::io::Error;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use uffd_dsm::{CopyError, CopyFaults};

/// Most bytes that a child is given at once: the thread that forks waits for them.
const BYTES_MAX: u64 = 256 << 20;
/// Runs of pages that are looked for.
const RUNS_MAX: usize = 1 << 16;
/// Bytes read at once.
const PART_BYTES: u64 = 256 << 10;

/// The contents of a program's memory.
pub struct Contents<'a> {
    root: &'a Root,
    space: BorrowedFd<'a>,
    places: Vec<Place>,
}

/// What of an area can have bytes.
struct Place {
    range: Range<u64>,
    /// The file that pages come from which nobody has touched, and the offset of the first.
    source: Option<(Rc<File>, u64)>,
}

/// Pages whose bytes lie one behind the other.
struct Run {
    range: Range<u64>,
    /// A file and the offset of the first byte; none: the space's own, at the same address.
    source: Option<(Rc<File>, u64)>,
}

/// Why contents were not given.
#[derive(Debug, thiserror::Error)]
pub enum GiveError {
    /// They could not be read.
    #[error("reading the memory at {address:#x} failed: {source}")]
    Read {
        /// Of the first page.
        address: u64,
        /// What the kernel said.
        source: Error,
    },
    /// Some went to another host meanwhile.
    #[error("memory of the program went to another host while it was copied")]
    Gone,
    /// They have become too many meanwhile.
    #[error("the program's memory has grown to more than a child is given at once")]
    Grown,
    /// They could not be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
}

impl<'a> Contents<'a> {
    /// What the program has, which is at home.
    ///
    /// # Errors
    /// Why it cannot be given whole.
    pub fn of(root: &'a Root) -> Result<Self, &'static str> {
        if !root.space.is_home() {
            return Err("memory of the program has been on another host");
        }
        let space = root.space.contents().ok_or("its memory has no file")?;
        let areas: Vec<(Area, bool)> =
            root.space.map().sourced_areas().map(|(area, is_sourced)| (area.clone(), is_sourced)).collect();
        let is_shared = |area: &Area| area.kind == AreaKind::Anonymous { shared: true } && area.protection != Protection::NONE;
        if areas.iter().any(|(area, _)| is_shared(area)) {
            return Err("the program has memory that a forked child would share");
        }
        let places: Result<Vec<Place>, _> = areas.iter().map(|(area, is_sourced)| place(area, *is_sourced)).collect();
        let contents = Self { root, space, places: places? };
        match contents.runs(BYTES_MAX) {
            Ok(Some(_)) => Ok(contents),
            Ok(None) => Err("the program has more than 256 MiB of memory"),
            Err(_) => Err("its memory cannot be looked at"),
        }
    }

    /// The pages that have bytes now; none if they are more than `bytes_max`, or lie in too many pieces.
    fn runs(&self, bytes_max: u64) -> Result<Option<Vec<Run>>, Error> {
        let mut runs = Vec::new();
        let mut bytes = 0;
        for Place { range, source } in &self.places {
            let mut at = range.start;
            while at < range.end {
                let data = self.next_data(at..range.end)?;
                let before = source.as_ref().map(|(file, offset)| (Rc::clone(file), offset + (at - range.start)));
                let untouched = Run { range: at..data.start, source: before };
                at = data.end;
                let of_file = Some(untouched).filter(|run| run.source.is_some());
                for run in of_file.into_iter().chain([Run { range: data, source: None }]).filter(|run| !run.range.is_empty()) {
                    bytes += run.range.end - run.range.start;
                    runs.push(run);
                }
                if bytes > bytes_max || runs.len() > RUNS_MAX {
                    return Ok(None);
                }
            }
        }
        Ok(Some(runs))
    }

    /// The first run of pages in `range` that the space's file has; an empty one at its end if there is none.
    fn next_data(&self, range: Range<u64>) -> Result<Range<u64>, Error> {
        let seek = |from: u64, whence: i32| {
            let found = call::checked(libc::SYS_lseek, &[self.space.as_raw_fd() as u64, from, whence as u64, 0, 0, 0]);
            match found {
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) => Ok(range.end),
                found => found.map(|found| found.min(range.end)),
            }
        };
        let start = seek(range.start, libc::SEEK_DATA)?;
        Ok(start..if start < range.end { seek(start, libc::SEEK_HOLE)? } else { start })
    }

    /// Gives all of it to a child, which waits meanwhile.
    ///
    /// # Errors
    /// [`GiveError`]; the child has only a part then.
    pub fn give(&self, child: &CopyFaults) -> Result<(), GiveError> {
        let mut buffer = vec![0_u8; PART_BYTES as usize];
        // Other threads may have gone on until they were stopped.
        let runs = self.runs(2 * BYTES_MAX).map_err(|source| GiveError::Read { address: 0, source })?.ok_or(GiveError::Grown)?;
        for run in &runs {
            for start in run.range.clone().step_by(PART_BYTES as usize) {
                let part = &mut buffer[..(run.range.end - start).min(PART_BYTES) as usize];
                self.read(run, start, part).map_err(|source| GiveError::Read { address: start, source })?;
                child.fill(PageNumber::containing(start), part)?;
            }
        }
        if self.root.space.is_home() { Ok(()) } else { Err(GiveError::Gone) }
    }

    /// Reads whole pages; what is beyond the end of a file is zero.
    fn read(&self, run: &Run, start: u64, into: &mut [u8]) -> Result<(), Error> {
        debug_assert!((into.len() as u64).is_multiple_of(PAGE_BYTES));
        let mut done = 0;
        while done < into.len() {
            let at = start + done as u64;
            let rest = &mut into[done..];
            let read = match &run.source {
                Some((file, offset)) => file.read_at(rest, offset + (at - run.range.start))?,
                None => {
                    let arguments = [self.space.as_raw_fd() as u64, rest.as_mut_ptr() as u64, rest.len() as u64, at, 0, 0];
                    call::checked(libc::SYS_pread64, &arguments)? as usize
                }
            };
            if read == 0 {
                rest.fill(0);
                break;
            }
            done += read;
        }
        Ok(())
    }
}

fn place(area: &Area, is_sourced: bool) -> Result<Place, &'static str> {
    let range = area.reach();
    let source = match &area.kind {
        AreaKind::File { file, offset, .. } if is_sourced && !range.is_empty() => {
            let file = open_again(file).ok_or("a file that it has mapped is no longer found by its name")?;
            Some((Rc::new(file), *offset))
        }
        AreaKind::File { .. } | AreaKind::Anonymous { .. } | AreaKind::Stack | AreaKind::Heap => None,
    };
    Ok(Place { range, source })
}

//! What a machine is given beside the program.
//!
//! Owns the choices and their defaults. Must not know what follows from them.

use super::memory::{PagesMax, parts};
use super::page::Page;
use crate::map::{self, PAGE_BYTES, Range};
use crate::object::Object;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most that one runner may use.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Limits {
    /// Instructions; bulk ones count by the length of their work.
    pub fuel: u64,
    /// Pages.
    pub pages: PagesMax,
    /// Runners it makes.
    pub children: u64,
    /// Bytes of output and log.
    pub output_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let pages = PagesMax { private: 1 << 18, shared: 1 << 18 };
        Self { fuel: 10_000_000_000, pages, children: 1 << 20, output_bytes: 16 << 20 }
    }
}

/// A file that `sys 4` finds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct File {
    /// Its name for the program.
    pub name: Vec<u8>,
    /// Its contents.
    pub bytes: Vec<u8>,
}

/// All of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The order of events follows from it.
    pub seed: u64,
    /// Whether an [`Engine`](crate::engine::Engine) that translates is to be used (1) or none (0): what comes of it is the same.
    pub tier: u8,
    /// Runners that run at a time.
    pub slots: usize,
    /// Most times that a runner starts again after a conflict.
    pub conflicts_max: u32,
    /// Of 100 runs, those whose host is lost before the commit.
    pub losses_percent: u64,
    /// Most starts of runners, then the program is cut off.
    pub starts_max: u64,
    /// Of each runner.
    pub limits: Limits,
    /// For `sys 8`.
    pub arguments: Vec<Vec<u8>>,
    /// For `sys 3`.
    pub input: Vec<u8>,
    /// For `sys 4`.
    pub files: Vec<File>,
    /// For `sys 6`: the time when the program starts; each commit takes a nanosecond.
    pub time_ns: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 1,
            tier: 1,
            slots: 4,
            conflicts_max: 64,
            losses_percent: 0,
            starts_max: 1 << 40,
            limits: Limits::default(),
            arguments: Vec::new(),
            input: Vec::new(),
            files: Vec::new(),
            time_ns: 0,
        }
    }
}

impl Settings {
    /// Shared memory before the first commit: data, and over it files, whose pages are theirs to the end.
    #[must_use]
    pub fn first_pages(&self, object: &Object) -> BTreeMap<u64, Page> {
        let mut pages: BTreeMap<u64, Page> = BTreeMap::new();
        for segment in &object.data {
            for (page, offset, part) in parts(segment.range()) {
                pages.entry(page).or_default().write(offset, &segment.bytes[part]);
            }
        }
        pages.extend(self.pages_of_files());
        pages
    }

    /// Those that a file fills are parts of all of its bytes, so that they lie behind each other in this process, too.
    fn pages_of_files(&self) -> impl Iterator<Item = (u64, Page)> {
        self.place_of_files().flat_map(|(file, range)| {
            let all: Arc<[u8]> = Arc::from(&file.bytes[..]);
            parts(range).map(move |(page, offset, part)| {
                let contents = Page::part(&all, part.start).unwrap_or_else(|| {
                    let mut contents = Page::default();
                    contents.write(offset, &all[part]);
                    contents
                });
                (page, contents)
            })
        })
    }

    /// The files and where they are shown, one behind the other on whole pages; those without room are left out.
    pub fn place_of_files(&self) -> impl Iterator<Item = (&File, Range)> {
        let mut at = map::FILES.base;
        self.files.iter().filter_map(move |file| {
            let range = Range::new(at, file.bytes.len() as u64);
            at += range.bytes.max(1).next_multiple_of(PAGE_BYTES);
            map::FILES.encloses(range).then_some((file, range))
        })
    }
}

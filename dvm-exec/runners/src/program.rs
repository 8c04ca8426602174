//! What every host knows before the first runner runs.
//!
//! Owns the program, its settings, and memory as it is at timestamp 0. Must not change afterwards.

use dvm_disa::machine::Settings;
use dvm_disa::machine::page::Page;
use dvm_disa::machine::store::Store;
use dvm_disa::map::PAGE_BYTES;
use dvm_disa::object::Object;
use std::collections::BTreeMap;
use std::ops::Range;

/// A program, ready to run.
#[derive(Debug)]
pub struct Program {
    /// Text, constants, data.
    pub object: Object,
    /// Limits, input, arguments, files.
    pub settings: Settings,
    base: BTreeMap<u64, Page>,
}

impl Program {
    /// Lays data and files out.
    #[must_use]
    pub fn new(object: Object, settings: Settings) -> Self {
        let base = settings.first_pages(&object);
        Self { object, settings, base }
    }

    /// A page as it is before the first commit.
    #[must_use]
    pub fn page(&self, page: u64) -> Page {
        self.base.get(&page).cloned().unwrap_or_default()
    }

    /// The pages that one file fills, if this is one of them.
    pub(crate) fn file_around(&self, page: u64) -> Option<Range<u64>> {
        let filled = |bytes: dvm_disa::map::Range| bytes.base / PAGE_BYTES..(bytes.base + bytes.bytes) / PAGE_BYTES;
        self.settings.place_of_files().map(|(_, range)| filled(range)).find(|pages| pages.contains(&page))
    }

    /// A store with all that is there before the first commit.
    pub(crate) fn store(&self) -> Store {
        let mut store = Store::new(self.object.rules);
        self.base.iter().for_each(|(page, contents)| store.place_page(*page, contents.clone()));
        store
    }
}

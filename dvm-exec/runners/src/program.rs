//! What every host knows before the first runner runs.
//!
//! Owns the program, its settings, and memory as it is at timestamp 0. Must not change afterwards.

use dvm_disa::machine::Settings;
use dvm_disa::machine::memory::parts;
use dvm_disa::machine::page::Page;
use dvm_disa::machine::store::Store;
use dvm_disa::object::Object;
use std::collections::BTreeMap;

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
        let mut base: BTreeMap<u64, Page> = BTreeMap::new();
        let data = object.data.iter().map(|segment| (segment.range(), &segment.bytes));
        let files = settings.place_of_files().map(|(file, range)| (range, &file.bytes));
        for (range, bytes) in data.chain(files) {
            for (page, offset, part) in parts(range) {
                base.entry(page).or_default().write(offset, &bytes[part]);
            }
        }
        Self { object, settings, base }
    }

    /// A page as it is before the first commit.
    #[must_use]
    pub fn page(&self, page: u64) -> Page {
        self.base.get(&page).cloned().unwrap_or_default()
    }

    /// A store with all that is there before the first commit.
    pub(crate) fn store(&self) -> Store {
        let mut store = Store::new(self.object.rules);
        self.base.iter().for_each(|(page, contents)| store.place_page(*page, contents.clone()));
        store
    }
}

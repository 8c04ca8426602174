//! Some words of a page, as they travel.
//!
//! Owns the compact form: which words, and their values. Must not know versions.

use dvm_disa::machine::page::{Page, WORDS, Words};
use dvm_disa::map::WORD_BYTES;
use serde::{Deserialize, Serialize};

/// Words of one page. As a whole page: all that are not zero.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The page.
    pub page: u64,
    /// Which words.
    pub words: Words,
    /// Their values, in order.
    pub values: Vec<u64>,
}

impl Delta {
    /// These words of a page.
    #[must_use]
    pub fn of(page: u64, words: Words, contents: &Page) -> Self {
        Self { page, words, values: words.iter().map(|word| contents.word(word)).collect() }
    }

    /// All of a page: zeros are left out.
    #[must_use]
    pub fn whole(page: u64, contents: &Page) -> Self {
        Self::of(page, contents.changed(&Page::default()), contents)
    }

    /// Words at addresses of one page.
    #[must_use]
    pub fn of_words(page: u64, words: impl IntoIterator<Item = (usize, u64)>) -> Self {
        let mut delta = Self { page, words: Words::default(), values: Vec::new() };
        let mut all: Vec<(usize, u64)> = words.into_iter().filter(|(word, _)| *word < WORDS).collect();
        all.sort_unstable_by_key(|(word, _)| *word);
        all.dedup_by_key(|(word, _)| *word);
        for (word, value) in all {
            delta.words.insert(word);
            delta.values.push(value);
        }
        delta
    }

    /// Writes the words onto a page.
    pub fn apply(&self, to: &mut Page) {
        for (word, value) in self.words.iter().zip(&self.values) {
            to.write(word * WORD_BYTES as usize, &value.to_le_bytes());
        }
    }

    /// A page that is zero but for the words.
    #[must_use]
    pub fn to_page(&self) -> Page {
        let mut page = Page::default();
        self.apply(&mut page);
        page
    }

    /// How many words.
    #[must_use]
    pub fn count(&self) -> usize {
        self.values.len()
    }
}

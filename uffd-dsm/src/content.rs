//! The bytes of one page, and whether they are all zero.
//!
//! Owns zero detection. Must not know where the bytes came from.

use dsm_wire::PAGE_BYTES;

/// The bytes of one page.
pub type PageBytes = [u8; PAGE_BYTES];

/// One page of zeros.
pub(crate) static ZERO_PAGE: PageBytes = [0; PAGE_BYTES];

const LINE_BYTES: usize = 64;
const WORD_BYTES: usize = 8;

/// Whether every byte of `page` is zero: a cache line at a time, ending at the first that is not.
#[must_use]
pub fn is_zero_page(page: &PageBytes) -> bool {
    let (lines, rest) = page.as_chunks::<LINE_BYTES>();
    debug_assert!(rest.is_empty());
    lines.iter().all(|line| {
        let (words, _) = line.as_chunks::<WORD_BYTES>();
        words.iter().fold(0, |bits, word| bits | u64::from_ne_bytes(*word)) == 0
    })
}

const _: () = assert!(PAGE_BYTES.is_multiple_of(LINE_BYTES) && LINE_BYTES.is_multiple_of(WORD_BYTES));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_counts() {
        let mut page = [0; PAGE_BYTES];
        assert!(is_zero_page(&page));
        for index in 0..PAGE_BYTES {
            page[index] = 1 << (index % 8);
            assert!(!is_zero_page(&page), "byte {index}");
            page[index] = 0;
        }
        assert!(is_zero_page(&page));
    }
}

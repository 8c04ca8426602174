//! The data sets of the DISA programs, which follow from their seeds: points for k-means, a text for counting words.
//!
//! Owns their definitions. Must not know who reads them.

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// Points of the full size.
pub const POINTS: usize = 1_000_000;
/// The text is as long, up to the end of its last word.
pub const TEXT_BYTES: usize = 100_000_000;

const POINTS_SEED: u64 = 0xD15A_0001;
const TEXT_SEED: u64 = 0xD15A_0002;
const CLUSTERS: usize = 16;
const DIMENSIONS: usize = 8;
const VOCABULARY: usize = 50_000;
const WORDS_A_LINE: usize = 12;
const LETTERS: u64 = 26;
/// Letters at the end of a word, which are its number.
const TAIL: u32 = 4;

/// Writes the points: 8 integers each, 8 bytes, little endian.
pub fn write_points(path: &Path) -> Result<()> {
    fs::write(path, points(POINTS)).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes the text.
pub fn write_text(path: &Path) -> Result<()> {
    fs::write(path, text(TEXT_BYTES)).with_context(|| format!("cannot write {}", path.display()))
}

/// The generator splitmix64.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}

/// Blobs around 16 centres. A coordinate differs from its centre's by the sum of four numbers by chance of 16 bits, less what
/// it is on average, an eighth of that; it is brought into 0 to 65535.
fn points(count: usize) -> Vec<u8> {
    let mut chance = SplitMix(POINTS_SEED);
    let centres: [[i64; DIMENSIONS]; CLUSTERS] =
        std::array::from_fn(|_| std::array::from_fn(|_| 8192 + chance.below(49152) as i64));
    let mut bytes = Vec::with_capacity(count * DIMENSIONS * 8);
    for _ in 0..count {
        let centre = &centres[chance.below(CLUSTERS as u64) as usize];
        for at in centre {
            let drawn = chance.next();
            let sum: i64 = (0..4).map(|part| (drawn >> (16 * part) & 0xffff) as i64 - 32768).sum();
            bytes.extend((at + sum / 8).clamp(0, 65535).to_le_bytes());
        }
    }
    bytes
}

/// Words of a vocabulary in which the i-th has the weight 10^9/(i+2), twelve a line.
fn text(bytes_min: usize) -> Vec<u8> {
    let mut chance = SplitMix(TEXT_SEED);
    let words: Vec<Vec<u8>> = (0..VOCABULARY as u64).map(|number| word(&mut chance, number)).collect();
    let weights = (0..VOCABULARY as u64).scan(0, |sum, number| {
        *sum += 1_000_000_000 / (number + 2);
        Some(*sum)
    });
    let up_to: Vec<u64> = weights.collect();
    let total = up_to.last().copied().unwrap_or(1);
    let mut text = Vec::with_capacity(bytes_min + 64);
    let mut column = 0;
    while text.len() < bytes_min {
        let drawn = chance.below(total);
        text.extend(&words[up_to.partition_point(|sum| *sum <= drawn)]);
        column = (column + 1) % WORDS_A_LINE;
        text.push(if column == 0 { b'\n' } else { b' ' });
    }
    if column != 0 {
        text.push(b'\n');
    }
    text
}

/// Up to five letters by chance, then the word's number.
fn word(chance: &mut SplitMix, number: u64) -> Vec<u8> {
    let prefix = chance.below(6);
    let mut digits: Vec<u64> = (0..prefix).map(|_| chance.below(LETTERS)).collect();
    digits.extend((0..TAIL).rev().map(|place| number / LETTERS.pow(place) % LETTERS));
    digits.into_iter().map(|digit| b'a' + digit as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fnv(bytes: &[u8]) -> u64 {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |state, byte| (state ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
    }

    #[test]
    fn are_as_defined() {
        assert_eq!((points(1000).len(), fnv(&points(1000))), (64_000, 0x1243_e683_01db_0e84));
        assert_eq!((text(10_000).len(), fnv(&text(10_000))), (10_004, 0x3836_e871_4964_d6e1));
    }
}

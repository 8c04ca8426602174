//! A text of words by chance, and what the program that counts words says of a text.
//!
//! Owns both definitions. Must not know how a program counts.

use dvm_disa::machine::chance::Chance;
use std::collections::HashMap;

const SEED: u64 = 1;
const VOCABULARY: usize = 20_000;
/// Of so many words one is the last of its line.
const WORDS_PER_LINE: usize = 12;

/// So many bytes, up to the end of a word: words of a few letters, rare and frequent ones.
#[must_use]
pub fn text(bytes: usize) -> Vec<u8> {
    let mut chance = Chance::new(SEED);
    let mut text = Vec::with_capacity(bytes + 16);
    while text.len() < bytes {
        let most = 1 + chance.below(VOCABULARY);
        let mut word = chance.below(most);
        while word > 0 {
            text.push(b'a' + (word % 26) as u8);
            word /= 26;
        }
        text.push(if chance.below(WORDS_PER_LINE) == 0 { b'\n' } else { b' ' });
    }
    text
}

/// What `wordcount.dc` prints: the sum of each word's FNV-1a-64 times its count, all words, different words.
#[must_use]
pub fn counted(text: &[u8]) -> String {
    let mut counts: HashMap<&[u8], u64> = HashMap::new();
    for word in text.split(|byte| *byte <= b' ').filter(|word| !word.is_empty()) {
        *counts.entry(word).or_default() += 1;
    }
    let sum = counts.iter().fold(0, |sum: u64, (word, count)| sum.wrapping_add(fnv(word).wrapping_mul(*count)));
    format!("{sum:016x}/{}/{}", counts.values().sum::<u64>(), counts.len())
}

fn fnv(word: &[u8]) -> u64 {
    word.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_counted() {
        // FNV-1a-64 of `a`, as its authors give it.
        assert_eq!(counted(b" a\n"), "af63dc4c8601ec8c/1/1");
        assert_eq!(counted(b"a a"), format!("{:016x}/2/1", 0xaf63_dc4c_8601_ec8c_u64.wrapping_mul(2)));
        assert_eq!(
            text(1000).iter().filter(|byte| byte.is_ascii_lowercase() || byte.is_ascii_whitespace()).count(),
            text(1000).len()
        );
    }
}

//! A set of processors of the whole machine.
//!
//! Owns its bytes, as the affinity calls have them, and its texts, as /proc and /sys have them. Must not know hosts.

use std::fmt::Write;
use std::ops::Range;

/// Processors, by number from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuSet {
    words: Vec<u64>,
}

impl CpuSet {
    /// The processors of a range.
    #[must_use]
    pub fn of(range: Range<u32>) -> Self {
        let mut set = Self::default();
        range.for_each(|processor| set.insert(processor));
        set
    }

    /// Those in both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let words = self.words.iter().zip(&other.words).map(|(one, two)| one & two).collect();
        Self { words }
    }

    /// Reads a mask.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let mut set = Self::default();
        for (at, byte) in bytes.iter().enumerate() {
            (0..8).filter(|bit| byte >> bit & 1 == 1).for_each(|bit| set.insert(at as u32 * 8 + bit));
        }
        set
    }

    /// The mask for a machine of so many processors: whole words.
    #[must_use]
    pub fn to_bytes(&self, processors: u32) -> Vec<u8> {
        let mut words = self.words.clone();
        words.resize(processors.max(1).div_ceil(u64::BITS) as usize, 0);
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Whether all of it lies in `range`.
    #[must_use]
    pub fn is_within(&self, range: &Range<u32>) -> bool {
        self.iter().all(|processor| range.contains(&processor))
    }

    /// As `0-3,7`.
    #[must_use]
    pub fn list(&self) -> String {
        let mut runs: Vec<Range<u32>> = Vec::new();
        for processor in self.iter() {
            match runs.last_mut() {
                Some(run) if run.end == processor => run.end += 1,
                _ => runs.push(processor..processor + 1),
            }
        }
        let run = |run: &Range<u32>| match run.end - run.start {
            1 => run.start.to_string(),
            _ => format!("{}-{}", run.start, run.end - 1),
        };
        runs.iter().map(run).collect::<Vec<_>>().join(",")
    }

    /// In hexadecimal, 32 processors a group, for a machine of so many: as `f,ffffffff`.
    #[must_use]
    pub fn mask(&self, processors: u32) -> String {
        let processors = processors.max(1);
        let groups = processors.div_ceil(32);
        let mut text = String::new();
        for group in (0..groups).rev() {
            let word = self.words.get(group as usize / 2).copied().unwrap_or(0) >> (group % 2 * 32) & 0xffff_ffff;
            let in_group = (processors - group * 32).min(32);
            let separator = if text.is_empty() { "" } else { "," };
            let width = in_group.div_ceil(4) as usize;
            write!(text, "{separator}{word:0width$x}").expect("writing to a String does not fail");
        }
        text
    }

    fn insert(&mut self, processor: u32) {
        let word = (processor / u64::BITS) as usize;
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.words[word] |= 1 << (processor % u64::BITS);
    }

    fn iter(&self) -> impl Iterator<Item = u32> {
        let bits = |(at, word): (usize, &u64)| {
            let word = *word;
            (0..u64::BITS).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at as u32 * u64::BITS + bit)
        };
        self.words.iter().enumerate().flat_map(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_the_kernel_s() {
        let check = |set: CpuSet, processors, list: &str, mask: &str| {
            assert_eq!((set.list().as_str(), set.mask(processors).as_str()), (list, mask));
        };
        check(CpuSet::of(0..2), 2, "0-1", "3");
        check(CpuSet::of(4..6), 6, "4-5", "30");
        check(CpuSet::of(0..40), 40, "0-39", "ff,ffffffff");
        check(CpuSet::of(33..34), 65, "33", "0,00000002,00000000");
        check(CpuSet::from_bytes(&[0b1000_0101]), 8, "0,2,7", "85");
        check(CpuSet::default(), 4, "", "0");
    }

    #[test]
    fn bytes_are_whole_words() {
        assert_eq!(CpuSet::of(0..3).to_bytes(3), [7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(CpuSet::of(64..65).to_bytes(65).len(), 16);
        assert_eq!(CpuSet::from_bytes(&CpuSet::of(3..70).to_bytes(70)), CpuSet::of(3..70));
        assert_eq!(CpuSet::of(0..4).and(&CpuSet::of(2..9)), CpuSet::of(2..4));
        assert!(CpuSet::of(0..4).and(&CpuSet::of(8..9)).is_empty());
        assert!(CpuSet::of(2..4).is_within(&(2..4)) && !CpuSet::of(2..5).is_within(&(2..4)));
    }
}

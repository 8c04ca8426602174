//! A set of interrupt vectors, as IRR, ISR and TMR are.
//!
//! Owns the bits. Must not know what they mean.

/// Vectors 0 to 255.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vectors([u32; 8]);

impl Vectors {
    /// Adds `vector`; whether it was new.
    pub fn insert(&mut self, vector: u8) -> bool {
        let (word, bit) = place(vector);
        let is_new = self.0[word] & bit == 0;
        self.0[word] |= bit;
        is_new
    }

    /// Takes `vector` out; whether it was there.
    pub fn remove(&mut self, vector: u8) -> bool {
        let (word, bit) = place(vector);
        let was_there = self.0[word] & bit != 0;
        self.0[word] &= !bit;
        was_there
    }

    /// Whether `vector` is in it.
    #[must_use]
    pub fn contains(&self, vector: u8) -> bool {
        let (word, bit) = place(vector);
        self.0[word] & bit != 0
    }

    /// The highest, which is the most urgent.
    #[must_use]
    pub fn highest(&self) -> Option<u8> {
        let word = self.0.iter().rposition(|word| *word != 0)?;
        Some((word * 32 + 31 - self.0[word].leading_zeros() as usize) as u8)
    }

    /// The one that is in it, if it is one.
    #[must_use]
    pub fn only(&self) -> Option<u8> {
        let count: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        self.highest().filter(|_| count == 1)
    }

    /// 32 vectors as the register `index` of eight shows them.
    #[must_use]
    pub fn word(&self, index: usize) -> u32 {
        self.0[index % 8]
    }
}

fn place(vector: u8) -> (usize, u32) {
    (usize::from(vector / 32), 1 << (vector % 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_comes_first() {
        let mut vectors = Vectors::default();
        assert_eq!(vectors.highest(), None);
        for vector in [0, 31, 32, 200, 255, 63] {
            assert!(vectors.insert(vector) && !vectors.insert(vector));
        }
        for vector in [255, 200, 63, 32, 31, 0] {
            assert_eq!(vectors.highest(), Some(vector));
            assert_eq!(vectors.only(), (vector == 0).then_some(0));
            assert!(vectors.contains(vector) && vectors.remove(vector) && !vectors.remove(vector));
        }
        assert_eq!(vectors, Vectors::default());
    }
}

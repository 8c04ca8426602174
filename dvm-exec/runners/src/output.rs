//! Output of committed runners, in the order of commits, by its place in all of it.
//!
//! Owns which part may be released, and how much of the past is kept. Must not know who shows it.

use crate::limits::OUTPUT_KEPT_BYTES_MAX;
use dvm_disa::machine::store::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The end of all output, as far as it is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Place of the first byte that is kept.
    begin: u64,
    kept: VecDeque<u8>,
    /// Commits whose output may not be released yet, and where it ends.
    marks: VecDeque<(Timestamp, u64)>,
    released: u64,
    /// How far it was taken here; another host begins with what it has.
    #[serde(skip)]
    taken: u64,
}

impl Output {
    /// A commit printed this.
    pub fn append(&mut self, at: Timestamp, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.kept.extend(bytes);
            self.marks.push_back((at, self.end()));
        }
    }

    /// All commits up to here stand.
    pub fn release(&mut self, stable: Timestamp) {
        while let Some((_, end)) = self.marks.pop_front_if(|(at, _)| *at <= stable) {
            self.released = end;
        }
    }

    /// Where nobody takes output: what was released leaves when there is too much.
    pub fn trim(&mut self) {
        self.trim_to(self.released);
    }

    fn trim_to(&mut self, end: u64) {
        let surplus = (self.kept.len() as u64).saturating_sub(OUTPUT_KEPT_BYTES_MAX).min(end.saturating_sub(self.begin));
        self.kept.drain(..surplus as usize);
        self.begin += surplus;
    }

    /// Whether nothing new is released.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.taken.max(self.begin) >= self.released
    }

    /// What was released since the last time, and its place.
    pub fn take(&mut self) -> (u64, Vec<u8>) {
        let from = self.taken.max(self.begin);
        let until = self.released.max(from);
        let part = self.kept.range((from - self.begin) as usize..(until - self.begin) as usize).copied().collect();
        self.taken = until;
        self.trim_to(until);
        (from, part)
    }

    /// Everything that is kept counts as new. Only checkers of checkers want that.
    pub fn repeat(&mut self) {
        let again: Vec<u8> = self.kept.iter().copied().collect();
        self.append(Timestamp(0), &again);
    }

    fn end(&self) -> u64 {
        self.begin + self.kept.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_released_with_its_commit_and_keeps_its_place() {
        let mut output = Output::default();
        output.append(Timestamp(1), b"one");
        output.append(Timestamp(2), b"");
        output.append(Timestamp(3), b"three");
        assert!(output.is_taken());
        output.release(Timestamp(2));
        assert_eq!((output.is_taken(), output.take()), (false, (0, b"one".to_vec())));
        let mut other: Output = output.clone();
        output.release(Timestamp(3));
        assert_eq!((output.take(), output.take()), ((3, b"three".to_vec()), (8, Vec::new())));
        other.taken = 0;
        other.release(Timestamp(3));
        assert_eq!(other.take(), (0, b"onethree".to_vec()), "another host begins with what it has");
    }

    #[test]
    fn only_so_much_of_the_past_is_kept() {
        let mut output = Output::default();
        let long = vec![7; OUTPUT_KEPT_BYTES_MAX as usize];
        output.append(Timestamp(1), &long);
        output.append(Timestamp(2), b"more");
        output.release(Timestamp(1));
        let mut other = output.clone();
        assert_eq!(output.take(), (0, long.clone()));
        output.release(Timestamp(2));
        assert_eq!(output.take(), (OUTPUT_KEPT_BYTES_MAX, b"more".to_vec()));
        other.trim();
        assert_eq!(other.take(), (4, long[4..].to_vec()), "nobody took it in time");
    }
}

//! Deterministic input files for programs that run on the hosts.
//!
//! Owns one generator: text, numbers, repeats and noise, which compressors shrink to about a third. Must not know who reads it.

use crate::Result;
use crate::files::on;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

const WORDS: [&str; 16] = [
    "page", "extent", "owner", "sharer", "home", "anchor", "request", "grant", "epoch", "thread", "shadow", "of", "the", "a",
    "and", "writes",
];
/// A line of 256 bytes; every line of four holds noise.
const LINE_BYTES: usize = 256;

/// Writes `bytes` bytes; the same bytes in every run.
///
/// # Errors
/// The file cannot be written.
pub fn write_sample(path: &Path, bytes: usize) -> Result<()> {
    let mut file = BufWriter::new(File::create(path).map_err(on("create", path))?);
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut left = bytes;
    let mut line = Vec::with_capacity(LINE_BYTES * 2);
    while left > 0 {
        line.clear();
        fill(&mut line, &mut random);
        let count = left.min(line.len());
        file.write_all(line.get(..count).unwrap_or_default()).map_err(on("write", path))?;
        left -= count;
    }
    file.flush().map_err(on("write", path))
}

fn fill(line: &mut Vec<u8>, random: &mut Random) {
    let kind = random.next() % 4;
    while line.len() < LINE_BYTES {
        let value = random.next();
        if kind == 0 {
            line.extend_from_slice(&value.to_le_bytes());
        } else {
            let index = usize::try_from(value % 16).unwrap_or(0);
            line.extend_from_slice(WORDS.get(index).copied().unwrap_or("page").as_bytes());
            line.extend_from_slice(if value.is_multiple_of(7) { b"\n" } else { b" " });
            if value.is_multiple_of(5) {
                line.extend_from_slice((value >> 40).to_string().as_bytes());
            }
        }
    }
}

/// Xorshift: enough disorder for a file, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_same_each_time_and_as_long_as_asked() {
        let directory = std::env::temp_dir().join(format!("dvm-sample-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (first, second) = (directory.join("1"), directory.join("2"));
        write_sample(&first, 10_001).unwrap();
        write_sample(&second, 20_000).unwrap();
        let (first, second) = (std::fs::read(first).unwrap(), std::fs::read(second).unwrap());
        assert_eq!(first.len(), 10_001);
        assert!(second.starts_with(&first));
        std::fs::remove_dir_all(directory).unwrap();
    }
}

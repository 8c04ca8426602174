//! Programs that are run as they are: their arguments and what they work on.
//!
//! Owns both. Must not know hosts or placement.

use crate::bed::Bed;
use anyhow::Result;
use std::fs;
use std::path::PathBuf;

const SCENE: &str = include_str!("../programs/scene.pov");
const WORDS: [&str; 16] = [
    "page", "home", "owner", "fault", "thread", "space", "host", "root", "shadow", "extent", "anchor", "reader", "writer",
    "grant", "frame", "job",
];
const MEBIBYTE: usize = 1 << 20;

/// A program with its arguments.
pub struct Work {
    /// Its name.
    pub name: &'static str,
    /// Its path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

impl Work {
    fn new<'a>(name: &'static str, program: impl Into<PathBuf>, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        Self { name, program: program.into(), arguments: arguments.into_iter().map(str::to_owned).collect() }
    }
}

/// povray, so many pixels wide.
pub fn povray(bed: &Bed, threads: usize, width: usize) -> Result<Work> {
    let scene = bed.hosts.scratch()?.join("scene.pov");
    fs::write(&scene, SCENE)?;
    let [scene, width, height, threads] =
        [format!("+I{}", scene.display()), format!("+W{width}"), format!("+H{}", width * 3 / 4), format!("+WT{threads}")];
    Ok(Work::new("povray", "/usr/bin/povray", [&*scene, "+O-", "+FP", &width, &height, "-A", "-D", &threads]))
}

/// xz of so much text, in blocks of 1 MiB.
pub fn xz(bed: &Bed, threads: usize, mebibytes: usize) -> Result<Work> {
    let (input, threads) = (text(bed, mebibytes)?, format!("-T{threads}"));
    Ok(Work::new("xz", "/usr/bin/xz", [&*threads, "-3", "--block-size=1MiB", "-k", "-f", &input]))
}

/// pigz of so much text.
pub fn pigz(bed: &Bed, threads: usize, mebibytes: usize) -> Result<Work> {
    let (input, threads) = (text(bed, mebibytes)?, format!("-p{threads}"));
    Ok(Work::new("pigz", "/usr/bin/pigz", [&*threads, "-9", "-k", "-f", &input]))
}

/// The stress program of the tests.
pub fn stress(bed: &Bed, threads: usize) -> Work {
    Work::new("stress", bed.program("stress"), [&*threads.to_string()])
}

/// A file of words by chance, always the same.
fn text(bed: &Bed, mebibytes: usize) -> Result<String> {
    let path = bed.hosts.scratch()?.join(format!("text-{mebibytes}"));
    let mut text = String::with_capacity(mebibytes * MEBIBYTE);
    let mut state = 88_172_645_463_325_252_u64;
    while text.len() < mebibytes * MEBIBYTE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(WORDS[(state % 16) as usize]);
        text.push(if state >> 32 & 7 == 0 { '\n' } else { ' ' });
        text.push((b'a' + (state >> 40 & 15) as u8) as char);
    }
    fs::write(&path, text)?;
    Ok(path.display().to_string())
}

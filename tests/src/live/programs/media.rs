//! Pictures, films and sound.
//!
//! Owns the arguments of the programs, and what of their results is the time they were made at. Must not know how they are run.

use super::{Bed, Need, PLAIN, Program};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

pub const PROGRAMS: &[Program] = &[Program {
    name: "povray",
    arguments: &["+Iscene.pov", "+O-", "+FP", "+W240", "+H180", "+WT4", "-D", "-GA"],
    prepare: put_scene,
    normalise: without_date,
    needs: &[Need::Program("povray")],
    ..PLAIN
}];

fn put_scene(bed: &mut Bed<'_>, directory: &Path) -> Result<()> {
    let scene = bed.workshop.scene()?;
    fs::copy(scene, directory.join("scene.pov"))?;
    Ok(())
}

/// Takes the comments out of a PPM file's head: one of them is the time of rendering.
fn without_date(path: &Path) -> Result<()> {
    let bytes = fs::read(path)?;
    let (mut plain, mut rest, mut lines) = (Vec::with_capacity(bytes.len()), bytes.as_slice(), 0);
    // The head is three lines: format, size, largest value.
    while lines < 3 {
        let end = rest.iter().position(|byte| *byte == b'\n').context("the picture ends within its head")?;
        let (line, after) = rest.split_at(end + 1);
        if !line.starts_with(b"#") {
            plain.extend_from_slice(line);
            lines += 1;
        }
        rest = after;
    }
    plain.extend_from_slice(rest);
    Ok(fs::write(path, plain)?)
}

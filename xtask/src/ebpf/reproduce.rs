//! That a build repeats: the same sources at another place give the same code.
//!
//! Owns the copy of the sources and the comparison. Must not know the recipe.

use super::NotBuilt;
use super::build::{self, Build};
use super::object::Object;
use crate::cargo;
use crate::tally::Tally;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

const NAME: &str = "ebpf: reproducible";
const DIRECTORY: &str = "ebpf-again";

/// Builds a copy of the sources elsewhere and adds one result.
///
/// # Errors
/// Cargo cannot be started, or the copy cannot be made.
pub fn check(tally: &mut Tally, first: &[Object; 2]) -> Result<()> {
    let directory = cargo::metadata()?.target_directory.join(DIRECTORY);
    let (root, target) = (directory.join("sources"), directory.join("target"));
    // New files, so that cargo builds our crates anew; those of others it may keep.
    copy_sources(&root)?;
    let built = build::linker()?.and_then(|linker| Build { root: &root, target: &target, linker: &linker }.run());
    match built {
        Ok(paths) => {
            let mut found = Vec::new();
            for (first, path) in first.iter().zip(&paths) {
                let program = path.file_name().unwrap_or_default().to_string_lossy();
                found.extend(differences(first, &Object::read(path)?).iter().map(|told| format!("{program}: {told}")));
            }
            tally.add(NAME, &found);
        }
        Err(NotBuilt::Lacks(reason)) => tally.skip(NAME, &reason),
        Err(NotBuilt::Broken(reason)) => tally.fail(NAME, &reason),
    }
    Ok(())
}

fn copy_sources(to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("cannot remove {}", to.display()))?;
    }
    for place in build::SOURCES {
        for path in build::files(&cargo::root().join(place))? {
            let copy = to.join(path.strip_prefix(cargo::root())?);
            fs::create_dir_all(copy.parent().context("a file without a directory")?)?;
            let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            fs::write(&copy, text).with_context(|| format!("cannot write {}", copy.display()))?;
        }
    }
    Ok(())
}

/// Sections that are not the same in both.
fn differences(first: &Object, second: &Object) -> Vec<String> {
    let mut found = Vec::new();
    for section in &first.sections {
        let name = &section.name;
        let what = if section.is_code { "code" } else { "contents" };
        match second.sections.iter().find(|other| other.name == *name) {
            None => found.push(format!("section {name} is missing in the second build")),
            Some(other) if other.bytes != section.bytes => found.push(format!(
                "the {what} of section {name} ({} bytes) differs in the second build ({} bytes)",
                section.bytes.len(),
                other.bytes.len()
            )),
            Some(_) => {}
        }
    }
    for section in &second.sections {
        if !first.sections.iter().any(|other| other.name == section.name) {
            found.push(format!("section {} is in the second build only", section.name));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::object::Section;
    use super::*;

    fn object(sections: &[(&str, &[u8])]) -> Object {
        let section = |(name, bytes): &(&str, &[u8])| Section { name: (*name).into(), is_code: true, bytes: bytes.to_vec() };
        Object { programs: Vec::new(), sections: sections.iter().map(section).collect() }
    }

    #[test]
    fn every_difference_is_named() {
        let first = object(&[("xdp", b"12345678"), ("classifier", b"abcdefgh")]);
        assert_eq!(differences(&first, &first), Vec::<String>::new());
        let changed = object(&[("xdp", b"12345678"), ("classifier", b"abcdefgX")]);
        assert_eq!(differences(&first, &changed).len(), 1);
        let renamed = object(&[("xdp", b"12345678"), ("tc", b"abcdefgh")]);
        assert_eq!(differences(&first, &renamed).len(), 2);
    }
}

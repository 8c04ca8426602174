//! The programs in the kernel beside `classify` on the host: frames by chance into both.
//!
//! Owns building and starting `dvm-test-ebpf`, which is a workspace of its own, with clippy as the compiler. Must not know what it
//! compares.
//!
//! It loads the object with libbpf, which is C and needs libelf: nobody who does not run it has to have them.

use super::{NotBuilt, build};
use crate::tally::Tally;
use crate::{cargo, setup};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::Command;

const NAME: &str = "ebpf: classify";
/// Of its own workspace.
pub const MANIFEST: &str = "tests/ebpf/Cargo.toml";
const PROGRAM: &str = "dvm-test-ebpf";
/// Frames of `cargo xtask test`.
const FRAMES: &str = "20000";
/// Exit code of the program if it cannot run here.
const UNABLE: i32 = 2;

/// The program and the object.
#[derive(Debug)]
pub struct Classify {
    program: PathBuf,
    object: PathBuf,
}

/// Adds one result: that planted faults are found, and that in some frames there is none.
///
/// # Errors
/// Cargo cannot be started.
pub fn check(tally: &mut Tally) -> Result<()> {
    let outcome = prepare()?.and_then(|classify| {
        classify.run(&["--plants"])?;
        classify.run(&["--frames", FRAMES])
    });
    tell(tally, outcome);
    Ok(())
}

/// Builds what is needed.
///
/// # Errors
/// Cargo cannot be started.
pub fn prepare() -> Result<Result<Classify, NotBuilt>> {
    if !setup::is_root() {
        return Ok(Err(NotBuilt::Lacks("loading programs into the kernel needs root".into())));
    }
    if let Some(lack) = setup::prepare(setup::FOR_LIBBPF)?.into_iter().next() {
        return Ok(Err(NotBuilt::Lacks(lack)));
    }
    let object = match build::objects()? {
        Ok([fast, ..]) => fast,
        Err(reason) => return Ok(Err(reason)),
    };
    let target = cargo::metadata()?.target_directory;
    Ok(built(&target)?.map(|()| Classify { program: target.join("debug").join(PROGRAM), object }))
}

fn built(target: &Path) -> Result<Result<(), NotBuilt>> {
    let mut build =
        cargo::with_clippy(cargo::command(&["build", "--quiet", "--locked", "--manifest-path", MANIFEST, "--target-dir"]));
    let status = build.arg(target).status().context("cannot start cargo")?;
    let told = || NotBuilt::Broken(format!("cargo build of {PROGRAM}, by clippy, ended with {status}"));
    Ok(if status.success() { Ok(()) } else { Err(told()) })
}

impl Classify {
    /// Runs the program.
    ///
    /// # Errors
    /// It cannot run here, or found a difference.
    pub fn run(&self, arguments: &[&str]) -> Result<(), NotBuilt> {
        let mut command = Command::new(&self.program);
        command.arg("--object").arg(&self.object).args(arguments);
        let output = command.output().map_err(|error| NotBuilt::Broken(format!("cannot start {PROGRAM}: {error}")))?;
        print!("{}", String::from_utf8_lossy(&output.stdout));
        let talk = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return Ok(());
        }
        eprint!("{talk}");
        let first = talk.lines().next().unwrap_or_default();
        if output.status.code() == Some(UNABLE) {
            return Err(NotBuilt::Lacks(first.to_owned()));
        }
        Err(NotBuilt::Broken(format!("{PROGRAM} {} ended with {}: {first}", arguments.join(" "), output.status)))
    }
}

/// Adds one result; says whether it passed.
pub fn tell(tally: &mut Tally, outcome: Result<(), NotBuilt>) -> bool {
    match outcome {
        Ok(()) => tally.add(NAME, &[]),
        Err(NotBuilt::Lacks(reason)) => tally.skip(NAME, &reason),
        Err(NotBuilt::Broken(reason)) => tally.fail(NAME, &reason),
    }
    tally.is_clean()
}

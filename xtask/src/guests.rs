//! `cargo xtask guests`: images of the guests in dvm-exec/guest, which are built for a machine without an operating system.
//!
//! Owns the target, the build, its lints and where the images lie. Must not know what they do.

use crate::{cargo, linux, setup};
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

/// The workspace.
pub const MANIFEST: &str = "dvm-exec/guest/Cargo.toml";
const TARGET: &str = "x86_64-unknown-none";
const BUILD_DIRECTORY: &str = "guests-build";
const IMAGES: &str = "guests";
const PROGRAMS: [&str; 9] = ["hello", "conformance", "fill", "kmeans", "kv", "measure", "pvh", "storm", "ticks"];

/// Builds the images and prints where they are.
///
/// # Errors
/// Cargo cannot be started, or a file cannot be copied.
pub fn run() -> Result<ExitCode> {
    match provide()? {
        Ok(images) => images.iter().for_each(|image| println!("{}", image.display())),
        Err(reason) => {
            eprintln!("guests: {reason}");
            return Ok(ExitCode::FAILURE);
        }
    }
    match linux::provide()? {
        Ok(image) => println!("{}", image.display()),
        Err(reason) => eprintln!("guests: no linux: {reason}"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds the images; gives their paths, or why there are none.
///
/// # Errors
/// Cargo cannot be started, or a file cannot be copied.
pub fn provide() -> Result<Result<Vec<PathBuf>, String>> {
    if let Err(lack) = prepare_target() {
        return Ok(Err(lack));
    }
    let target = cargo::metadata()?.target_directory;
    let (built, images) = (target.join(BUILD_DIRECTORY), target.join(IMAGES));
    if !command("build", &built)?.status().context("cannot start cargo")?.success() {
        return Ok(Err("the guests do not build".to_owned()));
    }
    fs::create_dir_all(&images).with_context(|| format!("cannot make {}", images.display()))?;
    let copy = |program: &&str| {
        let (from, to) = (built.join(TARGET).join("release").join(program), images.join(program));
        fs::copy(&from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        Ok(to)
    };
    PROGRAMS.iter().map(copy).collect::<Result<Vec<_>>>().map(Ok)
}

/// The command that has clippy look at the kit and its programs, or why it cannot.
///
/// # Errors
/// Cargo cannot be started.
pub fn lints() -> Result<Result<Command, String>> {
    if let Err(lack) = prepare_target() {
        return Ok(Err(lack));
    }
    let mut clippy = command("clippy", &cargo::metadata()?.target_directory.join(BUILD_DIRECTORY))?;
    clippy.args(["--", "-D", "warnings"]);
    Ok(Ok(clippy))
}

/// Cargo in their workspace, whose directory has the flags for the layout of images.
fn command(verb: &str, target: &Path) -> Result<Command> {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args([verb, "--quiet", "--release", "--locked", "--target-dir"]).arg(target);
    command.current_dir(cargo::root().join(MANIFEST).parent().context("a manifest lies in a directory")?);
    for variable in ["RUSTC", "RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET", "CARGO_ENCODED_RUSTFLAGS"] {
        command.env_remove(variable);
    }
    Ok(command)
}

/// Makes sure that the compiler has `core` for that machine.
fn prepare_target() -> Result<(), String> {
    let probe = setup::sysroot()?.join("lib/rustlib").join(TARGET);
    if probe.exists() {
        return Ok(());
    }
    eprintln!("setup: rustup target add {TARGET}");
    let status = Command::new("rustup").args(["target", "add", TARGET]).current_dir(cargo::root()).status();
    match status {
        Ok(status) if status.success() && probe.exists() => Ok(()),
        _ => Err(format!("{TARGET} is missing: `rustup target add {TARGET}` failed: no rustup, or no network?")),
    }
}

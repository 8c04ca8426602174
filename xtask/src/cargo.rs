//! Cargo and the project's directories.
//!
//! Owns every call of cargo and where its results lie. Must not know why something is built.

use crate::setup;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};

const AGENT: &str = "dvm-agent";

/// What `cargo metadata` says, as far as it is used here.
#[derive(Debug, Clone, Deserialize)]
pub struct Metadata {
    /// The packages of the workspace.
    pub packages: Vec<Package>,
    /// Where results go.
    pub target_directory: PathBuf,
}

/// A package of the workspace.
#[derive(Debug, Clone, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
}

/// One edge.
#[derive(Debug, Clone, Deserialize)]
pub struct Dependency {
    /// Name of the other package.
    pub name: String,
    /// `dev`, `build`, or none.
    pub kind: Option<String>,
}

/// The project's root directory.
///
/// # Panics
/// Never: this package lies one level below it.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies below the root")
}

/// A command of the cargo that runs us.
#[must_use]
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// Whether the unit tests were built with clippy: then what else is built like them needs no second compilation.
static IS_LINTED: AtomicBool = AtomicBool::new(false);

/// From now on [`build_tool`] uses what [`with_clippy`] has built.
pub fn note_linted() {
    IS_LINTED.store(true, Ordering::Relaxed);
}

/// Has cargo compile the workspace's own packages with clippy, which then lints what it builds; its warnings are errors.
#[must_use]
pub fn with_clippy(mut cargo: Command) -> Command {
    let driver = Path::new(cargo.get_program()).with_file_name("clippy-driver");
    // How `cargo clippy` hands options on.
    cargo.env("RUSTC_WORKSPACE_WRAPPER", driver).env("CLIPPY_ARGS", "-D__CLIPPY_HACKERY__warnings__CLIPPY_HACKERY__");
    cargo
}

/// Reads the workspace's metadata.
///
/// # Errors
/// Cargo fails.
pub fn metadata() -> Result<Metadata> {
    metadata_of("Cargo.toml")
}

/// Reads the metadata of the workspace with this manifest.
///
/// # Errors
/// Cargo fails.
pub fn metadata_of(manifest: &str) -> Result<Metadata> {
    let mut cargo = command(&["metadata", "--no-deps", "--format-version", "1", "--manifest-path", manifest]);
    let output = cargo.output().context("cannot start cargo")?;
    ensure!(output.status.success(), "cargo metadata of {manifest}: {}", String::from_utf8_lossy(&output.stderr).trim());
    serde_json::from_slice(&output.stdout).context("cargo metadata printed something else")
}

/// Builds packages in release mode, the agent with etcd where that can be built; gives the directory of their programs.
///
/// # Errors
/// They do not build.
pub fn build(packages: &[&str]) -> Result<PathBuf> {
    build_as("release", packages)
}

/// Builds what tests something, or helps to build, as unit tests are built, which need most of its libraries anyway; gives its
/// directory.
///
/// # Errors
/// It does not build.
pub fn build_tool(package: &str) -> Result<PathBuf> {
    build_as("dev", &[package])
}

fn build_as(profile: &str, packages: &[&str]) -> Result<PathBuf> {
    let mut cargo = command(&["build", "--profile", profile]);
    if profile == "dev" && IS_LINTED.load(Ordering::Relaxed) {
        cargo = with_clippy(cargo);
    }
    for package in packages {
        cargo.args(["--package", package]);
    }
    if profile == "release" && packages.contains(&AGENT) && setup::are_here(setup::FOR_ETCD) {
        cargo.args(["--features", "dvm-agent/etcd"]);
    }
    let status = cargo.status().context("cannot start cargo")?;
    ensure!(status.success(), "{} does not build", packages.join(" and "));
    Ok(metadata()?.target_directory.join(if profile == "dev" { "debug" } else { profile }))
}

/// Runs a program with our terminal; its exit code is ours, 128 + N for one that signal N ended.
///
/// # Errors
/// It cannot be started.
pub fn hand_over(mut command: Command) -> Result<ExitCode> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("cannot start {program}"))?;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

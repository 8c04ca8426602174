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

/// Whether this process has built the unit tests, and with them the programs that they start.
static HAS_TESTS: AtomicBool = AtomicBool::new(false);

/// From now on [`build_tool`] uses what the unit tests' build has left.
pub fn note_tests_built() {
    HAS_TESTS.store(true, Ordering::Relaxed);
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
    let mut cargo = command(&["build", "--release"]);
    for package in packages {
        cargo.args(["--package", package]);
    }
    if packages.contains(&AGENT) {
        cargo.args(features());
    }
    let status = cargo.status().context("cannot start cargo")?;
    ensure!(status.success(), "{} does not build", packages.join(" and "));
    Ok(metadata()?.target_directory.join("release"))
}

/// Builds a program that tests something, or helps to build, as unit tests are built, which need most of its libraries anyway, unless
/// they were and it with them; gives its path.
///
/// # Errors
/// It does not build.
pub fn build_tool(program: &str) -> Result<PathBuf> {
    let path = metadata()?.target_directory.join("debug").join(program);
    if HAS_TESTS.load(Ordering::Relaxed) && path.exists() {
        return Ok(path);
    }
    let mut cargo = command(&[&["build", "--workspace", "--bin", program], features()].concat());
    let status = cargo.status().context("cannot start cargo")?;
    ensure!(status.success(), "{program} does not build");
    Ok(path)
}

/// What has cargo build the agent with etcd too, where there is protoc, which that needs.
#[must_use]
pub fn features() -> &'static [&'static str] {
    if setup::are_here(setup::FOR_ETCD) { &["--features", "dvm-agent/etcd"] } else { &[] }
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

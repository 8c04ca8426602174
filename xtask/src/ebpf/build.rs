//! The recipe: a stable compiler, its own sources of `core`, its own LLVM behind our linker, objects.
//!
//! Owns flags and places, and when nothing need be done. Must not know what the programs do.
//!
//! The compiler's BPF target has no ready-made `core`, hence `-Zbuild-std`, which a stable compiler allows only with
//! RUSTC_BOOTSTRAP=1. Nothing but rustup's toolchain and Cargo.lock's crates is needed: no clang, no other LLVM.

use super::NotBuilt;
use crate::{cargo, setup};
use anyhow::{Context, Result};
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs, io};

/// Sources of the programs.
pub const SOURCES: [&str; 5] = ["ebpf/prog", "ebpf/common", "uffd-dsm/wire", "Cargo.toml", "rust-toolchain.toml"];
/// What else the object depends on: the linker.
const TOOLS: [&str; 2] = ["ebpf/linker", "Cargo.lock"];
/// Alone in their directory, which the build script of `dsm-bpf` watches.
const OBJECTS: [&str; 2] = ["ebpf/dvm-fast.o", "ebpf/dvm-trace.o"];
const BUILD_DIRECTORY: &str = "ebpf-build";
const STAMP: &str = "ebpf-build/stamp";
const TARGET: &str = "bpfel-unknown-none";
/// As cargo names them, in the order of [`OBJECTS`].
const PROGRAMS: [&str; 2] = ["dvm-fast", "dvm-trace"];

/// What one build works on.
#[derive(Debug)]
pub struct Build<'a> {
    /// Root of the sources.
    pub root: &'a Path,
    /// Where cargo puts its results.
    pub target: &'a Path,
    /// The linker.
    pub linker: &'a Path,
}

/// Builds the objects unless they are up to date; gives their paths, the fast path's first.
///
/// Objects that are out of date and cannot be built are removed, so that no agent is built with them.
///
/// # Errors
/// Cargo or the compiler cannot be started, or a file cannot be read or written.
pub fn objects() -> Result<Result<[PathBuf; 2], NotBuilt>> {
    let target = cargo::metadata()?.target_directory;
    let (objects, stamp) = (OBJECTS.map(|object| target.join(object)), target.join(STAMP));
    let inputs = fingerprint()?;
    if fs::read_to_string(&stamp).is_ok_and(|told| told == told_of(&inputs, &objects)) {
        return Ok(Ok(objects));
    }
    eprintln!("ebpf: building the programs of the fast path and of the trace");
    let built = match setup::prepare_rust_src() {
        Err(lack) => Err(NotBuilt::Lacks(lack)),
        Ok(()) => linker()?
            .and_then(|linker| Build { root: cargo::root(), target: &target.join(BUILD_DIRECTORY), linker: &linker }.run()),
    };
    match built {
        Ok(built) => {
            for (built, object) in built.iter().zip(&objects) {
                install(built, object)?;
            }
            fs::write(&stamp, told_of(&inputs, &objects)).with_context(|| format!("cannot write {}", stamp.display()))?;
            Ok(Ok(objects))
        }
        Err(reason) => {
            for object in &objects {
                match fs::remove_file(object) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(error).with_context(|| format!("cannot remove {}", object.display()));
                    }
                    _ => {}
                }
            }
            Ok(Err(reason))
        }
    }
}

/// Builds the linker; gives its path.
///
/// # Errors
/// Cargo cannot be started.
pub fn linker() -> Result<Result<PathBuf, NotBuilt>> {
    let broken = |error: anyhow::Error| NotBuilt::Broken(format!("the linker for BPF: {error:#}"));
    Ok(cargo::build_tool("bpf-ld").map_err(broken))
}

impl Build<'_> {
    /// Builds; gives the objects, in the order of [`objects`].
    ///
    /// # Errors
    /// Why there are none.
    pub fn run(&self) -> Result<[PathBuf; 2], NotBuilt> {
        let directory = self.root.join("ebpf/prog");
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.args(["build", "--quiet", "--release", "--locked", "--target", TARGET, "-Zbuild-std=core", "--target-dir"]);
        command.arg(self.target).current_dir(&directory);
        command.env("RUSTC_BOOTSTRAP", "1").env("CARGO_ENCODED_RUSTFLAGS", self.flags().join("\x1f"));
        // What is set for the build of this program is not meant for that one.
        for variable in ["RUSTC", "RUSTFLAGS", "CARGO_TARGET_DIR", "CARGO_BUILD_TARGET"] {
            command.env_remove(variable);
        }
        let status = command.status().map_err(|error| NotBuilt::Lacks(format!("cannot start cargo: {error}")))?;
        if !status.success() {
            let told = format!("the programs do not build: cargo in {} ended with {status}", directory.display());
            return Err(NotBuilt::Broken(told));
        }
        Ok(PROGRAMS.map(|program| self.target.join(TARGET).join("release").join(program)))
    }

    /// Every path that could get into the object is mapped to the same name on all machines.
    fn flags(&self) -> Vec<String> {
        let home = env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
        let places = [
            Some((self.root.to_path_buf(), "/dvm")),
            home.map(|home| (home, "/cargo")),
            setup::sysroot().ok().map(|sysroot| (sysroot, "/rust")),
        ];
        let map = |(from, to): (PathBuf, &str)| format!("--remap-path-prefix={}={to}", from.display());
        let mut flags: Vec<String> = ["-Cdebuginfo=2", "-Clink-arg=--btf", "-Ctarget-cpu=v3", "--cfg=bpf_target_arch=\"x86_64\""]
            .map(str::to_owned)
            .into();
        flags.push(format!("-Clinker={}", self.linker.display()));
        flags.extend(places.into_iter().flatten().map(map));
        flags
    }
}

/// What the stamp says of objects that are up to date.
fn told_of(inputs: &str, objects: &[PathBuf]) -> String {
    let mut hasher = DefaultHasher::new();
    for object in objects {
        hasher.write(&fs::read(object).unwrap_or_default());
    }
    format!("inputs {inputs} objects {:016x}\n", hasher.finish())
}

/// Changes with every file and tool that the object depends on.
fn fingerprint() -> Result<String> {
    let mut hasher = DefaultHasher::new();
    for place in SOURCES.iter().chain(&TOOLS) {
        for path in files(&cargo::root().join(place))? {
            hasher.write(path.as_os_str().as_encoded_bytes());
            hasher.write(&fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
        }
    }
    // The recipe itself.
    hasher.write(include_bytes!("build.rs"));
    let compiler = Command::new("rustc").arg("-vV").current_dir(cargo::root()).output().context("cannot start rustc")?;
    hasher.write(&compiler.stdout);
    Ok(format!("{:016x}", hasher.finish()))
}

/// The file, or the files below it but for results of builds, in a fixed order.
///
/// # Errors
/// A directory cannot be read.
pub fn files(place: &Path) -> Result<Vec<PathBuf>> {
    if !place.is_dir() {
        return Ok(vec![place.to_path_buf()]);
    }
    let mut entries: Vec<PathBuf> = fs::read_dir(place)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>())
        .with_context(|| format!("cannot list {}", place.display()))?;
    entries.sort();
    let mut found = Vec::new();
    for entry in entries.iter().filter(|entry| !entry.ends_with("target")) {
        found.extend(files(entry)?);
    }
    Ok(found)
}

fn install(built: &Path, object: &Path) -> Result<()> {
    // The same bytes as before make nobody build anew.
    if fs::read(object).is_ok_and(|old| fs::read(built).is_ok_and(|new| new == old)) {
        return Ok(());
    }
    let directory = object.parent().context("an object without a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    // Whole or not at all, and nothing else in the directory; the next build has no use for the copy.
    let copy = built.with_extension("o");
    fs::copy(built, &copy).with_context(|| format!("cannot read {}", built.display()))?;
    fs::rename(&copy, object).with_context(|| format!("cannot write {}", object.display()))
}

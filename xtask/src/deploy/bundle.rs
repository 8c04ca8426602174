//! What is copied, on this machine: programs, configuration, digests.
//!
//! Owns the temporary directory, and every call of sha256sum. Must not know hosts.

use super::exit::{Exit, Failure};
use super::layout::{PROGRAMS, documents, release};
use super::{unit, wanted};
use crate::manual;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Digits of a digest that name a version.
const ID_DIGITS: usize = 16;

/// A directory that only we may enter, removed when dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// Makes it.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("dvm-deploy-{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed is in the system's temporary directory.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// The programs of a release.
#[derive(Debug)]
pub struct Programs {
    directory: PathBuf,
    digests: BTreeMap<String, String>,
    /// The version.
    pub id: String,
    /// Least glibc.
    pub glibc: (u32, u32),
    /// Of all of them.
    pub bytes: u64,
}

impl Programs {
    /// Looks at the programs in `from`; those of a release beside the supervisor go to `scratch`.
    ///
    /// # Errors
    /// One is missing.
    pub fn gather(from: &Path, scratch: &Path) -> Result<Self, Failure> {
        let directory = scratch.join("programs");
        fs::create_dir(&directory).context("cannot make a directory for programs")?;
        let (mut glibc, mut bytes) = ((2, 0), 0);
        for name in PROGRAMS {
            let to = directory.join(name);
            if name == "dvm-supervise" {
                fs::write(&to, unit::supervisor()).context("cannot write the supervisor")?;
                continue;
            }
            let from = from.canonicalize().unwrap_or_else(|_| from.to_path_buf()).join(name);
            let wrong = |error| {
                Failure::new(Exit::Input, format!("cannot read {} ({error}): build it, or correct --binaries", from.display()))
            };
            let text = fs::read(&from).map_err(wrong)?;
            glibc = glibc.max(wanted::glibc_needed(&text));
            bytes += text.len() as u64;
            symlink(&from, &to).context("cannot link a program")?;
        }
        bytes += documents_of(&directory)?;
        let digests = digests(&directory)?;
        let all: String = digests.iter().map(|(name, digest)| format!("{digest}  {name}\n")).collect();
        let id = digest(&all)?.get(..ID_DIGITS).context("sha256sum printed no digest")?.to_owned();
        Ok(Self { directory, digests, id, glibc, bytes })
    }
}

/// Has the programs of a directory write their manual pages and completions beside them; gives the bytes of these.
fn documents_of(directory: &Path) -> Result<u64, Failure> {
    let unfit = |error: anyhow::Error| Failure::new(Exit::Input, format!("{error:#}: build all programs from one release"));
    manual::write(directory, directory).map_err(unfit)?;
    let mut bytes = 0;
    for (name, _) in documents() {
        let found = fs::metadata(directory.join(&name)).with_context(|| format!("no program wrote {name}"));
        bytes += found.map_err(unfit)?.len();
    }
    Ok(bytes)
}

/// What is copied to one host.
#[derive(Debug)]
pub struct Bundle {
    /// The files.
    pub files: Vec<PathBuf>,
    /// Digests by name.
    pub digests: BTreeMap<String, String>,
}

impl Bundle {
    /// Puts it together in `directory`: the programs, these texts, and the key of a file.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn new(directory: &Path, programs: &Programs, texts: &[(&str, String)], key: &Path) -> Result<Self> {
        fs::create_dir(directory).context("cannot make a directory for a host")?;
        for (name, text) in texts {
            fs::write(directory.join(name), text).with_context(|| format!("cannot write {name}"))?;
        }
        let key = key.canonicalize().with_context(|| format!("cannot find {}", key.display()))?;
        symlink(key, directory.join("key")).context("cannot link the key")?;
        let mut digests = digests(directory)?;
        for name in release() {
            symlink(programs.directory.join(&name), directory.join(&name)).context("cannot link a program")?;
        }
        digests.extend(programs.digests.clone());
        Ok(Self { files: digests.keys().map(|name| directory.join(name)).collect(), digests })
    }
}

/// Digests of the files of a directory.
fn digests(directory: &Path) -> Result<BTreeMap<String, String>> {
    let entries = fs::read_dir(directory).context("cannot list a directory")?;
    let names: Vec<_> = entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>()?;
    let output = Command::new("sha256sum").current_dir(directory).args(&names).output().context("cannot start sha256sum")?;
    ensure!(output.status.success(), "sha256sum: {}", String::from_utf8_lossy(&output.stderr).trim());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let digests: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.split_once("  "))
        .map(|(digest, name)| (name.to_owned(), digest.to_owned()))
        .collect();
    ensure!(digests.len() == names.len(), "sha256sum printed {} digests of {} files", digests.len(), names.len());
    Ok(digests)
}

/// Digest of a text.
///
/// # Errors
/// sha256sum cannot be run.
pub fn digest(text: &str) -> Result<String> {
    let mut child =
        Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start sha256sum")?;
    child.stdin.take().context("sha256sum has no input")?.write_all(text.as_bytes()).context("cannot write to sha256sum")?;
    let output = child.wait_with_output().context("sha256sum")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.split_whitespace().next().context("sha256sum printed nothing")?.to_owned())
}

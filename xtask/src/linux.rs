//! A stock Linux for the guest that boots one: Debian's kernel for clouds, taken out of its package, which is not installed.
//!
//! Owns where it comes from and where it lies. Must not know what it is tried with.

mod unpack;

use crate::cargo;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The package that depends on the newest one.
const NEWEST: &str = "linux-image-cloud-amd64";
/// Where the image lies, below the target directory.
const IMAGE: &str = "guests/linux";
/// The same unpacked, which is an ELF file that can be started by the protocol of PVH.
const UNPACKED: &str = "guests/linux-pvh";
const DIRECTORY: &str = "linux";

/// Gets the images unless they are there; gives the first one's path, or why there are none.
///
/// # Errors
/// A directory cannot be made or read.
pub fn provide() -> Result<Result<PathBuf, String>> {
    let target = cargo::metadata()?.target_directory;
    let (image, unpacked, directory) = (target.join(IMAGE), target.join(UNPACKED), target.join(DIRECTORY));
    if !image.exists()
        && let Err(reason) = bring(&directory, &image)?
    {
        return Ok(Err(reason));
    }
    if !unpacked.exists() {
        let packed = fs::read(&image).with_context(|| format!("cannot read {}", image.display()))?;
        match unpack::kernel(&packed) {
            Ok(kernel) => fs::write(&unpacked, kernel).with_context(|| format!("cannot write {}", unpacked.display()))?,
            Err(reason) => return Ok(Err(reason)),
        }
    }
    Ok(Ok(image))
}

fn bring(directory: &Path, image: &Path) -> Result<Result<(), String>> {
    fs::create_dir_all(image.parent().context("a file lies in a directory")?)?;
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let got = get(directory, image);
    fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    Ok(got)
}

fn get(directory: &Path, image: &Path) -> Result<(), String> {
    let package = package()?;
    eprintln!("setup: apt-get download {package}");
    said(Command::new("apt-get").args(["download", "-qq", &package]).current_dir(directory))?;
    let archive = find(directory, |name| name.ends_with(".deb"))?;
    said(Command::new("dpkg-deb").arg("--extract").arg(&archive).arg(directory))?;
    let kernel = find(&directory.join("boot"), |name| name.starts_with("vmlinuz-"))?;
    fs::copy(&kernel, image).map_err(|error| format!("cannot copy {}: {error}", kernel.display()))?;
    Ok(())
}

/// Name of the newest kernel's package.
fn package() -> Result<String, String> {
    let told = said(Command::new("apt-cache").args(["depends", NEWEST]))?;
    let name =
        told.lines().find_map(|line| line.trim().strip_prefix("Depends: ").filter(|name| name.starts_with("linux-image-")));
    name.map(str::to_owned).ok_or_else(|| format!("apt knows no {NEWEST}: `apt-get update`"))
}

fn find(directory: &Path, is_wanted: impl Fn(&str) -> bool) -> Result<PathBuf, String> {
    let entries = fs::read_dir(directory).map_err(|error| format!("cannot read {}: {error}", directory.display()))?;
    let mut paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let found = paths.find(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&is_wanted));
    found.ok_or_else(|| format!("the package left nothing of use in {}", directory.display()))
}

/// What a command says that succeeds.
fn said(command: &mut Command) -> Result<String, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("cannot start {name}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let reason = String::from_utf8_lossy(&output.stderr);
    Err(format!("{name} failed: {}", reason.lines().last().unwrap_or("it says nothing")))
}

//! `cargo xtask docs`: manual pages and shell completions of all commands.
//!
//! Owns where they lie. Must not know any option: each program writes its own, from what it is called by.

use crate::cargo;
use crate::deploy::documents;
use anyhow::{Context, Result, ensure};
use clap_complete::Shell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The commands of hosts, and the words that make them write.
pub const PROGRAMS: [(&str, &str); 2] = [("dvm-agent", "manual"), ("dvm-exec", "--manual")];
const DIRECTORY: &str = "manual";

/// Writes all of it below the target directory.
///
/// # Errors
/// A program does not build, or a file cannot be written.
pub fn run(own: &clap::Command) -> Result<ExitCode> {
    let programs = cargo::build(&["dvm-agent", "dvm-exec"])?;
    let directory = programs.parent().context("no target directory")?.join(DIRECTORY);
    drop(fs::remove_dir_all(&directory));
    write(&programs, &directory)?;
    require_listed(&directory)?;
    write_own(own, &directory)?;
    println!("{} files in {}", files(&directory)?.len(), directory.display());
    Ok(ExitCode::SUCCESS)
}

/// Has the commands of hosts in `programs` write theirs to `directory`.
///
/// # Errors
/// One fails.
pub fn write(programs: &Path, directory: &Path) -> Result<()> {
    for (name, word) in PROGRAMS {
        let program = programs.join(name);
        let output = Command::new(&program).arg(word).arg(directory).output();
        let output = output.with_context(|| format!("cannot start {}", program.display()))?;
        ensure!(output.status.success(), "{name} {word}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// What hosts are given is a fixed list, so that it can be found there again.
fn require_listed(directory: &Path) -> Result<()> {
    let listed: Vec<String> = documents().map(|(name, _)| name).collect();
    for path in files(directory)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ensure!(listed.contains(&name), "{name} is in no list of xtask/src/deploy/layout.rs: deploy would leave it out");
    }
    Ok(())
}

fn write_own(own: &clap::Command, directory: &Path) -> Result<()> {
    let command = own.clone().name("cargo-xtask");
    clap_mangen::generate_to(command.clone(), directory).context("cannot write manual pages")?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command.clone(), "cargo-xtask", directory).context("cannot write completions")?;
    }
    Ok(())
}

/// The files of a directory, in order.
///
/// # Errors
/// It cannot be read.
pub fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

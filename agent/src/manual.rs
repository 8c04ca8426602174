//! Manual pages and shell completions, from the definition of the command line.
//!
//! Owns the files' names. Must not know the commands.

use crate::exit::{Exit, Failure};
use anyhow::Context;
use clap_complete::Shell;
use std::fs;
use std::path::Path;

/// Writes the pages of `command` and its subcommands, and completions for three shells, to `directory`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(command: &clap::Command, directory: &Path) -> Result<(), Failure> {
    let written =
        fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(command.clone(), directory)).and_then(|()| {
            [Shell::Bash, Shell::Zsh, Shell::Fish].into_iter().try_for_each(|shell| {
                clap_complete::generate_to(shell, &mut command.clone(), command.get_name(), directory).map(drop)
            })
        });
    let written = written.with_context(|| format!("cannot write to {}; give a directory with room", directory.display()));
    written.map_err(|error| Failure::new(Exit::Output, error))
}

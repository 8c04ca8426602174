//! Manual pages and shell completions, from the definitions of the command lines.
//!
//! Owns the files' names. Must not know what the options mean.

use crate::{disa, kvm};
use clap_complete::Shell;
use std::fs;
use std::io;
use std::path::Path;

/// Exit status where a file cannot be written.
const REFUSED: u8 = 2;

/// Writes the pages of `command`, of `disa` and `kvm` under it, and completions for three shells, to `directory`; gives the exit status.
pub fn write(command: &clap::Command, directory: &Path) -> u8 {
    match try_write(command, directory) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("dvm-exec: cannot write to {}: {error}; give a directory with room", directory.display());
            REFUSED
        }
    }
}

fn try_write(command: &clap::Command, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    // As users see it: the first word leads there.
    let command = command.clone().subcommand(disa::command()).subcommand(kvm::command());
    clap_mangen::generate_to(command.clone(), directory)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command.clone(), "dvm-exec", directory)?;
    }
    Ok(())
}

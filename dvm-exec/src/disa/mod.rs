//! `dvm-exec disa`: assembles, shows, runs and lays out programs of DISA.
//!
//! Owns the command line of it and its exit statuses. Must not know what a program means.

mod attach;
mod compile;
mod debug;
mod engine;
mod files;
mod history;
mod hosts;
mod profile;
mod progress;
mod run;
mod timeline;

pub use hosts::{attach, lose, serve};

use crate::exit::Failure;
use clap::{Args, CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

/// The word that leads here when it is the first of the command line.
pub const NAME: &str = "disa";
/// A source or file that is refused.
const REFUSED: u8 = 2;

/// Assembles, shows and runs programs of DISA. See docs/disa.md.
#[derive(Debug, Parser)]
#[command(name = "disa", bin_name = "dvm-exec disa", version, about)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Assembles a source into a file to run.
    As(Assemble),
    /// Compiles sources of dcc, and links them with others.
    Cc(compile::Compile),
    /// Links units and sources.
    Link(compile::Link),
    /// Shows the instructions of a file or source.
    Objdump {
        /// ELF file or source.
        file: PathBuf,
    },
    /// Runs a file or source.
    Run(Box<run::Options>),
    /// Shows a run that lost the host where it was started: its output, and its exit status.
    Attach(attach::Options),
    /// Runs one runner of a program or recording step by step: commands come from stdin, `help` lists them.
    Dbg(debug::Options),
    /// Runs a runner of a recording again, and compares what it changed with what was recorded.
    Replay(history::Options),
    /// Says who made and woke a runner of a recording, what it saw, and whom it lost to.
    Why(history::Options),
    /// Shows where the instructions of a program or recording go, by function and line.
    Prof(profile::Options),
    /// Shows a source in the house's layout.
    Fmt {
        /// The source.
        file: PathBuf,
        /// Replace the file.
        #[arg(long)]
        write: bool,
        /// Only say by the exit status, 1, that it is laid out otherwise.
        #[arg(long, conflicts_with = "write")]
        check: bool,
    },
}

#[derive(Args, Debug)]
struct Assemble {
    /// The source.
    source: PathBuf,
    /// The file to write [default: the source's name, ending in .elf].
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Show the listing, too.
    #[arg(long)]
    listing: bool,
}

/// The definition of the command line.
#[must_use]
pub fn command() -> clap::Command {
    CommandLine::command()
}

/// Runs the command line, which begins with `disa`, and gives its exit status.
pub fn main(arguments: impl Iterator<Item = OsString>) -> u8 {
    match execute(CommandLine::parse_from(arguments).command) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("{error:#}");
            error.downcast_ref::<Failure>().map_or(REFUSED, Failure::code)
        }
    }
}

fn execute(command: Command) -> anyhow::Result<u8> {
    match command {
        Command::As(Assemble { source, output, listing }) => {
            let object = files::assemble(&source)?;
            files::write(&output.unwrap_or_else(|| source.with_extension("elf")), &dvm_disa::elf::write(&object))?;
            if listing {
                show(dvm_disa::listing::listing(&object)?.as_bytes())?;
            }
            Ok(0)
        }
        Command::Cc(options) => compile::compile(&options),
        Command::Link(options) => compile::link(&options),
        Command::Objdump { file } => {
            show(dvm_disa::listing::listing(&files::load(&file, &[])?)?.as_bytes())?;
            Ok(0)
        }
        Command::Run(options) => run::run(&options),
        Command::Attach(options) => attach::attach(&options),
        Command::Dbg(options) => debug::debug(&options),
        Command::Replay(options) => history::replay(&options),
        Command::Why(options) => history::why(&options),
        Command::Prof(options) => profile::profile(&options),
        Command::Fmt { file, write, check } => {
            let source = files::text(&file)?;
            let laid_out = dvm_disa::format::format(&source);
            match (check, write) {
                (true, _) => return Ok(u8::from(laid_out != source)),
                (_, true) if laid_out != source => files::write(&file, laid_out.as_bytes())?,
                (_, true) => {}
                _ => show(laid_out.as_bytes())?,
            }
            Ok(0)
        }
    }
}

/// Writes to stdout. A reader that has gone is no error.
fn show(bytes: &[u8]) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

//! `dvm-exec disa`: assembles, shows, runs and lays out programs of DISA.
//!
//! Owns the command line of it and its exit statuses. Must not know what a program means.

mod files;
mod hosts;
mod run;

pub use hosts::serve;

use crate::exit::Failure;
use clap::{Args, Parser, Subcommand};
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
    /// Shows the instructions of a file or source.
    Objdump {
        /// ELF file or source.
        file: PathBuf,
    },
    /// Runs a file or source.
    Run(run::Options),
    /// Be a runner process of a run over hosts.
    #[command(name = hosts::runner::NAME, hide = true)]
    RunnerProcess,
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
        Command::Objdump { file } => {
            show(dvm_disa::listing::listing(&files::load(&file)?)?.as_bytes())?;
            Ok(0)
        }
        Command::Run(options) => run::run(&options),
        Command::RunnerProcess => {
            hosts::runner::main()?;
            Ok(0)
        }
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

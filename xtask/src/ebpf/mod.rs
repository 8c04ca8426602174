//! `cargo xtask ebpf`: the programs of the fast path and of the trace, built, loaded and compared with what is known of them.
//!
//! Owns the order and what counts as one result. Must not know how an object is built ([`build`]) or read ([`object`]).

mod build;
pub mod classify;
mod object;
mod reproduce;
mod verifier;

use crate::tally::Tally;
use anyhow::Result;
use object::Object;
use std::fmt;
use std::process::ExitCode;

/// How the verifier's counts are used.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Write the verifier's counts to the golden file instead of comparing them.
    #[arg(long)]
    bless: bool,
    /// Build a second time, elsewhere, and compare the code.
    #[arg(long)]
    again: bool,
}

/// Why there is no object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotBuilt {
    /// This machine cannot build it.
    Lacks(String),
    /// The sources or the recipe are wrong.
    Broken(String),
}

/// Builds the objects, prints the sizes of their programs, has the kernel verify them, and runs those of the fast path beside the host.
///
/// # Errors
/// Cargo cannot be started, or the golden file cannot be written.
pub fn run(options: &Options) -> Result<ExitCode> {
    let mut tally = Tally::default();
    if let Some(objects) = built(&mut tally)? {
        for program in objects.iter().flat_map(|object| &object.programs) {
            println!("{}: {} instructions", program.name, program.instructions);
        }
        if options.again {
            reproduce::check(&mut tally, &objects)?;
        }
        verifier::check(&mut tally, options.bless)?;
        classify::check(&mut tally)?;
    }
    Ok(tally.finish())
}

/// Adds four results: that the objects build, that the build repeats, what the verifier says, and that the fast path judges as the host
/// does.
///
/// # Errors
/// Cargo cannot be started.
pub fn check(tally: &mut Tally) -> Result<()> {
    let Some(objects) = built(tally)? else { return Ok(()) };
    reproduce::check(tally, &objects)?;
    verifier::check(tally, false)?;
    classify::check(tally)
}

/// Builds the objects for the agents that are built next; if that fails, says why they will be without, and gives the reason.
///
/// # Errors
/// Cargo cannot be started.
pub fn provide() -> Result<Option<String>> {
    let reason = build::objects()?.err().map(|reason| reason.to_string());
    if let Some(reason) = &reason {
        eprintln!("ebpf: agents are built without the fast path: {reason}");
    }
    Ok(reason)
}

fn built(tally: &mut Tally) -> Result<Option<[Object; 2]>> {
    let [fast, trace] = match build::objects()? {
        Ok(paths) => paths,
        Err(NotBuilt::Lacks(reason)) => {
            tally.skip("ebpf: build", &reason);
            return Ok(None);
        }
        Err(NotBuilt::Broken(reason)) => {
            tally.fail("ebpf: build", &reason);
            return Ok(None);
        }
    };
    let objects = [Object::read(&fast)?, Object::read(&trace)?];
    tally.add("ebpf: build", &[]);
    Ok(Some(objects))
}

impl fmt::Display for NotBuilt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lacks(reason) | Self::Broken(reason) => f.write_str(reason),
        }
    }
}

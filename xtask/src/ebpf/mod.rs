//! `cargo xtask ebpf`: the programs of the fast path, built, loaded and compared with what is known of them.
//!
//! Owns the order and what counts as one result. Must not know how an object is built ([`build`]) or read ([`object`]).

mod build;
pub mod classify;
mod object;
mod reproduce;
mod verifier;

use crate::tally::Tally;
use anyhow::Result;
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

/// Builds the object, prints the sizes of its programs, has the kernel verify them, and runs them beside the host.
///
/// # Errors
/// Cargo cannot be started, or the golden file cannot be written.
pub fn run(options: &Options) -> Result<ExitCode> {
    let mut tally = Tally::default();
    if let Some(object) = built(&mut tally)? {
        for program in &object.programs {
            println!("{}: {} instructions", program.name, program.instructions);
        }
        if options.again {
            reproduce::check(&mut tally, &object)?;
        }
        verifier::check(&mut tally, options.bless)?;
        classify::check(&mut tally)?;
    }
    Ok(tally.finish())
}

/// Adds the four results of the fast path: that it builds, that the build repeats, what the verifier says, and that it judges as the
/// host does.
///
/// # Errors
/// Cargo cannot be started.
pub fn check(tally: &mut Tally) -> Result<()> {
    let Some(object) = built(tally)? else { return Ok(()) };
    reproduce::check(tally, &object)?;
    verifier::check(tally, false)?;
    classify::check(tally)
}

/// Builds the object for the agents that are built next; if that fails, says why they will be without, and gives the reason.
///
/// # Errors
/// Cargo cannot be started.
pub fn provide() -> Result<Option<String>> {
    let reason = build::object()?.err().map(|reason| reason.to_string());
    if let Some(reason) = &reason {
        eprintln!("ebpf: agents are built without the fast path: {reason}");
    }
    Ok(reason)
}

fn built(tally: &mut Tally) -> Result<Option<object::Object>> {
    let path = match build::object()? {
        Ok(path) => path,
        Err(NotBuilt::Lacks(reason)) => {
            tally.skip("ebpf: build", &reason);
            return Ok(None);
        }
        Err(NotBuilt::Broken(reason)) => {
            tally.fail("ebpf: build", &reason);
            return Ok(None);
        }
    };
    let object = object::Object::read(&path)?;
    tally.add("ebpf: build", &[]);
    Ok(Some(object))
}

impl fmt::Display for NotBuilt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lacks(reason) | Self::Broken(reason) => f.write_str(reason),
        }
    }
}

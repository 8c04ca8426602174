//! What is to be done on a host, from what it shall have and what it has.
//!
//! Owns the comparison. Pure: must not ask or change anything.

use super::found::{Entry, Found, Init};
use super::layout::{BIN, ETC, LIBRARY, RUN, SHARED, UNITS};
use super::wanted::Wanted;
use std::collections::BTreeSet;
use std::fmt;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// An earlier deployment did not end: what it left is taken away.
    Clean,
    /// A file is put there.
    Write {
        /// Where.
        path: String,
        /// What is wrong with what is there.
        why: &'static str,
    },
    /// A link is made to point there.
    Link {
        /// Where.
        path: String,
        /// To what.
        target: String,
    },
    /// The agent is started, or started again.
    Restart {
        /// Why.
        why: &'static str,
        /// Jobs that end by it.
        jobs: Vec<String>,
    },
    /// A version that is no longer used is removed.
    Forget {
        /// Its name.
        id: String,
    },
}

/// What is to be done on a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub steps: Vec<Step>,
    /// What the manifest will say.
    pub manifest: Vec<String>,
}

impl Plan {
    /// Whether files must be copied.
    #[must_use]
    pub fn copies(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Write { .. }))
    }

    /// Whether the agent starts anew, and which jobs that ends.
    #[must_use]
    pub fn restart(&self) -> Option<&[String]> {
        self.steps.iter().find_map(|step| match step {
            Step::Restart { jobs, .. } => Some(jobs.as_slice()),
            Step::Clean | Step::Write { .. } | Step::Link { .. } | Step::Forget { .. } => None,
        })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clean => write!(f, "clean up after a deployment that did not end"),
            Self::Write { path, why } => write!(f, "write {path} ({why})"),
            Self::Link { path, target } => write!(f, "link {path} to {target}"),
            Self::Restart { why, jobs } if jobs.is_empty() => write!(f, "start the agent ({why})"),
            Self::Restart { why, jobs } => write!(f, "start the agent ({why}), which ends {}", jobs.join(", ")),
            Self::Forget { id } => write!(f, "remove version {id}"),
        }
    }
}

/// Directories that things of ours lie in, from above.
#[must_use]
pub fn directories(init: Init) -> Vec<String> {
    let mut all: Vec<String> = ["/usr/local/lib", BIN, LIBRARY, ETC].map(str::to_owned).into();
    all.extend(SHARED.map(str::to_owned));
    match init {
        Init::Systemd => all.extend([UNITS.to_owned(), format!("{UNITS}/multi-user.target.wants")]),
        Init::None => all.push(RUN.to_owned()),
    }
    all
}

/// Compares; `digest` stands for all that the agent must be started with.
///
/// # Errors
/// Everything that makes the host unfit, each with what to do.
pub fn plan(wanted: &Wanted, found: &Found, digest: &str) -> Result<Plan, Vec<String>> {
    let refusals = refusals(wanted, found);
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let mut steps = Vec::new();
    if found.is_half_finished() {
        steps.push(Step::Clean);
    }
    for file in &wanted.files {
        let why = match found.entries.get(&file.path) {
            None => "not there",
            Some(Entry::File { digest, .. }) if *digest != file.digest => "differs",
            Some(Entry::File { mode, .. }) if *mode != file.mode => "its mode differs",
            Some(Entry::File { .. }) => continue,
            Some(Entry::Directory | Entry::Link(_) | Entry::Other) => "no file",
        };
        steps.push(Step::Write { path: file.path.clone(), why });
    }
    for (path, target) in &wanted.links {
        if found.entries.get(path) != Some(&Entry::Link(target.clone())) {
            steps.push(Step::Link { path: path.clone(), target: target.clone() });
        }
    }
    if let Some(why) = why_restart(wanted, found, digest) {
        steps.push(Step::Restart { why, jobs: found.jobs() });
    }
    let is_version = |name: &&String| name.bytes().all(|byte| byte.is_ascii_hexdigit()) && **name != wanted.id;
    steps.extend(found.library.iter().filter(is_version).map(|id| Step::Forget { id: id.clone() }));
    Ok(Plan { steps, manifest: manifest(wanted, found) })
}

fn why_restart(wanted: &Wanted, found: &Found, digest: &str) -> Option<&'static str> {
    match (&found.agent, &found.status) {
        (None, _) => Some("it does not run"),
        (Some(exe), _) if *exe != format!("{}/dvm-agent", super::layout::version(&wanted.id)) => Some("another version runs"),
        (Some(_), _) if found.complete.as_deref() != Some(digest) => Some("it runs with another configuration"),
        (Some(_), None) => Some("it does not answer"),
        (Some(_), Some(_)) => None,
    }
}

fn refusals(wanted: &Wanted, found: &Found) -> Vec<String> {
    let mut refusals = Vec::new();
    if found.uid != 0 {
        refusals.push(format!(
            "scripts run as uid {}, not as root: set `user` to one who may use sudo without a password",
            found.uid
        ));
    }
    if found.machine != "x86_64" {
        refusals.push(format!("it is a {}, the programs are for x86_64", found.machine));
    }
    let (major, minor) = wanted.glibc;
    match found.glibc {
        Some(version) if version >= wanted.glibc => {}
        Some((major_found, minor_found)) => refusals.push(format!(
            "it has glibc {major_found}.{minor_found}, the programs need {major}.{minor}: build them on a release as old as its own \
             (--binaries)"
        )),
        None => refusals.push(format!("it has no glibc (getconf GNU_LIBC_VERSION says nothing), the programs need {major}.{minor}")),
    }
    let ours = found.manifest.as_deref().map(listed).unwrap_or_default();
    let places = wanted.files.iter().map(|file| &file.path).chain(wanted.links.iter().map(|(path, _)| path));
    // The library is ours by its name.
    for path in
        places.filter(|path| found.entries.contains_key(*path) && !ours.contains(path.as_str()) && !path.starts_with(LIBRARY))
    {
        refusals.push(format!("{path} is there and no deployment made it: move it away"));
    }
    refusals
}

/// The paths of a manifest.
fn listed(manifest: &[String]) -> BTreeSet<&str> {
    manifest.iter().filter_map(|line| line.split_once(' ')).map(|(_, path)| path).collect()
}

/// What an old manifest says was made, and what will be.
fn manifest(wanted: &Wanted, found: &Found) -> Vec<String> {
    let mut lines: Vec<String> = found.manifest.clone().unwrap_or_default();
    let missing = directories(wanted.init).into_iter().filter(|path| !found.entries.contains_key(path));
    let mut new: Vec<String> = missing.map(|path| format!("directory {path}")).collect();
    let outside = |path: &&String| !path.starts_with(LIBRARY);
    new.extend(wanted.files.iter().map(|file| &file.path).filter(outside).map(|path| format!("file {path}")));
    new.extend(wanted.links.iter().map(|(path, _)| path).filter(outside).map(|path| format!("link {path}")));
    new.push(format!("tree {LIBRARY}"));
    for line in new {
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

#[cfg(test)]
mod tests;

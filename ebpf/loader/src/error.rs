//! Why there is no fast path.
//!
//! Owns the texts. Must not decide what follows: an agent works without it.

use std::io;

/// How aya introduces what the verifier said.
const LOG_FOLLOWS: &str = " Verifier output: ";

/// What stands in the way.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No object at build time.
    #[error("not built in; run `cargo xtask ebpf` first")]
    NotBuiltIn,
    /// The object or one of its maps.
    #[error("the object was refused")]
    Object {
        /// What aya says.
        #[source]
        source: Box<aya::EbpfError>,
    },
    /// One of its programs.
    #[error("program `{program}` was refused")]
    Program {
        /// Its name.
        program: &'static str,
        /// What aya says.
        #[source]
        source: Box<aya::programs::ProgramError>,
    },
    /// The object is of other sources than this program.
    #[error("the object has no {what} `{name}`: run `cargo xtask ebpf` and build again")]
    Missing {
        /// Program or map.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A program cannot be put on an interface.
    #[error("program `{program}` cannot be attached")]
    Attach {
        /// Its name.
        program: &'static str,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A program cannot be taken off an interface.
    #[error("program `{program}` cannot be taken off {interface}")]
    Detach {
        /// Its name.
        program: &'static str,
        /// Where it is.
        interface: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// A map is not what the program takes it for.
    #[error("map `{name}` has {found}, expected {expected}: run `cargo xtask ebpf` and build again")]
    Shape {
        /// The map.
        name: String,
        /// What it is.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// A map cannot be read.
    #[error("map `{name}` cannot be read")]
    Map {
        /// The map.
        name: String,
        /// What aya says.
        #[source]
        source: Box<aya::maps::MapError>,
    },
    /// A map cannot be mapped into memory.
    #[error("map `{name}` cannot be mapped into memory")]
    Mapping {
        /// The map.
        name: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// No interface has the address.
    #[error("no interface has the address {address}")]
    NoInterface {
        /// The agent's address.
        address: std::net::IpAddr,
    },
    /// The interfaces cannot be listed, or what is attached to them.
    #[error("cannot ask for {what}")]
    Query {
        /// What was asked for.
        what: String,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether it is for lack of privilege: CAP_BPF and CAP_NET_ADMIN.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        errno(self) == Some(libc::EPERM)
    }

    /// The error and all its causes, as one line.
    #[must_use]
    pub fn told(&self) -> String {
        let told = without_log(&self.told_with_log());
        if self.is_forbidden() { format!("{told}: give this process CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN") } else { told }
    }

    /// The same with all that the verifier said of a program: thousands of lines.
    #[must_use]
    pub fn told_with_log(&self) -> String {
        chain(self)
    }
}

/// Leaves of a verifier's log the line that says what is wrong: the last one that is neither state nor statistics.
fn without_log(text: &str) -> String {
    let Some((before, log)) = text.split_once(LOG_FOLLOWS) else { return text.to_owned() };
    let is_end = |line: &&str| {
        ["verification time", "stack depth", "processed "].iter().any(|start| line.starts_with(start)) || line.trim().is_empty()
    };
    let last = log.lines().rev().find(|line| !is_end(line)).unwrap_or_default();
    if last.is_empty() { before.trim_end_matches('.').to_owned() } else { format!("{before} {last}") }
}

/// The system error at the end of a chain of errors.
pub(crate) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(system) = error.downcast_ref::<io::Error>() {
            return system.raw_os_error();
        }
        next = error.source();
    }
    None
}

/// An error and all its causes, as one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let told = error.to_string();
        // Errors of libraries often repeat their cause.
        if !text.contains(&told) {
            text = format!("{text}: {told}");
        }
        next = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifiers_log_is_left_out() {
        let log = "0: (b7) r0 = 2\n1: R0 invalid mem access 'scalar'\nverification time 9 usec\nprocessed 2 insns\n";
        assert_eq!(
            without_log(&format!("refused: EACCES. Verifier output: {log}")),
            "refused: EACCES. 1: R0 invalid mem access 'scalar'"
        );
        assert_eq!(without_log("refused: EPERM. Verifier output: "), "refused: EPERM");
        assert_eq!(without_log("no such map"), "no such map");
    }

    #[test]
    fn what_is_forbidden_comes_with_the_fix() {
        let error = Error::Attach { program: "p", source: io::Error::from_raw_os_error(libc::EPERM) };
        assert!(error.told().ends_with(": give this process CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN"), "{}", error.told());
    }
}

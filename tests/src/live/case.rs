//! What a live case is.
//!
//! Owns the description and the check of what the machine must have. Must not know how cases are run.

use super::bed::Bed;
use anyhow::Result;
use dvm_hosts::Links;
use std::fmt;
use std::path::Path;
use std::time::Duration;

/// The usual MTU: a page fits one packet.
const MTU: u32 = 9000;

/// One thing that must hold.
pub struct Case {
    /// Its name, by which it is chosen and reported.
    pub name: String,
    /// Hosts it runs on.
    pub hosts: usize,
    /// What the machine must have, beside root and the two programs.
    pub needs: Vec<Need>,
    /// Longest it may take.
    pub deadline: Duration,
    /// Whether it harms its hosts, so that the next case needs new ones.
    pub harms: bool,
    /// Whether others of its kind may run beside it: it leaves the hosts as they are and looks at its own job alone.
    pub is_sociable: bool,
    /// What its hosts' links are like.
    pub links: Links,
    /// `fast_path` of its hosts, if it matters to the case.
    pub fast_path: Option<&'static str>,
    /// `memory` of its hosts, if it matters to the case.
    pub memory: Option<&'static str>,
    /// The case; says in a few words what it saw.
    pub run: Run,
}

/// Why a case found, once it ran, that this machine cannot run it: it is skipped, not failed.
#[derive(Debug)]
pub struct Lacking(pub String);

/// The body of a case.
pub type Run = Box<dyn Fn(&mut Bed<'_>) -> Result<String> + Send + Sync>;

/// Something a machine may lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// An installed program.
    Program(&'static str),
    /// An installed header file.
    Header(&'static str),
    /// A device that can be opened.
    Device(&'static str),
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Lacking {}

impl Case {
    /// A case on `hosts` hosts with the usual deadline.
    pub fn new(
        name: impl Into<String>,
        hosts: usize,
        run: impl Fn(&mut Bed<'_>) -> Result<String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            hosts,
            needs: Vec::new(),
            deadline: Duration::from_secs(60),
            harms: false,
            is_sociable: false,
            links: Links::of_mtu(MTU),
            fast_path: None,
            memory: None,
            run: Box::new(run),
        }
    }

    /// Adds what it needs.
    #[must_use]
    pub fn needs(mut self, needs: &[Need]) -> Self {
        self.needs.extend_from_slice(needs);
        self
    }

    /// Sets its deadline.
    #[must_use]
    pub fn within_seconds(mut self, seconds: u64) -> Self {
        self.deadline = Duration::from_secs(seconds);
        self
    }

    /// Says that the hosts are not fit for another case afterwards.
    #[must_use]
    pub fn harmful(mut self) -> Self {
        self.harms = true;
        self
    }

    /// Says that others of its kind may run beside it.
    #[must_use]
    pub const fn sociable(mut self) -> Self {
        self.is_sociable = true;
        self
    }

    /// Sets the MTU of its hosts' links.
    #[must_use]
    pub const fn with_mtu(mut self, mtu: u32) -> Self {
        self.links.mtu = mtu;
        self
    }

    /// Sets the number of queues of its hosts' links.
    #[must_use]
    pub const fn with_queues(mut self, queues: usize) -> Self {
        self.links.queues = queues;
        self
    }

    /// Lets native XDP work on its hosts' links.
    #[must_use]
    pub const fn with_native_xdp(mut self) -> Self {
        self.links.has_native_xdp = true;
        self
    }

    /// Sets `fast_path` of its hosts, whatever the others run with.
    #[must_use]
    pub fn with_fast_path(mut self, fast_path: &'static str) -> Self {
        self.fast_path = Some(fast_path);
        self
    }

    /// Sets `memory` of its hosts.
    #[must_use]
    pub fn with_memory(mut self, memory: &'static str) -> Self {
        self.memory = Some(memory);
        self
    }

    /// Why this machine cannot run it, if it cannot.
    #[must_use]
    pub fn lacks(&self) -> Option<String> {
        self.needs.iter().find(|need| !need.is_met()).map(ToString::to_string)
    }
}

impl Need {
    fn is_met(self) -> bool {
        match self {
            Self::Program(name) => find_program(name).is_some(),
            Self::Header(name) => Path::new("/usr/include").join(name).exists(),
            Self::Device(path) => std::fs::File::options().read(true).write(true).open(path).is_ok(),
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(name) | Self::Header(name) => write!(f, "`{name}` is not installed"),
            Self::Device(path) => write!(f, "{path} cannot be opened"),
        }
    }
}

/// Where an installed program is.
#[must_use]
pub fn find_program(name: &str) -> Option<std::path::PathBuf> {
    ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        .iter()
        .map(|directory| Path::new(directory).join(name))
        .find(|path| path.exists())
}

//! Which host is the home of a page.
//!
//! Owns the rule, the same on all hosts. Must not know what homes do.

use crate::message::{Host, ROOT};
use dvm_disa::map::{self, PAGE_BYTES};
use std::collections::BTreeSet;

/// Pages of an extent, the unit in which homes are given out.
const EXTENT_PAGES: u64 = 512;

/// The home of each page, as far as hosts are not lost.
#[derive(Clone, Debug)]
pub struct Homes {
    hosts: u16,
    lost: BTreeSet<Host>,
}

impl Homes {
    /// Those of a run on so many hosts.
    #[must_use]
    pub const fn new(hosts: u16) -> Self {
        Self { hosts, lost: BTreeSet::new() }
    }

    /// The home of a page. Exit codes are at the root, who writes most of them; so are pages of lost hosts, since the log has them.
    #[must_use]
    pub fn of(&self, page: u64) -> Host {
        if map::EXIT_CODES.contains(page * PAGE_BYTES) {
            return ROOT;
        }
        let mixed = (page / EXTENT_PAGES).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let host = Host(((mixed >> 32) % u64::from(self.hosts)) as u16);
        if self.lost.contains(&host) { ROOT } else { host }
    }

    /// A host is lost for good; whether that is new.
    pub fn lose(&mut self, host: Host) -> bool {
        self.lost.insert(host)
    }

    /// Whether a host is of the run and not lost.
    #[must_use]
    pub fn is_member(&self, host: Host) -> bool {
        host.0 < self.hosts && !self.lost.contains(&host)
    }

    /// All that are.
    pub fn members(&self) -> impl Iterator<Item = Host> {
        (0..self.hosts).map(Host).filter(|host| !self.lost.contains(host))
    }
}

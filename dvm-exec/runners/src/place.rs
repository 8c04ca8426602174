//! Which host is the home of a page.
//!
//! Owns the rule, the same on all hosts. Must not know what homes do.

use crate::message::{FIRST_ROOT, Host};
use dvm_disa::map::{self, PAGE_BYTES};
use std::collections::BTreeSet;

/// Pages of an extent, the unit in which homes are given out.
const EXTENT_PAGES: u64 = 512;

/// The home of each page, as far as hosts are not lost.
#[derive(Clone, Debug)]
pub struct Homes {
    hosts: u16,
    lost: BTreeSet<Host>,
    root: Host,
}

impl Homes {
    /// Those of a run on so many hosts.
    #[must_use]
    pub const fn new(hosts: u16) -> Self {
        Self { hosts, lost: BTreeSet::new(), root: FIRST_ROOT }
    }

    /// The home of a page. Exit codes are at the root, who writes most of them; so are pages of lost hosts, since the log has them.
    #[must_use]
    pub fn of(&self, page: u64) -> Host {
        if map::EXIT_CODES.contains(page * PAGE_BYTES) {
            return self.root;
        }
        let mixed = (page / EXTENT_PAGES).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let host = Host(((mixed >> 32) % u64::from(self.hosts)) as u16);
        if self.lost.contains(&host) { self.root } else { host }
    }

    /// The host that gives out timestamps.
    #[must_use]
    pub const fn root(&self) -> Host {
        self.root
    }

    /// Another one does from now on.
    pub const fn set_root(&mut self, root: Host) {
        self.root = root;
    }

    /// The hosts that have the log beside the root, if there are to be `copies` of it: those that follow the root.
    pub fn backups(&self, copies: usize) -> impl Iterator<Item = Host> {
        self.members().filter(|host| *host > self.root).take(copies.saturating_sub(1))
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

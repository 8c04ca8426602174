//! Pictures: pages that a host pins while it looks at them, as for the copy of a forked child.
//!
//! Owns which pages are pinned where, and that nobody writes them meanwhile. Must not know how the protocol sees to that.

use super::pager::Rights;
use super::world::{Happening, World};
use dsm_wire::{PageNumber, PageRange};
use std::collections::BTreeSet;

/// Pages of one picture.
pub(super) const PAGES_MAX: u64 = 6;
/// Longest time for which one is taken.
const PICTURE_NS_MAX: u64 = 4_000_000;

/// The picture that a host takes.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    is_open: bool,
    /// What the node has said to be pinned.
    pinned: BTreeSet<PageNumber>,
}

impl World {
    /// Now and then a host takes a picture of pages around `page`.
    pub(super) fn maybe_picture(&mut self, host: usize, page: PageNumber) -> Result<(), String> {
        if self.plan.pictures == 0 || self.hosts[host].picture.is_open || !self.pictures.chance(self.plan.pictures) {
            return Ok(());
        }
        self.hosts[host].picture.is_open = true;
        let until = self.now + self.pictures.between(1_000, PICTURE_NS_MAX);
        self.plan_at(until, host, Happening::PictureTaken { host });
        for _ in 0..self.pictures.between(1, PAGES_MAX) {
            let offset = self.pictures.below(self.plan.pages);
            let page = PageNumber(page.extent().0 * 512 + 500 - offset);
            self.note_text_with(|now| format!("{now} pin {host} {page}"));
            self.call(host, |node, now| node.handle_pin(now, page))?;
        }
        self.drain(host)
    }

    pub(super) fn end_picture(&mut self, host: usize) -> Result<(), String> {
        self.hosts[host].picture = Picture::default();
        self.call(host, |node, now| node.handle_unpin(now))?;
        self.drain(host)
    }

    /// The node of `host` says that it has pinned `page`.
    pub(super) fn on_pinned(&mut self, host: usize, page: PageNumber) -> Result<(), String> {
        if !self.hosts[host].picture.is_open {
            return Err(format!("host {host} says that page {page} is pinned, and no picture is taken"));
        }
        if self.closings.values().any(|closing| closing.is_sent && closing.range.contains(page)) {
            return Ok(());
        }
        match self.hosts[host].pager.mapping(page).map(|mapping| mapping.rights) {
            Some(Rights::Read) => drop(self.hosts[host].picture.pinned.insert(page)),
            Some(Rights::Poison) => {}
            None if self.plan.crash.is_some() => {}
            rights @ (Some(Rights::Write) | None) => {
                return Err(format!("page {page} is pinned at host {host} with rights {rights:?}"));
            }
        }
        Ok(())
    }

    /// Pages that are given back are in no picture any more.
    pub(super) fn strike_from_pictures(&mut self, range: PageRange) {
        for host in &mut self.hosts {
            host.picture.pinned.retain(|page| !range.contains(*page));
        }
    }

    /// A write of `page` happened.
    pub(super) fn check_pictures(&self, page: PageNumber) -> Result<(), String> {
        let is_pinned = |host: &&super::host::Host| !host.is_fenced && host.picture.pinned.contains(&page);
        match self.hosts.iter().find(is_pinned) {
            Some(_) => Err(format!("page {page} was written while it was pinned")),
            None => Ok(()),
        }
    }
}

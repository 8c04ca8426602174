//! The simulated program: what its threads access, and the pages it gives back.
//!
//! Owns the load. Must not know the protocol.

use super::host::{Host, ROOTED_FROM};
use super::pager::{Access, Stamp};
use super::world::{Closing, Happening, World};
use dsm_proto::{FaultKind, Nanos};
use dsm_wire::{PageNumber, PageRange};

const FIRST_EXTENT: u64 = 7;

impl World {
    /// A thread makes its access, or its next one.
    pub(super) fn step(&mut self, host: usize, thread: usize) -> Result<(), String> {
        let Some((page, kind)) = self.next_access(host, thread) else { return Ok(()) };
        let is_closed = self.closings.values().any(|closing| closing.range.contains(page));
        let is_new = self.hosts[host].threads[thread].access.is_none();
        if is_new && is_closed && !self.hosts[host].is_fenced {
            // The program gave this page back and has not got it anew: no thread of it comes here.
            self.plan_at(self.now + 50_000, host, Happening::Step { host, thread });
            return self.send_closings();
        }
        self.hosts[host].threads[thread].access = Some((page, kind));
        let weather = self.weather();
        if self.hosts[host].rng.chance(weather.vanishing) {
            self.hosts[host].pager.hide(page);
        }
        let access = self.hosts[host].pager.access(page, kind, self.truth.next_stamp());
        match access {
            Access::Fault => {
                self.hosts[host].pager.parked.push((thread, page, kind));
                let at = self.now + self.hosts[host].rng.between(1, 10_000);
                self.plan_at(at, host, Happening::Fault { host, page, kind });
                return Ok(());
            }
            Access::Killed => {
                self.outcome.killed += 1;
            }
            Access::Hit(_) if self.hosts[host].is_fenced => {}
            Access::Hit(stamp) => {
                let judged = match kind {
                    FaultKind::Read => self.truth.on_read(page, stamp),
                    FaultKind::Write => self.truth.on_write(page, stamp),
                };
                judged.map_err(|reason| format!("host {host} {kind:?}: {reason}"))?;
                if kind == FaultKind::Write {
                    self.check_pictures(page)?;
                }
                self.check_page(page)?;
            }
        }
        self.outcome.accesses += 1;
        self.hosts[host].threads[thread].access = None;
        self.hosts[host].threads[thread].left -= 1;
        if !self.hosts[host].is_fenced {
            self.maybe_discard(host, page)?;
            self.maybe_picture(host, page)?;
        }
        let pause = self.hosts[host].threads[thread].rng.between(100, 200_000);
        self.plan_at(self.now + pause, host, Happening::Step { host, thread });
        Ok(())
    }

    fn next_access(&mut self, host: usize, thread: usize) -> Option<(PageNumber, FaultKind)> {
        let plan = &self.plan;
        let first_extent = FIRST_EXTENT + host as u64 / plan.group.max(1) * plan.extents * plan.group.min(1);
        let thread = self.hosts[host].threads.get_mut(thread)?;
        if let Some(access) = thread.access {
            return Some(access);
        }
        if thread.left == 0 {
            return None;
        }
        if thread.scan > 0 {
            thread.scan -= 1;
            let page = PageNumber(first_extent * 512 + thread.scan % (plan.extents * 512));
            return Some((PageNumber(page.0 / 512 * 512 + 511 - page.0 % 512), thread.scan_kind));
        }
        if thread.rng.chance(plan.scans / 16) {
            thread.scan = thread.rng.pick(&[3, 20, 40, 150]);
            thread.scan_kind = if thread.left % 3 == 0 { FaultKind::Write } else { FaultKind::Read };
        }
        let extent = first_extent + thread.rng.below(plan.extents);
        let page = PageNumber(extent * 512 + 500 - thread.rng.below(plan.pages));
        let kind = if thread.rng.chance(plan.writes) { FaultKind::Write } else { FaultKind::Read };
        Some((page, kind))
    }

    /// Now and then the program gives pages back: first no thread uses them, then they are forgotten, then they are new.
    fn maybe_discard(&mut self, host: usize, page: PageNumber) -> Result<(), String> {
        if !self.network.chance(self.plan.discards) {
            return self.send_closings();
        }
        let first = PageNumber(page.0.saturating_sub(self.network.below(40)));
        let count = if self.network.chance(200_000) { 1_000_000_000 } else { self.network.between(1, 600) };
        let range = PageRange::new(first, count);
        let overlaps = |closing: &Closing| closing.range.first < range.end() && range.first < closing.range.end();
        if !self.closings.values().any(overlaps) {
            self.token_last += 1;
            self.closings.insert(self.token_last, Closing { host, range, is_sent: false });
        }
        self.send_closings()
    }

    pub(super) fn send_closings(&mut self) -> Result<(), String> {
        let ready: Vec<(u64, Closing)> =
            self.closings.iter().filter(|(_, closing)| !closing.is_sent).map(|(token, closing)| (*token, *closing)).collect();
        for (token, closing) in ready {
            let in_use = |host: &Host| {
                !host.is_fenced
                    && host.threads.iter().any(|thread| thread.access.is_some_and(|(page, _)| closing.range.contains(page)))
            };
            if self.hosts.iter().any(in_use) || !self.hosts[closing.host].is_up {
                continue;
            }
            self.closings.insert(token, Closing { is_sent: true, ..closing });
            if token % 3 == 0 {
                self.unsource(closing.range);
            }
            self.note_text(format!("discard {} {:?}", closing.host, closing.range));
            self.strike_from_pictures(closing.range);
            if !self.call(closing.host, |node, now| node.handle_discard(now, closing.range, token))? {
                return Err("a discard is refused".into());
            }
            self.drain(closing.host)?;
        }
        Ok(())
    }

    pub(super) fn open(&mut self, token: u64) {
        if let Some(closing) = self.closings.remove(&token) {
            self.truth.on_discarded(closing.range);
            self.strike_from_pictures(closing.range);
            self.outcome.discards += 1;
            if self.plan.is_sourced && token.is_multiple_of(6) {
                self.source(closing.range);
            }
        }
    }

    /// Gives most pages of the rooted extents contents, before anybody touches them.
    pub(super) fn source_all(&mut self) -> Result<(), String> {
        let extents = self.sourceable();
        for first in (extents.first.0..extents.end().0).step_by(16) {
            if !self.source(PageRange::new(PageNumber(first), 12)) {
                return Err(format!("page {first} cannot have a source"));
            }
        }
        Ok(())
    }

    fn sourceable(&self) -> PageRange {
        let end = FIRST_EXTENT + self.plan.extents;
        PageRange::new(ROOTED_FROM.first_page(), end.saturating_sub(ROOTED_FROM.0) * 512)
    }

    /// Gives the pages of `range` that can have some contents, if they are in nobody's hands. Returns whether it did.
    fn source(&mut self, range: PageRange) -> bool {
        let all = self.sourceable();
        let first = range.first.max(all.first);
        let range = PageRange::new(first, range.end().min(all.end()).0.saturating_sub(first.0));
        if range.count == 0 || !self.hosts[0].is_up || self.hosts[0].is_fenced {
            return false;
        }
        let is_taken = self.hosts[0].node.handle_source(Nanos(self.now), range);
        if is_taken {
            self.hosts[0].pager.set_source(range, Some(first_stamp));
            self.truth.set_source(range, Some(first_stamp));
        }
        is_taken
    }

    fn unsource(&mut self, range: PageRange) {
        let all = self.sourceable();
        let first = range.first.max(all.first);
        let range = PageRange::new(first, range.end().min(all.end()).0.saturating_sub(first.0));
        self.hosts[0].node.handle_unsource(Nanos(self.now), range);
        self.hosts[0].pager.set_source(range, None);
        self.truth.set_source(range, None);
    }
}

/// What a page with a source holds at first: no write's stamp.
fn first_stamp(page: PageNumber) -> Stamp {
    (1 << 40) + page.0
}

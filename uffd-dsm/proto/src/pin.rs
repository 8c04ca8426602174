//! Pins: pages that stay here unchanged, while somebody takes a picture of the space.
//!
//! Owns which pages these are and when each has come to rest. Must not know what the picture is for, nor how long it takes.
//!
//! The copy of a forked child is taken page by page, while threads run everywhere. If every page of it stays as it was copied until
//! the last one is, then all of them together are what the space held at that moment: a consistent cut. So a pinned page may be
//! read by anybody, but orders to drop it or to hand it over wait, and so do threads here that would write it.
//!
//! ```text
//!            here and read-only                unpinned             writable again, or at once if it was not protected for this
//!   Coming ---------------------> Still ---------------------> Going ------------------------> gone
//! ```

use crate::extent::{Form, LocalState};
use crate::face::{Contents, Event, FaultKind, Frame, Nanos, PageOp};
use crate::node::{Node, is_in_space};
use crate::operation::Follow;
use crate::plant::{Plant, is};
use crate::transient::{Fault, Want};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use dsm_wire::{Message, PageNumber, PageRange, Rights};

/// See the file's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Coming,
    Still,
    Going,
}

#[derive(Clone, Copy, Debug)]
struct Pin {
    stage: Stage,
    /// The page is this node's to write, and was made read-only for the pin.
    is_protected: bool,
    /// Threads here wait to write it.
    blocked: Option<Fault>,
}

/// The pinned pages.
#[derive(Debug, Default)]
pub struct Pins {
    pins: BTreeMap<PageNumber, Pin>,
    /// Those that come or go.
    moving: BTreeSet<PageNumber>,
}

impl Pins {
    pub fn len(&self) -> usize {
        self.pins.len()
    }

    pub fn contains(&self, page: PageNumber) -> bool {
        self.pins.contains_key(&page)
    }

    /// Whether nobody may write `page`.
    pub fn is_still(&self, page: PageNumber) -> bool {
        self.pins.get(&page).is_some_and(|pin| pin.stage == Stage::Still)
    }
}

/// What a node has of a page, whatever form its extent has.
enum Has {
    Nothing,
    Copy,
    Page,
    /// It is lost: there is nothing to wait for.
    Lost,
}

impl Node {
    /// Keeps `page` here and unchanged from the [`Event::Pinned`] that follows until [`Node::handle_unpin`]; fetches it first if it is
    /// elsewhere. A page that is lost is said to be pinned, too: whoever reads it learns of that as a thread does.
    pub fn handle_pin(&mut self, now: Nanos, page: PageNumber) {
        self.now = now;
        if !is_in_space(page) {
            self.counters.dropped_nonsense += 1;
            return;
        }
        let pin = self.pins.pins.entry(page).or_insert(Pin { stage: Stage::Coming, is_protected: false, blocked: None });
        if pin.stage == Stage::Still {
            self.emit(Event::Pinned { page });
        } else {
            pin.stage = Stage::Coming;
            self.pins.moving.insert(page);
        }
        self.run();
    }

    /// Lets go of every pinned page. A pin that has not come is forgotten.
    pub fn handle_unpin(&mut self, now: Nanos) {
        self.now = now;
        for (page, pin) in &mut self.pins.pins {
            pin.stage = Stage::Going;
            self.pins.moving.insert(*page);
        }
        self.run();
    }

    /// Takes the next step for every page that comes or goes. Returns whether that gave this node's roles something to say.
    pub(crate) fn advance_pins(&mut self) -> bool {
        if self.pins.moving.is_empty() {
            return false;
        }
        let pages: Vec<PageNumber> = self.pins.moving.iter().copied().collect();
        pages.into_iter().for_each(|page| self.advance_pin(page));
        self.has_loopback()
    }

    /// Takes the next step for `page`, if it is pinned or was, and nothing on it is in flight.
    pub(crate) fn advance_pin(&mut self, page: PageNumber) {
        if !self.pins.moving.contains(&page) || self.operations.is_on(page) {
            return;
        }
        match self.pins.pins.get(&page).copied() {
            Some(Pin { stage: Stage::Coming, .. }) => self.bring_to_rest(page),
            Some(Pin { stage: Stage::Going, is_protected, blocked }) => {
                self.pins.pins.remove(&page);
                self.pins.moving.remove(&page);
                self.let_go(page, is_protected, blocked);
            }
            Some(Pin { stage: Stage::Still, .. }) | None => {}
        }
    }

    fn bring_to_rest(&mut self, page: PageNumber) {
        let want = self.transients.get(&page).and_then(|transient| transient.want);
        if want.is_some_and(|want| want.ask.is_some()) {
            // What was asked for may come with more rights than there are now.
            return;
        }
        match self.has(page) {
            Has::Page => {
                if let Some(pin) = self.pins.pins.get_mut(&page) {
                    pin.is_protected = true;
                }
                self.start(PageOp::ProtectRead { range: PageRange::new(page, 1) }, Follow::Pin);
            }
            Has::Copy | Has::Lost => self.on_still(page),
            Has::Nothing if want.is_some() => {}
            Has::Nothing => {
                let fault = Fault::ahead(FaultKind::Read, self.now);
                self.transients.entry(page).or_default().want = Some(Want { fault, count: 1, ask: None, is_raised_again: false });
                self.pursue(page);
                self.settle(page);
            }
        }
    }

    /// The page was made read-only.
    pub(crate) fn on_protected_for_pin(&mut self, page: PageNumber, contents: &Contents) {
        self.free(contents);
        if self.pins.pins.get(&page).is_some_and(|pin| pin.stage == Stage::Coming) {
            self.on_still(page);
        }
    }

    fn on_still(&mut self, page: PageNumber) {
        if let Some(pin) = self.pins.pins.get_mut(&page) {
            pin.stage = Stage::Still;
        }
        self.pins.moving.remove(&page);
        self.emit(Event::Pinned { page });
    }

    fn let_go(&mut self, page: PageNumber, is_protected: bool, blocked: Option<Fault>) {
        if let Some(fault) = blocked {
            let want = &mut self.transients.entry(page).or_default().want;
            want.get_or_insert(Want { fault, count: 1, ask: None, is_raised_again: false });
        }
        if is_protected && matches!(self.has(page), Has::Page) {
            self.start(PageOp::Unprotect { page }, Follow::Unpin);
        } else {
            self.release_page(page);
        }
        self.settle(page);
    }

    /// An operation on `range` is done. A pinned page that is not here any more was forgotten by a discard, which has put an end to what
    /// the picture shows: its pin goes, too.
    pub(crate) fn forget_pins_of_absent(&mut self, range: PageRange) {
        let pins = self.pins.pins.range(range.first..range.end());
        let still: Vec<PageNumber> = pins.filter(|(_, pin)| pin.stage == Stage::Still).map(|(page, _)| *page).collect();
        for page in still {
            if matches!(self.has(page), Has::Nothing)
                && let Some(pin) = self.pins.pins.remove(&page)
            {
                self.let_go(page, false, pin.blocked);
            }
        }
    }

    /// Whether the order or the right in `frame` has to wait until `page` is not pinned any more.
    pub(crate) fn is_pinned_against(&self, page: PageNumber, frame: &Frame) -> bool {
        let is_order = match frame.message {
            // A request that came to home twice is granted twice: the second time when nobody here asks for it any more.
            Message::Forward { rights: Rights::Write, era, .. }
            | Message::Grant { rights: Rights::Write, era, .. }
            | Message::Invalidate { era, .. } => era > self.local(page).era,
            _ => false,
        };
        is_order && self.pins.is_still(page) && matches!(self.has(page), Has::Copy | Has::Page) && !is(Plant::PinIgnored)
    }

    /// Whether a thread here that wants to write `page` has to wait until it is not pinned any more; it is taken up again then.
    pub(crate) fn is_blocked(&mut self, page: PageNumber, fault: Fault) -> bool {
        let is_here = fault.kind == FaultKind::Write && self.pins.is_still(page) && !matches!(self.has(page), Has::Nothing);
        let Some(pin) = self.pins.pins.get_mut(&page).filter(|_| is_here) else { return false };
        pin.blocked.get_or_insert(fault);
        true
    }

    fn has(&self, page: PageNumber) -> Has {
        let Some(extent) = self.extents.get(&page.extent()) else { return Has::Nothing };
        let index = page.index_in_extent();
        match &extent.form {
            _ if extent.unread.contains(index) => Has::Nothing,
            Form::Unknown => Has::Nothing,
            Form::Lost => Has::Lost,
            Form::Whole(whole) if whole.present.contains(index) => Has::Page,
            Form::Whole(_) => Has::Nothing,
            Form::Split(words, _) | Form::Remote(_, words) => match words.local(index).state {
                LocalState::Invalid => Has::Nothing,
                LocalState::Shared => Has::Copy,
                LocalState::Modified => Has::Page,
                LocalState::Poisoned => Has::Lost,
            },
        }
    }
}

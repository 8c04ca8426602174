//! The hold window: a page that is torn to and fro stays a little where it is.
//!
//! Owns the decision to delay an order for a page. Must not delay a lone hand-off.

use crate::face::Frame;
use crate::node::Node;
use dsm_wire::PageNumber;

impl Node {
    pub(crate) fn is_held_back(&mut self, _page: PageNumber, _frame: &Frame) -> bool {
        false
    }

    pub(crate) fn on_hold_due(&mut self, _page: PageNumber) {}

    pub(crate) fn note_arrival(&mut self, _page: PageNumber) {}

    pub(crate) fn note_departure(&mut self, _page: PageNumber) {}
}

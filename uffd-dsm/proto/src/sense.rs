//! What a frame of a peer must satisfy before a role looks at it.
//!
//! Owns the checks that need no table. Must not panic, whatever the frame says.

use crate::face::Contents;
use crate::limits::{EXTENTS_MAX, PAGES_MAX};
use dsm_wire::{GrantContent, Message, PAGES_PER_EXTENT, PAGES_PER_MESSAGE_MAX, PageNumber, PageRange};

/// Whether the fields of `message` fit each other, its payload and the space.
pub fn is_sane(message: &Message, contents: &Contents) -> bool {
    let pages_expected = match *message {
        Message::Grant { content: GrantContent::Bytes, count, .. } => count,
        Message::Grant { .. }
        | Message::Request { .. }
        | Message::Forward { .. }
        | Message::Invalidate { .. }
        | Message::InvalidateAck { .. }
        | Message::Done { .. }
        | Message::Retry { .. }
        | Message::Locate { .. }
        | Message::Located { .. }
        | Message::Discard { .. }
        | Message::DiscardDone { .. }
        | Message::Lost { .. }
        | Message::Offload { .. }
        | Message::Declined { .. } => 0,
    };
    contents.len() == pages_expected && is_in_range(message)
}

fn is_in_range(message: &Message) -> bool {
    match *message {
        Message::Request { page, count, .. } | Message::Grant { page, count, .. } | Message::Offload { page, count, .. } => {
            is_run(page, count)
        }
        Message::Forward { page, .. }
        | Message::Invalidate { page, .. }
        | Message::InvalidateAck { page, .. }
        | Message::Done { page, .. }
        | Message::Retry { page, .. }
        | Message::Lost { page, .. }
        | Message::Declined { page, .. } => page.0 < PAGES_MAX,
        Message::Locate { extent, .. } | Message::Located { extent, .. } => extent.0 < EXTENTS_MAX,
        Message::Discard { range: PageRange { first, count }, .. } => count > 0 && first.0 < PAGES_MAX,
        Message::DiscardDone { .. } => true,
    }
}

fn is_run(page: PageNumber, count: u16) -> bool {
    let is_inside = page.index_in_extent() as u64 + u64::from(count) <= PAGES_PER_EXTENT;
    (1..=PAGES_PER_MESSAGE_MAX).contains(&count) && page.0 < PAGES_MAX && is_inside
}

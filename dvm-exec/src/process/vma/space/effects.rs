//! What is to be done to memory, in order.
//!
//! Owns how effects are put together. Must not know why.

use crate::process::vma::{Area, AreaKind, Effect, Protection};
use std::ops::Range;

/// Adds a protection, joined with the one before it if that is the same for the pages before.
pub fn push_protection(effects: &mut Vec<Effect>, range: &Range<u64>, new: Protection, broadcast: bool) {
    match effects.last_mut() {
        Some(Effect::Protect { range: last, protection }) if !broadcast && last.end == range.start && *protection == new => {
            last.end = range.end;
        }
        Some(Effect::ProtectDown { range: last, protection }) if broadcast && last.end == range.start && *protection == new => {
            last.end = range.end;
        }
        _ if broadcast => {
            effects.push(Effect::ProtectDown { range: range.clone(), protection: new });
        }
        _ => effects.push(Effect::Protect { range: range.clone(), protection: new }),
    }
}

/// Adds a protection of what of an area can be touched.
pub fn push_rights(effects: &mut Vec<Effect>, area: &Area, new: Protection, broadcast: bool) {
    let reach = area.reach();
    if !reach.is_empty() {
        push_protection(effects, &reach, new, broadcast);
    }
}

/// Adds the reading of what a file mapping has in its file, if anything; rights must follow.
pub fn push_file(effects: &mut Vec<Effect>, area: &Area) -> bool {
    let (AreaKind::File { file, offset, .. }, reach) = (&area.kind, area.reach()) else { return false };
    if reach.is_empty() {
        return false;
    }
    effects.push(Effect::Protect { range: reach.clone(), protection: Protection::READ_WRITE });
    effects.push(Effect::ReadAgain { range: reach, file: file.clone(), offset: *offset });
    true
}

/// Adds that contents are forgotten.
pub fn push_discard(effects: &mut Vec<Effect>, range: Range<u64>) {
    match effects.last_mut() {
        Some(Effect::Discard { range: last }) if last.end == range.start => last.end = range.end,
        _ => effects.push(Effect::Discard { range }),
    }
}

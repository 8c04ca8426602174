//! The ordered set of areas: splitting, joining, finding.
//!
//! Owns disjointness and joining of neighbours. Must not know the rules of any call.

use super::{Area, AreaKind, Protection, SPACE_END, SPACE_START};
use std::collections::BTreeMap;
use std::ops::Range;

/// An area and what the map knows of it beside what `/proc/self/maps` shows.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub area: Area,
    /// Its pages may hold something else than zeros.
    pub touched: bool,
    /// A member has looked it up and may have its rights.
    pub known: bool,
    /// All its pages have a file as their source.
    pub sourced: bool,
}

/// Areas by address; never two at one page.
#[derive(Clone, Debug, Default)]
pub(super) struct Areas {
    by_start: BTreeMap<u64, Entry>,
}

impl Areas {
    pub fn count(&self) -> usize {
        self.by_start.len()
    }

    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.by_start.values()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Area> {
        self.by_start.values().map(|entry| &entry.area)
    }

    pub fn at(&self, address: u64) -> Option<&Entry> {
        let (_, entry) = self.by_start.range(..=address).next_back()?;
        (address < entry.area.range.end).then_some(entry)
    }

    pub fn at_mut(&mut self, address: u64) -> Option<&mut Entry> {
        let (_, entry) = self.by_start.range_mut(..=address).next_back()?;
        (address < entry.area.range.end).then_some(entry)
    }

    /// The last area that has a page in `range`.
    pub fn last_in(&self, range: &Range<u64>) -> Option<&Entry> {
        let (_, entry) = self.by_start.range(..range.end).next_back()?;
        (entry.area.range.end > range.start).then_some(entry)
    }

    pub fn is_free(&self, range: &Range<u64>) -> bool {
        self.last_in(range).is_none()
    }

    /// The hole around an address that is in no area.
    pub fn hole_at(&self, address: u64) -> Range<u64> {
        let start = self.by_start.range(..=address).next_back().map_or(SPACE_START, |(_, entry)| entry.area.range.end);
        let end = self.by_start.range(address..).next().map_or(SPACE_END, |(&start, _)| start);
        start..end
    }

    /// The pieces of areas within `range`, ascending, cut to it.
    pub fn pieces(&self, range: &Range<u64>) -> Vec<Entry> {
        if range.is_empty() {
            return Vec::new();
        }
        let first = self.at(range.start).map_or(range.start, |entry| entry.area.range.start);
        self.by_start.range(first..range.end).map(|(_, entry)| piece(entry, range)).collect()
    }

    /// How far the run of areas that begins at `range.start` reaches within `range`.
    pub fn covered_to(&self, range: &Range<u64>) -> u64 {
        let mut at = range.start;
        while at < range.end
            && let Some(entry) = self.at(at)
        {
            at = entry.area.range.end;
        }
        at.min(range.end)
    }

    /// Takes `range` out and returns what was there.
    pub fn remove(&mut self, range: &Range<u64>) -> Vec<Entry> {
        if range.is_empty() {
            return Vec::new();
        }
        self.cut(range.start);
        self.cut(range.end);
        let starts: Vec<u64> = self.by_start.range(range.clone()).map(|(&start, _)| start).collect();
        starts.iter().filter_map(|start| self.by_start.remove(start)).collect()
    }

    /// Puts an area into a hole and joins it with equal neighbours.
    pub fn insert(&mut self, mut entry: Entry) {
        if entry.area.range.is_empty() {
            return;
        }
        assert!(self.is_free(&entry.area.range), "an area is put into a hole");
        if let Some((&start, before)) = self.by_start.range(..entry.area.range.start).next_back()
            && is_continued(&before.area, &entry.area)
            && let Some(before) = self.by_start.remove(&start)
        {
            entry = joined(before, &entry);
        }
        if let Some(after) = self.by_start.get(&entry.area.range.end)
            && is_continued(&entry.area, &after.area)
            && let Some(after) = self.by_start.remove(&entry.area.range.end)
        {
            entry = joined(entry, &after);
        }
        self.by_start.insert(entry.area.range.start, entry);
    }

    fn cut(&mut self, at: u64) {
        let Some(entry) = self.at(at) else { return };
        let whole = entry.area.range.clone();
        if whole.start == at {
            return;
        }
        let (left, right) = (piece(entry, &(whole.start..at)), piece(entry, &(at..whole.end)));
        self.by_start.insert(left.area.range.start, left);
        self.by_start.insert(right.area.range.start, right);
    }
}

/// The part of an entry within `range`.
fn piece(entry: &Entry, range: &Range<u64>) -> Entry {
    let whole = &entry.area.range;
    let part = whole.start.max(range.start)..whole.end.min(range.end);
    let kind = moved_kind(&entry.area.kind, part.start - whole.start);
    Entry { area: Area { range: part, protection: entry.area.protection, kind }, ..*entry }
}

/// The kind of the same thing, starting so many bytes later.
pub(super) fn moved_kind(kind: &AreaKind, bytes: u64) -> AreaKind {
    match kind {
        AreaKind::File { file, offset, shared, end } => {
            AreaKind::File { file: file.clone(), offset: offset + bytes, shared: *shared, end: *end }
        }
        AreaKind::Anonymous { .. } | AreaKind::Stack | AreaKind::Heap => kind.clone(),
    }
}

fn is_continued(left: &Area, right: &Area) -> bool {
    let bytes = left.range.end - left.range.start;
    left.range.end == right.range.start && left.protection == right.protection && moved_kind(&left.kind, bytes) == right.kind
}

fn joined(left: Entry, right: &Entry) -> Entry {
    Entry {
        area: Area { range: left.area.range.start..right.area.range.end, ..left.area },
        touched: left.touched || right.touched,
        known: left.known || right.known,
        sourced: left.sourced && right.sourced,
    }
}

impl Entry {
    pub fn new(range: Range<u64>, protection: Protection, kind: AreaKind) -> Self {
        Self { area: Area { range, protection, kind }, touched: protection != Protection::NONE, known: false, sourced: false }
    }
}

//! The rules of the memory calls.
//!
//! Owns what each call changes, as Linux does; what it refuses is in `judge`. Must not touch memory.

mod effects;
mod judge;

use super::advice::{self, Advice};
use super::areas::{Areas, Entry, moved_kind};
use super::place::{self, Wish};
use super::{
    ARENA_GROWN_START, ARENA_SOURCED_START, Area, AreaKind, Change, EXTENT_BYTES, Effect, FileSource, Found, Lookup, MapError,
    MapRequest, PAGE_BYTES, Protection, RemapRequest, SPACE_END, SPACE_START, text,
};
use effects::{push_discard, push_file, push_protection, push_rights};
use judge::{is_aligned, is_sourced, page_up, whole_pages};
use std::ops::Range;

const MAP_PRIVATE: u64 = libc::MAP_PRIVATE as u64;
const MAP_TYPE: u64 = libc::MAP_TYPE as u64;
const MREMAP_MAYMOVE: u64 = libc::MREMAP_MAYMOVE as u64;
const MREMAP_FIXED: u64 = libc::MREMAP_FIXED as u64;
/// Address space of a block that was moved to grow, as a multiple of its size, and at most.
const ROOM_FACTOR: u64 = 8;
const ROOM_BYTES_MAX: u64 = 64 << 30;

/// The map.
#[derive(Clone, Debug, Default)]
pub struct AddressSpace {
    areas: Areas,
    heap: Heap,
    /// Where the next block that grows goes.
    grown_end: u64,
    /// Most bytes of one request for memory that is to be there.
    promise_max: Option<u64>,
    /// RLIMIT_AS of the program, soft and hard, if it has set one.
    limits: Option<(u64, u64)>,
}

/// The break and its bounds.
#[derive(Clone, Debug, Default)]
struct Heap {
    start: u64,
    /// The break, to the byte.
    end: u64,
    limit: u64,
}

impl AddressSpace {
    /// An empty space.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A free place for a program image or stack, not yet mapped. `alignment` is a power of two.
    ///
    /// # Errors
    /// [`MapError::NoMemory`].
    pub fn find_free(&self, bytes: u64, alignment: u64) -> Result<u64, MapError> {
        let bytes = page_up(bytes).ok_or(MapError::NoMemory("length"))?;
        self.find(Wish { bytes, alignment: alignment.max(PAGE_BYTES), ..Wish::default() })
    }

    /// The loader puts an area at a fixed, free, page-aligned place.
    pub fn place(&mut self, area: Area) -> Change {
        let range = area.range.clone();
        if !is_aligned(range.start) || !is_aligned(range.end) || range.is_empty() {
            return failed(MapError::Invalid("an area is whole pages"));
        }
        if range.start < SPACE_START || range.end > SPACE_END {
            return failed(MapError::NoMemory("outside the program's space"));
        }
        if !self.areas.is_free(&range) {
            return failed(MapError::Exists);
        }
        let mut effects = Vec::new();
        push_rights(&mut effects, &area, area.protection, false);
        // The loader fills it before anybody looks.
        self.areas.insert(Entry { touched: true, ..Entry::new(range.clone(), area.protection, area.kind) });
        done(range.start, effects)
    }

    /// Says where the heap starts (page-aligned) and how far it may grow; it is empty.
    ///
    /// # Panics
    /// If either is not page-aligned or they are out of order: the loader computes them.
    pub fn set_heap(&mut self, start: u64, limit: u64) {
        assert!(is_aligned(start) && is_aligned(limit) && start <= limit, "the heap is whole pages");
        self.heap = Heap { start, end: start, limit: limit.min(SPACE_END) };
    }

    /// Says how much memory all hosts have: a request for more than that fails, unless it says that it will not use it.
    pub fn set_promise(&mut self, bytes: u64) {
        self.promise_max = Some(bytes);
    }

    /// The program's RLIMIT_AS: soft, hard.
    #[must_use]
    pub fn limits(&self) -> (u64, u64) {
        self.limits.unwrap_or((libc::RLIM_INFINITY, libc::RLIM_INFINITY))
    }

    /// The program limits its address space.
    pub fn set_limits(&mut self, limits: (u64, u64)) {
        self.limits = Some(limits);
    }

    /// mmap.
    pub fn map(&mut self, request: &MapRequest) -> Change {
        let (range, replaces) = match self.judge_map(request) {
            Ok(judged) => judged,
            Err(error) => return failed(error),
        };
        let mut effects = Vec::new();
        if replaces {
            self.clear(&range, &mut effects);
        }
        let protection = Protection::from_bits(request.protection);
        let shared = request.flags & MAP_TYPE != MAP_PRIVATE;
        let kind = match &request.file {
            Some(source) => AreaKind::File {
                file: source.file.clone(),
                offset: source.offset,
                shared,
                end: source.bytes.and_then(page_up).unwrap_or(u64::MAX),
            },
            None => AreaKind::Anonymous { shared },
        };
        let mut entry = Entry::new(range.clone(), protection, kind);
        let reach = entry.area.reach();
        if let Some(source) = request.file.as_ref().filter(|_| !reach.is_empty()) {
            let FileSource { fd, offset, .. } = *source;
            entry.touched = true;
            entry.sourced = is_sourced(request) && range.start >= ARENA_SOURCED_START;
            if entry.sourced {
                effects.push(Effect::Source { range: reach, fd, offset });
            } else {
                effects.push(Effect::Protect { range: reach.clone(), protection: Protection::READ_WRITE });
                effects.push(Effect::ReadFile { range: reach, fd, offset });
            }
            push_rights(&mut effects, &entry.area, protection, false);
        } else if protection != Protection::NONE {
            push_rights(&mut effects, &entry.area, protection, false);
        }
        self.areas.insert(entry);
        done(range.start, effects)
    }

    /// Pages of this range have a copy of their file, not the file as their source.
    pub fn note_copied(&mut self, range: &Range<u64>) {
        for piece in self.areas.remove(range) {
            self.areas.insert(Entry { sourced: false, ..piece });
        }
    }

    /// munmap.
    pub fn unmap(&mut self, address: u64, bytes: u64) -> Change {
        let range = match whole_pages(address, bytes) {
            Ok(range) if !range.is_empty() => range,
            Ok(_) => return failed(MapError::Invalid("length is 0")),
            Err(_) => return failed(MapError::Invalid("not page-aligned, or beyond the end")),
        };
        if self.is_too_split() {
            return failed(MapError::NoMemory("too many areas"));
        }
        let mut effects = Vec::new();
        self.clear(&range, &mut effects);
        done(0, effects)
    }

    /// mprotect.
    pub fn protect(&mut self, address: u64, bytes: u64, protection: u64) -> Change {
        let range = match whole_pages(address, bytes) {
            Ok(range) => range,
            Err(error) => return failed(error),
        };
        if protection & !0xf != 0 {
            return failed(MapError::Invalid("protection has unknown bits"));
        }
        if self.is_too_split() {
            return failed(MapError::NoMemory("too many areas"));
        }
        // Linux changes what comes before a hole and then fails.
        let covered = range.start..self.areas.covered_to(&range);
        let protection = Protection::from_bits(protection);
        let mut effects = Vec::new();
        for piece in self.areas.pieces(&covered) {
            let is_snapshot = matches!(piece.area.kind, AreaKind::File { shared: true, .. });
            if is_snapshot && protection.contains(Protection::WRITE) {
                return Change { result: Err(MapError::Access("a shared file mapping is read-only")), effects };
            }
            self.protect_piece(piece, protection, &mut effects);
        }
        let result = if covered == range { Ok(0) } else { Err(MapError::NoMemory("a part is not mapped")) };
        Change { result, effects }
    }

    /// mremap.
    pub fn remap(&mut self, request: RemapRequest) -> Change {
        let (old, new_bytes) = match self.judge_remap(request) {
            Ok(judged) => judged,
            Err(error) => return failed(error),
        };
        let mut effects = Vec::new();
        let old_bytes = old.end - old.start;
        if request.flags & MREMAP_FIXED != 0 {
            let to = request.new_address..request.new_address + new_bytes;
            self.clear(&to, &mut effects);
            self.clear(&(old.start + new_bytes.min(old_bytes)..old.end), &mut effects);
            let kept = old.start..old.start + new_bytes.min(old_bytes);
            self.move_area(&kept, &to, &mut effects);
            return done(to.start, effects);
        }
        if new_bytes <= old_bytes {
            self.clear(&(old.start + new_bytes..old.end), &mut effects);
            return done(old.start, effects);
        }
        let Some(entry) = self.areas.at(old.start).cloned() else {
            return failed(MapError::BadAddress("nothing is mapped there"));
        };
        let growth = old.end..old.start + new_bytes;
        if growth.end <= SPACE_END && entry.area.range.end == old.end && self.areas.is_free(&growth) {
            let kind = moved_kind(&entry.area.kind, old.end - entry.area.range.start);
            let mut grown = Entry::new(growth, entry.area.protection, kind);
            let is_read = push_file(&mut effects, &grown.area);
            if is_read || grown.touched {
                push_rights(&mut effects, &grown.area, grown.area.protection, false);
            }
            grown.touched |= is_read;
            self.areas.insert(grown);
            return done(old.start, effects);
        }
        if request.flags & MREMAP_MAYMOVE == 0 {
            return failed(MapError::NoMemory("cannot grow in place"));
        }
        match self.find_to_grow(new_bytes) {
            Ok(start) => {
                self.move_area(&old, &(start..start + new_bytes), &mut effects);
                done(start, effects)
            }
            Err(error) => failed(error),
        }
    }

    /// brk; the result is the break, moved or not.
    pub fn set_break(&mut self, address: u64) -> Change {
        if !(self.heap.start..=self.heap.limit).contains(&address) {
            return done(self.heap.end, Vec::new());
        }
        // Both are at most the heap's limit, which is page-aligned: no overflow.
        let (old, new) = (self.heap.end.next_multiple_of(PAGE_BYTES), address.next_multiple_of(PAGE_BYTES));
        let mut effects = Vec::new();
        if new > old {
            let is_refused = self.judge_growth(new - old, true).is_err();
            if is_refused || !self.areas.is_free(&(old..new)) || self.is_too_split() {
                return done(self.heap.end, effects);
            }
            effects.push(Effect::Protect { range: old..new, protection: Protection::READ_WRITE });
            self.areas.insert(Entry::new(old..new, Protection::READ_WRITE, AreaKind::Heap));
        } else {
            self.clear(&(new..old), &mut effects);
        }
        self.heap.end = address;
        done(address, effects)
    }

    /// madvise.
    pub fn advise(&mut self, address: u64, bytes: u64, advice: u64) -> Change {
        let advice = advice::sort(advice);
        match advice {
            Advice::Unknown => return failed(MapError::Invalid("unknown advice")),
            Advice::NotPermitted => return failed(MapError::NotPermitted("not for a program of several hosts")),
            Advice::DontNeed | Advice::Remove | Advice::Free | Advice::Populate(_) | Advice::Hint => {}
        }
        let range = match whole_pages(address, bytes) {
            Ok(range) => range,
            Err(_) => return failed(MapError::Invalid("not page-aligned, or beyond the end")),
        };
        let mut effects = Vec::new();
        let pieces = self.areas.pieces(&range);
        for piece in &pieces {
            let is_private = matches!(piece.area.kind, AreaKind::Anonymous { shared: false } | AreaKind::Stack | AreaKind::Heap);
            let refused = match advice {
                Advice::Free if !is_private => Some("only private anonymous memory is freed"),
                Advice::Remove if piece.area.kind != (AreaKind::Anonymous { shared: true }) => Some("not shared memory"),
                Advice::Populate(wanted) if !piece.area.protection.contains(wanted) => Some("its protection forbids it"),
                _ => None,
            };
            if let Some(reason) = refused {
                return Change { result: Err(MapError::Invalid(reason)), effects };
            }
            let discards = piece.touched && (advice == Advice::DontNeed && is_private || advice == Advice::Remove);
            if discards {
                push_discard(&mut effects, piece.area.range.clone());
            } else if advice == Advice::DontNeed && piece.sourced {
                effects.push(Effect::Reload { range: piece.area.reach() });
            } else if advice == Advice::DontNeed && push_file(&mut effects, &piece.area) {
                push_rights(&mut effects, &piece.area, piece.area.protection, false);
            }
        }
        let mapped: u64 = pieces.iter().map(|piece| piece.area.range.end - piece.area.range.start).sum();
        let is_whole = mapped == range.end - range.start;
        let result = if is_whole { Ok(0) } else { Err(MapError::NoMemory("a part is not mapped")) };
        Change { result, effects }
    }

    /// mlock, munlock, msync, mincore: nothing changes.
    ///
    /// # Errors
    /// EINVAL unaligned, or for flags msync does not know; ENOMEM over a hole.
    pub fn covered(&self, address: u64, bytes: u64, flags: u64, number: i64) -> Result<u64, MapError> {
        const BOTH: u64 = (libc::MS_ASYNC | libc::MS_SYNC) as u64;
        let is_unknown = flags & !(BOTH | libc::MS_INVALIDATE as u64) != 0 || flags & BOTH == BOTH;
        if number == libc::SYS_msync && is_unknown {
            return Err(MapError::Invalid("flags of msync"));
        }
        let locks = matches!(number, libc::SYS_mlock | libc::SYS_mlock2 | libc::SYS_munlock);
        let (first, rest) = if locks { (address & !(PAGE_BYTES - 1), address % PAGE_BYTES) } else { (address, 0) };
        let range = whole_pages(first, bytes.checked_add(rest).ok_or(MapError::Invalid("beyond the end"))?)?;
        let is_whole = self.areas.covered_to(&range) == range.end;
        if is_whole { Ok(0) } else { Err(MapError::NoMemory("a part is not mapped")) }
    }

    /// What is at an address, for a member that may keep what it learns; `None` outside the space. Rights of what has
    /// been looked up are taken away by broadcast only.
    pub fn lookup(&mut self, address: u64) -> Option<Lookup> {
        if let Some(entry) = self.areas.at_mut(address) {
            entry.known = true;
        }
        self.look(address)
    }

    /// What is at an address, for the root itself.
    #[must_use]
    pub fn look(&self, address: u64) -> Option<Lookup> {
        if !(SPACE_START..SPACE_END).contains(&address) {
            return None;
        }
        let Some(Entry { area, .. }) = self.areas.at(address) else {
            return Some(Lookup { range: self.areas.hole_at(address), protection: Protection::NONE, found: Found::Hole });
        };
        let reach = area.reach();
        Some(if reach.contains(&address) {
            Lookup { range: reach, protection: area.protection, found: Found::Area }
        } else {
            Lookup { range: reach.end..area.range.end, protection: Protection::NONE, found: Found::BeyondFile }
        })
    }

    /// What the area at an address is.
    #[must_use]
    pub fn kind_at(&self, address: u64) -> Option<&AreaKind> {
        self.areas.at(address).map(|entry| &entry.area.kind)
    }

    /// Areas, ascending.
    pub fn areas(&self) -> impl Iterator<Item = &Area> {
        self.areas.iter()
    }

    /// Areas, ascending, and whether their pages have a file as their source.
    pub fn sourced_areas(&self) -> impl Iterator<Item = (&Area, bool)> {
        self.areas.entries().map(|entry| (&entry.area, entry.sourced))
    }

    /// No page has a source any more: all have their contents.
    pub fn note_all_copied(&mut self) {
        self.note_copied(&(SPACE_START..SPACE_END));
    }

    /// Text of `/proc/self/maps`.
    #[must_use]
    pub fn maps_text(&self) -> String {
        text::maps(self.areas.iter())
    }

    /// Moves an area (or its part) into a hole that may be longer.
    fn move_area(&mut self, from: &Range<u64>, to: &Range<u64>, effects: &mut Vec<Effect>) {
        let Some(piece) = self.areas.pieces(from).into_iter().next() else { return };
        let protection = piece.area.protection;
        let reach = piece.area.reach();
        let mut moved = Entry::new(to.clone(), protection, piece.area.kind);
        if piece.touched && !reach.is_empty() {
            // No thread writes the old place any more while it is copied.
            push_protection(effects, &reach, Protection::READ, piece.known);
            effects.push(Effect::Protect { range: to.clone(), protection: Protection::READ_WRITE });
            effects.push(Effect::Copy { from: from.start, to: to.start, bytes: reach.end - reach.start });
            let bytes = from.end - from.start;
            if to.end - to.start > bytes {
                let kind = moved_kind(&moved.area.kind, bytes);
                push_file(effects, &Area { range: to.start + bytes..to.end, protection, kind });
            }
        }
        let has_end = reach != piece.area.range || moved.area.reach() != *to;
        if has_end {
            effects.push(Effect::Protect { range: to.clone(), protection: Protection::NONE });
        }
        if !piece.touched || has_end || protection != Protection::READ_WRITE {
            push_rights(effects, &moved.area, protection, false);
        }
        moved.touched = piece.touched;
        self.clear_with_rights(from, piece.touched, effects);
        self.areas.insert(moved);
    }

    /// Takes everything out of `range`: no rights anywhere, contents forgotten.
    fn clear(&mut self, range: &Range<u64>, effects: &mut Vec<Effect>) {
        self.clear_with_rights(range, false, effects);
    }

    /// As [`Self::clear`]; `with_rights`: members or the root may have rights even on pages whose protection is NONE.
    fn clear_with_rights(&mut self, range: &Range<u64>, with_rights: bool, effects: &mut Vec<Effect>) {
        let pieces = self.areas.remove(range);
        for piece in &pieces {
            if with_rights || piece.area.protection != Protection::NONE {
                push_protection(effects, &piece.area.range, Protection::NONE, piece.known);
            }
        }
        for piece in pieces.into_iter().filter(|piece| piece.touched) {
            push_discard(effects, piece.area.range);
        }
    }

    fn protect_piece(&mut self, mut piece: Entry, protection: Protection, effects: &mut Vec<Effect>) {
        let old = piece.area.protection;
        if old == protection {
            return;
        }
        let loses = !protection.contains(old);
        push_rights(effects, &piece.area, protection, loses && piece.known);
        self.areas.remove(&piece.area.range);
        piece.area.protection = protection;
        piece.touched |= protection != Protection::NONE;
        // Taken away by broadcast: no member has any right left.
        piece.known &= protection != Protection::NONE;
        self.areas.insert(piece);
    }

    fn find(&self, wish: Wish) -> Result<u64, MapError> {
        place::first_fit(&self.areas, &(self.heap.start..self.heap.limit), wish).ok_or(MapError::NoMemory("no free place"))
    }

    /// A place for a block that has grown and will grow again: a move costs its bytes, address space nothing.
    fn find_to_grow(&mut self, bytes: u64) -> Result<u64, MapError> {
        let start = self.grown_end.max(ARENA_GROWN_START);
        let room = bytes.saturating_mul(ROOM_FACTOR).min(ROOM_BYTES_MAX.max(bytes));
        let end = start.checked_add(bytes.max(room)).and_then(|end| end.checked_next_multiple_of(EXTENT_BYTES));
        match end.filter(|&end| end <= ARENA_SOURCED_START && self.areas.is_free(&(start..end))) {
            Some(end) => {
                self.grown_end = end;
                Ok(start)
            }
            None => self.find(Wish { bytes, alignment: PAGE_BYTES, ..Wish::default() }),
        }
    }
}

fn done(value: u64, effects: Vec<Effect>) -> Change {
    Change { result: Ok(value), effects }
}

fn failed(error: MapError) -> Change {
    Change { result: Err(error), effects: Vec::new() }
}

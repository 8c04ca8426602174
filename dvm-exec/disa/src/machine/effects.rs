//! What one runner does beside computing, kept until it is known whether it commits.
//!
//! Owns the buffers and their limits. Must not show them to anybody.

use super::arena::Pool;
use super::chance::Chance;
use super::settings::Settings;
use crate::map::{self, Range};
use crate::memory::{Born, Effects, Spawn};
use crate::trap::TrapKind;

/// What becomes true with the commit, and only with it.
#[derive(Debug, Default)]
pub struct Kept {
    /// Runners made.
    pub children: Vec<(Born, Spawn)>,
    /// Output.
    pub output: Vec<u8>,
    /// Lines of the log.
    pub log: Vec<u8>,
    /// Memory allocated.
    pub taken: Vec<Range>,
    /// Where memory that was given back begins.
    pub freed: Vec<u64>,
    /// The same, once the commit is prepared.
    pub retired: Vec<Range>,
    /// What the machine answered, in order: of a runner made, its number and stack; of memory, where it is, or 0; of memory given
    /// back, whether it could be.
    pub answers: Vec<u64>,
}

/// The numbers that runners made here get: a number is never given out twice.
#[derive(Clone, Copy, Debug)]
pub struct Ids {
    /// The next.
    pub next: u64,
    /// From one to the one after it.
    pub step: u64,
}

/// The effects of the runner `id`.
#[derive(Debug)]
pub struct RunnerEffects<'a, P> {
    settings: &'a Settings,
    arena: P,
    ids: &'a mut Ids,
    time_ns: u64,
    chance: Chance,
    /// All so far.
    pub kept: Kept,
}

impl<'a, P: Pool> RunnerEffects<'a, P> {
    /// None so far.
    pub fn new(settings: &'a Settings, arena: P, ids: &'a mut Ids, id: u64, time_ns: u64) -> Self {
        Self { settings, arena, ids, time_ns, chance: Chance::new(id), kept: Kept::default() }
    }

    fn has_room(&self, bytes: &[u8]) -> Result<(), TrapKind> {
        let used = (self.kept.output.len() + self.kept.log.len() + bytes.len()) as u64;
        if used > self.settings.limits.output_bytes { Err(TrapKind::Mem) } else { Ok(()) }
    }

    fn give_back(&mut self, base: u64) -> bool {
        if let Some(index) = self.kept.taken.iter().position(|range| range.base == base) {
            let range = self.kept.taken.swap_remove(index);
            self.arena.give_back(range);
            return true;
        }
        let is_live = self.arena.has(base) && !self.kept.freed.contains(&base);
        if is_live {
            self.kept.freed.push(base);
        }
        is_live
    }
}

impl<P: Pool> Effects for RunnerEffects<'_, P> {
    fn spawn(&mut self, spawn: Spawn) -> Result<Born, TrapKind> {
        if self.kept.children.len() as u64 >= self.settings.limits.children {
            return Err(TrapKind::Mem);
        }
        let id = self.ids.next;
        let [stack, exit_code] = [map::STACKS, map::EXIT_CODES].map(|place| page_of(place, id));
        if exit_code.is_none() || stack.is_none() {
            return Err(TrapKind::Mem);
        }
        self.ids.next += self.ids.step;
        let stack = spawn.stack.or(stack).unwrap_or(map::STACKS);
        let born = Born { id, stack };
        self.kept.answers.extend([id, stack.base, stack.bytes]);
        self.kept.children.push((born, spawn));
        Ok(born)
    }

    fn print(&mut self, bytes: &[u8]) -> Result<(), TrapKind> {
        self.has_room(bytes)?;
        self.kept.output.extend_from_slice(bytes);
        Ok(())
    }

    fn log(&mut self, bytes: &[u8]) -> Result<(), TrapKind> {
        self.has_room(bytes)?;
        self.kept.log.extend_from_slice(bytes);
        Ok(())
    }

    fn input(&mut self, offset: u64, bytes: &mut [u8]) -> usize {
        let rest = usize::try_from(offset).ok().and_then(|offset| self.settings.input.get(offset..)).unwrap_or_default();
        let count = rest.len().min(bytes.len());
        bytes[..count].copy_from_slice(&rest[..count]);
        count
    }

    fn open(&mut self, name: &[u8]) -> Option<Range> {
        self.settings.place_of_files().find(|(file, _)| file.name == name).map(|(_, range)| range)
    }

    fn allocate(&mut self, bytes: u64) -> Option<Range> {
        let range = self.arena.take(bytes);
        self.kept.answers.extend(range.map_or([0; 2], |range| [range.base, range.bytes]));
        self.kept.taken.extend(range);
        range
    }

    fn free(&mut self, base: u64) -> bool {
        let is_free = self.give_back(base);
        self.kept.answers.push(u64::from(is_free));
        is_free
    }

    fn time(&mut self) -> u64 {
        self.time_ns
    }

    fn random(&mut self) -> u64 {
        self.chance.next()
    }

    fn argument(&mut self, index: u64) -> Option<&[u8]> {
        self.settings.arguments.get(usize::try_from(index).ok()?).map(Vec::as_slice)
    }

    fn touch(&mut self, _: Range) {}

    fn breakpoint(&mut self, _: u64) {}
}

/// The page of runner `id` in a place with one for each.
#[must_use]
pub fn page_of(place: Range, id: u64) -> Option<Range> {
    let base = id.checked_mul(map::PAGE_BYTES).and_then(|offset| place.base.checked_add(offset))?;
    Some(Range::new(base, map::PAGE_BYTES)).filter(|page| place.encloses(*page))
}

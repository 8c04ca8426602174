//! The unsafe half: memory that can be executed, and the way into it and back.
//!
//! Owns the frame while machine code runs, and what that calls. Must not know how a unit is made.

#![expect(unsafe_code, reason = "mapping and calling machine code")]

pub mod bulk;
mod executable;
mod regions;

pub use executable::Executable;
pub use regions::Regions;

use crate::frame::{Frame, SiteState, status};
use crate::lower::Site;
use dvm_disa::engine::{Position, Processor};
use dvm_disa::interpreter::Outcome;
use dvm_disa::map::Range;
use dvm_disa::trap::Trap;
use std::mem::{size_of, transmute};

/// A translated unit.
#[derive(Debug)]
pub struct Unit {
    /// Its machine code, which begins with the way in.
    pub code: Executable,
    /// The places that access memory.
    pub sites: Vec<Site>,
}

/// The frame of a unit in one run, with what its sites know.
#[derive(Debug)]
pub struct State(Vec<u64>);

impl State {
    /// Nothing known.
    pub fn new(unit: &Unit) -> Self {
        Self(vec![0; (size_of::<Frame>() + unit.sites.len() * size_of::<SiteState>()) / size_of::<u64>()])
    }
}

/// How a unit was left.
#[derive(Debug)]
pub enum Left {
    /// Before an instruction that is the interpreter's.
    Surrender,
    /// By a jump.
    Jump,
    /// With the runner's end.
    Ended(Outcome),
    /// Behind an instruction after which regions are not to be used any more.
    Stale,
}

/// What machine code needs of us while it runs.
struct Runtime<'a> {
    processor: &'a mut dyn Processor,
    regions: &'a mut Regions,
    sites: &'a [Site],
    /// Fuel used and fuel left together.
    fuel: u64,
    /// The memory's, for which all that is known of regions holds.
    generation: u64,
    outcome: Option<Outcome>,
}

impl Runtime<'_> {
    /// The fuel that machine code may use, which counts in signed numbers.
    fn left(&mut self) -> u64 {
        let used = self.processor.position().fuel_used;
        let left = self.processor.fuel_max().saturating_sub(used).min(i64::MAX as u64);
        self.fuel = used + left;
        left
    }
}

/// Runs a unit from its beginning, where the processor is.
pub fn enter(unit: &Unit, state: &mut State, regions: &mut Regions, processor: &mut dyn Processor) -> Left {
    let generation = processor.generation();
    let mut runtime = Runtime { processor, regions, sites: &unit.sites, fuel: 0, generation, outcome: None };
    let left = runtime.left();
    let Position { pc, last, .. } = runtime.processor.position();
    let window = runtime.processor.window().as_mut_ptr();
    let frame: *mut Frame = state.0.as_mut_ptr().cast();
    // SAFETY: the state was made for this unit, so there is room for a frame at its start, aligned as u64 is, which is as a frame
    // wants it.
    unsafe { frame.write(Frame { window, left, pc, last, runtime: (&raw mut runtime).cast(), unread: 0 }) };
    // SAFETY: the code begins with a function of this signature: `lower` gave it one parameter and one result, both 64 bits.
    let function: unsafe extern "sysv64" fn(*mut Frame) -> u64 = unsafe { transmute(unit.code.start()) };
    // SAFETY: frame, window and runtime live until it returns. It accesses the frame, the window, and memory of regions that the
    // processor's memory has shown for this state, which live as long as the processor.
    let how = unsafe { function(frame) };
    if how == status::ENDED {
        return runtime.outcome.take().map_or(Left::Stale, Left::Ended);
    }
    // SAFETY: it has returned, so the frame is ours.
    let Frame { left, pc, last, .. } = unsafe { frame.read() };
    let fuel_used = runtime.fuel - left;
    runtime.processor.move_to(Position { pc, last, fuel_used });
    if how == status::LEFT { Left::Jump } else { Left::Surrender }
}

/// The address of [`step`], for machine code.
pub fn step_address() -> u64 {
    step as *const () as u64
}

/// The address of [`miss`], for machine code.
pub fn miss_address() -> u64 {
    miss as *const () as u64
}

/// Has the interpreter execute the instruction at the frame's `pc`; 1 if machine code is to be left: the runner has ended, or what is
/// known of regions is of no use any more.
///
/// # Safety
/// The frame is that of the unit that runs, as [`enter`] made it; the window is written back.
unsafe extern "sysv64" fn step(frame: *mut Frame) -> u64 {
    // SAFETY: the caller's promise; nobody else has the frame meanwhile.
    let frame = unsafe { &mut *frame };
    // SAFETY: `enter` keeps the runtime where it is until machine code returns, and accesses it no more before that.
    let runtime = unsafe { &mut *frame.runtime.cast::<Runtime<'_>>() };
    let pc = frame.pc;
    runtime.processor.move_to(Position { pc, last: pc, fuel_used: runtime.fuel - frame.left });
    let outcome = match runtime.processor.step() {
        Ok(None) => None,
        Ok(Some(mode)) => Some(Outcome::Exit(mode, pc)),
        Err(kind) => Some(Outcome::Trap(Trap { kind, pc })),
    };
    if outcome.is_some() || runtime.processor.generation() != runtime.generation {
        runtime.outcome = outcome;
        return 1;
    }
    frame.left = runtime.left();
    frame.window = runtime.processor.window().as_mut_ptr();
    0
}

/// Where the bytes of a site are from `address` on; 0 if they cannot be accessed directly. The site knows it from then on.
///
/// # Safety
/// As for [`step`]; the site is one of the unit's.
unsafe extern "sysv64" fn miss(frame: *mut Frame, index: u64, address: u64) -> u64 {
    // SAFETY: the caller's promise; nobody else has the frame meanwhile.
    let runtime = unsafe { &mut *(*frame).runtime.cast::<Runtime<'_>>() };
    let site = runtime.sites[index as usize];
    let found = runtime.regions.find(Range::new(address, site.bytes), site.access, runtime.processor);
    // SAFETY: as before; whatever was done with the processor, the window's address is taken anew.
    unsafe { (*frame).window = runtime.processor.window().as_mut_ptr() };
    let Some(region) = found else { return 0 };
    let host = region.host as u64;
    let at = host + (address - region.range.base);
    let known = if site.is_fixed {
        SiteState { host: at, ..SiteState::default() }
    } else {
        SiteState { base: region.range.base, room: region.range.bytes - site.bytes + 1, host }
    };
    // SAFETY: the sites follow the frame, one for each of the unit's, and `index` was one of those.
    unsafe { frame.add(1).cast::<SiteState>().add(index as usize).write(known) };
    at
}

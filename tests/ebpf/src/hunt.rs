//! States and frames from seeds, and of a disagreement the fewest frames that show it.
//!
//! Owns the order of things. Must not compare: [`crate::lane`] does.

use crate::frames::{Frame, Senders};
use crate::lane::{Care, Lane};
use crate::network::Network;
use crate::rng::Rng;
use crate::state::World;
use anyhow::Result;

/// Frames from one state on.
pub const FRAMES_PER_STATE: u64 = 4096;
/// Frames between two comparisons of everything.
const FRAMES_PER_CHECK: u64 = 512;
/// Times that frames are tried out on fewer.
const SHRINKS_MAX: usize = 3000;

/// A disagreement.
#[derive(Debug)]
pub struct Found {
    /// Seed of the state.
    pub seed: u64,
    /// What differs, after these frames.
    pub difference: String,
    /// The fewest frames that were found to show it.
    pub frames: Vec<Frame>,
}

/// The lanes, and room for a state.
pub struct Hunt {
    /// Lanes.
    pub lanes: Vec<Lane>,
    network: Network,
    world: World,
}

impl Hunt {
    /// A hunt over these lanes.
    #[must_use]
    pub fn new(lanes: Vec<Lane>, network: Network) -> Self {
        Self { lanes, network, world: World::empty() }
    }

    /// The network, back.
    #[must_use]
    pub fn end(self) -> Network {
        self.network
    }

    /// Puts `count` frames (at most [`FRAMES_PER_STATE`]) through, from the state of `seed`.
    ///
    /// # Errors
    /// The kernel does not run a program on a frame.
    pub fn run(&mut self, seed: u64, count: u64) -> Result<Option<Found>> {
        let mut rng = self.begin(seed)?;
        let mut senders = Senders::default();
        let mut past = Vec::new();
        for number in 1..=count {
            past.push(senders.send(&self.world, &mut rng));
            let frame = past.last().expect("just pushed");
            let mut differs = false;
            for lane in &mut self.lanes {
                differs |= lane.put(frame, &self.network, Care::Touched)?.is_some();
                differs |= (number.is_multiple_of(FRAMES_PER_CHECK) || number == count) && lane.difference_of_all()?.is_some();
            }
            if differs {
                return self.shrink(seed, past).map(Some);
            }
        }
        Ok(None)
    }

    /// Puts these frames through, from the state of `seed`, and compares everything each time; gives the first difference and how
    /// many frames it took.
    ///
    /// # Errors
    /// As above.
    pub fn replay(&mut self, seed: u64, frames: &[Frame]) -> Result<Option<(String, usize)>> {
        self.begin(seed)?;
        for (number, frame) in (1..).zip(frames) {
            for lane in &mut self.lanes {
                if let Some(difference) = lane.put(frame, &self.network, Care::Every)? {
                    return Ok(Some((difference, number)));
                }
            }
        }
        Ok(None)
    }

    fn begin(&mut self, seed: u64) -> Result<Rng> {
        let mut rng = Rng::new(seed);
        self.world.fill(&mut rng);
        self.lanes.iter_mut().try_for_each(|lane| lane.reset(&self.world))?;
        Ok(rng)
    }

    fn shrink(&mut self, seed: u64, past: Vec<Frame>) -> Result<Found> {
        let Some((mut difference, taken)) = self.replay(seed, &past)? else {
            let difference = "a difference that did not come again".to_owned();
            return Ok(Found { seed, difference, frames: past });
        };
        let mut frames = past;
        frames.truncate(taken);
        // Most need no more than the last one.
        let mut chunk = frames.len().saturating_sub(1);
        let mut tries = 0;
        while chunk > 0 && tries < SHRINKS_MAX {
            let mut end = frames.len().saturating_sub(1);
            while end > 0 && tries < SHRINKS_MAX {
                let start = end.saturating_sub(chunk);
                let fewer: Vec<Frame> = frames[..start].iter().chain(&frames[end..]).cloned().collect();
                tries += 1;
                if let Some((told, taken)) = self.replay(seed, &fewer)? {
                    difference = told;
                    frames = fewer;
                    frames.truncate(taken);
                }
                end = start.min(frames.len().saturating_sub(1));
            }
            chunk /= 2;
        }
        Ok(Found { seed, difference, frames })
    }
}

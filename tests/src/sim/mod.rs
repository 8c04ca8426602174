//! The simulator: real nodes, fake networks, pagers and clocks, all from one seed.
//!
//! Owns the virtual clock and its agenda. The same seed gives the same run, event by event.

pub mod checker;
pub mod host;
pub mod pager;
pub mod plan;
pub mod rng;
pub mod world;

pub use plan::Plan;
pub use world::{Failure, Outcome, Sabotage, run};

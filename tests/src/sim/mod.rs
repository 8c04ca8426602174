//! The simulator: real nodes, fake networks, pagers and clocks, all from one seed.
//!
//! Owns the virtual clock and its agenda. The same seed gives the same run, event by event.

pub mod checker;
pub mod host;
mod network;
pub mod pager;
pub mod plan;
mod program;
pub mod rng;
pub mod world;

pub use plan::Plan;
pub use world::{Failure, Outcome, Sabotage, run};

//! The simulator: real nodes, fake networks, pagers and clocks, all from one seed.
//!
//! Owns the virtual clock and its agenda. The same seed gives the same run, event by event.

mod between;
pub mod checker;
mod fast;
pub mod host;
mod kernel;
mod memory;
mod network;
pub mod pager;
mod picture;
pub mod plan;
mod program;
pub mod rng;
pub mod runners;
mod seal;
pub mod verdicts;
pub mod world;

pub use plan::{FastMode, Plan};
pub use world::{Failure, Outcome, Sabotage, run};

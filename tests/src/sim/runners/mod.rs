//! Runners in the simulator: real nodes on hosts that crash, over links that lose, double and reorder.
//!
//! Owns one run from one seed. The same seed gives the same run, event by event.

mod checker;
pub mod command;
pub mod plan;
mod script;
mod world;

pub use plan::Plan;
pub use world::{Failure, Outcome, run};

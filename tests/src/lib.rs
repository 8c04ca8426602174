//! The project's tests beyond single crates: what needs more than one room, or a real machine.
//!
//! Owns nothing that a shipped crate may use. Must not be depended on.

pub mod fuzz;
pub mod live;
pub mod sim;

//! What all hosts of a cluster measure, seen from one of them.
//!
//! Owns collecting through the local agent, and the commands that show it. Must not know how reports are drawn.

mod collect;
pub mod histograms;
pub mod top;

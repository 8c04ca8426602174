//! The Unix side: the control socket, its connections, and the husks this agent starts.
//!
//! Owns descriptors and processes. Must not know what a job is.

pub mod channel;
pub mod husk;
pub mod listener;

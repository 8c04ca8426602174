//! Agent to agent: sessions under the cluster key, and the control connections on them.
//!
//! Owns TCP between agents. Must not know jobs.

pub mod link;
pub mod peers;
pub mod session;

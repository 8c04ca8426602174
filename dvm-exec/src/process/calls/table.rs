//! The table of calls: one line each.
//!
//! Owns names and classes. Must not know arguments' values.

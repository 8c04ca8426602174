//! The system calls that Rust cannot check: userfaultfd and the watched mapping.
//!
//! Owns all `unsafe` of the crate; everything it exports is safe to call. Must not know the protocol or retry anything.

mod mapping;
mod uffd;

pub(crate) use mapping::Mapping;
pub(crate) use uffd::{Uffd, Watching};

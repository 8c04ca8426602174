//! What has no safe form: mapped maps, and links of programs.
//!
//! Owns all `unsafe` of this crate. Must not decide anything.

mod link;
mod mapping;

pub(crate) use link::{Hook, ProgramLink};
pub(crate) use mapping::Mapping;

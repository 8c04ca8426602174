//! `dvm-report`: what the hosts of a cluster measured, merged and drawn.
//!
//! Owns merging and every form a report takes: table, JSON, HdrHistogram log, HTML. Must not know agents, sockets, files or
//! clocks: data comes in, text goes out.

pub mod html;
pub mod json;
pub mod log;
mod merge;
pub mod prometheus;
mod report;
mod row;
#[cfg(test)]
mod sample;
mod svg;
pub mod table;
mod units;

pub use merge::{MergeError, add, interval};
pub use report::{Host, HotPage, Missing, Page, Report, STAGES, Summary};
pub use row::{HistogramRow, RowError};

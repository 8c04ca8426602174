//! The agent of one host.
mod shard;
fn main() {}

//! FNV-1a of 64 bits (Fowler, Noll, Vo; draft-eastlake-fnv), which `hash` computes.
//!
//! Owns its two constants. Must not know where bytes come from.

const PRIME: u64 = 0x100_0000_01b3;

/// The hash of nothing.
pub const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// The hash of what `hash` is of, and these bytes behind it.
#[must_use]
pub fn add(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

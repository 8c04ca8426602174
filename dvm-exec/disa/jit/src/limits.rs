//! Every maximum of the translator.
//!
//! Owns the figures. Must not know what is counted with them.

/// Most instructions that are translated as one unit.
pub const UNIT_INSTRUCTIONS_MAX: usize = 2048;
/// Most places that an indirect jump of a unit leads to without leaving it.
pub const RETURNS_MAX: usize = 64;
/// Most instructions that are executed whether a branch leads around them or not.
pub const CHOSEN_MAX: u32 = 4;
/// Most bytes between the accesses that one check covers.
pub const SPAN_BYTES_MAX: i64 = 512;
/// Arrivals at a place before it is translated: a translation takes as long as half a million instructions interpreted.
pub const ARRIVALS_BEFORE: u32 = 1000;
/// Most bytes of machine code that one translator makes.
pub const CODE_BYTES_MAX: usize = 256 << 20;
/// A runner whose translated code gives up more often than this,
pub const SURRENDERS_MAX: u64 = 64;
/// and after fewer instructions than this on average, is interpreted to its end.
pub const FUEL_PER_SURRENDER_MIN: u64 = 100;
/// Most texts that are kept translated.
pub const TEXTS_MAX: usize = 256;
/// Places for regions used lately, at first,
pub const RECENT_REGIONS: usize = 16;
/// and when a runner uses many pages.
pub const RECENT_REGIONS_MAX: usize = 4096;
const _: () = assert!(RECENT_REGIONS.is_power_of_two() && RECENT_REGIONS_MAX.is_power_of_two());
/// Regions of more than a page that are found without a search.
pub const WIDE_REGIONS_MAX: usize = 4;

//! The maps that programs and agents share.
//!
//! Owns their names, sizes and flags. Must not know what is done with them.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, PerCpuArray};
use dsm_fast::{PROBE_ANSWERS_ELEMENTS, PROBE_ELEMENTS};

/// Agents map the array into their memory.
const MMAPABLE: u32 = 1 << 10;

/// What is being probed; see `PROBE_NONCE` of `dsm-fast`.
#[map]
pub static PROBE: Array<u64> = Array::with_max_entries(PROBE_ELEMENTS, MMAPABLE);

/// How many probes each program answered.
#[map]
pub static PROBE_ANSWERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(PROBE_ANSWERS_ELEMENTS, 0);

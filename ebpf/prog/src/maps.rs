//! The maps that programs and agents share.
//!
//! Owns their names, sizes and flags. Must not know what is done with them.

use crate::fast::Scratch;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use dsm_fast::layout::{ACKS_PER_ENDPOINT, ENDPOINTS_MAX, Map, PAGE_WORDS, PEERS_PER_ENDPOINT};
use dsm_fast::{LATENCY_BUCKETS, PROBE_ANSWERS_ELEMENTS, PROBE_ELEMENTS, VERDICT_NAMES};

/// Agents map the array into their memory.
const MMAPABLE: u32 = 1 << 10;

/// What is being probed; see `PROBE_NONCE` of `dsm-fast`.
#[map]
pub static PROBE: Array<u64> = Array::with_max_entries(PROBE_ELEMENTS, MMAPABLE);

/// How many probes each program answered.
#[map]
pub static PROBE_ANSWERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(PROBE_ANSWERS_ELEMENTS, 0);

/// A record of an array, in words.
pub type Record<const MAP: usize> = Array<[u64; MAP]>;

/// UDP port of an endpoint's urgent socket -> endpoint.
#[map]
pub static PORTS: HashMap<u32, u32> = HashMap::with_max_entries(ENDPOINTS_MAX, 0);

/// Extent of an endpoint -> its records.
#[map]
pub static EXTENTS: HashMap<u64, u64> = HashMap::with_max_entries(1024, 0);

/// See `dsm_fast::layout`, here and below. Loaders may give the last four arrays other numbers of elements.
#[map]
pub static ENDPOINTS: Record<{ Map::Endpoint.words() }> = Array::with_max_entries(ENDPOINTS_MAX, MMAPABLE);

/// Peers, by endpoint.
#[map]
pub static PEERS: Record<{ Map::Peer.words() }> = Array::with_max_entries(ENDPOINTS_MAX * PEERS_PER_ENDPOINT, MMAPABLE);

/// Invalidations under way, by endpoint.
#[map]
pub static ACKS: Record<{ Map::Acks.words() }> = Array::with_max_entries(ENDPOINTS_MAX * ACKS_PER_ENDPOINT, MMAPABLE);

/// Directories of extents homed here.
#[map]
pub static DIRECTORIES: Record<{ Map::Directory.words() }> = Array::with_max_entries(1024, MMAPABLE);

/// Where the pages of an extent are published.
#[map]
pub static PLACES: Record<{ Map::Places.words() }> = Array::with_max_entries(1024, MMAPABLE);

/// What is published.
#[map]
pub static COPIES: Record<{ Map::Copy.words() }> = Array::with_max_entries(4096, MMAPABLE);

/// Its bytes.
#[map]
pub static PAGES: Record<{ PAGE_WORDS }> = Array::with_max_entries(4096, MMAPABLE);

/// How often each verdict came, per processor.
#[map]
pub static VERDICTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(VERDICT_NAMES.len() as u32, 0);

/// How long each verdict took: [`LATENCY_BUCKETS`] for each, per processor.
#[map]
pub static LATENCIES: PerCpuArray<u64> = PerCpuArray::with_max_entries((VERDICT_NAMES.len() * LATENCY_BUCKETS) as u32, 0);

/// Frames at work, per processor: a program runs to its end before the next one begins.
#[map]
pub static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

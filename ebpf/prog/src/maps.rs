//! The maps that programs and agents share.
//!
//! Owns their names, sizes and flags. Must not know what is done with them. They are described by BTF, which every loader reads
//! (libbpf nothing else).

use crate::fast::{SCRATCHES, Scratch};
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use dsm_fast::layout::{ACKS_PER_ENDPOINT, ENDPOINTS_MAX, Map, PAGE_WORDS, PEERS_PER_ENDPOINT};
use dsm_fast::{LATENCY_BUCKETS, PROBE_ANSWERS_ELEMENTS, PROBE_ELEMENTS, VERDICT_NAMES};

/// Agents map the array into their memory.
const MMAPABLE: usize = 1 << 10;

const ENDPOINTS_COUNT: usize = ENDPOINTS_MAX as usize;
const PEERS_COUNT: usize = ENDPOINTS_COUNT * PEERS_PER_ENDPOINT as usize;
const ACKS_COUNT: usize = ENDPOINTS_COUNT * ACKS_PER_ENDPOINT as usize;

/// What is being probed; see `PROBE_NONCE` of `dsm-fast`.
#[btf_map]
pub static PROBE: Array<u64, { PROBE_ELEMENTS as usize }, MMAPABLE> = Array::new();

/// How many probes each program answered.
#[btf_map]
pub static PROBE_ANSWERS: PerCpuArray<u64, { PROBE_ANSWERS_ELEMENTS as usize }> = PerCpuArray::new();

/// An array of records of so many words.
pub type Records<const WORDS: usize, const COUNT: usize> = Array<[u64; WORDS], COUNT, MMAPABLE>;

/// UDP port of an endpoint's urgent socket -> endpoint.
#[btf_map]
pub static PORTS: HashMap<u32, u32, ENDPOINTS_COUNT> = HashMap::new();

/// Extent of an endpoint -> its records.
#[btf_map]
pub static EXTENTS: HashMap<u64, u64, 1024> = HashMap::new();

/// See `dsm_fast::layout`, here and below. Loaders may give the last four arrays other numbers of elements.
#[btf_map]
pub static ENDPOINTS: Records<{ Map::Endpoint.words() }, ENDPOINTS_COUNT> = Array::new();

/// Peers, by endpoint.
#[btf_map]
pub static PEERS: Records<{ Map::Peer.words() }, PEERS_COUNT> = Array::new();

/// Invalidations under way, by endpoint.
#[btf_map]
pub static ACKS: Records<{ Map::Acks.words() }, ACKS_COUNT> = Array::new();

/// Directories of extents homed here.
#[btf_map]
pub static DIRECTORIES: Records<{ Map::Directory.words() }, 1024> = Array::new();

/// Where the pages of an extent are published.
#[btf_map]
pub static PLACES: Records<{ Map::Places.words() }, 1024> = Array::new();

/// What is published.
#[btf_map]
pub static COPIES: Records<{ Map::Copy.words() }, 4096> = Array::new();

/// Its bytes.
#[btf_map]
pub static PAGES: Records<{ PAGE_WORDS }, 4096> = Array::new();

/// How often each verdict came, per processor.
#[btf_map]
pub static VERDICTS: PerCpuArray<u64, { VERDICT_NAMES.len() }> = PerCpuArray::new();

/// How long each verdict took: [`LATENCY_BUCKETS`] for each, per processor.
#[btf_map]
pub static LATENCIES: PerCpuArray<u64, { VERDICT_NAMES.len() * LATENCY_BUCKETS }> = PerCpuArray::new();

/// Frames at work, per program and processor: a program runs to its end before the same one begins again.
#[btf_map]
pub static SCRATCH: PerCpuArray<Scratch, SCRATCHES> = PerCpuArray::new();

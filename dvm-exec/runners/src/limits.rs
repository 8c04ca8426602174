//! Every maximum, with the assertions that relate them.
//!
//! Owns the figures. Must not know what is counted with them.

/// Most hosts of a run.
pub const HOSTS_MAX: u16 = 64;
/// Words of a page's change that are told to all hosts, so that their copies stay good; larger changes are fetched by who needs them.
pub const TOLD_WORDS_MAX: usize = 64;
/// Pages that a host keeps beside those it is home of.
pub const CACHED_PAGES_MAX: usize = 1 << 18;
/// Pages fetched ahead for one runner.
pub const PREFETCHED_PAGES_MAX: usize = 1024;
/// Pages asked for in one message.
pub const FETCHED_AT_ONCE_MAX: usize = 128;
const _: () = assert!(FETCHED_AT_ONCE_MAX <= PREFETCHED_PAGES_MAX && PREFETCHED_PAGES_MAX <= CACHED_PAGES_MAX);

/// Runners that a host holds for each slot, running or waiting to.
pub const QUEUED_PER_SLOT_MAX: usize = 32;
/// Timestamps after which a host tells what it still needs, if it is not idle.
pub const OLDEST_TOLD_EVERY: u64 = 32;

/// Times of commits that a host keeps until it tells them,
pub const TIMES_UNTOLD_MAX: usize = 1024;
/// and that the root keeps of each host.
pub const TIMES_KEPT_MAX: usize = 1 << 16;

/// A range of so many bytes says where a runner should run.
pub const PLACING_BYTES_MIN: u64 = 256 << 10;
/// Extents that are looked at to place one runner.
pub const PLACING_EXTENTS_MAX: usize = 64;
/// Extents of which it is remembered who used them.
pub const REMEMBERED_EXTENTS_MAX: usize = 1 << 16;

/// Bytes of output that are kept beside those that are not released.
pub const OUTPUT_KEPT_BYTES_MAX: u64 = 64 << 20;
/// Versions of pages in one message to a host that shall have the log.
pub const COPIED_AT_ONCE_MAX: usize = 128;

/// The first wait after a conflict with a commit under way.
pub const BACKOFF_NS_MIN: u64 = 50_000;
/// The longest.
pub const BACKOFF_NS_MAX: u64 = 160_000_000;
const _: () = assert!(BACKOFF_NS_MIN < BACKOFF_NS_MAX);
/// From this try on a commit that has other homes beside the root is locked there, too, before it is asked for.
pub const LOCKED_AT_ROOT_TRIES_MIN: u64 = 8;

/// Messages sent and not acknowledged, of one link.
pub const LINK_WINDOW_MAX: usize = 256;
/// Messages that came too early, kept by one link.
pub const LINK_EARLY_MAX: usize = LINK_WINDOW_MAX;
/// The first wait before a message is sent again.
pub const RESEND_NS_MIN: u64 = 3_000_000;
/// The longest.
pub const RESEND_NS_MAX: u64 = 200_000_000;
const _: () = assert!(RESEND_NS_MIN < RESEND_NS_MAX);

//! The maximum of every queue, table, retry and wait of a node.
//!
//! Owns the numbers and how they relate. Full means: dropped and counted, and the sender's retry finds room later.

use crate::face::Nanos;
use dsm_wire::{PAGES_PER_EXTENT, PAGES_PER_MESSAGE_MAX};

/// Pages of one Install, Read or ProtectRead.
pub const PAGES_PER_OP_MAX: u16 = PAGES_PER_MESSAGE_MAX;
/// Extents of a space: 0x5000_0000_0000 bytes.
pub const EXTENTS_MAX: u64 = 0x5000_0000_0000 >> 21;
/// Pages of a space.
pub const PAGES_MAX: u64 = EXTENTS_MAX * PAGES_PER_EXTENT;
/// Members of a space.
pub const MEMBERS_MAX: usize = dsm_fast::WIDE_NODES_MAX as usize;
/// Requests that wait at home for one busy page.
pub const WAITERS_PER_PAGE_MAX: usize = 128;
/// Frames that wait for one page's operation in flight.
pub const INBOX_PER_PAGE_MAX: usize = 16;
/// Frames that wait for an extent's operation in flight.
pub const INBOX_PER_EXTENT_MAX: usize = 256;
/// Pages with something in flight. Above it, requests of peers are dropped; own faults are always taken (threads bound them).
pub const TRANSIENTS_MAX: usize = 1 << 16;
/// Discards one node has under way; the rest wait in its queue.
pub const DISCARDS_ACTIVE_MAX: u64 = 32;
/// Discards that wait at their initiator.
pub const DISCARDS_QUEUED_MAX: usize = 1 << 16;
/// Pages one discard has under way at a home.
pub const DISCARD_PAGES_IN_FLIGHT_MAX: usize = 128;
/// Page operations not yet reported done.
pub const OPS_MAX: usize = 1 << 16;

/// Offers to hosts with room that are not settled.
pub const OFFERS_MAX: usize = 8;
/// Pages of other hosts that one is taking on.
pub const ADOPTED_MAX: usize = 1 << 10;
/// Extents one search for pages to evict looks at.
pub const EVICTION_EXTENTS_MAX: usize = 1 << 10;
/// Time between two searches, the first of which found too little; one looks at every page here.
pub const EVICTION_PAUSE: Nanos = Nanos::from_millis(20);
/// How long a host that has no room is not asked again.
pub const FULL_PAUSE: Nanos = Nanos::from_millis(20);
/// How long an offer is waited for before its pages are offered again.
pub const OFFER_PATIENCE: Nanos = Nanos::from_millis(50);
/// How long threads wait for room while no page leaves.
pub const MEMORY_PATIENCE: Nanos = Nanos::from_millis(3000);

/// Retransmission timeout before the first sample.
pub const RTO_INITIAL: Nanos = Nanos::from_millis(20);
/// Smallest retransmission timeout.
pub const RTO_MIN: Nanos = Nanos::from_millis(3);
/// Largest retransmission timeout.
pub const RTO_MAX: Nanos = Nanos::from_millis(1000);

/// Regretted departures of a page before its hold window opens.
pub const HOLD_BOUNCES_MIN: u8 = 3;
/// First hold window.
pub const HOLD_WINDOW_MIN: Nanos = Nanos::from_micros(25);
/// Largest hold window where both nodes want the same line: a few hand-overs' worth, so that a contended lock is slowed by a small
/// factor only.
pub const HOLD_WINDOW_MAX: Nanos = Nanos::from_micros(200);
/// Largest hold window where they want different lines: so long that the hand-overs cost little beside it.
pub const HOLD_WINDOW_FALSE_MAX: Nanos = Nanos::from_micros(1600);
/// A page that is wanted again later than this after it left was not torn away: a few times what a hand-over takes.
pub const HOLD_REGRET_MAX: Nanos = Nanos::from_micros(200);
/// How long the order to drop a copy waits at most for the copy: what another node takes to give it, its longest window included.
pub const OVERTAKEN_MAX: Nanos = Nanos::from_millis(5);
/// Pages whose stays are remembered, as a power of two.
pub const HOLDS_BITS: u32 = 10;
/// Pages whose habits are remembered, as a power of two.
pub const MIGRATORY_BITS: u32 = 12;
/// Reads followed by a write, in a row, that make a page migratory.
pub const MIGRATORY_STREAK_MIN: u8 = 2;
/// Reads that are then taken for the beginning of a write, before the next look.
pub const MIGRATORY_TRUST: u8 = 8;
/// Requests sent ahead of a sequential reader, besides the one it waits for.
pub const REQUESTS_AHEAD_MAX: u64 = 7;
/// Pages asked for ahead of a sequential writer, each with a request of its own, besides the one it waits for.
pub const WRITES_AHEAD_MAX: u16 = 31;
/// Requests for several pages of which a part may still come.
pub const BATCHES_MAX: usize = 64;
/// How long a part is waited for, after its request or the part before it, before the page is asked for alone.
pub const PART_PATIENCE: Nanos = Nanos::from_micros(500);
/// How long a part is waited for at most, while others come.
pub const PATIENCE_MAX: Nanos = Nanos::from_millis(20);
/// A page that stayed at least this long was not bounced.
pub const HOLD_QUICK_MAX: Nanos = Nanos::from_millis(2);

const _: () = assert!(RTO_MIN.0 > HOLD_WINDOW_FALSE_MAX.0, "a held page must not look lost");
const _: () = assert!(HOLD_QUICK_MAX.0 > HOLD_WINDOW_FALSE_MAX.0, "a held page still counts as bounced");
const _: () = assert!(OVERTAKEN_MAX.0 > 2 * HOLD_WINDOW_FALSE_MAX.0, "a held page is waited for");
const _: () = assert!(DISCARDS_ACTIVE_MAX <= 64, "the replay window of discards is one word");
const _: () = assert!(DISCARD_PAGES_IN_FLIGHT_MAX < TRANSIENTS_MAX);
const _: () = assert!(MEMORY_PATIENCE.0 > 2 * RTO_MAX.0, "loss is no lack of memory");
const _: () = assert!(PART_PATIENCE.0 < RTO_MIN.0, "a missing part is cheaper to ask for than to wait for");

//! The memory of this host that pages of programs may take: how much there is, and how much all shards have taken.
//!
//! Owns the account and its marks. Must not know which pages come or go.

use dsm_proto::Memory;
use dsm_wire::PAGE_BYTES;
use nix::sys::eventfd::EventFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Percent of the limit above which pages go to other hosts, and down to which.
const HIGH_PERCENT: u64 = 95;
const LOW_PERCENT: u64 = 90;
/// The part of the limit that only jobs get which have less than it: a large one cannot starve them.
const RESERVE_SHARE: u64 = 32;
/// Percent of what is free at the start that is the limit, if none is set.
const DEFAULT_PERCENT: u64 = 80;
/// Smallest limit, in bytes: a first touch brings up to 2 MiB.
pub const LIMIT_MIN: u64 = 16 << 20;
/// Time between two calls to the other shards to make room, in nanoseconds.
const CALL_PAUSE_NS: u64 = 50_000_000;

/// The account of a host.
#[derive(Debug)]
pub struct Ledger {
    limit: u64,
    used: AtomicU64,
    called_ns: AtomicU64,
    shards: Mutex<Vec<Arc<EventFd>>>,
}

/// One shard's part of it. Dropping it gives all back.
#[derive(Debug)]
pub struct Share {
    ledger: Arc<Ledger>,
    own: u64,
    wake: Arc<EventFd>,
}

impl Ledger {
    /// An account of `limit_bytes`, or of a part of what is free now.
    #[must_use]
    pub fn open(limit_bytes: Option<u64>) -> Arc<Self> {
        let limit = limit_bytes.unwrap_or_else(|| (free_now() / 100 * DEFAULT_PERCENT).max(LIMIT_MIN));
        let limit = limit / PAGE_BYTES as u64;
        Arc::new(Self { limit, used: AtomicU64::new(0), called_ns: AtomicU64::new(0), shards: Mutex::default() })
    }

    /// Bytes that pages may take.
    #[must_use]
    pub fn limit_bytes(&self) -> u64 {
        self.limit * PAGE_BYTES as u64
    }

    /// Bytes that they take.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used.load(Ordering::Relaxed) * PAGE_BYTES as u64
    }

    /// The part of a shard that listens to `wake`.
    #[must_use]
    pub fn share(self: &Arc<Self>, wake: Arc<EventFd>) -> Share {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&wake));
        Share { ledger: Arc::clone(self), own: 0, wake }
    }

    /// Has the shards other than that of `wake` look at the account.
    fn call_others(&self, wake: &Arc<EventFd>, now_ns: u64) {
        let called_ns = self.called_ns.load(Ordering::Relaxed);
        let is_due = now_ns.saturating_sub(called_ns) >= CALL_PAUSE_NS;
        if !is_due || self.called_ns.compare_exchange(called_ns, now_ns, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        for other in self.shards.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|other| !Arc::ptr_eq(other, wake)) {
            // Only an overflow of 2^64 - 1 unread wake-ups could refuse this, and then it is awake anyway.
            other.write(1).ok();
        }
    }
}

impl Share {
    /// Notes that this shard has `pages` now, and says how much room there is for it at `now_ns`.
    pub fn note(&mut self, pages: u64, now_ns: u64) -> Memory {
        let ledger = &self.ledger;
        if pages > self.own {
            ledger.used.fetch_add(pages - self.own, Ordering::Relaxed);
        } else if pages < self.own {
            ledger.used.fetch_sub(self.own - pages, Ordering::Relaxed);
        }
        self.own = pages;
        let used = ledger.used.load(Ordering::Relaxed);
        let room = room(ledger.limit, used, pages);
        if room.is_high && used > pages {
            ledger.call_others(&self.wake, now_ns);
        }
        room
    }

    /// Bytes that pages may take on this host.
    pub fn limit_bytes(&self) -> u64 {
        self.ledger.limit_bytes()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.ledger.used.fetch_sub(self.own, Ordering::Relaxed);
        self.ledger.shards.lock().unwrap_or_else(PoisonError::into_inner).retain(|wake| !Arc::ptr_eq(wake, &self.wake));
    }
}

/// The room for a shard with `own` of the `used` pages: each gives up its part of the excess.
fn room(limit: u64, used: u64, own: u64) -> Memory {
    let (low, high) = (limit * LOW_PERCENT / 100, limit * HIGH_PERCENT / 100);
    let excess = used.saturating_sub(low);
    let reserve = limit / RESERVE_SHARE;
    let limit = if own < reserve { limit } else { limit - reserve };
    Memory {
        free: limit.saturating_sub(used),
        spare: low.saturating_sub(used),
        excess: (excess * own).div_ceil(used.max(1)),
        is_high: used > high,
    }
}

/// Bytes that this process may take without pushing others out: what the kernel deems available, or the rest of the cgroup's limit.
fn free_now() -> u64 {
    let available = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_in(&text));
    [available, free_in_cgroup()].into_iter().flatten().min().unwrap_or(0)
}

fn available_in(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

/// What the tightest of the cgroups above this process leaves; none without a limit.
fn free_in_cgroup() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let read = |directory: &std::path::Path, file: &str| -> Option<u64> {
        std::fs::read_to_string(directory.join(file)).ok()?.trim().parse().ok()
    };
    let left =
        |directory: &std::path::Path| Some(read(directory, "memory.max")?.saturating_sub(read(directory, "memory.current")?));
    std::path::Path::new("/sys/fs/cgroup").join(path).ancestors().filter_map(left).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marks_follow_the_limit() {
        let at = |used| room(1000, used, used);
        assert_eq!(at(0), Memory { free: 1000, spare: 900, excess: 0, is_high: false });
        assert_eq!(at(920), Memory { free: 49, spare: 0, excess: 20, is_high: false });
        assert_eq!(at(960), Memory { free: 9, spare: 0, excess: 60, is_high: true });
        assert_eq!(at(1010), Memory { free: 0, spare: 0, excess: 110, is_high: true });
        assert_eq!(room(1000, 960, 480).excess, 30, "each its part");
        assert_eq!(room(1000, 960, 0).excess, 0);
        assert_eq!((room(1000, 980, 960).free, room(1000, 980, 20).free), (0, 20), "the rest is for small ones");
    }

    #[test]
    fn shares_add_up_and_are_given_back() {
        let ledger = Ledger::open(Some(LIMIT_MIN));
        let wake = || Arc::new(EventFd::from_flags(nix::sys::eventfd::EfdFlags::EFD_NONBLOCK).unwrap());
        let (one_wake, other_wake) = (wake(), wake());
        let (mut one, mut other) = (ledger.share(Arc::clone(&one_wake)), ledger.share(Arc::clone(&other_wake)));
        one.note(3000, CALL_PAUSE_NS);
        assert!(other_wake.read().is_err(), "there is room");
        assert!(other.note(1000, CALL_PAUSE_NS).is_high);
        assert_eq!(ledger.used_bytes(), 4000 * PAGE_BYTES as u64);
        assert!(one_wake.read().is_ok() && other_wake.read().is_err(), "the other one is called");
        one.note(500, CALL_PAUSE_NS);
        drop(one);
        drop(other);
        assert_eq!(ledger.used_bytes(), 0);
    }

    #[test]
    fn what_is_available_is_read() {
        assert_eq!(available_in("MemTotal: 9 kB\nMemAvailable:   12 kB\n"), Some(12 << 10));
        assert_eq!(available_in("MemTotal: 9 kB\n"), None);
    }
}

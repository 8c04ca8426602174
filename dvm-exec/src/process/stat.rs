//! What `--stat` shows when the program has ended.
//!
//! Owns the counters of the root husk and their text. Must not be on the path of a fault.

use std::sync::atomic::{AtomicU64, Ordering};

/// Hosts that are counted apart.
pub const HOSTS_MAX: usize = 64;

/// Counters of a run.
#[derive(Debug)]
pub struct Figures {
    threads: [AtomicU64; HOSTS_MAX],
}

impl Default for Figures {
    fn default() -> Self {
        Self { threads: [const { AtomicU64::new(0) }; HOSTS_MAX] }
    }
}

impl Figures {
    /// A thread started on `host`.
    pub fn count_thread(&self, host: usize) {
        self.threads[host.min(HOSTS_MAX - 1)].fetch_add(1, Ordering::Relaxed);
    }

    /// Threads started on `host`.
    pub fn threads(&self, host: usize) -> u64 {
        self.threads[host.min(HOSTS_MAX - 1)].load(Ordering::Relaxed)
    }
}

//! What the control plane counts: every refusal and every loss has a name.
//!
//! Owns names and numbers. Must not know who counts or who asks.

use std::cell::Cell;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// One number per kind of event since the agent's start.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Counter,)*
        }

        impl Counters {
            /// Stable names and values.
            #[must_use]
            pub fn list(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.get()),)*]
            }
        }
    };
}

/// A number that only grows. The agent's control plane is one thread.
#[derive(Debug, Default)]
pub struct Counter(Cell<u64>);

impl Counter {
    /// Counts one event.
    pub fn add(&self) {
        self.0.set(self.0.get().wrapping_add(1));
    }

    /// Events so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

counters! {
    /// Jobs started here.
    jobs_rooted,
    /// Parts of jobs of other hosts.
    jobs_joined,
    /// Jobs or parts refused, whatever the reason.
    jobs_refused,
    /// Jobs that ended because a host, husk or shard was lost.
    jobs_lost,
    /// Husks that had to be killed.
    husks_killed,
    /// Husk-to-husk connections handed over.
    husk_connections,
    /// Husk-to-husk connections that failed or were refused.
    husk_connections_refused,
    /// Times that etcd did not answer any more.
    etcd_lost,
    /// Times that this host's lease had run out, and its jobs were ended.
    fenced,
    /// Control connections that came up.
    links_up,
    /// Control connections that were lost.
    links_lost,
    /// Handshakes refused because the other side has another key or forged a message.
    handshakes_wrong_key,
    /// Handshakes refused because the other side's cluster is another one.
    handshakes_wrong_cluster,
    /// Connections that did not speak our protocol.
    handshakes_garbage,
    /// Handshakes that were not finished in time.
    handshakes_late,
    /// TCP connections closed because too many were unproven.
    strangers_over_limit,
    /// Peers that opened a connection with a wrong name or from a wrong address.
    openings_refused,
    /// Peer messages that made no sense where they came.
    peer_messages_unexpected,
    /// Unix packets that are not ours.
    packets_malformed,
    /// Unix packets that made no sense where they came.
    packets_unexpected,
    /// Unix connections closed because there were too many.
    local_over_limit,
    /// Unix connections that said nothing in time.
    local_late,
    /// Log lines that could not be written.
    log_lines_lost,
}

//! What a node counts, under names that do not change.
//!
//! Owns the counters. Must not know who reads them.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters of one node, from its start. Field names are the public names.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Every counter with its name, in declaration order.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Read faults taken.
    faults_read,
    /// Write faults taken.
    faults_write,
    /// Faults for a page that is already being fetched.
    faults_merged,
    /// Faults for a page that was there already.
    faults_refreshed,
    /// Faults served without a frame.
    faults_local,
    /// Faults served with frames.
    faults_remote,
    /// Zero pages installed ahead of use or by it in unsplit extents.
    pages_first_touched,
    /// Extents this node became home of.
    extents_homed,
    /// Extents split because a second node came.
    extents_split,
    /// Extents joined again after a discard.
    extents_merged,
    /// Frames handled.
    frames_in,
    /// Frames sent.
    frames_out,
    /// Page contents sent.
    pages_out,
    /// Page contents received and installed.
    pages_in,
    /// Read grants given.
    grants_read,
    /// Write grants given, with content.
    grants_write,
    /// Write grants given without content, to a sharer.
    grants_upgrade,
    /// Pages given beyond the one asked for.
    grants_ahead,
    /// Requests sent ahead of use.
    requests_ahead,
    /// Reads of migratory pages, asked for to be written.
    reads_to_write,
    /// Pages taken away from this node.
    pages_taken,
    /// Copies dropped on order.
    copies_dropped,
    /// Read copies dropped for want of room.
    pages_evicted_clean,
    /// Pages that left for a host with room.
    pages_evicted_away,
    /// Pages offered to hosts with room.
    pages_offered,
    /// Offers of other hosts declined for want of room.
    offloads_declined,
    /// Pages asked for to relieve another host.
    pages_adopted,
    /// Faults that had to wait for room.
    faults_without_room,
    /// Hand-offs delayed by the hold window.
    holds,
    /// Nanoseconds of those delays.
    hold_ns_total,
    /// Searches for a home, asked again after a time-out.
    searches_again,
    /// Requests sent again.
    requests_again,
    /// Invalidations and forwards of a transaction sent again by home.
    transactions_again,
    /// Exclusive grants sent again, because nobody said they had arrived.
    grants_again,
    /// Discards ordered again.
    discards_again,
    /// Requests that had to wait at home for a busy page.
    waits,
    /// Transactions that kernel programs began and this node took over.
    fan_outs_adopted,
    /// Pages lost with a host.
    pages_lost,
    /// Pages forgotten by discards, at home.
    pages_discarded,
    /// Frames of another epoch.
    dropped_epoch,
    /// Frames from a node that is no member.
    dropped_stranger,
    /// Frames whose fields make no sense here.
    dropped_nonsense,
    /// Frames that found their queue or table full.
    dropped_full,
    /// Frames that were answered or overtaken before.
    dropped_stale,
}

/// Entries of a node's tables. All but the last four are zero when nothing is in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// Pages with something in flight.
    pub transients: usize,
    /// Page operations not reported done.
    pub operations: usize,
    /// Searches for a home.
    pub searches: usize,
    /// Discards this node started, and those queued.
    pub discards: usize,
    /// Discards under way at this home.
    pub jobs: usize,
    /// Faults that wait for room, and pages being taken on from others.
    pub evictions: usize,
    /// Pinned pages.
    pub pins: usize,
    /// Extents this node knows.
    pub extents: usize,
    /// Extents split into words here.
    pub extents_split: usize,
    /// Extents this node is anchor of.
    pub anchored: usize,
    /// Pages whose stays the hold window remembers.
    pub stays: usize,
}

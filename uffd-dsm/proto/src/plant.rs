//! Planted bugs: each switches one rule of the protocol off, so that the simulator's checkers can be seen to fail; and the place
//! where a simulated kernel program comes between two accesses of a node to a shared directory.
//!
//! Without the feature `plant`, which only the simulator turns on, [`is`] is always false, [`pause`] does nothing, and both cost
//! nothing.

/// A rule that is switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Plant {
    /// A copy's drop is acknowledged before it is done.
    AckBeforeDrop,
    /// A grant that was installed before is installed again.
    DoubleOwner,
    /// A search for a home names a node that is not, and that node names nobody.
    ForwardLoop,
    /// Frames of another epoch are taken.
    MissedEpochCheck,
    /// A read grant older than the last invalidate is installed.
    InstallAfterInvalidate,
    /// A fault for a page that is there wakes nobody.
    LostWakeUp,
    /// The owner's copy is read while it can still be written.
    ReadWithoutProtect,
    /// A reader is not entered into the directory.
    ForgottenSharer,
    /// A batch of reads takes a page that is being written.
    PrefetchOverWriter,
    /// The page is granted before every copy is gone.
    GrantBeforeAcks,
    /// A discard that was carried out is carried out again.
    DiscardTwice,
    /// An acknowledgement that comes again counts again.
    AckCountedTwice,
    /// Whom to tell to drop a page is looked up before the page is busy: who is entered until then is forgotten.
    SharersBeforeLock,
    /// A copy that readers may be sent to is dropped for want of room.
    ProviderEvicted,
    /// A transaction that a kernel program has begun is not taken over.
    TransactionNotAdopted,
    /// Who keeps its copy is taken from the request that comes again, not from the one that the program has seen.
    SparedByRetry,
    /// A sourced page that was forgotten is fresh, as any other.
    SourceNotRegained,
    /// A pinned page is dropped or handed over on order.
    PinIgnored,
}

impl Plant {
    /// Every planted bug.
    pub const ALL: [Plant; 18] = [
        Plant::AckBeforeDrop,
        Plant::DoubleOwner,
        Plant::ForwardLoop,
        Plant::MissedEpochCheck,
        Plant::InstallAfterInvalidate,
        Plant::LostWakeUp,
        Plant::ReadWithoutProtect,
        Plant::ForgottenSharer,
        Plant::PrefetchOverWriter,
        Plant::GrantBeforeAcks,
        Plant::DiscardTwice,
        Plant::AckCountedTwice,
        Plant::SharersBeforeLock,
        Plant::ProviderEvicted,
        Plant::TransactionNotAdopted,
        Plant::SparedByRetry,
        Plant::SourceNotRegained,
        Plant::PinIgnored,
    ];
}

#[cfg(feature = "plant")]
mod switch {
    extern crate std;

    use super::Plant;
    use core::cell::Cell;

    std::thread_local! {
        static PLANTED: Cell<Option<Plant>> = const { Cell::new(None) };
        static BETWEEN: Cell<Option<fn()>> = const { Cell::new(None) };
    }

    /// Plants `plant` in every node of this thread; `None` heals them.
    pub fn set(plant: Option<Plant>) {
        PLANTED.set(plant);
    }

    /// Whether `plant` is planted in this thread.
    pub fn is(plant: Plant) -> bool {
        PLANTED.get() == Some(plant)
    }

    /// From now on `between` is called before each access of this thread's nodes to a shared directory.
    pub fn set_pause(between: Option<fn()>) {
        BETWEEN.set(between);
    }

    /// Lets others change a shared directory.
    pub fn pause() {
        if let Some(between) = BETWEEN.get() {
            between();
        }
    }
}

#[cfg(feature = "plant")]
pub use switch::{is, pause, set, set_pause};

/// Whether `plant` is planted: never.
#[cfg(not(feature = "plant"))]
#[must_use]
pub const fn is(_plant: Plant) -> bool {
    false
}

/// Lets others change a shared directory: nobody.
#[cfg(not(feature = "plant"))]
pub const fn pause() {}

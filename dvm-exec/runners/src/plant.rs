//! Bugs on purpose.
//!
//! Owns their names. Without the feature `plant`, which only the simulator turns on, [`is`] is always false and costs nothing.

/// A bug that a checker must find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// A watcher is armed from now on, not from the snapshot of its creator.
    BaselineDropped,
    /// Snapshots include commits that homes have not applied.
    TimestampBeforeApply,
    /// A commit is validated by values: a word that was changed and changed back is no conflict.
    ValuesCompared,
    /// A commit of a host that is lost later is forgotten with it, and its runner runs again.
    ReleasedTwice,
    /// A home does not lock what it has validated.
    NotLocked,
    /// The root takes commits that were prepared at a home that is lost.
    LostHomeTrusted,
    /// Versions are forgotten although a snapshot needs them.
    ForgottenEarly,
    /// The root acts on ends that its backups do not have yet.
    ActsBeforeBackup,
    /// A new root releases output again that the former one has released.
    OutputAgain,
    /// A backup that has become the root still takes the former one at its word.
    LostRootTrusted,
    /// A new root does not tell homes again what the former one may not have told them.
    NotRepeated,
    /// A new root does not know commits of the former one whose hosts have not heard of them.
    DecidedForgotten,
}

impl Plant {
    /// All.
    pub const ALL: [Self; 12] = [
        Self::BaselineDropped,
        Self::TimestampBeforeApply,
        Self::ValuesCompared,
        Self::ReleasedTwice,
        Self::NotLocked,
        Self::LostHomeTrusted,
        Self::ForgottenEarly,
        Self::ActsBeforeBackup,
        Self::OutputAgain,
        Self::LostRootTrusted,
        Self::NotRepeated,
        Self::DecidedForgotten,
    ];
}

#[cfg(feature = "plant")]
mod planted {
    use super::Plant;
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Plant>> = const { Cell::new(None) };
    }

    /// Plants `plant` in every node of this thread; `None` heals them.
    pub fn set(plant: Option<Plant>) {
        PLANTED.set(plant);
    }

    /// Whether `plant` is planted in this thread.
    #[must_use]
    pub fn is(plant: Plant) -> bool {
        PLANTED.get() == Some(plant)
    }
}

#[cfg(feature = "plant")]
pub use planted::{is, set};

/// Whether `plant` is planted: never.
#[cfg(not(feature = "plant"))]
#[must_use]
pub const fn is(_plant: Plant) -> bool {
    false
}

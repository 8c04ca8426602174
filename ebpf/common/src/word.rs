//! One page's entry: a word of state, busy, owner and era, and the sharers beside it; and what may become of it.
//!
//! Owns every transition. Must not know where entries are kept or how they are exchanged.
//!
//! ```text
//!   bit 63      32 31    16 15  4   3    2   0
//!      | era      | owner  | 0   | busy | state |
//!
//!                    Lock -> busy            Forgotten (busy, era+1)
//!   Fresh -----------------------------+ <------------------------------ any
//!     |  Granted(R) (busy, era+1)      |
//!     v                                |
//!   Owned(R) --- Downgraded(X) (busy) -----> Shared{R, X}, provider R
//!     ^   \----- Opened (not busy) --------> Shared{R},    provider R
//!     |                                        |   \-- Joined(X) (not busy): one sharer more
//!     +-------- Granted(X) (busy, era+1) ------+
//!   any --- LostAt(era) ---> Lost, until Forgotten
//! ```

use dsm_wire::{Era, NodeId};

const STATE_MASK: u64 = 0b111;
const BUSY: u64 = 1 << 3;
const OWNER_SHIFT: u32 = 16;
const ERA_SHIFT: u32 = 32;
/// Nodes that a sharer set tells apart; above, a bit names a class.
const SHARER_CLASSES: u16 = 64;

/// Who has the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum State {
    /// Nobody; it reads zero.
    Fresh = 0,
    /// Readers only; `owner` is the one who provides the bytes.
    Shared = 1,
    /// `owner` alone, writable.
    Owned = 2,
    /// Nobody any more.
    Lost = 3,
}

/// A page's directory word, as the kernel sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word(pub u64);

impl Word {
    /// A page that nobody has, not busy.
    #[must_use]
    pub const fn fresh(era: Era) -> Self {
        Self::new(State::Fresh, false, NodeId(0), era)
    }

    /// A page that `owner` alone has, not busy.
    #[must_use]
    pub const fn owned(owner: NodeId, era: Era) -> Self {
        Self::new(State::Owned, false, owner, era)
    }

    const fn new(state: State, busy: bool, owner: NodeId, era: Era) -> Self {
        let busy = if busy { BUSY } else { 0 };
        Self(state as u64 | busy | (owner.0 as u64) << OWNER_SHIFT | (era.0 as u64) << ERA_SHIFT)
    }

    /// Who has the page. A word no transition makes reads as Lost.
    #[must_use]
    pub const fn state(self) -> State {
        match self.0 & STATE_MASK {
            0 => State::Fresh,
            1 => State::Shared,
            2 => State::Owned,
            _ => State::Lost,
        }
    }

    /// Whether a transaction on the page is under way.
    #[must_use]
    pub const fn is_busy(self) -> bool {
        self.0 & BUSY != 0
    }

    /// Owner of an Owned page, provider of a Shared one.
    #[must_use]
    pub const fn owner(self) -> NodeId {
        NodeId((self.0 >> OWNER_SHIFT) as u16)
    }

    /// Version of the page.
    #[must_use]
    pub const fn era(self) -> Era {
        Era((self.0 >> ERA_SHIFT) as u32)
    }

    const fn with_busy(self, busy: bool) -> Self {
        Self(if busy { self.0 | BUSY } else { self.0 & !BUSY })
    }
}

/// Who has read copies: exact up to 64 nodes, in classes (number mod 64) beyond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sharers(pub u64);

impl Sharers {
    /// `node` alone (or its class).
    #[must_use]
    pub const fn only(node: NodeId) -> Self {
        Self(1 << (node.0 % SHARER_CLASSES))
    }

    /// Whether `node`, or another of its class, is in it.
    #[must_use]
    pub const fn may_contain(self, node: NodeId) -> bool {
        self.0 & Self::only(node).0 != 0
    }

    /// With `node` added.
    #[must_use]
    pub const fn with(self, node: NodeId) -> Self {
        Self(self.0 | Self::only(node).0)
    }

    /// With `node`'s class removed.
    #[must_use]
    pub const fn without(self, node: NodeId) -> Self {
        Self(self.0 & !Self::only(node).0)
    }
}

/// A word and its sharers: all a home knows of a page at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// State, busy, owner, era.
    pub word: Word,
    /// Read copies; empty unless Shared (Lost: who was told).
    pub sharers: Sharers,
}

/// What happens to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A transaction begins.
    Lock,
    /// A transaction that changed nothing ends.
    Unlock,
    /// The transaction ends: this node has the page alone, of the next era.
    Granted(NodeId),
    /// The transaction ends: the owner kept a read copy, this node got one.
    Downgraded(NodeId),
    /// The owner, at home itself, makes its copy read-only.
    Opened,
    /// One more reader.
    Joined(NodeId),
    /// Another sharer provides the bytes from now on.
    Provider(NodeId),
    /// This reader is dead; its class is cleared.
    Left(NodeId),
    /// The transaction ends: nobody has the page, it reads zero, in the next era.
    Forgotten,
    /// Nobody has the page any more; what was under way ends, and the era was at least this.
    LostAt(Era),
}

/// A step that the entry does not allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What the entry was.
    pub entry: Entry,
    /// What was to happen.
    pub step: Step,
}

/// What `entry` becomes by `step`.
///
/// # Errors
/// [`Refused`] when the entry does not allow the step, or its era is used up (the page is to be lost then).
pub fn apply(entry: Entry, step: Step) -> Result<Entry, Refused> {
    let Entry { word, sharers } = entry;
    let refused = Refused { entry, step };
    let next_era = word.era().0.checked_add(1).map(Era).ok_or(refused);
    let owner = word.owner();
    let at_rest = |state, owner, sharers| Entry { word: Word::new(state, false, owner, word.era()), sharers };
    let ended = match (step, word.state(), word.is_busy()) {
        (Step::Lock, _, false) => Entry { word: word.with_busy(true), sharers },
        (Step::Unlock, _, true) => Entry { word: word.with_busy(false), sharers },
        (Step::Granted(node), State::Fresh | State::Shared | State::Owned, true) => {
            Entry { word: Word::owned(node, next_era?), sharers: Sharers::default() }
        }
        (Step::Downgraded(reader), State::Owned, true) => at_rest(State::Shared, owner, Sharers::only(owner).with(reader)),
        (Step::Opened, State::Owned, false) => at_rest(State::Shared, owner, Sharers::only(owner)),
        (Step::Joined(reader), State::Shared, false) => at_rest(State::Shared, owner, sharers.with(reader)),
        (Step::Joined(reader), State::Lost, false) => at_rest(State::Lost, owner, sharers.with(reader)),
        (Step::Provider(node), State::Shared, busy) => {
            Entry { word: Word::new(State::Shared, busy, node, word.era()), sharers: sharers.with(node) }
        }
        (Step::Left(node), State::Shared | State::Lost, _) => Entry { word, sharers: sharers.without(node) },
        (Step::Forgotten, _, true) => Entry { word: Word::fresh(next_era?), sharers: Sharers::default() },
        (Step::LostAt(era), _, _) => {
            let era = Era(era.0.max(word.era().0));
            Entry { word: Word::new(State::Lost, false, NodeId(0), era), sharers }
        }
        (
            Step::Lock
            | Step::Unlock
            | Step::Granted(_)
            | Step::Downgraded(_)
            | Step::Opened
            | Step::Joined(_)
            | Step::Provider(_)
            | Step::Left(_)
            | Step::Forgotten,
            _,
            _,
        ) => return Err(refused),
    };
    Ok(ended)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: NodeId = NodeId(1);
    const BOB: NodeId = NodeId(2);

    fn run(steps: &[Step]) -> Result<Entry, Refused> {
        steps.iter().try_fold(Entry { word: Word::fresh(Era(1)), sharers: Sharers::default() }, |entry, step| apply(entry, *step))
    }

    #[test]
    fn a_grant_raises_the_era_and_names_the_owner() {
        let entry = run(&[Step::Lock, Step::Granted(ANN)]).unwrap();
        assert_eq!(entry.word, Word::owned(ANN, Era(2)));
    }

    #[test]
    fn a_downgrade_shares_between_owner_and_reader() {
        let entry = run(&[Step::Lock, Step::Granted(ANN), Step::Lock, Step::Downgraded(BOB)]).unwrap();
        assert_eq!((entry.word.state(), entry.word.owner(), entry.word.era()), (State::Shared, ANN, Era(2)));
        assert_eq!(entry.sharers, Sharers::only(ANN).with(BOB));
    }

    #[test]
    fn nothing_is_granted_without_a_lock() {
        assert!(run(&[Step::Granted(ANN)]).is_err());
        assert!(run(&[Step::Lock, Step::Lock]).is_err());
        assert!(run(&[Step::Joined(ANN)]).is_err());
    }

    #[test]
    fn an_era_that_is_used_up_is_refused() {
        let entry = Entry { word: Word::fresh(Era(u32::MAX)).with_busy(true), sharers: Sharers::default() };
        assert!(apply(entry, Step::Granted(ANN)).is_err());
        assert!(apply(entry, Step::LostAt(Era(u32::MAX))).is_ok());
    }

    #[test]
    fn what_is_lost_stays_lost_until_it_is_forgotten() {
        let lost = [Step::Lock, Step::Granted(ANN), Step::LostAt(Era(7))];
        assert_eq!(run(&lost).unwrap().word.era(), Era(7));
        assert!(run(&[lost[0], lost[1], lost[2], Step::Lock, Step::Granted(BOB)]).is_err());
        let forgotten = run(&[lost[0], lost[1], lost[2], Step::Lock, Step::Forgotten]).unwrap();
        assert_eq!(forgotten.word, Word::fresh(Era(8)));
    }
}

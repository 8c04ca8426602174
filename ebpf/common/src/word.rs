//! One page's entry: a word of state, busy, owner and era, and the sharers beside it; and what may become of it.
//!
//! Owns every transition. Must not know where entries are kept or how they are exchanged.
//!
//! ```text
//!   bit 63      32 31    16 15  5    4      3    2   0
//!      | era      | owner  |   0  | wide | busy | state |
//!
//!                    Lock -> busy            Forgotten (busy, era+1)
//!   Fresh -----------------------------+ <------------------------------ any
//!     |  Granted(R) (busy, era+1)      |
//!     v                                |
//!   Owned(R) --- Joined(X) (not busy) ----> Shared{R, X}, provider R
//!     ^                                        |   \-- Joined(X) (not busy): one sharer more
//!     +-------- Granted(X) (busy, era+1) ------+
//!   any --- LostAt(era) ---> Lost, until Forgotten
//! ```

use dsm_wire::{Era, NodeId};

const STATE_MASK: u64 = 0b111;
const BUSY: u64 = 1 << 3;
const WIDE: u64 = 1 << 4;
const OWNER_SHIFT: u32 = 16;
const ERA_SHIFT: u32 = 32;

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
    /// What is read where nothing can be read: a page one has to wait for.
    pub const BUSY: Word = Word(BUSY);

    /// A page that nobody has, not busy. `is_wide`: the cluster has nodes numbered 64 or more.
    #[must_use]
    pub const fn fresh(era: Era, is_wide: bool) -> Self {
        Self(if is_wide { WIDE } else { 0 }).becoming(State::Fresh, false, NodeId(0), era)
    }

    /// A page that `owner` alone has, not busy.
    #[must_use]
    pub const fn owned(owner: NodeId, era: Era, is_wide: bool) -> Self {
        Self::fresh(era, is_wide).becoming(State::Owned, false, owner, era)
    }

    const fn becoming(self, state: State, busy: bool, owner: NodeId, era: Era) -> Self {
        let busy = if busy { BUSY } else { 0 };
        Self(self.0 & WIDE | state as u64 | busy | (owner.0 as u64) << OWNER_SHIFT | (era.0 as u64) << ERA_SHIFT)
    }

    /// Whether the sharers beside this word are a wide set.
    #[must_use]
    pub const fn is_wide(self) -> bool {
        self.0 & WIDE != 0
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

/// Who has read copies.
///
/// In a cluster of up to 64 nodes, bit `i` is node `i`. In a wide one (`is_wide`), up to four nodes stand in fields of 15
/// bits (number + 1); a fifth turns bit 63 on, and bit `i` then names every node whose number is `i` mod 63.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sharers(pub u64);

const CLASSES_BIT: u64 = 1 << 63;
const CLASSES: u16 = 63;
const POINTERS: u32 = 4;
const POINTER_BITS: u32 = 15;
const POINTER_MASK: u64 = (1 << POINTER_BITS) - 1;
/// Nodes a narrow sharer set can name.
pub const NARROW_NODES_MAX: u16 = 64;
/// Nodes a wide sharer set can name.
pub const WIDE_NODES_MAX: u16 = POINTER_MASK as u16;

impl Sharers {
    /// `node` alone.
    #[must_use]
    pub const fn only(node: NodeId, is_wide: bool) -> Self {
        Self(0).with(node, is_wide)
    }

    /// Whether `node` is in it; true also for others of its class.
    #[must_use]
    pub const fn may_contain(self, node: NodeId, is_wide: bool) -> bool {
        if !is_wide {
            return self.0 & narrow_bit(node) != 0;
        }
        if self.0 & CLASSES_BIT != 0 {
            return self.0 & class_bit(node) != 0;
        }
        self.place_of(pointer(node)).is_some()
    }

    /// With `node` added.
    #[must_use]
    pub const fn with(self, node: NodeId, is_wide: bool) -> Self {
        if !is_wide {
            return Self(self.0 | narrow_bit(node));
        }
        if self.0 & CLASSES_BIT != 0 {
            return Self(self.0 | class_bit(node));
        }
        if self.place_of(pointer(node)).is_some() {
            return self;
        }
        match self.place_of(0) {
            Some(place) => Self(self.0 | pointer(node) << (place * POINTER_BITS)),
            None => self.as_classes().with(node, is_wide),
        }
    }

    /// With `node` removed, if it can be told from the others.
    #[must_use]
    pub const fn without(self, node: NodeId, is_wide: bool) -> Self {
        if !is_wide {
            return Self(self.0 & !narrow_bit(node));
        }
        if self.0 & CLASSES_BIT != 0 {
            return self;
        }
        match self.place_of(pointer(node)) {
            Some(place) => Self(self.0 & !(POINTER_MASK << (place * POINTER_BITS))),
            None => self,
        }
    }

    const fn place_of(self, wanted: u64) -> Option<u32> {
        let mut place = 0;
        while place < POINTERS {
            if self.0 >> (place * POINTER_BITS) & POINTER_MASK == wanted {
                return Some(place);
            }
            place += 1;
        }
        None
    }

    const fn as_classes(self) -> Self {
        let mut classes = CLASSES_BIT;
        let mut place = 0;
        while place < POINTERS {
            let found = self.0 >> (place * POINTER_BITS) & POINTER_MASK;
            if found > 0 {
                classes |= class_bit(NodeId(found as u16 - 1));
            }
            place += 1;
        }
        Self(classes)
    }
}

const fn narrow_bit(node: NodeId) -> u64 {
    1 << (node.0 % NARROW_NODES_MAX)
}

const fn class_bit(node: NodeId) -> u64 {
    1 << (node.0 % CLASSES)
}

const fn pointer(node: NodeId) -> u64 {
    node.0 as u64 % POINTER_MASK + 1
}

/// A word and its sharers: all a home knows of a page at rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// State, busy, owner, era.
    pub word: Word,
    /// Who may have a read copy, or (Lost) was told; of a page that is not Shared, at most who was entered too late.
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
    /// One more reader; an owner is told to make its copy read-only, and provides from then on.
    Joined(NodeId),
    /// Another sharer provides the bytes from now on.
    Provider(NodeId),
    /// This reader is dead.
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
#[inline(always)]
pub fn apply(entry: Entry, step: Step) -> Result<Entry, Refused> {
    let Entry { word, sharers } = entry;
    let refused = Refused { entry, step };
    let next_era = word.era().0.checked_add(1).map(Era).ok_or(refused);
    let owner = word.owner();
    let is_wide = word.is_wide();
    let at_rest = |state, owner, sharers| Entry { word: word.becoming(state, false, owner, word.era()), sharers };
    let ended = match (step, word.state(), word.is_busy()) {
        (Step::Lock, _, false) => Entry { word: word.with_busy(true), sharers },
        (Step::Unlock, _, true) => Entry { word: word.with_busy(false), sharers },
        (Step::Granted(node), State::Fresh | State::Shared | State::Owned, true) => {
            Entry { word: word.becoming(State::Owned, false, node, next_era?), sharers: Sharers::default() }
        }
        (Step::Joined(reader), State::Owned, false) => {
            at_rest(State::Shared, owner, sharers.with(owner, is_wide).with(reader, is_wide))
        }
        (Step::Joined(reader), State::Shared, false) => at_rest(State::Shared, owner, sharers.with(reader, is_wide)),
        (Step::Joined(reader), State::Lost, false) => at_rest(State::Lost, owner, sharers.with(reader, is_wide)),
        (Step::Provider(node), State::Shared, busy) => {
            Entry { word: word.becoming(State::Shared, busy, node, word.era()), sharers: sharers.with(node, is_wide) }
        }
        (Step::Left(node), State::Shared | State::Lost, _) => Entry { word, sharers: sharers.without(node, is_wide) },
        (Step::Forgotten, _, true) => {
            Entry { word: word.becoming(State::Fresh, false, NodeId(0), next_era?), sharers: Sharers::default() }
        }
        (Step::LostAt(era), _, _) => {
            let era = Era(era.0.max(word.era().0));
            Entry { word: word.becoming(State::Lost, false, NodeId(0), era), sharers }
        }
        (
            Step::Lock | Step::Unlock | Step::Granted(_) | Step::Joined(_) | Step::Provider(_) | Step::Left(_) | Step::Forgotten,
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
        steps
            .iter()
            .try_fold(Entry { word: Word::fresh(Era(1), false), sharers: Sharers::default() }, |entry, step| apply(entry, *step))
    }

    #[test]
    fn a_grant_raises_the_era_and_names_the_owner() {
        let entry = run(&[Step::Lock, Step::Granted(ANN)]).unwrap();
        assert_eq!(entry.word, Word::owned(ANN, Era(2), false));
    }

    #[test]
    fn an_opened_page_is_shared_between_owner_and_reader() {
        let entry = run(&[Step::Lock, Step::Granted(ANN), Step::Joined(BOB)]).unwrap();
        assert_eq!((entry.word.state(), entry.word.owner(), entry.word.era()), (State::Shared, ANN, Era(2)));
        assert_eq!(entry.sharers, Sharers::only(ANN, false).with(BOB, false));
    }

    #[test]
    fn nothing_is_granted_without_a_lock() {
        assert!(run(&[Step::Granted(ANN)]).is_err());
        assert!(run(&[Step::Lock, Step::Lock]).is_err());
        assert!(run(&[Step::Joined(ANN)]).is_err());
    }

    #[test]
    fn an_era_that_is_used_up_is_refused() {
        let entry = Entry { word: Word::fresh(Era(u32::MAX), false).with_busy(true), sharers: Sharers::default() };
        assert!(apply(entry, Step::Granted(ANN)).is_err());
        assert!(apply(entry, Step::LostAt(Era(u32::MAX))).is_ok());
    }

    #[test]
    fn what_is_lost_stays_lost_until_it_is_forgotten() {
        let lost = [Step::Lock, Step::Granted(ANN), Step::LostAt(Era(7))];
        assert_eq!(run(&lost).unwrap().word.era(), Era(7));
        assert!(run(&[lost[0], lost[1], lost[2], Step::Lock, Step::Granted(BOB)]).is_err());
        let forgotten = run(&[lost[0], lost[1], lost[2], Step::Lock, Step::Forgotten]).unwrap();
        assert_eq!(forgotten.word, Word::fresh(Era(8), false));
    }

    #[test]
    fn a_wide_set_names_four_nodes_exactly_and_more_by_class() {
        let four = [3, 1000, 66, 129].map(NodeId);
        let set = four.iter().fold(Sharers::default(), |set, node| set.with(*node, true));
        let members = |set: Sharers| (0..2000).map(NodeId).filter(|node| set.may_contain(*node, true)).count();
        assert!(four.iter().all(|node| set.may_contain(*node, true)));
        assert_eq!(members(set), 4);
        assert_eq!(members(set.without(four[1], true)), 3);
        let five = set.with(NodeId(5), true);
        assert!(four.iter().all(|node| five.may_contain(*node, true)) && five.may_contain(NodeId(5), true));
        assert!(members(five) > 5);
    }

    #[test]
    fn a_narrow_set_is_exact() {
        let set = Sharers::only(NodeId(63), false).with(NodeId(0), false);
        assert_eq!((0..64).map(NodeId).filter(|node| set.may_contain(*node, false)).count(), 2);
        assert_eq!(set.without(NodeId(63), false), Sharers::only(NodeId(0), false));
    }
}

//! The address map every runner sees.
//!
//! Owns the ranges and the cells of the system page. Must not know what is stored there.

use serde::{Deserialize, Serialize};

/// Bytes of a page.
pub const PAGE_BYTES: u64 = 4096;
/// Bytes of the unit in which conflicts are found.
pub const WORD_BYTES: u64 = 8;

/// Private memory: zero at the start of a runner, gone at its end.
pub const PR: Range = Range::new(0x1_0000_0000, 1 << 32);
/// Shared memory: what snapshots and commits are about.
pub const SR: Range = Range::new(0x1000_0000_0000, 64 << 40);
/// Text and constants: nobody stores here.
pub const TX: Range = Range::new(0x5001_0000_0000, 1 << 32);
/// What `.private` gives out.
pub const PRIVATE_DATA: Range = Range::new(PR.base + 0x1_0000, (2 << 30) - 0x1_0000);
/// The part of [`TX`] that instructions may occupy.
pub const TEXT: Range = Range::new(TX.base, 1 << 30);
/// The part of [`TX`] for constants.
pub const RODATA: Range = Range::new(TX.base + (1 << 30), (1 << 32) - (1 << 30));

/// What the first runner may use: all of [`SR`] below the stacks.
pub const SHARED_DATA: Range = Range::new(SR.base, 48 << 40);
/// Where `.bss` begins unless it says otherwise.
pub const BSS_BASE: u64 = SR.base + (64 << 30);
/// What `sys 5` gives out.
pub const ARENA: Range = Range::new(SR.base + (32 << 40), 8 << 40);
/// Where `sys 4` shows files.
pub const FILES: Range = Range::new(SR.base + (40 << 40), 8 << 40);
/// One page a runner, unless its creator names another stack.
pub const STACKS: Range = Range::new(SR.base + (48 << 40), 8 << 40);
/// One page a runner: how it ended.
pub const EXIT_CODES: Range = Range::new(SR.base + (56 << 40), 8 << 40);

/// Bytes of an allocated stack.
pub const STACK_BYTES: u64 = PAGE_BYTES;
/// The arguments of a runner lie so far below the end of its stack.
pub const ARGUMENT_BYTES: u64 = 64;

/// Slots of the register window.
pub const WINDOW_SLOTS: usize = 256;
/// The register window.
pub const WINDOW: Range = Range::new(PR.base + 0x1000, WINDOW_SLOTS as u64 * 8);

/// Cells of the system page.
pub mod cell {
    use super::PR;
    /// Base of the runner's own stack.
    pub const STACK: u64 = PR.base + 0x100;
    /// Bytes of it.
    pub const STACK_SIZE: u64 = PR.base + 0x108;
    /// Where the runner's arguments are.
    pub const ARGUMENTS: u64 = PR.base + 0x118;
    /// The runner's number.
    pub const SELF: u64 = PR.base + 0x120;
    /// The number of the runner that made it.
    pub const PARENT: u64 = PR.base + 0x128;
    /// 1 in an instance of a watcher, else 0.
    pub const INSTANCE: u64 = PR.base + 0x140;
    /// Base of the stack of the runner made last.
    pub const NEW_STACK: u64 = PR.base + 0x400;
    /// Bytes of it.
    pub const NEW_STACK_SIZE: u64 = PR.base + 0x408;
    /// The number of the runner made last.
    pub const NEW_ID: u64 = PR.base + 0x410;
    /// Where its arguments go.
    pub const NEW_ARGUMENTS: u64 = PR.base + 0x418;
}

/// Names every program may use.
pub const SYMBOLS: &[(&str, u64)] = &[
    ("PR", PR.base),
    ("SR", SR.base),
    ("TX", TX.base),
    ("EC", EXIT_CODES.base),
    ("sys.stk", cell::STACK),
    ("sys.stksz", cell::STACK_SIZE),
    ("sys.argp", cell::ARGUMENTS),
    ("sys.self", cell::SELF),
    ("sys.parent", cell::PARENT),
    ("sys.instance", cell::INSTANCE),
    ("sys.newstk", cell::NEW_STACK),
    ("sys.newstksz", cell::NEW_STACK_SIZE),
    ("sys.newid", cell::NEW_ID),
    ("sys.newarg", cell::NEW_ARGUMENTS),
];

/// Consecutive bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Range {
    /// The first address.
    pub base: u64,
    /// How many.
    pub bytes: u64,
}

impl Range {
    /// `bytes` bytes from `base` on.
    #[must_use]
    pub const fn new(base: u64, bytes: u64) -> Self {
        Self { base, bytes }
    }

    /// The address behind the last byte; `None` if there is none.
    #[must_use]
    pub const fn end(self) -> Option<u64> {
        self.base.checked_add(self.bytes)
    }

    /// Whether one address is inside.
    #[must_use]
    pub const fn contains(self, address: u64) -> bool {
        address.wrapping_sub(self.base) < self.bytes
    }

    /// Whether all of `other` is inside.
    #[must_use]
    pub const fn encloses(self, other: Self) -> bool {
        let offset = other.base.wrapping_sub(self.base);
        offset <= self.bytes && other.bytes <= self.bytes - offset
    }

    /// Whether a byte is in both. Neither may wrap.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.bytes > 0
            && other.bytes > 0
            && (other.base.wrapping_sub(self.base) < self.bytes || self.base.wrapping_sub(other.base) < other.bytes)
    }
}

/// The slot whose cell `address` is.
#[must_use]
pub fn window_slot(address: u64) -> Option<u8> {
    let is_cell = WINDOW.contains(address) && address.is_multiple_of(8);
    is_cell.then(|| u8::try_from((address - WINDOW.base) / 8).expect("the window has 256 slots"))
}

/// The address of a slot.
#[must_use]
pub const fn slot_address(slot: u8) -> u64 {
    WINDOW.base + slot as u64 * 8
}

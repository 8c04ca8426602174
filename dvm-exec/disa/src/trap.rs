//! Why a runner dies.
//!
//! Owns the traps, their numbers and names. Must not know who finds them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TrapKind {
    /// No instruction.
    Illegal,
    /// A jump to, or a step to, where no instruction begins.
    Pc(u64),
    /// An address that no runner has.
    Addr(u64),
    /// Shared memory that this runner was not granted.
    Range(u64),
    /// A store beside the declared ranges, on a granted page: found at exit.
    RangeAtExit(u64),
    /// A store to text or constants.
    Text(u64),
    /// A pointer into the register window.
    Window(u64),
    /// A store to a constant.
    Store,
    /// A division by zero.
    Div0,
    /// The smallest integer divided by -1.
    DivOvf,
    /// Too many ranges in a list, or none where one is needed.
    NRanges(u64),
    /// A range that is not in shared memory.
    RangeList {
        /// Its base.
        base: u64,
        /// Its length.
        bytes: u64,
    },
    /// No such system call, or it cannot be done.
    Sys(u64),
    /// The runner's instructions are used up.
    Fuel,
    /// The runner's memory, children or output are used up.
    Mem,
    /// `trap n`.
    User(u64),
}

/// Numbers of [`TrapKind::User`] begin here.
const USER_BASE: u64 = 256;

impl TrapKind {
    /// Its number, as exit-code pages show it.
    #[must_use]
    pub const fn code(self) -> u64 {
        match self {
            Self::Illegal => 1,
            Self::Pc(_) => 2,
            Self::Addr(_) => 3,
            Self::Range(_) | Self::RangeAtExit(_) => 4,
            Self::Text(_) => 5,
            Self::Window(_) => 6,
            Self::Store => 7,
            Self::Div0 => 8,
            Self::DivOvf => 9,
            Self::NRanges(_) => 10,
            Self::RangeList { .. } => 11,
            Self::Sys(_) => 12,
            Self::Fuel => 13,
            Self::Mem => 14,
            Self::User(number) => USER_BASE.wrapping_add(number),
        }
    }
}

impl fmt::Display for TrapKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Illegal => write!(f, "ILLEGAL"),
            Self::Pc(address) => write!(f, "PC 0x{address:x}"),
            Self::Addr(address) => write!(f, "ADDR 0x{address:x}"),
            Self::Range(address) => write!(f, "RANGE 0x{address:x}"),
            Self::RangeAtExit(address) => {
                write!(f, "RANGE 0x{address:x} (store outside the declared ranges, found at exit)")
            }
            Self::Text(address) => write!(f, "TEXT 0x{address:x}"),
            Self::Window(address) => write!(f, "WINDOW 0x{address:x}"),
            Self::Store => write!(f, "STORE to a constant"),
            Self::Div0 => write!(f, "DIV0"),
            Self::DivOvf => write!(f, "DIVOVF"),
            Self::NRanges(count) => write!(f, "NRANGES {count}"),
            Self::RangeList { base, bytes } => write!(f, "RANGELIST 0x{base:x}+0x{bytes:x}"),
            Self::Sys(number) => write!(f, "SYS {number}"),
            Self::Fuel => write!(f, "FUEL"),
            Self::Mem => write!(f, "MEM"),
            Self::User(number) => write!(f, "USER {number}"),
        }
    }
}

/// A trap and the instruction that it hit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trap {
    /// What went wrong.
    pub kind: TrapKind,
    /// The address of the instruction.
    pub pc: u64,
}

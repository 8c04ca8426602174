//! What is wrong with a source, and where.
//!
//! Owns the reasons a person would name. Must not know how a source is read.

use std::fmt;

/// A place in a source: line and column from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Position {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

/// Why a source is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A character that begins nothing.
    #[error("unexpected `{0}`")]
    Unexpected(String),
    /// Something else should be here.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What should be here.
        expected: &'static str,
        /// What is.
        found: String,
    },
    /// A string or character without its end, or a bad escape.
    #[error("bad string or character: {0}")]
    BadText(&'static str),
    /// A number that is none.
    #[error("bad number `{0}`")]
    BadNumber(String),
    /// No such instruction.
    #[error("unknown instruction `{0}`")]
    UnknownOp(String),
    /// No such directive.
    #[error("unknown directive `{0}`")]
    UnknownDirective(String),
    /// No such type, condition or mode.
    #[error("`{op}` has no attribute or size `:{attribute}`")]
    BadAttribute {
        /// The instruction.
        op: String,
        /// What follows the colon.
        attribute: String,
    },
    /// The attributes do not go together.
    #[error("`{0}` does not exist with this size and these attributes")]
    BadCombination(String),
    /// A branch without a condition, a conversion without types.
    #[error("`{op}` needs {needs}")]
    MissingAttribute {
        /// The instruction.
        op: &'static str,
        /// What it needs.
        needs: &'static str,
    },
    /// Two sizes.
    #[error("size given twice: once on an instruction or on its first operand")]
    SizeTwice,
    /// Too many or too few operands.
    #[error("`{op}` takes {takes} operands, {found} are here")]
    OperandCount {
        /// The instruction.
        op: String,
        /// How many it takes.
        takes: usize,
        /// How many are there.
        found: usize,
    },
    /// Nothing has this name.
    #[error("undefined symbol `{0}`")]
    Undefined(String),
    /// Two things have this name.
    #[error("duplicate symbol `{0}`")]
    Duplicate(String),
    /// A name that the language keeps for itself.
    #[error("`{0}` is a reserved name")]
    Reserved(String),
    /// No such slot.
    #[error("window slot `{0}`: w0 to w255 exist")]
    WindowSlot(String),
    /// A number that does not fit its place.
    #[error("literal too large: {value} does not fit {place}")]
    TooLarge {
        /// The number.
        value: String,
        /// Where it should go.
        place: &'static str,
    },
    /// A number with a fraction where integers are, or otherwise.
    #[error("{0}")]
    WrongLiteral(&'static str),
    /// A directive that has no sense in this section.
    #[error("`{0}` does not belong into this section")]
    WrongSection(String),
    /// An address that no data can have.
    #[error("address 0x{address:x} of {bytes} bytes is not in {place}")]
    BadAddress {
        /// The address.
        address: u64,
        /// How many bytes were to lie there.
        bytes: u64,
        /// Where they should.
        place: &'static str,
    },
    /// Two pieces of data at one address.
    #[error("data at 0x{0:x} overlaps other data")]
    Overlap(u64),
    /// Lengths of instructions that depend on each other in a circle.
    #[error("the lengths of the instructions do not settle: write the addresses as numbers")]
    Unsettled,
    /// More than fits.
    #[error("source of {0} bytes: too long")]
    SourceTooLong(usize),
    /// The start is no instruction, or a branch leads between two.
    #[error("{0}")]
    Verify(String),
}

/// One error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where.
    pub at: Position,
    /// Why.
    pub reason: Reason,
}

/// All errors of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    /// The name of the source.
    pub file: String,
    /// The errors, in the order of the source.
    pub all: Vec<Diagnostic>,
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Diagnostic { at, reason }) in self.all.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}:{}:{}: {reason}", self.file, at.line, at.column)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

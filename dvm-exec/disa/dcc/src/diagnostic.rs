//! What is wrong with a source, and where.
//!
//! Owns the reasons a person would name. Must not know how a source is read.

pub use dvm_disa::asm::Position;
use std::fmt;

/// Why a source is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A character that begins nothing.
    #[error("unexpected `{0}`")]
    Unexpected(char),
    /// A comment, string or character without its end, or a bad escape.
    #[error("{0}")]
    BadText(&'static str),
    /// A number that is none.
    #[error("bad number `{0}`: write 10, 0x1f, 'a' or 1.5")]
    BadNumber(String),
    /// Something else should be here.
    #[error("expected {expected}, found {found}")]
    Expected {
        /// What should be here.
        expected: String,
        /// What is.
        found: String,
    },
    /// More than fits.
    #[error("source of {0} bytes: at most {max} are allowed, split it", max = crate::limits::SOURCE_BYTES_MAX)]
    SourceTooLong(usize),
    /// Parentheses, blocks or operators inside each other.
    #[error("nested too deep: at most {max} levels, use a variable or a function", max = crate::limits::DEPTH_MAX)]
    TooDeep,
    /// Nothing has this name.
    #[error("`{0}` is not declared")]
    Undeclared(String),
    /// Two things have this name.
    #[error("`{0}` is declared twice: rename one of them")]
    Duplicate(String),
    /// A name that the assembler keeps for itself.
    #[error("`{0}` is a name of the assembler: rename it")]
    Reserved(String),
    /// A structure without such a member.
    #[error("`struct {of}` has no member `{member}`")]
    NoMember {
        /// The structure.
        of: String,
        /// The member.
        member: String,
    },
    /// A type where another one is needed.
    #[error("{context} needs {needs}, this is {found}")]
    Type {
        /// What needs it.
        context: String,
        /// What it needs.
        needs: String,
        /// What is there.
        found: String,
    },
    /// A type that cannot be used so.
    #[error("{0}")]
    BadType(&'static str),
    /// No variable or memory.
    #[error("{0} needs a variable, an element, a member or *pointer")]
    NotAPlace(&'static str),
    /// A value that the compiler must know.
    #[error("{0} must be a constant: numbers, `const` names and operators")]
    NotConstant(&'static str),
    /// A constant division by zero.
    #[error("division by zero")]
    DivisionByZero,
    /// Too many or too few arguments.
    #[error("`{name}` takes {takes} arguments, {found} are here")]
    ArgumentCount {
        /// What is called.
        name: String,
        /// How many it takes.
        takes: usize,
        /// How many are there.
        found: usize,
    },
    /// More than there is room for.
    #[error("{what}: at most {max} are allowed")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// The maximum.
        max: u64,
    },
    /// A call of a runner, or a runner made of a function.
    #[error("{0}")]
    WrongKind(String),
    /// A statement in the wrong place.
    #[error("{0}")]
    WrongPlace(&'static str),
    /// A range of what other runners cannot see.
    #[error("{0} is private memory: ranges are of shared variables or of what pointers point to")]
    PrivateRange(String),
    /// A number that does not fit its type.
    #[error("{value} does not fit {ty}")]
    DoesNotFit {
        /// The number.
        value: i64,
        /// The type.
        ty: &'static str,
    },
    /// Two declarations of one thing that differ.
    #[error("`{0}` was declared with another type")]
    Redeclared(String),
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
    /// The errors, in the order they were found.
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

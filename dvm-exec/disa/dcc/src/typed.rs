//! The typed tree: names resolved, conversions written out, constants folded.
//!
//! Owns what the generator works from. Must not know the source, but for positions.

use crate::diagnostic::Position;
use crate::types::Scalar;
use dvm_disa::isa::Op;
use dvm_disa::types::{Condition, ExitMode};

/// A source that is right.
#[derive(Debug, Default)]
pub struct Unit {
    /// Conflicts are found by page.
    pub is_page_grain: bool,
    /// Commits validate what was read.
    pub is_serializable: bool,
    /// Variables outside of functions.
    pub globals: Vec<Global>,
    /// Names that another source defines.
    pub externs: Vec<(String, Position)>,
    /// Strings.
    pub strings: Vec<Vec<u8>>,
    /// Functions and runners with a body.
    pub functions: Vec<Function>,
    /// Constants that may be given other values.
    pub constants: Vec<String>,
}

/// Where a variable outside of functions lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In shared memory.
    Shared,
    /// On shared pages of its own.
    Standalone,
    /// In private memory.
    Private,
    /// With the text.
    Constant,
}

/// A variable outside of functions.
#[derive(Debug)]
pub struct Global {
    /// Where it was declared.
    pub at: Position,
    /// Its name.
    pub name: String,
    /// Whether other sources do not see it.
    pub is_static: bool,
    /// Where it lies.
    pub kept: Kept,
    /// Its bytes.
    pub bytes: u64,
    /// What it begins with; `None`: zeros.
    pub contents: Option<Vec<u8>>,
}

/// A variable of a function.
#[derive(Clone, Debug)]
pub struct Local {
    /// Where in the frame it lies; `None`: in a slot.
    pub frame: Option<u64>,
}

/// A function or a runner.
#[derive(Debug)]
pub struct Function {
    /// Where it was declared.
    pub at: Position,
    /// Its name.
    pub name: String,
    /// Whether it is a runner.
    pub is_runner: bool,
    /// Whether other sources do not see it.
    pub is_static: bool,
    /// Whether it calls functions.
    pub makes_calls: bool,
    /// Its variables; parameters come first.
    pub locals: Vec<Local>,
    /// How many parameters it has.
    pub parameters: usize,
    /// Bytes of the variables that are in the frame.
    pub frame_bytes: u64,
    /// What it does.
    pub body: Vec<Statement>,
}

/// A statement.
#[derive(Debug)]
pub struct Statement {
    /// Its line.
    pub line: u32,
    /// What it is.
    pub kind: StatementKind,
}

/// What a statement is.
#[derive(Debug)]
pub enum StatementKind {
    /// A value that is not used.
    Value(Value),
    /// One after the other.
    Block(Vec<Statement>),
    /// The second if the first, else the third.
    If(Value, Box<Statement>, Option<Box<Statement>>),
    /// While the condition holds, which is looked at first or last: the body, then the step.
    Loop {
        /// `None`: always.
        condition: Option<Value>,
        /// Whether the body comes before the condition.
        is_body_first: bool,
        /// The body.
        body: Box<Statement>,
        /// What follows the body, and `continue`.
        step: Option<Value>,
    },
    /// Leaves the loop.
    Break,
    /// Goes on with the step of the loop.
    Continue,
    /// Leaves the function.
    Return(Option<Value>),
    /// Ends the runner.
    Exit(ExitMode),
}

/// A value: a quad or a double.
#[derive(Debug, Clone)]
pub struct Value {
    /// Whether it is a double.
    pub is_real: bool,
    /// Whether to compute it changes nothing.
    pub is_pure: bool,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A constant.
    Integer(i64),
    /// A constant.
    Real(f64),
    /// The address of a place.
    Address(Place),
    /// What a place holds.
    Load(Scalar, Place),
    /// An instruction over two values.
    Binary(Op, Box<Value>, Box<Value>),
    /// 1 if the condition holds, else 0.
    Compare(Condition, Box<Value>, Box<Value>),
    /// 1 if both are not zero; the second is computed only if needed.
    And(Box<Value>, Box<Value>),
    /// 1 if one is not zero.
    Or(Box<Value>, Box<Value>),
    /// 1 if it is zero.
    Not(Box<Value>),
    /// The second if the first is not zero, else the third.
    Conditional(Box<Value>, Box<Value>, Box<Value>),
    /// Stores, and is what was stored.
    Assign(Scalar, Place, Box<Value>),
    /// Stores what the place holds combined with a value.
    Compound(Scalar, Op, Place, Box<Value>),
    /// Adds, and is what was there before or is there now.
    Step {
        /// How the place holds it.
        scalar: Scalar,
        /// The place.
        place: Place,
        /// What is added.
        by: i64,
        /// Whether its value is the one before.
        is_before: bool,
    },
    /// Copies bytes from one place to another.
    Copy(Place, Place, u64),
    /// An integer as a double; whether it is signed.
    ToReal(bool, Box<Value>),
    /// A double as an integer; whether that is signed.
    ToInteger(bool, Box<Value>),
    /// A value as this type keeps it.
    Wrap(Scalar, Box<Value>),
    /// What a function returns.
    Call(String, Vec<Value>),
    /// What an instruction or a system call gives.
    Builtin(Builtin, Vec<Value>),
    /// The number of a runner made.
    Runner(Box<Runner>),
}

/// A runner to be made.
#[derive(Debug, Clone)]
pub struct Runner {
    /// Which.
    pub name: String,
    /// Its arguments.
    pub arguments: Vec<Value>,
    /// Base and bytes of what it uses.
    pub using: Vec<(Value, Value)>,
    /// Base and bytes of what it watches.
    pub watching: Vec<(Value, Value)>,
    /// Whether it waits on after a commit.
    pub is_persistent: bool,
}

/// A part of memory, or a variable.
#[derive(Debug, Clone)]
pub enum Place {
    /// A variable, or what lies so many bytes behind the start of it.
    Local(usize, i64),
    /// So many bytes behind a name.
    Global(String, i64),
    /// So many bytes behind an address.
    Memory(Box<Value>, i64),
}

/// What is called like a function and is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Builtin {
    /// An instruction: type q or d, inputs, then the output if it has one.
    Instruction(Op),
    /// `sys` with the value itself.
    SystemIn(u64),
    /// `sys` that stores a value.
    SystemOut(u64),
    /// `sys` with a block: its words are the arguments; the result is the word with this index.
    Block(u64, Option<usize>),
    /// `sys 4`: the third argument is where the number of bytes goes.
    Open,
    /// A cell of the system page.
    Cell(u64),
    /// The exit-code page of a runner.
    ExitCode,
}

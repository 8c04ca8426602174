//! The syntax tree.
//!
//! Owns what a source consists of. Must not know what names mean.

use crate::diagnostic::Position;
use crate::types::Scalar;

/// A type as written.
#[derive(Clone, Debug)]
pub enum TypeName {
    /// `void`.
    Void,
    /// A number.
    Scalar(Scalar),
    /// `struct name`.
    Struct(String),
    /// A pointer.
    Pointer(Box<TypeName>),
    /// So many of them; `None`: as many as the initialiser has.
    Array(Box<TypeName>, Option<Box<Expression>>),
}

/// A name with its type.
#[derive(Clone, Debug)]
pub struct Declared {
    /// Where.
    pub at: Position,
    /// The name.
    pub name: String,
    /// The type.
    pub ty: TypeName,
}

/// How a variable outside of functions is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// In shared memory.
    Shared,
    /// In shared memory, on pages of its own.
    Standalone,
    /// In private memory.
    Private,
    /// Known to the compiler, or with the text.
    Constant,
    /// In another source.
    Extern,
}

/// What a variable begins with.
#[derive(Clone, Debug)]
pub enum Initializer {
    /// A value.
    Value(Expression),
    /// `{ ... }`.
    List(Position, Vec<Initializer>),
}

/// A piece of a source.
#[derive(Clone, Debug)]
pub enum Item {
    /// `grain page;`
    GrainPage,
    /// `serializable;`
    Serializable,
    /// `enum { ... };`
    Enum(Vec<(Position, String, Option<Expression>)>),
    /// `struct name { ... };`
    Struct(Position, String, Vec<Declared>),
    /// A variable.
    Variable {
        /// Its name and type.
        declared: Declared,
        /// Where it is kept.
        storage: Storage,
        /// Whether other sources see it.
        is_static: bool,
        /// What it begins with.
        initializer: Option<Initializer>,
    },
    /// A function or a runner.
    Function(Function),
}

/// A function or a runner.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name and what it returns.
    pub declared: Declared,
    /// Whether it is a runner.
    pub is_runner: bool,
    /// Whether other sources do not see it.
    pub is_static: bool,
    /// Its parameters.
    pub parameters: Vec<Declared>,
    /// What it does; `None`: it is in another source.
    pub body: Option<Vec<Statement>>,
}

/// How a runner ends.
pub use dvm_disa::types::ExitMode;

/// A statement.
#[derive(Clone, Debug)]
pub struct Statement {
    /// Where.
    pub at: Position,
    /// What.
    pub kind: StatementKind,
}

/// What a statement is.
#[derive(Clone, Debug)]
pub enum StatementKind {
    /// A value that is not used.
    Expression(Expression),
    /// Variables.
    Declaration(Vec<(Declared, Option<Expression>)>),
    /// `{ ... }`.
    Block(Vec<Statement>),
    /// `if`.
    If(Expression, Box<Statement>, Option<Box<Statement>>),
    /// `while`.
    While(Expression, Box<Statement>),
    /// `do ... while`.
    DoWhile(Box<Statement>, Expression),
    /// `for`.
    For(Box<Statement>, Option<Expression>, Option<Expression>, Box<Statement>),
    /// `break`.
    Break,
    /// `continue`.
    Continue,
    /// `return`.
    Return(Option<Expression>),
    /// `commit` and its kin.
    Exit(ExitMode),
}

/// An expression.
#[derive(Clone, Debug)]
pub struct Expression {
    /// Where.
    pub at: Position,
    /// What.
    pub kind: ExpressionKind,
    /// Levels below it.
    pub depth: u32,
}

/// A part of memory: a place, or elements of it from one index to before another.
#[derive(Clone, Debug)]
pub struct RangeSyntax {
    /// The place.
    pub place: Expression,
    /// The first index and the one behind the last.
    pub bounds: Option<(Expression, Expression)>,
}

/// What an expression is.
#[derive(Clone, Debug)]
pub enum ExpressionKind {
    /// An integer.
    Integer(u64),
    /// A number with a fraction.
    Real(f64),
    /// A string.
    Text(Vec<u8>),
    /// A name.
    Name(String),
    /// `- ~ ! * &`.
    Unary(&'static str, Box<Expression>),
    /// All operators with two operands but assignments.
    Binary(&'static str, Box<Expression>, Box<Expression>),
    /// `=`, or with the operator before it.
    Assign(Option<&'static str>, Box<Expression>, Box<Expression>),
    /// `++` and `--`: by how much, and whether the value is the one before.
    Step(i64, bool, Box<Expression>),
    /// `a ? b : c`.
    Conditional(Box<Expression>, Box<Expression>, Box<Expression>),
    /// `a[b]`.
    Index(Box<Expression>, Box<Expression>),
    /// `a.b`, or `a->b`.
    Member(Box<Expression>, bool, String),
    /// `f(a, b)`.
    Call(String, Vec<Expression>),
    /// `(type) a`.
    Cast(TypeName, Box<Expression>),
    /// `sizeof (type)`.
    SizeOfType(TypeName),
    /// `sizeof a`.
    SizeOf(Box<Expression>),
    /// `runner f(a) using b watching c`.
    Runner(Box<RunnerSyntax>),
}

/// A runner to be made.
#[derive(Clone, Debug)]
pub struct RunnerSyntax {
    /// Which.
    pub name: String,
    /// Its arguments.
    pub arguments: Vec<Expression>,
    /// What it may use.
    pub using: Vec<RangeSyntax>,
    /// What it waits for.
    pub watching: Vec<RangeSyntax>,
    /// Whether it waits on after a commit.
    pub is_persistent: bool,
}

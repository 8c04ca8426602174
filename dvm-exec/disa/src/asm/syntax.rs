//! What a source consists of, once its lines are read.
//!
//! Owns the tree. Must not know addresses.

use super::diagnostic::Position;
use crate::isa::Op;
use crate::types::{Attribute, Type};

/// A number that may depend on symbols.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// An integer.
    Number(i128),
    /// A symbol's value.
    Symbol(String, Position),
    /// The negative.
    Negative(Box<Expression>),
    /// Two, with `+`, `-` or `*` between.
    Binary(Box<Expression>, char, Box<Expression>),
}

/// What follows a `$`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Literal {
    /// A number.
    Integer(Expression),
    /// A number with a fraction or an exponent.
    Real(String),
    /// The bits of a number.
    Bits(Expression),
}

/// What parentheses hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// A slot of the register window.
    Slot(u8),
    /// The address of a cell.
    Cell(Expression),
}

/// An operand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperandSyntax {
    /// `$x`
    Immediate(Literal),
    /// `x`
    Cell(Expression),
    /// `wN`
    Slot(u8),
    /// `d(x)`
    Pointed(Option<Expression>, Base),
}

/// A section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SectionName {
    /// Instructions.
    Text,
    /// Constants.
    Rodata,
    /// Shared memory with contents.
    Data,
    /// Shared memory, zero.
    Bss,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// `name:`
    Label(String),
    /// An instruction.
    Instruction {
        /// What it does.
        op: Op,
        /// Its type.
        ty: Type,
        /// Its condition, mode or other type.
        attribute: Attribute,
        /// Its operands.
        operands: Vec<(OperandSyntax, Position)>,
    },
    /// `.text`, `.rodata`, `.data`, `.bss`, perhaps with an address.
    Section(SectionName, Option<Expression>),
    /// `.page`
    Page,
    /// `.standalone name,size`
    Standalone(String, Expression),
    /// `.byte`, `.word`, `.long`, `.quad`
    Integers(Type, Vec<(Expression, Position)>),
    /// `.single`, `.double`
    Reals(Type, Vec<(Literal, Position)>),
    /// `.ascii`
    Text(Vec<u8>),
    /// `.space`
    Space(Expression),
    /// `.equ name,value`
    Equ(String, Expression),
    /// `.global name`
    Global(String),
    /// `.extern name`
    Extern(String),
    /// `.entry address`
    Entry(Expression),
    /// `.file "name"`
    File(String),
    /// `.private name,size`
    Private(String, Expression),
    /// `.loc line` or `.loc line,column`
    Loc(Position),
    /// `.grain page`
    Grain(bool),
    /// `.serializable`
    Serializable,
}

/// A statement and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Located {
    /// Where.
    pub at: Position,
    /// What.
    pub statement: Statement,
}

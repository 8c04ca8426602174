//! What is called like a function and stands for an instruction or a system call.
//!
//! Owns the table. Must not know how it is generated.

use crate::typed::Builtin;
use dvm_disa::isa::Op;
use dvm_disa::map::cell;

/// What an argument or a result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// A long.
    Integer,
    /// An unsigned long.
    Unsigned,
    /// A double.
    Real,
    /// Any pointer.
    Pointer,
    /// A pointer to long.
    Longs,
    /// Nothing.
    Nothing,
}

/// A line of the table.
#[derive(Debug)]
pub struct Entry {
    /// The name.
    pub name: &'static str,
    /// What it takes.
    pub takes: &'static [Sort],
    /// What it gives.
    pub gives: Sort,
    /// What it is.
    pub builtin: Builtin,
    /// Whether a program without it does the same.
    pub is_pure: bool,
}

const fn entry(name: &'static str, takes: &'static [Sort], gives: Sort, builtin: Builtin) -> Entry {
    Entry { name, takes, gives, builtin, is_pure: false }
}

const fn pure(name: &'static str, takes: &'static [Sort], gives: Sort, builtin: Builtin) -> Entry {
    Entry { name, takes, gives, builtin, is_pure: true }
}

use Sort::{Integer, Longs, Nothing, Pointer, Real, Unsigned};

/// All of them.
pub const TABLE: &[Entry] = &[
    entry("print", &[Integer], Nothing, Builtin::SystemIn(1)),
    entry("write", &[Pointer, Integer], Nothing, Builtin::Block(2, None)),
    entry("log", &[Pointer, Integer], Nothing, Builtin::Block(9, None)),
    entry("read", &[Pointer, Integer, Integer], Integer, Builtin::Block(3, Some(0))),
    entry("open", &[Pointer, Integer, Longs], Pointer, Builtin::Open),
    entry("alloc", &[Integer], Pointer, Builtin::Block(5, Some(1))),
    entry("free", &[Pointer], Nothing, Builtin::Block(5, None)),
    entry("time", &[], Unsigned, Builtin::SystemOut(6)),
    entry("random", &[], Unsigned, Builtin::SystemOut(7)),
    entry("argument", &[Integer, Pointer, Integer], Integer, Builtin::Block(8, Some(0))),
    entry("copy", &[Pointer, Integer, Pointer], Nothing, Builtin::Instruction(Op::Copy)),
    entry("fill", &[Integer, Integer, Pointer], Nothing, Builtin::Instruction(Op::Fill)),
    entry("touch", &[Pointer, Integer], Nothing, Builtin::Instruction(Op::Touch)),
    entry("trap", &[Integer], Nothing, Builtin::Instruction(Op::Trap)),
    entry("breakpoint", &[], Nothing, Builtin::Instruction(Op::Brk)),
    pure("compare", &[Pointer, Pointer, Integer], Integer, Builtin::Instruction(Op::Cmpb)),
    pure("find", &[Integer, Pointer, Integer], Integer, Builtin::Instruction(Op::Find)),
    pure("hash", &[Pointer, Integer], Unsigned, Builtin::Instruction(Op::Hash)),
    pure("popcount", &[Unsigned], Integer, Builtin::Instruction(Op::Popcnt)),
    pure("clz", &[Unsigned], Integer, Builtin::Instruction(Op::Clz)),
    pure("ctz", &[Unsigned], Integer, Builtin::Instruction(Op::Ctz)),
    pure("mulh", &[Unsigned, Unsigned], Unsigned, Builtin::Instruction(Op::Mulh)),
    pure("mulhs", &[Integer, Integer], Integer, Builtin::Instruction(Op::Mulhs)),
    pure("sqrt", &[Real], Real, Builtin::Instruction(Op::Sqrt)),
    pure("fma", &[Real, Real, Real], Real, Builtin::Instruction(Op::Fma)),
    pure("self", &[], Integer, Builtin::Cell(cell::SELF)),
    pure("parent", &[], Integer, Builtin::Cell(cell::PARENT)),
    pure("instance", &[], Integer, Builtin::Cell(cell::INSTANCE)),
    pure("exitcode", &[Integer], Longs, Builtin::ExitCode),
];

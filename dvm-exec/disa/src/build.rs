//! Programs made by Rust code: labels, slots and ranges as values.
//!
//! Owns that names never clash and slots are given once. Must not encode: it writes what the assembler reads.

use crate::asm::{Diagnostics, assemble};
use crate::isa::{Op, Types};
use crate::map;
use crate::object::Object;
use crate::types::{Condition, ExitMode, Type};
use std::fmt::{self, Write};

/// Where lists of ranges are put together: used ones, then watched ones.
const LISTS: [u64; 2] = [map::PR.base + 0x2000, map::PR.base + 0x4000];

/// A place in the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(usize);

/// A slot of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u8);

/// Quads of shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cells {
    name: usize,
    first: u64,
    count: u64,
}

impl Cells {
    /// Those from one index to before another.
    ///
    /// # Panics
    /// They are not among these.
    #[must_use]
    pub const fn range(self, from: u64, to: u64) -> Self {
        assert!(from <= to && to <= self.count, "a range lies within the cells it is of");
        Self { name: self.name, first: self.first + from, count: to - from }
    }
}

/// An operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arg {
    /// A constant.
    Number(i64),
    /// A slot.
    Slot(Slot),
    /// What so many bytes behind the address in a slot lies.
    At(Slot, i32),
    /// One of the cells.
    Cell(Cells, u64),
    /// The address of the first of the cells.
    Address(Cells),
    /// A place in the text.
    Label(Label),
    /// One of the runner's own arguments.
    Argument(u8),
    /// An argument of the runner made last.
    NewArgument(u8),
}

impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(value) => write!(f, "${value}"),
            Self::Slot(Slot(slot)) => write!(f, "w{slot}"),
            Self::At(Slot(slot), displacement) => write!(f, "{displacement}(w{slot})"),
            Self::Cell(cells, index) => write!(f, "cells.{}+{}", cells.name, 8 * (cells.first + index)),
            Self::Address(cells) => write!(f, "$cells.{}+{}", cells.name, 8 * cells.first),
            Self::Label(Label(label)) => write!(f, "$label.{label}"),
            Self::Argument(index) => write!(f, "{}(sys.argp)", 8 * u64::from(*index)),
            Self::NewArgument(index) => write!(f, "{}(sys.newarg)", 8 * u64::from(*index)),
        }
    }
}

/// A program that grows.
#[derive(Clone, Debug, Default)]
pub struct Asm {
    head: String,
    text: String,
    constants: String,
    shared: String,
    labels: usize,
    slots: u8,
    cells: usize,
}

impl Asm {
    /// Nothing yet; the first instruction is the program's first.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A place that is bound later.
    pub const fn label(&mut self) -> Label {
        self.labels += 1;
        Label(self.labels)
    }

    /// The place is here.
    pub fn bind(&mut self, Label(label): Label) -> &mut Self {
        self.line(format_args!("label.{label}:"))
    }

    /// A slot that nobody else was given.
    ///
    /// # Panics
    /// All are given.
    pub const fn slot(&mut self) -> Slot {
        self.slots = self.slots.checked_add(1).expect("the window has 255 slots to give");
        Slot(self.slots - 1)
    }

    /// Shared memory, with these quads at first.
    pub fn cells(&mut self, quads: &[i64]) -> Cells {
        let list: Vec<String> = quads.iter().map(ToString::to_string).collect();
        self.cells += 1;
        self.shared.push_str(&format!("cells.{}: .quad {}\n", self.cells, list.join(", ")));
        Cells { name: self.cells, first: 0, count: quads.len() as u64 }
    }

    /// Commits validate what was read.
    pub fn serializable(&mut self) -> &mut Self {
        self.head.push_str(".serializable\n");
        self
    }

    fn line(&mut self, line: fmt::Arguments<'_>) -> &mut Self {
        writeln!(self.text, "{line}").expect("writing to a string cannot fail");
        self
    }

    fn operands(operands: &[Arg]) -> String {
        operands.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }

    /// An instruction without a condition or mode.
    pub fn op(&mut self, op: Op, ty: Type, operands: &[Arg]) -> &mut Self {
        let ty = if op.types() == Types::Untyped { String::new() } else { format!(":{}", ty.name()) };
        self.line(format_args!("{}{ty} {}", op.name(), Self::operands(operands)))
    }

    /// A jump if the condition holds for the operands.
    pub fn branch(&mut self, condition: Condition, ty: Type, operands: &[Arg], to: Label) -> &mut Self {
        let mut all = operands.to_vec();
        all.push(Arg::Label(to));
        let ty = if operands.is_empty() { String::new() } else { format!(":{}", ty.name()) };
        self.line(format_args!("br:{}{ty} {}", condition.name(), Self::operands(&all)))
    }

    /// Prints an integer.
    pub fn print(&mut self, value: Arg) -> &mut Self {
        self.line(format_args!("sys $1, {value}"))
    }

    /// Makes a runner that begins at a place; it may use cells, and waits for others if there are some.
    pub fn runner(&mut self, first: Label, using: &[Cells], watching: &[Cells], is_persistent: bool) -> &mut Self {
        for (list, ranges) in LISTS.into_iter().zip([using, watching]) {
            self.line(format_args!("mov ${}, {list:#x}", ranges.len()));
            for (at, cells) in (list + 8..).step_by(16).zip(ranges) {
                self.line(format_args!("mov {}, {at:#x}\nmov ${}, {:#x}", Arg::Address(*cells), 8 * cells.count, at + 8));
            }
        }
        let Label(label) = first;
        if !self.constants.contains(&format!("first.{label}:")) {
            self.constants.push_str(&format!("first.{label}: .quad label.{label}\n"));
        }
        let op = if is_persistent { Op::Neww } else { Op::Newr };
        let [heap, watched] = LISTS;
        self.line(format_args!("{} $nothing, ${heap:#x}, ${watched:#x}, $first.{label}", op.name()))
    }

    /// Ends the runner.
    pub fn exit(&mut self, mode: ExitMode) -> &mut Self {
        self.line(format_args!("exit:{}", mode.name()))
    }

    /// The program.
    ///
    /// # Errors
    /// A label was not bound, or was bound twice, or an operand does not fit its instruction.
    pub fn assemble(&self) -> Result<Object, Diagnostics> {
        let Self { head, text, constants, shared, .. } = self;
        assemble(&format!("{head}.text\n{text}.rodata\nnothing: .quad 0, 0\n{constants}.data\n{shared}"), "built")
    }
}

//! Assembly as text.
//!
//! Owns its layout and the names that the compiler makes. Must not choose instructions, but for those around a function.

use crate::code::{Base, Code, FRAME_SLOT, Instruction, Line, Operand, RETURN_SLOT, Symbolic};
use crate::limits::STACK_BASE;
use crate::typed::{Global, Kept, Unit};
use dvm_disa::isa::Types;
use dvm_disa::map::PAGE_BYTES;
use dvm_disa::types::{Attribute, Type};
use std::collections::BTreeSet;
use std::fmt::{self, Write};

/// Zeros: no stack, no ranges.
pub const NOTHING: &str = "runner.nothing";
/// Bytes of data in a line.
const ROW_BYTES: usize = 32;

/// The cell that says where a runner begins.
#[must_use]
pub fn first(runner: &str) -> String {
    format!("{runner}.first")
}

/// The whole of it.
#[must_use]
pub fn print(unit: &Unit, functions: &[Code], file: &str) -> String {
    let mut out = String::new();
    write_unit(&mut out, unit, functions, file).expect("writing to a string cannot fail");
    out
}

fn write_unit(out: &mut String, unit: &Unit, functions: &[Code], file: &str) -> fmt::Result {
    writeln!(out, ".file \"{}\"", file.replace(['"', '\\', '\n'], "_"))?;
    if unit.is_page_grain {
        writeln!(out, ".grain page")?;
    }
    if unit.is_serializable {
        writeln!(out, ".serializable")?;
    }
    for (name, at) in &unit.externs {
        writeln!(out, ".loc {}, {}\n.extern {name}", at.line, at.column)?;
    }
    for (function, typed) in functions.iter().zip(&unit.functions) {
        if function.is_runner && function.name == "main" {
            writeln!(out, ".entry main")?;
        }
        if function.is_global {
            writeln!(out, ".loc {}, {}\n.global {}", typed.at.line, typed.at.column, function.name)?;
        }
    }
    for global in unit.globals.iter().filter(|global| !global.is_static && global.kept != Kept::Private) {
        writeln!(out, ".loc {}, {}\n.global {}", global.at.line, global.at.column, global.name)?;
    }
    writeln!(out, "\n.text")?;
    for (function, typed) in functions.iter().zip(&unit.functions) {
        writeln!(out, ".loc {}, {}", typed.at.line, typed.at.column)?;
        write_function(out, function)?;
    }
    write_constants(out, unit, functions)?;
    write_data(out, unit)
}

fn write_function(out: &mut String, code: &Code) -> fmt::Result {
    writeln!(out, "{}:", code.name)?;
    let has_frame = code.frame_bytes > 0 || code.makes_calls;
    let mut source = 0;
    for line in &code.lines {
        match line {
            Line::Instruction(instruction) => write_instruction(out, code, instruction)?,
            Line::Label(label) => writeln!(out, "{}.{label}:", code.name)?,
            Line::Source(line) if *line != source => {
                source = *line;
                writeln!(out, ".loc {line}")?;
            }
            Line::Source(_) => {}
            Line::Enter => {
                if code.is_runner && has_frame {
                    writeln!(out, "        mov ${STACK_BASE:#x}, w{FRAME_SLOT}")?;
                }
                for (slot, offset) in &code.saved {
                    writeln!(out, "        mov w{slot}, {offset}(w{FRAME_SLOT})")?;
                }
            }
            Line::Leave => {
                for (slot, offset) in &code.saved {
                    writeln!(out, "        mov {offset}(w{FRAME_SLOT}), w{slot}")?;
                }
                writeln!(out, "        br:a w{RETURN_SLOT}")?;
            }
        }
    }
    Ok(())
}

fn write_instruction(out: &mut String, code: &Code, instruction: &Instruction) -> fmt::Result {
    let Instruction { op, ty, attribute, operands } = instruction;
    // A frame without bytes needs no step over it.
    if code.frame_bytes == 0 && operands.contains(&Operand::FrameBytes) {
        return Ok(());
    }
    write!(out, "        {}", op.name())?;
    match attribute {
        Attribute::None => {}
        Attribute::Condition(condition) => write!(out, ":{}", condition.name())?,
        Attribute::Exit(mode) => write!(out, ":{}", mode.name())?,
        Attribute::Convert(conversion) => {
            let name = |ty: Type| format!("{}{}", if conversion.is_signed && !ty.is_float() { "s" } else { "" }, ty.name());
            write!(out, ":{}:{}", name(*ty), name(conversion.to))?;
        }
    }
    let is_default = *ty == Type::Q && op.types() != Types::Float;
    if !matches!(attribute, Attribute::Convert(_)) && !is_default {
        write!(out, ":{}", ty.name())?;
    }
    for (index, operand) in operands.iter().enumerate() {
        out.push_str(if index == 0 { " " } else { ", " });
        write_operand(out, code, operand)?;
    }
    out.push('\n');
    Ok(())
}

fn write_operand(out: &mut String, code: &Code, operand: &Operand) -> fmt::Result {
    match operand {
        Operand::Integer(value) => write!(out, "${value}"),
        Operand::Real(bits) => write!(out, "$bits({bits:#x})"),
        Operand::Address(symbolic) => write!(out, "${}", Address(symbolic)),
        Operand::Cell(symbolic) => write!(out, "{}", Address(symbolic)),
        Operand::CellPointer(symbolic, displacement) => write!(out, "{displacement}({})", Address(symbolic)),
        Operand::Slot(slot) => write!(out, "w{slot}"),
        Operand::Variable(variable) => write!(out, "v{variable}"),
        Operand::Memory(Base::Slot(slot), 0) => write!(out, "(w{slot})"),
        Operand::Memory(Base::Slot(slot), displacement) => write!(out, "{displacement}(w{slot})"),
        Operand::Memory(Base::Variable(variable), displacement) => write!(out, "{displacement}(v{variable})"),
        Operand::Label(label) => write!(out, "${}.{label}", code.name),
        Operand::FrameBytes => write!(out, "${}", code.frame_bytes),
    }
}

/// Where a variable was declared, for errors about its name.
struct Place<'a>(&'a Global);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, ".loc {}, {}", self.0.at.line, self.0.at.column)
    }
}

struct Address<'a>(&'a Symbolic);

impl fmt::Display for Address<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Symbolic { name, offset } = self.0;
        match (name, offset) {
            (Some(name), 0) => write!(f, "{name}"),
            (Some(name), offset) if *offset < 0 => write!(f, "{name}-{}", offset.unsigned_abs()),
            (Some(name), offset) => write!(f, "{name}+{offset}"),
            (None, offset) => write!(f, "{:#x}", *offset as u64),
        }
    }
}

fn write_constants(out: &mut String, unit: &Unit, functions: &[Code]) -> fmt::Result {
    let mut runners = BTreeSet::new();
    let lines = functions.iter().flat_map(|function| &function.lines);
    for line in lines {
        let Line::Instruction(instruction) = line else { continue };
        let last = instruction.operands.last();
        if let Some(Operand::Address(Symbolic { name: Some(name), .. })) = last
            && let Some(runner) = name.strip_suffix(".first")
        {
            runners.insert(runner.to_owned());
        }
    }
    writeln!(out, "\n.rodata")?;
    if !runners.is_empty() {
        writeln!(out, "{NOTHING}: .quad 0, 0")?;
    }
    for runner in runners {
        writeln!(out, "{}: .quad {runner}", first(&runner))?;
    }
    for (index, text) in unit.strings.iter().enumerate() {
        writeln!(out, "text.{index}:")?;
        write_bytes(out, text)?;
    }
    for global in unit.globals.iter().filter(|global| global.kept == Kept::Constant) {
        writeln!(out, "{}{}:", Place(global), global.name)?;
        write_bytes(out, global.contents.as_deref().unwrap_or_default())?;
    }
    Ok(())
}

fn write_data(out: &mut String, unit: &Unit) -> fmt::Result {
    let shared = |is_standalone: bool, has_contents: bool| {
        let kept = if is_standalone { Kept::Standalone } else { Kept::Shared };
        unit.globals.iter().filter(move |global| global.kept == kept && global.contents.is_some() == has_contents)
    };
    for global in unit.globals.iter().filter(|global| global.kept == Kept::Private) {
        writeln!(out, "{}.private {}, {}", Place(global), global.name, global.bytes)?;
    }
    writeln!(out, "\n.data")?;
    for global in shared(false, true) {
        writeln!(out, "{}{}:", Place(global), global.name)?;
        write_bytes(out, global.contents.as_deref().unwrap_or_default())?;
    }
    for global in shared(true, true) {
        writeln!(out, ".page\n{}{}:", Place(global), global.name)?;
        write_bytes(out, global.contents.as_deref().unwrap_or_default())?;
        let Global { bytes, .. } = global;
        let rest = bytes.next_multiple_of(PAGE_BYTES) - bytes.next_multiple_of(8);
        writeln!(out, ".space {rest}")?;
    }
    writeln!(out, "\n.bss")?;
    for global in shared(false, false) {
        writeln!(out, "{}{}: .space {}", Place(global), global.name, global.bytes.next_multiple_of(8))?;
    }
    for global in shared(true, false) {
        writeln!(out, "{}.standalone {}, {}", Place(global), global.name, global.bytes)?;
    }
    Ok(())
}

/// Bytes in rows, up to a multiple of 8.
fn write_bytes(out: &mut String, bytes: &[u8]) -> fmt::Result {
    for row in bytes.chunks(ROW_BYTES) {
        out.push_str("        .byte ");
        for (index, byte) in row.iter().enumerate() {
            write!(out, "{}{byte}", if index == 0 { "" } else { ", " })?;
        }
        out.push('\n');
    }
    let padding = bytes.len().next_multiple_of(8) - bytes.len();
    if padding > 0 {
        writeln!(out, "        .space {padding}")?;
    }
    Ok(())
}

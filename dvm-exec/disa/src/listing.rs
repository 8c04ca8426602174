//! The listing: every instruction with its address, bytes and line, under the labels that stand before it.
//!
//! Owns the columns. Must not know files.

use crate::instruction::Operand;
use crate::map;
use crate::object::Object;
use crate::verify::{VerifyError, verify};
use std::fmt::{self, Write};

/// Bytes of an instruction shown; the rest follows as dots.
const BYTES_SHOWN: usize = 12;

/// What a program consists of, for people.
///
/// # Errors
/// The text does not pass the verifier.
pub fn listing(object: &Object) -> Result<String, VerifyError> {
    let placed = verify(&object.text)?;
    let mut out = String::new();
    let written = write_listing(&mut out, object, &placed);
    written.expect("writing to a string cannot fail");
    Ok(out)
}

fn write_listing(out: &mut String, object: &Object, placed: &[crate::verify::Placed]) -> fmt::Result {
    let rules = object.rules;
    writeln!(out, "entry 0x{:x}", object.entry)?;
    if rules.is_page_grain {
        writeln!(out, "grain page")?;
    }
    if rules.is_serializable {
        writeln!(out, "serializable")?;
    }
    let addresses = || object.symbols.iter().filter(|symbol| symbol.is_address);
    for one in placed {
        let pc = map::TX.base + one.offset;
        for symbol in addresses().filter(|symbol| symbol.value == pc) {
            writeln!(out, "{}:", symbol.name)?;
        }
        let bytes = &object.text[one.offset as usize..][..one.length as usize];
        let mut hex: String = bytes.iter().take(BYTES_SHOWN).map(|byte| format!("{byte:02x}")).collect();
        if bytes.len() > BYTES_SHOWN {
            hex.push_str("..");
        }
        let target = match one.instruction.target() {
            Some(Operand::Code(address)) => addresses().find(|symbol| symbol.value == address),
            _ => None,
        };
        let target = target.map_or(String::new(), |symbol| format!("  # {}", symbol.name));
        let line = object.line_of(pc).1;
        writeln!(out, "{pc:x}  {hex:<26}  {line:>5}  {}{target}", one.instruction)?;
    }
    for segment in &object.data {
        writeln!(out, ".data 0x{:x} {} bytes", segment.address, segment.bytes.len())?;
    }
    for zeros in &object.bss {
        writeln!(out, ".bss  0x{:x} {} bytes", zeros.base, zeros.bytes)?;
    }
    if !object.rodata.is_empty() {
        writeln!(out, ".rodata 0x{:x} {} bytes", map::RODATA.base, object.rodata.len())?;
    }
    Ok(())
}

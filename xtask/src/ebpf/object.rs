//! A BPF object, as far as its code is compared and measured.
//!
//! Owns reading the sections and functions of a 64-bit little-endian ELF file. Must not know what the programs are for.

use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::Path;

/// Bytes of an instruction.
const INSTRUCTION_BYTES: u64 = 8;
const SECTION_HEADER_BYTES: usize = 64;
const SYMBOL_BYTES: usize = 24;
const SECTION_SYMBOLS: u32 = 2;
const SECTION_NO_BITS: u32 = 8;
const FLAG_EXECUTABLE: u64 = 1 << 2;
const FLAG_ALLOCATED: u64 = 1 << 1;
/// Section of the functions that programs call.
const CALLED: &str = ".text";
const SYMBOL_GLOBAL: u8 = 1;
const SYMBOL_FUNCTION: u8 = 2;

/// What an object holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its entry points.
    pub programs: Vec<Program>,
    /// Every section that gets into the kernel: code, constants, maps.
    pub sections: Vec<Section>,
}

/// An entry point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// How long it is.
    pub instructions: u64,
}

/// A section and its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Its name.
    pub name: String,
    /// Whether it is code.
    pub is_code: bool,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// A section's header.
#[derive(Debug)]
struct Header {
    name: u32,
    kind: u32,
    flags: u64,
    offset: u64,
    bytes: u64,
    link: u32,
}

impl Object {
    /// Reads an object.
    ///
    /// # Errors
    /// It cannot be read, or is no such object.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&bytes).with_context(|| format!("{} is no BPF object", path.display()))
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        ensure!(bytes.starts_with(b"\x7fELF\x02\x01"), "not a 64-bit little-endian ELF file");
        let table = number(bytes, 0x28, 8)?;
        let (count, names) = (number(bytes, 0x3c, 2)?, number(bytes, 0x3e, 2)?);
        let headers = (0..count).map(|index| Header::parse(bytes, table, index)).collect::<Result<Vec<_>>>()?;
        let names = contents(bytes, headers.get(usize::try_from(names)?).context("no section of names")?)?;
        let mut object = Self { programs: Vec::new(), sections: Vec::new() };
        for header in &headers {
            if header.flags & FLAG_ALLOCATED != 0 && header.kind != SECTION_NO_BITS && header.bytes > 0 {
                let is_code = header.flags & FLAG_EXECUTABLE != 0;
                object.sections.push(Section {
                    name: text(names, header.name)?,
                    is_code,
                    bytes: contents(bytes, header)?.to_vec(),
                });
            }
            if header.kind == SECTION_SYMBOLS {
                let strings = headers.get(header.link as usize).context("symbols without names")?;
                let sections = headers.iter().map(|header| text(names, header.name)).collect::<Result<Vec<_>>>()?;
                object.programs = programs(contents(bytes, header)?, contents(bytes, strings)?, &sections)?;
            }
        }
        ensure!(!object.programs.is_empty(), "it has no programs");
        Ok(object)
    }
}

impl Header {
    fn parse(bytes: &[u8], table: u64, index: u64) -> Result<Self> {
        let at = usize::try_from(table)?.saturating_add(usize::try_from(index)? * SECTION_HEADER_BYTES);
        let bytes = bytes.get(at..).context("a section's header lies outside the file")?;
        let word = |offset| Ok::<u32, anyhow::Error>(u32::try_from(number(bytes, offset, 4)?)?);
        Ok(Self {
            name: word(0)?,
            kind: word(4)?,
            flags: number(bytes, 0x08, 8)?,
            offset: number(bytes, 0x18, 8)?,
            bytes: number(bytes, 0x20, 8)?,
            link: word(0x28)?,
        })
    }
}

/// The functions that have a section of their own kind; those in `.text` are called by them.
fn programs(symbols: &[u8], names: &[u8], sections: &[String]) -> Result<Vec<Program>> {
    let mut found = Vec::new();
    for symbol in symbols.chunks_exact(SYMBOL_BYTES) {
        let info = number(symbol, 4, 1)?;
        let section = sections.get(usize::try_from(number(symbol, 6, 2)?)?);
        let is_entry = section.is_some_and(|section| section != CALLED);
        if is_entry && info == u64::from(SYMBOL_GLOBAL << 4 | SYMBOL_FUNCTION) {
            let name = text(names, u32::try_from(number(symbol, 0, 4)?)?)?;
            found.push(Program { name, instructions: number(symbol, 16, 8)? / INSTRUCTION_BYTES });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn contents<'a>(bytes: &'a [u8], header: &Header) -> Result<&'a [u8]> {
    let start = usize::try_from(header.offset)?;
    let end = start.checked_add(usize::try_from(header.bytes)?).context("a section without end")?;
    bytes.get(start..end).context("a section lies outside the file")
}

fn text(names: &[u8], offset: u32) -> Result<String> {
    let rest = names.get(offset as usize..).context("a name lies outside its section")?;
    let end = rest.iter().position(|byte| *byte == 0).context("a name without end")?;
    Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
}

fn number(bytes: &[u8], offset: usize, length: usize) -> Result<u64> {
    let field = bytes.get(offset..offset + length).context("the file is too short")?;
    Ok(field.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_object_is_refused() {
        for bad in [&b""[..], b"\x7fELF", b"\x7fELF\x01\x01", b"\x7fELF\x02\x01 and then nothing"] {
            assert!(Object::parse(bad).is_err(), "{bad:?}");
        }
        let mut endless = [0xff; 128];
        endless[..6].copy_from_slice(b"\x7fELF\x02\x01");
        assert!(Object::parse(&endless).is_err());
    }

    #[test]
    fn entry_points_are_global_functions() {
        let mut symbols = vec![0; SYMBOL_BYTES * 4];
        symbols[SYMBOL_BYTES..][..7].copy_from_slice(&[1, 0, 0, 0, 0x12, 0, 1]);
        symbols[SYMBOL_BYTES + 16] = 24;
        symbols[SYMBOL_BYTES * 2..][..7].copy_from_slice(&[1, 0, 0, 0, 0x02, 0, 1]);
        symbols[SYMBOL_BYTES * 3..][..7].copy_from_slice(&[1, 0, 0, 0, 0x12, 0, 0]);
        let sections = [".text".to_owned(), "classifier".to_owned()];
        let found = programs(&symbols, b"\0dvm_tc\0", &sections).unwrap();
        assert_eq!(found, [Program { name: "dvm_tc".into(), instructions: 3 }]);
    }
}

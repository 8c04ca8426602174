//! Names of a program's variables, from the symbol tables of its files.
//!
//! Owns the reading of ELF symbol tables. Must not trust a file: what does not fit is left out.

use std::path::Path;

/// Longest file that is looked into, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 30;
const SECTION_HEADER_BYTES: usize = 64;
const PROGRAM_HEADER_BYTES: usize = 56;
const SYMBOL_BYTES: usize = 24;
const SECTION_SYMBOLS: u32 = 2;
const SECTION_DYNAMIC_SYMBOLS: u32 = 11;
const TYPE_OBJECT: u8 = 1;
const SEGMENT_LOAD: u32 = 1;

/// A variable.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Symbol {
    /// Its address in the file's own counting.
    pub address: u64,
    /// Its size.
    pub bytes: u64,
    /// Its name.
    pub name: String,
}

/// The variables of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SymbolTable {
    /// First and last-but-one address of its segments.
    pub span: std::ops::Range<u64>,
    symbols: Vec<Symbol>,
}

impl SymbolTable {
    /// Those of the file at `path`; `None` if it is no ELF file that can be read.
    pub fn of_file(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
            return None;
        }
        Self::parse(&std::fs::read(path).ok()?)
    }

    /// Those of an ELF file with these bytes.
    pub fn parse(file: &[u8]) -> Option<Self> {
        if file.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let mut table = Self { span: span(file)?, symbols: Vec::new() };
        let (first, count) = (word(file, 40)? as usize, half(file, 60)? as usize);
        for index in 0..count {
            let Some(section) = record(file, first, index, SECTION_HEADER_BYTES) else { break };
            let kind = quarter(section, 4)?;
            if kind == SECTION_SYMBOLS || kind == SECTION_DYNAMIC_SYMBOLS {
                let names = record(file, first, quarter(section, 40)? as usize, SECTION_HEADER_BYTES);
                // A table without its names has nothing to say.
                names.and_then(|names| table.add_section(file, section, names)).unwrap_or(());
            }
        }
        table.symbols.sort();
        table.symbols.dedup_by_key(|symbol| symbol.address);
        Some(table)
    }

    fn add_section(&mut self, file: &[u8], section: &[u8], names: &[u8]) -> Option<()> {
        let (bytes, names) = (contents(file, section)?, contents(file, names)?);
        for symbol in bytes.chunks_exact(SYMBOL_BYTES) {
            let (address, size) = (word(symbol, 8)?, word(symbol, 16)?);
            if symbol.get(4)? & 15 != TYPE_OBJECT || size == 0 || half(symbol, 6)? == 0 {
                continue;
            }
            let Some(name) = names.get(quarter(symbol, 0)? as usize..) else { continue };
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            self.symbols.push(Symbol { address, bytes: size, name: String::from_utf8_lossy(name).into_owned() });
        }
        Some(())
    }

    /// The variables that have a byte between these addresses, ascending.
    pub fn between(&self, range: std::ops::Range<u64>) -> impl Iterator<Item = &Symbol> {
        let overlaps =
            move |symbol: &&Symbol| symbol.address < range.end && symbol.address.saturating_add(symbol.bytes) > range.start;
        self.symbols.iter().filter(overlaps)
    }
}

fn span(file: &[u8]) -> Option<std::ops::Range<u64>> {
    let (first, count) = (word(file, 32)? as usize, half(file, 56)? as usize);
    let mut span = std::ops::Range { start: u64::MAX, end: 0 };
    for index in 0..count {
        let segment = record(file, first, index, PROGRAM_HEADER_BYTES)?;
        if quarter(segment, 0)? == SEGMENT_LOAD {
            let start = word(segment, 16)?;
            span.start = span.start.min(start & !4095);
            span.end = span.end.max(start.checked_add(word(segment, 40)?)?);
        }
    }
    (span.start < span.end).then_some(span)
}

fn record(file: &[u8], first: usize, index: usize, bytes: usize) -> Option<&[u8]> {
    let start = first.checked_add(index.checked_mul(bytes)?)?;
    file.get(start..start.checked_add(bytes)?)
}

fn contents<'a>(file: &'a [u8], section: &[u8]) -> Option<&'a [u8]> {
    let (start, bytes) = (word(section, 24)? as usize, word(section, 32)? as usize);
    file.get(start..start.checked_add(bytes)?)
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
}

fn quarter(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|chunk| u32::from_le_bytes(*chunk))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_le_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[used]
    static DVM_SYMBOL_OF_A_TEST: [u8; 100] = [1; 100];

    #[test]
    fn own_variables_are_found() {
        let table = SymbolTable::of_file(&std::env::current_exe().unwrap()).unwrap();
        let found = table.symbols.iter().find(|symbol| symbol.name.contains("DVM_SYMBOL_OF_A_TEST")).unwrap();
        assert_eq!(found.bytes, DVM_SYMBOL_OF_A_TEST.len() as u64);
        assert!(table.span.contains(&found.address));
        assert!(table.between(found.address + 99..found.address + 100).any(|symbol| symbol == found));
        assert!(!table.between(found.address + 100..found.address + 101).any(|symbol| symbol == found));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut file = b"\x7fELF\x02\x01".to_vec();
            file.extend(bytes);
            SymbolTable::parse(&file);
        }
    }
}

//! An object into the bytes of a file: the same object always gives the same bytes.
//!
//! Owns the order of sections. Must not check: an object that the assembler made is right.

use super::{
    BSS, CLASS_64, DATA, FLAG_ALLOCATED, FLAG_CODE, FLAG_PAGE_GRAIN, FLAG_SERIALIZABLE, FLAG_WRITE, HEADER_BYTES, INDEX_ABSOLUTE,
    KIND_CONTENTS, KIND_STRINGS, KIND_SYMBOLS, KIND_ZEROS, LINES, LITTLE_ENDIAN, MACHINE, MAGIC, NAMES, RODATA,
    SECTION_HEADER_BYTES, STRINGS, SYMBOL_ADDRESS, SYMBOL_BYTES, SYMBOL_GLOBAL, SYMBOL_NUMBER, SYMBOLS, TEXT, TYPE_EXECUTABLE,
    VERSION,
};
use crate::map;
use crate::object::{Object, Symbol};

/// The file of a program.
#[must_use]
pub fn write(object: &Object) -> Vec<u8> {
    let mut sections = vec![Section::default()];
    sections.push(Section::contents(TEXT, FLAG_ALLOCATED | FLAG_CODE, map::TEXT.base, object.text.clone()));
    sections.push(Section::contents(RODATA, FLAG_ALLOCATED, map::RODATA.base, object.rodata.clone()));
    for segment in &object.data {
        sections.push(Section::contents(DATA, FLAG_ALLOCATED | FLAG_WRITE, segment.address, segment.bytes.clone()));
    }
    for zeros in &object.bss {
        let flags = FLAG_ALLOCATED | FLAG_WRITE;
        sections.push(Section {
            name: BSS,
            kind: KIND_ZEROS,
            flags,
            address: zeros.base,
            zeros: zeros.bytes,
            ..Section::default()
        });
    }
    sections.push(Section::contents(LINES, 0, 0, lines(object)));
    let (symbols, strings, locals) = symbols(object, &sections);
    let link = sections.len() as u32 + 1;
    let entry_bytes = SYMBOL_BYTES as u64;
    sections.push(Section { link, info: locals, entry_bytes, kind: KIND_SYMBOLS, ..Section::contents(SYMBOLS, 0, 0, symbols) });
    sections.push(Section { kind: KIND_STRINGS, ..Section::contents(STRINGS, 0, 0, strings) });
    sections.push(Section { kind: KIND_STRINGS, ..Section::contents(NAMES, 0, 0, Vec::new()) });
    finish(object, sections)
}

#[derive(Debug, Default)]
struct Section {
    name: &'static str,
    kind: u32,
    flags: u64,
    address: u64,
    bytes: Vec<u8>,
    zeros: u64,
    link: u32,
    info: u32,
    entry_bytes: u64,
}

impl Section {
    fn contents(name: &'static str, flags: u64, address: u64, bytes: Vec<u8>) -> Self {
        Self { name, kind: KIND_CONTENTS, flags, address, bytes, ..Self::default() }
    }

    fn size(&self) -> u64 {
        self.bytes.len() as u64 + self.zeros
    }
}

fn finish(object: &Object, mut sections: Vec<Section>) -> Vec<u8> {
    let mut names = vec![0];
    let name_offsets: Vec<u32> = sections.iter().map(|section| intern(&mut names, section.name)).collect();
    let last = sections.len() - 1;
    sections[last].bytes = names;
    let mut file = vec![0; HEADER_BYTES];
    let mut offsets = Vec::with_capacity(sections.len());
    for section in &sections {
        file.resize(file.len().next_multiple_of(8), 0);
        offsets.push(file.len() as u64);
        file.extend_from_slice(&section.bytes);
    }
    file.resize(file.len().next_multiple_of(8), 0);
    let table = file.len() as u64;
    for ((section, name), offset) in sections.iter().zip(name_offsets).zip(offsets) {
        let is_first = section.kind == 0;
        file.extend(name.to_le_bytes());
        file.extend(section.kind.to_le_bytes());
        for field in [section.flags, section.address, if is_first { 0 } else { offset }, section.size()] {
            file.extend(field.to_le_bytes());
        }
        file.extend(section.link.to_le_bytes());
        file.extend(section.info.to_le_bytes());
        file.extend(u64::from(!is_first).to_le_bytes());
        file.extend(section.entry_bytes.to_le_bytes());
    }
    file[..HEADER_BYTES].copy_from_slice(&header(object, table, sections.len() as u16));
    file
}

fn header(object: &Object, table: u64, sections: u16) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend([CLASS_64, LITTLE_ENDIAN, VERSION]);
    header.resize(16, 0);
    header.extend(TYPE_EXECUTABLE.to_le_bytes());
    header.extend(MACHINE.to_le_bytes());
    header.extend(u32::from(VERSION).to_le_bytes());
    header.extend(object.entry.to_le_bytes());
    header.extend(0u64.to_le_bytes());
    header.extend(table.to_le_bytes());
    let grain = if object.rules.is_page_grain { FLAG_PAGE_GRAIN } else { 0 };
    let serializable = if object.rules.is_serializable { FLAG_SERIALIZABLE } else { 0 };
    header.extend((grain | serializable).to_le_bytes());
    for field in [HEADER_BYTES as u16, 0, 0, SECTION_HEADER_BYTES as u16, sections, sections - 1] {
        header.extend(field.to_le_bytes());
    }
    header
}

/// Files, then lines: counts of 4 bytes, names with their length before them, lines of 16 bytes.
fn lines(object: &Object) -> Vec<u8> {
    let mut bytes = (object.files.len() as u32).to_le_bytes().to_vec();
    for file in &object.files {
        bytes.extend((file.len() as u32).to_le_bytes());
        bytes.extend(file.as_bytes());
    }
    bytes.extend((object.lines.len() as u32).to_le_bytes());
    for line in &object.lines {
        bytes.extend(line.offset.to_le_bytes());
        bytes.extend(line.file.to_le_bytes());
        bytes.extend(line.line.to_le_bytes());
    }
    bytes
}

/// The table, its strings, and the index of the first global one: ELF wants the local ones first.
fn symbols(object: &Object, sections: &[Section]) -> (Vec<u8>, Vec<u8>, u32) {
    let mut table = vec![0; SYMBOL_BYTES];
    let mut strings = vec![0];
    let locals = object.symbols.iter().filter(|symbol| !symbol.is_global);
    let globals = object.symbols.iter().filter(|symbol| symbol.is_global);
    for symbol in locals.clone().chain(globals) {
        table.extend(intern(&mut strings, &symbol.name).to_le_bytes());
        let kind = if symbol.is_address { SYMBOL_ADDRESS } else { SYMBOL_NUMBER };
        let binding = if symbol.is_global { SYMBOL_GLOBAL } else { 0 };
        table.push((binding << 4) | kind);
        table.push(0);
        table.extend(section_of(symbol, sections).to_le_bytes());
        table.extend(symbol.value.to_le_bytes());
        table.extend(0u64.to_le_bytes());
    }
    (table, strings, 1 + locals.count() as u32)
}

fn section_of(symbol: &Symbol, sections: &[Section]) -> u16 {
    let is_inside = |section: &Section| symbol.value.wrapping_sub(section.address) < section.size();
    let index = sections.iter().position(|section| section.flags & FLAG_ALLOCATED != 0 && is_inside(section));
    index.filter(|_| symbol.is_address).map_or(INDEX_ABSOLUTE, |index| index as u16)
}

fn intern(strings: &mut Vec<u8>, text: &str) -> u32 {
    if text.is_empty() {
        return 0;
    }
    let at = strings.len() as u32;
    strings.extend(text.as_bytes());
    strings.push(0);
    at
}

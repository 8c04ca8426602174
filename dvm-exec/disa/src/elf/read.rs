//! The bytes of a file into an object: nothing in them is trusted.
//!
//! Owns every reason to refuse a file. Must not know who reads it.

use super::{
    BSS, CLASS_64, DATA, FLAG_ALLOCATED, FLAG_PAGE_GRAIN, FLAG_SERIALIZABLE, HEADER_BYTES, KIND_ZEROS, LINE_BYTES, LINES,
    LITTLE_ENDIAN, MACHINE, MAGIC, RODATA, SECTION_HEADER_BYTES, STRINGS, SYMBOL_ADDRESS, SYMBOL_BYTES, SYMBOL_GLOBAL,
    SYMBOL_NUMBER, SYMBOLS, TEXT, TYPE_EXECUTABLE, VERSION,
};
use crate::limits::SECTION_BYTES_MAX;
use crate::map::{self, Range};
use crate::object::{Line, Object, Rules, Segment, Symbol};
use crate::verify::{self, VerifyError};

/// Why a file is no program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// It does not begin as ELF does.
    #[error("no ELF file: it does not begin with 7f 45 4c 46")]
    NotElf,
    /// A field of the header that every program has alike.
    #[error("ELF header: {field} is 0x{found:x}, a DISA program has 0x{expected:x}")]
    Header {
        /// Its name.
        field: &'static str,
        /// Its value.
        found: u64,
        /// What it should be.
        expected: u64,
    },
    /// Rules that this version does not know.
    #[error("ELF header: e_flags 0x{0:x} has bits that mean nothing")]
    Flags(u32),
    /// A part that is not all in the file.
    #[error("{part} of 0x{bytes:x} bytes at offset 0x{offset:x}: the file has 0x{file:x} bytes")]
    Truncated {
        /// What.
        part: String,
        /// Where it should begin.
        offset: u64,
        /// Its length.
        bytes: u64,
        /// The file's.
        file: u64,
    },
    /// A name that is not in the table of strings.
    #[error("{of} {index}: no name at 0x{at:x} of the string table")]
    Name {
        /// Section or symbol.
        of: &'static str,
        /// Which.
        index: usize,
        /// Where its name should be.
        at: u32,
    },
    /// A section that every program has.
    #[error("no section {0}")]
    Missing(&'static str),
    /// A section that no program has twice.
    #[error("section {0} is there twice")]
    Twice(String),
    /// A section that would be in memory, and is none of a program.
    #[error("section {0}: no section of a DISA program is called so")]
    Unknown(String),
    /// A section that lies elsewhere.
    #[error("section {name} at 0x{address:x} of 0x{bytes:x} bytes: it must be in {place}")]
    Place {
        /// Its name.
        name: String,
        /// Its address.
        address: u64,
        /// Its length.
        bytes: u64,
        /// Where it belongs.
        place: &'static str,
    },
    /// Two sections at one address.
    #[error("data at 0x{0:x} overlaps other data")]
    Overlap(u64),
    /// A symbol of a kind that there is not.
    #[error("symbol {index}: st_info 0x{info:x} means nothing")]
    Symbol {
        /// Which.
        index: usize,
        /// Its kind.
        info: u8,
    },
    /// Lines that are cut off, out of order or of no file.
    #[error(".disa.line: {0}")]
    Lines(&'static str),
    /// A unit that is no text.
    #[error("unit: section {0} is no UTF-8 text")]
    Unit(&'static str),
    /// Instructions that the verifier refuses.
    #[error(".text: {0}")]
    Text(#[from] VerifyError),
}

/// The program in a file.
///
/// # Errors
/// The file is not as [`super::write`] would make it, or its text does not pass the verifier.
pub fn read(file: &[u8]) -> Result<Object, LoadError> {
    let (entry, flags, sections) = headers(file, TYPE_EXECUTABLE)?;
    let mut object = Object { entry, rules: rules(flags)?, ..Object::default() };
    for section in &sections {
        place(section, file, &mut object)?;
    }
    check_overlaps(&mut object)?;
    let bytes = |name| one(&sections, name)?.map(|section| section.bytes(file)).transpose();
    object.text = bytes(TEXT)?.ok_or(LoadError::Missing(TEXT))?.to_vec();
    object.rodata = bytes(RODATA)?.unwrap_or_default().to_vec();
    if let Some(lines) = bytes(LINES)? {
        (object.files, object.lines) = Fields(lines).lines(object.text.len() as u64)?;
    }
    if let Some(symbols) = bytes(SYMBOLS)? {
        object.symbols = symbols_of(symbols, bytes(STRINGS)?.ok_or(LoadError::Missing(STRINGS))?)?;
    }
    let placed = verify::verify(&object.text)?;
    verify::find(&placed, entry).ok_or(VerifyError::Entry(entry))?;
    Ok(object)
}

/// The contents of a section of a file of this kind.
///
/// # Errors
/// The file is of another kind, or there is no such section.
pub(super) fn contents<'a>(file: &'a [u8], kind: u16, name: &'static str) -> Result<&'a [u8], LoadError> {
    one(&headers(file, kind)?.2, name)?.ok_or(LoadError::Missing(name))?.bytes(file)
}

#[derive(Debug)]
struct Section {
    name: String,
    kind: u32,
    flags: u64,
    address: u64,
    offset: u64,
    size: u64,
}

impl Section {
    fn bytes<'a>(&self, file: &'a [u8]) -> Result<&'a [u8], LoadError> {
        part(file, &format!("section {}", self.name), self.offset, self.size)
    }

    const fn range(&self) -> Range {
        Range::new(self.address, self.size)
    }
}

fn part<'a>(file: &'a [u8], part: &str, offset: u64, bytes: u64) -> Result<&'a [u8], LoadError> {
    let end = offset.checked_add(bytes).and_then(|end| usize::try_from(end).ok());
    let found = end.and_then(|end| file.get(usize::try_from(offset).ok()?..end));
    found.ok_or_else(|| LoadError::Truncated { part: part.into(), offset, bytes, file: file.len() as u64 })
}

fn number(bytes: &[u8], at: usize, width: usize) -> u64 {
    bytes.iter().skip(at).take(width).rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn headers(file: &[u8], kind: u16) -> Result<(u64, u32, Vec<Section>), LoadError> {
    if !file.starts_with(&MAGIC) {
        return Err(LoadError::NotElf);
    }
    let header = part(file, "ELF header", 0, HEADER_BYTES as u64)?;
    for (field, at, width, expected) in [
        ("EI_CLASS", 4, 1, u64::from(CLASS_64)),
        ("EI_DATA", 5, 1, u64::from(LITTLE_ENDIAN)),
        ("EI_VERSION", 6, 1, u64::from(VERSION)),
        ("e_type", 16, 2, u64::from(kind)),
        ("e_machine", 18, 2, u64::from(MACHINE)),
        ("e_version", 20, 4, u64::from(VERSION)),
        ("e_shentsize", 58, 2, SECTION_HEADER_BYTES as u64),
    ] {
        let found = number(header, at, width);
        if found != expected {
            return Err(LoadError::Header { field, found, expected });
        }
    }
    let (entry, flags) = (number(header, 24, 8), number(header, 48, 4) as u32);
    let (count, names) = (number(header, 60, 2), number(header, 62, 2) as usize);
    let table = part(file, "table of sections", number(header, 40, 8), count * SECTION_HEADER_BYTES as u64)?;
    let mut sections = Vec::new();
    for raw in table.chunks_exact(SECTION_HEADER_BYTES) {
        let [flags, address, offset, size] = [8, 16, 24, 32].map(|at| number(raw, at, 8));
        sections.push(Section { name: String::new(), kind: number(raw, 4, 4) as u32, flags, address, offset, size });
    }
    let strings = match sections.get(names) {
        Some(section) => section.bytes(file)?,
        None => return Err(LoadError::Missing(super::NAMES)),
    };
    for (index, (section, raw)) in sections.iter_mut().zip(table.chunks_exact(SECTION_HEADER_BYTES)).enumerate() {
        section.name = name(strings, number(raw, 0, 4) as u32, "section", index)?;
    }
    Ok((entry, flags, sections))
}

fn name(strings: &[u8], at: u32, of: &'static str, index: usize) -> Result<String, LoadError> {
    let text =
        strings.get(at as usize..).and_then(|rest| rest.split(|byte| *byte == 0).next().filter(|text| text.len() < rest.len()));
    let text = text.and_then(|text| std::str::from_utf8(text).ok());
    text.map(str::to_owned).ok_or(LoadError::Name { of, index, at })
}

fn rules(flags: u32) -> Result<Rules, LoadError> {
    if flags & !(FLAG_PAGE_GRAIN | FLAG_SERIALIZABLE) != 0 {
        return Err(LoadError::Flags(flags));
    }
    Ok(Rules { is_page_grain: flags & FLAG_PAGE_GRAIN != 0, is_serializable: flags & FLAG_SERIALIZABLE != 0 })
}

/// The only section with this name.
fn one<'a>(sections: &'a [Section], name: &str) -> Result<Option<&'a Section>, LoadError> {
    let mut all = sections.iter().filter(|section| section.name == name);
    match (all.next(), all.next()) {
        (_, Some(_)) => Err(LoadError::Twice(name.into())),
        (first, None) => Ok(first),
    }
}

/// Checks where a section lies, and takes it if it is shared memory.
fn place(section: &Section, file: &[u8], object: &mut Object) -> Result<(), LoadError> {
    if section.flags & FLAG_ALLOCATED == 0 {
        return Ok(());
    }
    let (place, fits) = match section.name.as_str() {
        TEXT => ("the first GiB of TX", section.address == map::TEXT.base && section.size <= map::TEXT.bytes),
        RODATA => ("the second GiB of TX", section.address == map::RODATA.base && section.size <= SECTION_BYTES_MAX),
        DATA | BSS => ("the shared memory below the stacks", map::SHARED_DATA.encloses(section.range())),
        _ => return Err(LoadError::Unknown(section.name.clone())),
    };
    if !fits {
        let Section { address, size: bytes, .. } = *section;
        return Err(LoadError::Place { name: section.name.clone(), address, bytes, place });
    }
    match section.name.as_str() {
        BSS if section.kind == KIND_ZEROS => object.bss.push(section.range()),
        DATA | BSS => object.data.push(Segment { address: section.address, bytes: section.bytes(file)?.to_vec() }),
        _ => {}
    }
    Ok(())
}

fn check_overlaps(object: &mut Object) -> Result<(), LoadError> {
    object.data.sort_by_key(|segment| segment.address);
    object.bss.sort();
    let mut all: Vec<Range> = object.data.iter().map(Segment::range).chain(object.bss.iter().copied()).collect();
    all.sort();
    let wrong = all.array_windows().find(|[first, second]| first.overlaps(*second));
    wrong.map_or(Ok(()), |[_, second]| Err(LoadError::Overlap(second.base)))
}

fn symbols_of(table: &[u8], strings: &[u8]) -> Result<Vec<Symbol>, LoadError> {
    let mut symbols = Vec::new();
    for (index, raw) in table.chunks_exact(SYMBOL_BYTES).enumerate().skip(1) {
        let info = number(raw, 4, 1) as u8;
        let is_known = info >> 4 <= SYMBOL_GLOBAL && matches!(info & 15, SYMBOL_NUMBER | SYMBOL_ADDRESS);
        if !is_known {
            return Err(LoadError::Symbol { index, info });
        }
        symbols.push(Symbol {
            value: number(raw, 8, 8),
            name: name(strings, number(raw, 0, 4) as u32, "symbol", index)?,
            is_global: info >> 4 == SYMBOL_GLOBAL,
            is_address: info & 15 == SYMBOL_ADDRESS,
        });
    }
    symbols.sort();
    Ok(symbols)
}

/// What is left to read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], LoadError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(LoadError::Lines("it is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn count(&mut self) -> Result<usize, LoadError> {
        Ok(number(self.take(4)?, 0, 4) as usize)
    }

    fn lines(mut self, text_bytes: u64) -> Result<(Vec<String>, Vec<Line>), LoadError> {
        let mut files = Vec::new();
        for _ in 0..self.count()? {
            let length = self.count()?;
            let file = String::from_utf8(self.take(length)?.to_vec());
            files.push(file.map_err(|_| LoadError::Lines("the name of a file is no text"))?);
        }
        let mut lines: Vec<Line> = Vec::new();
        for _ in 0..self.count()? {
            let raw = self.take(LINE_BYTES)?;
            let line = Line { offset: number(raw, 0, 8), file: number(raw, 8, 4) as u32, line: number(raw, 12, 4) as u32 };
            if line.file as usize >= files.len() {
                return Err(LoadError::Lines("a line of no file"));
            }
            if line.offset >= text_bytes || lines.last().is_some_and(|last| last.offset >= line.offset) {
                return Err(LoadError::Lines("offsets do not rise, or lie behind the text"));
            }
            lines.push(line);
        }
        if !self.0.is_empty() {
            return Err(LoadError::Lines("something follows the last line"));
        }
        Ok((files, lines))
    }
}

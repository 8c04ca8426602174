//! A program: what an assembler makes, a file holds and a machine runs.
//!
//! Owns the parts of it. Must not know how they are written down.

use crate::decode;
use crate::map::{self, Range};

/// An address that is further behind a name than that is not called after it.
const NEAR_BYTES: u64 = 1 << 32;

/// Bytes and the address they lie at when the program starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The first address.
    pub address: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Segment {
    /// Where it is.
    #[must_use]
    pub const fn range(&self) -> Range {
        Range::new(self.address, self.bytes.len() as u64)
    }
}

/// A name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Symbol {
    /// What is called so.
    pub value: u64,
    /// The name.
    pub name: String,
    /// Whether other programs may use it.
    pub is_global: bool,
    /// Whether it is an address rather than a number.
    pub is_address: bool,
}

/// From this offset on, instructions come from this line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// Bytes from the start of the text.
    pub offset: u64,
    /// Which of the object's files.
    pub file: u32,
    /// The line.
    pub line: u32,
}

/// What holds for a whole program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// Conflicts are found by page, not by word.
    pub is_page_grain: bool,
    /// Commits validate the pages read, too.
    pub is_serializable: bool,
}

/// A program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// Instructions, from the start of [`map::TX`].
    pub text: Vec<u8>,
    /// Constants, from the start of [`map::RODATA`].
    pub rodata: Vec<u8>,
    /// Shared memory with contents, by address.
    pub data: Vec<Segment>,
    /// Shared memory that is zero, by address.
    pub bss: Vec<Range>,
    /// Names, by value.
    pub symbols: Vec<Symbol>,
    /// Files that lines belong to.
    pub files: Vec<String>,
    /// Lines, by offset.
    pub lines: Vec<Line>,
    /// The first instruction of the first runner.
    pub entry: u64,
    /// What holds for all of it.
    pub rules: Rules,
}

impl Object {
    /// File and line of the instruction at an address; 0 if it is not known.
    #[must_use]
    pub fn line_of(&self, pc: u64) -> (&str, u32) {
        let offset = pc.wrapping_sub(map::TX.base);
        let after = self.lines.partition_point(|line| line.offset <= offset);
        let line = after.checked_sub(1).and_then(|index| self.lines.get(index));
        line.filter(|_| offset < self.text.len() as u64)
            .map_or(("", 0), |line| (self.files.get(line.file as usize).map_or("", String::as_str), line.line))
    }

    /// The name before an address of the text that is no label inside of a function: those have a dot.
    #[must_use]
    pub fn function_of(&self, pc: u64) -> &str {
        let is_function = |symbol: &&Symbol| symbol.is_address && map::TEXT.contains(symbol.value) && !symbol.name.contains('.');
        let before = self.symbols.iter().filter(is_function).take_while(|symbol| symbol.value <= pc);
        before.last().map_or("", |symbol| &symbol.name)
    }

    /// The instruction at an address, as the assembler writes it.
    #[must_use]
    pub fn instruction_text(&self, pc: u64) -> String {
        let offset = usize::try_from(pc.wrapping_sub(map::TX.base)).unwrap_or(usize::MAX);
        let rest = self.text.get(offset..).filter(|rest| !rest.is_empty());
        let decoded = rest.and_then(|rest| decode::decode(rest, pc).ok());
        decoded.map_or_else(|| "no instruction".into(), |(instruction, _)| instruction.to_string())
    }

    /// An address as the name before it and the bytes behind that; the number alone if there is no name near.
    #[must_use]
    pub fn place_of(&self, address: u64) -> String {
        let mut addresses = self.symbols.iter().filter(|symbol| symbol.is_address && symbol.value <= address);
        let symbol = addresses.next_back().filter(|symbol| address - symbol.value < NEAR_BYTES);
        match symbol {
            Some(symbol) if symbol.value == address => symbol.name.clone(),
            Some(symbol) => format!("{}+0x{:x}", symbol.name, address - symbol.value),
            None => format!("0x{address:x}"),
        }
    }

    /// The value of a name.
    #[must_use]
    pub fn symbol(&self, name: &str) -> Option<u64> {
        self.symbols.iter().find(|symbol| symbol.name == name).map(|symbol| symbol.value)
    }
}

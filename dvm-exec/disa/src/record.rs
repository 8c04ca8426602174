//! A recording as bytes, and back: numbers of 8 bytes, little endian, and byte strings with their length before them.
//!
//! Owns the format. Must not open files. Nothing in the bytes is trusted.

use crate::elf::{self, LoadError};
use crate::machine::{Commit, File, Limits, PagesMax, Recording, Run, RunEnd, Settings};
use crate::map::Range;

/// How every recording begins; the last byte is the version.
pub const MAGIC: [u8; 8] = *b"DISAREC\x01";

/// Why bytes are no recording.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// They begin otherwise.
    #[error("no recording of this version: record the program again with --record")]
    Magic,
    /// They end too early.
    #[error("the recording is cut off at byte {0}: record the program again")]
    Truncated(usize),
    /// A number that means nothing.
    #[error("{what} {value} means nothing in a recording")]
    Number {
        /// What it should say.
        what: &'static str,
        /// The number.
        value: u64,
    },
    /// The program in it.
    #[error("the program in the recording: {0}")]
    Program(#[from] LoadError),
}

/// The bytes of a recording.
#[must_use]
pub fn write(recording: &Recording) -> Vec<u8> {
    let Recording { object, settings, runs, commits } = recording;
    let mut out = Writer(MAGIC.to_vec());
    out.bytes(&elf::write(object));
    let Limits { fuel, pages, children, output_bytes } = settings.limits;
    out.numbers(&[settings.seed, settings.time_ns, fuel, pages.private, pages.shared, children, output_bytes]);
    out.count(settings.arguments.len());
    settings.arguments.iter().for_each(|argument| out.bytes(argument));
    out.bytes(&settings.input);
    out.count(settings.files.len());
    for file in &settings.files {
        out.bytes(&file.name);
        out.bytes(&file.bytes);
    }
    out.count(runs.len());
    for run in runs {
        let (end, first, second) = match run.end {
            RunEnd::Unknown => (0, 0, 0),
            RunEnd::Committed(at) => (1, at, 0),
            RunEnd::Aborted => (2, 0, 0),
            RunEnd::Trapped(code) => (3, code, 0),
            RunEnd::Conflict { address, winner } => (4, address, winner.map_or(0, |winner| winner + 1)),
            RunEnd::Lost => (5, 0, 0),
        };
        let Range { base, bytes } = run.stack;
        out.numbers(&[run.id, run.parent, run.first, base, bytes, run.tries, run.epoch, run.fuel_used, run.pc]);
        out.numbers(&[run.began, run.ended, end, first, second]);
        for ranges in [&run.heap, &run.watched] {
            out.count(ranges.len());
            ranges.iter().for_each(|range| out.numbers(&[range.base, range.bytes]));
        }
        out.count(run.answers.len());
        out.numbers(&run.answers);
    }
    out.count(commits.len());
    for commit in commits {
        out.numbers(&[commit.at, commit.author]);
        out.count(commit.words.len());
        commit.words.iter().for_each(|(address, value)| out.numbers(&[*address, *value]));
    }
    out.0
}

/// The recording that bytes are.
///
/// # Errors
/// They are none.
pub fn read(bytes: &[u8]) -> Result<Recording, RecordError> {
    let rest = bytes.strip_prefix(&MAGIC).ok_or(RecordError::Magic)?;
    let mut reader = Reader { rest, length: bytes.len() };
    let object = elf::read(reader.bytes()?)?;
    let [seed, time_ns, fuel, private, shared, children, output_bytes] = reader.numbers()?;
    let limits = Limits { fuel, pages: PagesMax { private, shared }, children, output_bytes };
    let mut settings = Settings { seed, time_ns, limits, ..Settings::default() };
    for _ in 0..reader.number()? {
        settings.arguments.push(reader.bytes()?.to_vec());
    }
    settings.input = reader.bytes()?.to_vec();
    for _ in 0..reader.number()? {
        settings.files.push(File { name: reader.bytes()?.to_vec(), bytes: reader.bytes()?.to_vec() });
    }
    let mut runs = Vec::new();
    for _ in 0..reader.number()? {
        runs.push(reader.run()?);
    }
    let mut commits = Vec::new();
    for _ in 0..reader.number()? {
        let [at, author] = reader.numbers()?;
        let mut words = Vec::new();
        for _ in 0..reader.number()? {
            let [address, value] = reader.numbers()?;
            words.push((address, value));
        }
        commits.push(Commit { at, author, words });
    }
    Ok(Recording { object, settings, runs, commits })
}

struct Writer(Vec<u8>);

impl Writer {
    fn numbers(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|number| self.0.extend(number.to_le_bytes()));
    }

    fn count(&mut self, count: usize) {
        self.numbers(&[count as u64]);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.count(bytes.len());
        self.0.extend_from_slice(bytes);
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
}

impl<'a> Reader<'a> {
    const fn cut(&self) -> RecordError {
        RecordError::Truncated(self.length - self.rest.len())
    }

    fn number(&mut self) -> Result<u64, RecordError> {
        let (number, rest) = self.rest.split_first_chunk().ok_or_else(|| self.cut())?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*number))
    }

    fn numbers<const N: usize>(&mut self) -> Result<[u64; N], RecordError> {
        let mut numbers = [0; N];
        for number in &mut numbers {
            *number = self.number()?;
        }
        Ok(numbers)
    }

    fn bytes(&mut self) -> Result<&'a [u8], RecordError> {
        let count = self.number()?;
        let taken = usize::try_from(count).ok().and_then(|count| self.rest.split_at_checked(count));
        let (bytes, rest) = taken.ok_or_else(|| self.cut())?;
        self.rest = rest;
        Ok(bytes)
    }

    fn ranges(&mut self) -> Result<Vec<Range>, RecordError> {
        let mut ranges = Vec::new();
        for _ in 0..self.number()? {
            let [base, bytes] = self.numbers()?;
            ranges.push(Range::new(base, bytes));
        }
        Ok(ranges)
    }

    fn run(&mut self) -> Result<Run, RecordError> {
        let [id, parent, first, base, bytes, tries, epoch, fuel_used, pc] = self.numbers()?;
        let [began, ended, end, one, two] = self.numbers()?;
        let end = match end {
            0 => RunEnd::Unknown,
            1 => RunEnd::Committed(one),
            2 => RunEnd::Aborted,
            3 => RunEnd::Trapped(one),
            4 => RunEnd::Conflict { address: one, winner: two.checked_sub(1) },
            5 => RunEnd::Lost,
            value => return Err(RecordError::Number { what: "end", value }),
        };
        let (heap, watched) = (self.ranges()?, self.ranges()?);
        let mut answers = Vec::new();
        for _ in 0..self.number()? {
            answers.push(self.number()?);
        }
        let stack = Range::new(base, bytes);
        Ok(Run { id, parent, first, stack, heap, watched, tries, epoch, fuel_used, pc, end, began, ended, answers })
    }
}

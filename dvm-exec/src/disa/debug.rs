//! `dvm-exec disa dbg`: one run of one runner, step by step.
//!
//! Owns the commands. Must not know how memory of the past is had.

use super::{files, history, show};
use anyhow::{Context, anyhow};
use clap::Args;
use dvm_disa::interpreter::Interpreter;
use dvm_disa::machine::{Answers, Recalled, Recording, Replay};
use dvm_disa::map;
use dvm_disa::memory::Memory;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;

const HELP: &str = "\
break PLACE   stop before PLACE: a name, LINE, FILE:LINE or 0xADDRESS      delete PLACE  do not
step [N]      N instructions                                              next          to another line
continue      to a break, a breakpoint() or the end                       where         instruction and line
regs          slots of the window that are not 0                          print X [N]   N quads at X: a name, wN or 0xADDRESS
bytes X N     N bytes at X                                                output        what was printed so far
list          instructions around                                         quit
The first letter of a command will do.
";
/// Instructions shown before and behind the current one.
const LIST_BYTES: u64 = 40;
/// Most quads or bytes of one command.
const SHOWN_MAX: u64 = 4096;

/// A run.
#[derive(Args, Debug)]
pub struct Options {
    /// What `run --record` wrote, or a program, which is run for it.
    recording: PathBuf,
    /// The runner's number.
    #[arg(default_value_t = 0)]
    runner: u64,
    /// Which start of it [default: the last].
    #[arg(long = "try", value_name = "N")]
    tries: Option<u64>,
}

/// Reads commands until there are no more.
pub fn debug(options: &Options) -> anyhow::Result<u8> {
    let recording = files::recording(&options.recording)?;
    let run = &recording.runs[history::find(&recording, options.runner, options.tries)?];
    let mut replay = Replay::new(&recording)?;
    let processor = replay.begin(run).map_err(|kind| anyhow!("the run cannot begin: {kind}"))?;
    let mut session = Session { recording: &recording, processor, breaks: BTreeSet::new(), sources: BTreeMap::new(), end: None };
    show(
        format!("runner {} start {} of snapshot {}; help lists the commands\n{}", run.id, run.tries, run.epoch, session.here())
            .as_bytes(),
    )?;
    for line in std::io::stdin().lines() {
        let line = line.context("cannot read commands")?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(command) = words.first() else { continue };
        if command.starts_with('q') {
            break;
        }
        let answer = session.execute(command, &words[1..]).unwrap_or_else(|error| format!("{error:#}\n"));
        show(answer.as_bytes())?;
    }
    Ok(0)
}

struct Session<'a> {
    recording: &'a Recording,
    processor: Interpreter<'a, Recalled<'a>, Answers<'a>>,
    breaks: BTreeSet<u64>,
    sources: BTreeMap<String, Vec<String>>,
    end: Option<String>,
}

impl Session<'_> {
    fn execute(&mut self, command: &str, words: &[&str]) -> anyhow::Result<String> {
        let count = |index: usize, default: u64| words.get(index).map_or(Ok(default), |word| word.parse());
        match command.chars().next().unwrap_or('h') {
            'b' if command.starts_with("by") => self.bytes(first(words)?, count(1, 16)?),
            'b' => {
                let at = self.place(first(words)?)?;
                self.breaks.insert(at);
                Ok(format!("break at 0x{at:x}, {}\n", history::place(self.recording, at)))
            }
            'd' => {
                let at = self.place(first(words)?)?;
                Ok(if self.breaks.remove(&at) { String::new() } else { "there is no such break\n".into() })
            }
            's' => {
                for _ in 0..count(0, 1)? {
                    self.step();
                }
                Ok(self.here())
            }
            'n' => {
                let line = self.line();
                while self.end.is_none() && self.line() == line {
                    self.step();
                }
                Ok(self.here())
            }
            'c' => {
                self.step();
                while self.end.is_none()
                    && !self.breaks.contains(&self.processor.pc())
                    && self.processor.effects.broke_at.is_none()
                {
                    self.step();
                }
                Ok(self.here())
            }
            'w' => Ok(self.here()),
            'r' => Ok(self.registers()),
            'p' => self.quads(first(words)?, count(1, 1)?),
            'o' => Ok(String::from_utf8_lossy(&self.processor.effects.output).into_owned()),
            'l' => Ok(self.list()),
            _ => Ok(HELP.into()),
        }
    }

    fn line(&self) -> (String, u32) {
        let (file, line) = self.recording.object.line_of(self.processor.pc());
        (file.into(), line)
    }

    fn step(&mut self) {
        self.processor.effects.broke_at = None;
        if self.end.is_some() {
            return;
        }
        match self.processor.step() {
            Ok(None) => {}
            Ok(Some(mode)) => self.end = Some(format!("exit:{}", mode.name())),
            Err(kind) => self.end = Some(format!("trap {kind}")),
        }
    }

    /// Where it stands: the instruction and its line.
    fn here(&mut self) -> String {
        let pc = self.processor.pc();
        let (file, line) = self.line();
        let source = self.sources.entry(file.clone()).or_insert_with(|| {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            text.lines().map(str::to_owned).collect()
        });
        let source = source.get((line as usize).wrapping_sub(1)).map_or(String::new(), |text| format!("{line:>6}  {text}\n"));
        let instruction = self.recording.object.instruction_text(pc);
        let end = self.end.as_ref().map_or(String::new(), |end| format!("the run has ended: {end}\n"));
        format!("{source}0x{pc:x}  {}  {instruction}\n{end}", history::place(self.recording, pc))
    }

    fn registers(&self) -> String {
        let mut text = String::new();
        for (slot, value) in self.processor.window().iter().enumerate().filter(|(_, value)| **value != 0) {
            text.push_str(&format!("w{slot:<4} 0x{value:016x}  {}\n", *value as i64));
        }
        text
    }

    /// The address that a name, a line or a number is.
    fn place(&self, text: &str) -> anyhow::Result<u64> {
        let object = &self.recording.object;
        if let Some(digits) = text.strip_prefix("0x") {
            return u64::from_str_radix(digits, 16).with_context(|| format!("`{text}` is no address"));
        }
        if let Some(address) = object.symbol(text) {
            return Ok(address);
        }
        let (file, line) = text.rsplit_once(':').map_or((None, text), |(file, line)| (Some(file), line));
        let line: u32 = line.parse().map_err(|_| anyhow!("`{text}` is no name, line or 0xADDRESS"))?;
        let is_here = |file: &str| object.files.iter().position(|known| known == file || known.ends_with(&format!("/{file}")));
        let wanted = file.map(|file| is_here(file).with_context(|| format!("no source is called {file}"))).transpose()?;
        let found = object.lines.iter().find(|known| known.line == line && wanted.is_none_or(|file| file == known.file as usize));
        found.map(|found| map::TX.base + found.offset).with_context(|| format!("line {line} has no instructions"))
    }

    /// The address behind what is to be shown.
    fn operand(&self, text: &str) -> anyhow::Result<u64> {
        let slot = text.strip_prefix('w').and_then(|digits| digits.parse::<u8>().ok());
        slot.map_or_else(|| self.place(text), |slot| Ok(self.processor.window()[usize::from(slot)]))
    }

    fn quads(&mut self, text: &str, count: u64) -> anyhow::Result<String> {
        let at = self.operand(text)?;
        let mut answer = String::new();
        for index in 0..count.min(SHOWN_MAX) {
            let address = at.wrapping_add(8 * index);
            match self.processor.memory.load(address, 8) {
                Ok(value) => {
                    writeln!(answer, "{:<24} 0x{value:016x}  {}", self.recording.object.place_of(address), value as i64)?
                }
                Err(_) if index == 0 && text.starts_with('w') => writeln!(answer, "{text} = 0x{at:x}  {}", at as i64)?,
                Err(kind) => writeln!(answer, "0x{address:x}: the runner cannot read it: {kind}")?,
            }
        }
        Ok(answer)
    }

    fn bytes(&mut self, text: &str, count: u64) -> anyhow::Result<String> {
        let at = self.operand(text)?;
        let mut bytes = vec![0; count.min(SHOWN_MAX) as usize];
        let read = self.processor.memory.read(at, &mut bytes);
        read.map_err(|kind| anyhow!("0x{at:x}: the runner cannot read it: {kind}"))?;
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(format!("{}  {:?}\n", hex.join(" "), String::from_utf8_lossy(&bytes)))
    }

    fn list(&self) -> String {
        let pc = self.processor.pc();
        let Ok(placed) = dvm_disa::verify::verify(&self.recording.object.text) else { return String::new() };
        let mut text = String::new();
        for one in placed {
            let at = map::TX.base + one.offset;
            if at.abs_diff(pc) <= LIST_BYTES {
                let mark = if at == pc { "=>" } else { "  " };
                text.push_str(&format!("{mark} 0x{at:x}  {}\n", one.instruction));
            }
        }
        text
    }
}

fn first<'a>(words: &[&'a str]) -> anyhow::Result<&'a str> {
    words.first().copied().context("this command needs to know where: a name, a line or 0xADDRESS")
}

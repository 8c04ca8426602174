//! Runs programs by chance on the reference model and on both engines, and compares all that is left of them.
//!
//! Owns the comparison, what is left out of it by name, and shrinking what differs. Must not know the model's inside.

mod ours;
mod reference;
mod source;
mod together;

use anyhow::{Context, Result, bail, ensure};
use dvm_disa::asm::assemble;
use dvm_disa::engine::{Engine, Interpreted};
use dvm_disa::machine::Settings;
use dvm_disa::machine::chance::Chance;
use dvm_disa::map;
use dvm_disa::trap::TrapKind;
use dvm_jit::Jit;
use ours::Program;
use reference::Reference;
use source::Source;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const USAGE: &str = "usage: disa-model DIRECTORY START COUNT [fuel|grain]";
/// Most instructions of a runner that is alone.
const FUEL: u64 = 160;
/// Of so many programs one is of several runners: those take longest.
const TOGETHER_EVERY: u64 = 32;
/// Schedules of a program of which all must be known.
const SCHEDULES_MAX: u64 = 1500;
/// Schedules of our own that are tried of it.
const SEEDS: u64 = 16;
/// Programs after which the translator begins anew.
const PROGRAMS_PER_JIT: u64 = 200;
/// Conformance cases that come with the model.
const CASES: usize = 23;
/// A program of the model's for which it takes minutes, and what it prints.
const LONG: (&str, &str) = ("treesum20480.disa", "out 209725440");

/// A mistake that is made on purpose, to see that it is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plant {
    None,
    /// Our runners may execute one instruction less.
    Fuel,
    /// The model finds conflicts by page.
    Grain,
}

/// What was compared.
#[derive(Debug, Default)]
struct Figures {
    alone: u64,
    cut: u64,
    together: u64,
    /// Programs with more schedules than are looked at.
    wide: u64,
    /// Outcomes that the model has, and those of them that were seen here, too.
    outcomes: [u64; 2],
    /// Programs left out: the model lets a pointer end in the window.
    ending_in_window: u64,
}

struct Comparison {
    model: Reference,
    jit: Jit,
    plant: Plant,
    figures: Figures,
}

impl Comparison {
    /// Where the answers about a single runner differ, if they do.
    fn alone(&mut self, source: &Source, fuel: u64) -> Result<Option<String>> {
        let expected = self.model.ask(&format!("alone {fuel}"), &source.text())?;
        let Some((program, pages, expected)) = self.open(source, &expected)? else { return Ok(None) };
        let translation = self.jit.load(program.text())?;
        for engine in [&Interpreted as &dyn Engine, &*translation] {
            let may_take = if self.plant == Plant::Fuel { fuel - 1 } else { fuel };
            let found = program.alone(engine, may_take, &pages)?;
            if matches!(found.trap, Some(TrapKind::Window(address)) if address < map::WINDOW.base) {
                self.figures.ending_in_window += 1;
                return Ok(None);
            }
            if found.text != expected {
                return Ok(Some(format!("{engine:?} fuel {fuel}\n{}", differing(&expected, &found.text))));
            }
        }
        self.figures.alone += 1;
        self.figures.cut += u64::from(expected.starts_with("end FUEL"));
        Ok(None)
    }

    /// Whether one of our outcomes is none of the model's.
    fn together(&mut self, source: &Source) -> Result<Option<String>> {
        let grain = if self.plant == Plant::Grain { map::PAGE_BYTES } else { source.grain };
        let expected = self.model.ask(&format!("all {grain} {SCHEDULES_MAX}"), &source.text())?;
        if expected == "too many schedules" {
            self.figures.wide += 1;
            return Ok(None);
        }
        let Some((program, pages, expected)) = self.open(source, &expected)? else { return Ok(None) };
        let expected: BTreeSet<&str> = expected.split("\n--\n").collect();
        let translation = self.jit.load(program.text())?;
        let mut seen = BTreeSet::new();
        for seed in 0..SEEDS {
            let (slots, losses_percent) = ([4, 2, 1, 3][seed as usize % 4], seed / 8 * 30);
            let settings = Settings { seed, slots, losses_percent, ..Settings::default() };
            let engine: &dyn Engine = if seed % 2 == 0 { &Interpreted } else { &*translation };
            let found = program.whole(engine, settings, &pages)?;
            if !expected.contains(found.as_str()) {
                let known = expected.iter().copied().collect::<Vec<_>>().join("\n--\n");
                return Ok(Some(format!("seed {seed}: {engine:?} found\n{found}\nof which the model knows only\n{known}")));
            }
            seen.insert(found);
        }
        self.figures.together += 1;
        self.figures.outcomes[0] += expected.len() as u64;
        self.figures.outcomes[1] += seen.len() as u64;
        Ok(None)
    }

    /// Our program, the pages to look at and the rest of the answer; nothing if both refuse the source.
    fn open(&self, source: &Source, answer: &str) -> Result<Option<(Program, Vec<u64>, String)>> {
        let object = assemble(&source.own_text(), "t.disa");
        if answer == "refused" || object.is_err() {
            let refusal = object.err().map(|errors| errors.to_string());
            ensure!((answer == "refused") == refusal.is_some(), "the model: {answer}; the assembler: {refusal:?}");
            return Ok(None);
        }
        let program = Program::new(object.map_err(|errors| anyhow::anyhow!("{errors}"))?)?;
        let (pages, rest) =
            answer.strip_prefix("pages ").and_then(|all| all.split_once('\n')).with_context(|| answer.to_owned())?;
        let pages = pages.split(' ').map(|page| u64::from_str_radix(page, 16)).collect::<Result<_, _>>()?;
        Ok(Some((program, pages, rest.to_owned())))
    }

    /// Both questions about the program of a seed.
    fn seed(&mut self, seed: u64) -> Result<()> {
        let mut chance = Chance::new(seed);
        let (source, fuels) = if seed % TOGETHER_EVERY == TOGETHER_EVERY - 1 {
            (together::together(&mut chance), vec![])
        } else {
            (source::alone(&mut chance), vec![FUEL, 1 + chance.below(40) as u64])
        };
        let judge = |this: &mut Self, source: &Source| -> Result<Option<String>> {
            if fuels.is_empty() {
                return this.together(source);
            }
            fuels.iter().find_map(|fuel| this.alone(source, *fuel).transpose()).transpose()
        };
        let told = judge(self, &source).with_context(|| format!("seed {seed}\n{}", source.own_text()))?;
        if told.is_none() {
            return Ok(());
        }
        let small = self.shrink(source, |this, source| matches!(judge(this, source), Ok(Some(_))));
        let why = judge(self, &small)?.or(told).unwrap_or_default();
        bail!("seed {seed} differs\n{}\n{why}", small.own_text());
    }

    /// Leaves out what is not needed to differ.
    fn shrink(&mut self, mut source: Source, mut differs: impl FnMut(&mut Self, &Source) -> bool) -> Source {
        for at in 0..source.lines.len() {
            let Some((label, rest)) = source.lines[at].split_once(": ").filter(|(label, _)| label.starts_with('L')) else {
                continue;
            };
            let (label, rest) = (label.to_owned(), rest.to_owned());
            source.lines[at] = format!("{label}: nop");
            if !differs(self, &source) {
                source.lines[at] = format!("{label}: {rest}");
            }
        }
        source
    }

    /// The model's conformance cases; how many.
    fn cases(&mut self) -> Result<usize> {
        let cases = self.model.ask("cases", "")?;
        let parts: Vec<&str> = cases.split('\0').collect();
        for case in parts.chunks_exact(2) {
            let lines = case[1].lines().map(str::to_owned).collect();
            let told = self.together(&Source { lines, grain: 8 }).with_context(|| format!("case {}", case[0]))?;
            ensure!(told.is_none(), "case {} differs\n{}\n{}", case[0], case[1], told.unwrap_or_default());
        }
        Ok(parts.len() / 2)
    }

    /// The model's programs, whose results do not depend on the schedule; how many.
    fn programs(&mut self, directory: &Path) -> Result<usize> {
        let mut count = 0;
        for entry in std::fs::read_dir(directory).with_context(|| directory.display().to_string())? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "disa") {
                continue;
            }
            let lines = std::fs::read_to_string(&path)?.lines().map(str::to_owned).collect();
            let source = Source { lines, grain: 8 };
            let is_long = path.ends_with(LONG.0);
            let answer = if is_long { format!("pages 0\n{}", LONG.1) } else { self.model.ask("one 0", &source.text())? };
            let (program, pages, expected) = self.open(&source, &answer)?.with_context(|| path.display().to_string())?;
            let translation = self.jit.load(program.text())?;
            for engine in [&Interpreted as &dyn Engine, &*translation] {
                let found = program.whole(engine, Settings::default(), &pages)?;
                // How often watchers looked in vain is a matter of schedule.
                let is_seen = |line: &&str| !line.starts_with("committed ") && (!is_long || line.starts_with("out "));
                let [expected, found] = [&expected, &found].map(|text| text.lines().filter(is_seen));
                ensure!(expected.eq(found), "{} differs on {engine:?}", path.display());
            }
            count += 1;
        }
        Ok(count)
    }
}

/// The first lines of each that the other has not.
fn differing(expected: &str, found: &str) -> String {
    let only = |one: &str, other: &str, mark: char| {
        let other: BTreeSet<&str> = other.lines().collect();
        let lines = one.lines().filter(|line| !other.contains(line)).take(16);
        lines.map(|line| format!("{mark} {line}\n")).collect::<String>()
    };
    only(expected, found, '-') + &only(found, expected, '+')
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [directory, start, count, rest @ ..] = &arguments[..] else { bail!(USAGE) };
    let (start, count): (u64, u64) = (start.parse().context(USAGE)?, count.parse().context(USAGE)?);
    let plant = match rest {
        [] => Plant::None,
        [name] if name == "fuel" => Plant::Fuel,
        [name] if name == "grain" => Plant::Grain,
        _ => bail!(USAGE),
    };
    let directory = PathBuf::from(directory);
    let model = Reference::start(&directory)?;
    let mut comparison = Comparison { model, jit: Jit::after(0)?, plant, figures: Figures::default() };
    if start == 0 {
        let (cases, programs) = (comparison.cases()?, comparison.programs(&directory)?);
        ensure!(cases == CASES && programs > 0, "the model has {cases} cases and {programs} programs");
        println!("{cases} cases and {programs} programs of the model: no difference");
        comparison.figures = Figures::default();
    }
    for seed in start..start + count {
        if seed % PROGRAMS_PER_JIT == 0 {
            comparison.jit = Jit::after(0)?;
        }
        comparison.seed(seed)?;
    }
    let Figures { alone, cut, together, wide, outcomes, ending_in_window } = comparison.figures;
    println!(
        "{count} programs from seed {start}: {alone} runs of one runner ({cut} out of fuel), {together} programs of several ({wide} with \
         too many schedules; {} of {} outcomes seen), {ending_in_window} left out for a pointer that ends in the window: no difference",
        outcomes[1], outcomes[0]
    );
    Ok(())
}

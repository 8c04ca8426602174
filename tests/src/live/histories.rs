//! Random histories over hosts, checked word by word.
//!
//! Owns reading what `tests/programs/history.c` prints. Must not know how a history is checked.

use super::bed::Bed;
use super::case::{Case, Need};
use super::linearize::{Effect, Operation, check};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;

const THREADS: &str = "6";
const WORDS: &str = "48";

/// Words sharing pages, and each on its own, on two and on three hosts.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for hosts in [2, 3] {
        for per_page in ["1", "16"] {
            let case = Case::new(format!("history-{hosts}-{per_page}-per-page"), hosts, move |bed| run(bed, per_page));
            cases.push(case.needs(&[Need::Program("gcc")]).within_seconds(300));
        }
    }
    cases
}

fn run(bed: &mut Bed<'_>, per_page: &str) -> Result<String> {
    let (operations, seed) = (bed.effort.history_operations.to_string(), bed.effort.seed.to_string());
    let job = bed.job("history", &[THREADS, &operations, WORDS, per_page, &seed])?.options(["--place", "rr"]);
    let finished = bed.succeed(&job)?;
    let words = parse(&finished.output())?;
    let mut count = 0;
    for (word, history) in &words {
        if let Err(violation) = check(history, 0) {
            bail!(
                "word {word}: no order explains its {} operations; after {} there is none among {:?}",
                history.len(),
                violation.explained,
                violation.stuck
            );
        }
        count += history.len();
    }
    ensure!(count as u64 == bed.effort.history_operations * THREADS.parse::<u64>()?, "only {count} operations printed");
    Ok(format!("{count} operations on {} words; {}", words.len(), bed.all_hosts_worked(&finished)?))
}

/// `thread word kind invoke response first second found` per line.
fn parse(output: &str) -> Result<BTreeMap<u64, Vec<Operation>>> {
    let mut words = BTreeMap::<u64, Vec<Operation>>::new();
    for line in output.lines() {
        let (word, operation) = parse_line(line).with_context(|| format!("bad line `{line}`"))?;
        words.entry(word).or_default().push(operation);
    }
    Ok(words)
}

fn parse_line(line: &str) -> Option<(u64, Operation)> {
    let fields: Vec<&str> = line.split(' ').collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let effect = match *fields.get(2)? {
        "r" => Effect::Read(number(5)?),
        "w" => Effect::Write(number(5)?),
        "c" => Effect::Exchange(number(5)?, number(6)?),
        "f" => Effect::Refused(number(5)?, number(7)?),
        _ => return None,
    };
    let thread = fields.first()?.parse().ok()?;
    Some((number(1)?, Operation { thread, invoke: number(3)?, response: number(4)?, effect }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read() {
        let words = parse("0 7 w 1 2 99 0 0\n1 7 r 3 4 99 0 0\n0 7 f 5 6 1 2 99\n1 8 c 1 2 0 5 0\n").unwrap();
        assert_eq!(words[&7].len(), 3);
        assert_eq!(words[&7][2].effect, Effect::Refused(1, 99));
        assert_eq!(words[&8][0].effect, Effect::Exchange(0, 5));
        assert!(words.values().all(|history| check(history, 0).is_ok()));
        assert!(parse("0 7 q 1 2 3 4 5\n").is_err());
    }
}

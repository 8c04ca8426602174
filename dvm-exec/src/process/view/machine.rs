//! The one big machine as a program sees it in /sys and /proc.
//!
//! Owns the texts. Must not read files: it is given those of the hosts.

use std::collections::BTreeSet;

/// /proc/cpuinfo of the whole: the first block of each host's text as often as the host has processors, numbered on. Each
/// host is a package of cores with one thread; flags are those that all hosts have, without the `masked` ones.
#[must_use]
pub fn cpu_info(hosts: &[(String, u32)], masked: &[String]) -> String {
    let blocks: Vec<&str> = hosts.iter().map(|(text, _)| text.split("\n\n").next().unwrap_or("")).collect();
    if blocks.first().is_none_or(|block| !block.starts_with("processor")) {
        return hosts.first().map(|(text, _)| text.clone()).unwrap_or_default();
    }
    let flags = common_flags(&blocks, masked);
    let mut text = String::new();
    let mut number = 0;
    for (package, (block, (_, processors))) in blocks.iter().zip(hosts).enumerate() {
        for core in 0..*processors {
            for line in block.lines() {
                let name = line.split(':').next().unwrap_or("");
                match name.trim_end() {
                    "processor" | "apicid" | "initial apicid" => push_line(&mut text, &format!("{name}: {number}")),
                    "core id" => push_line(&mut text, &format!("{name}: {core}")),
                    "physical id" => push_line(&mut text, &format!("{name}: {package}")),
                    "siblings" | "cpu cores" => push_line(&mut text, &format!("{name}: {processors}")),
                    "flags" => push_line(&mut text, &format!("{name}: {flags}")),
                    _ => push_line(&mut text, line),
                }
            }
            text.push('\n');
            number += 1;
        }
    }
    text
}

/// Flags of the first block that all others have, too.
fn common_flags(blocks: &[&str], masked: &[String]) -> String {
    let flags = |block: &&str| -> Vec<String> {
        let line = block.lines().find(|line| line.starts_with("flags")).unwrap_or("");
        line.split_once(':').map_or("", |(_, flags)| flags).split_ascii_whitespace().map(str::to_owned).collect()
    };
    let mut all = blocks.iter().map(flags);
    let first = all.next().unwrap_or_default();
    let others: Vec<BTreeSet<String>> = all.map(|flags| flags.into_iter().collect()).collect();
    let is_common = |flag: &&String| !masked.contains(flag) && others.iter().all(|other| other.contains(*flag));
    first.iter().filter(is_common).map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// /proc/stat of the whole: a line for each processor of each host and their sum; everything else is the first host's.
/// Each host has as many lines as processors a job may use there: its own come round again, or the first are taken.
#[must_use]
pub fn stat(hosts: &[(String, u32)]) -> String {
    let Some((own, _)) = hosts.first() else { return String::new() };
    let rows: Vec<Vec<u64>> = hosts.iter().flat_map(|(text, processors)| processor_rows(text, *processors)).collect();
    let Some(columns) = rows.iter().map(Vec::len).max() else { return own.clone() };
    let sum = |column: usize| rows.iter().filter_map(|row| row.get(column)).fold(0_u64, |sum, value| sum.wrapping_add(*value));
    let mut text = String::new();
    push_line(&mut text, &format!("cpu  {}", join(&(0..columns).map(sum).collect::<Vec<_>>())));
    for (number, row) in rows.iter().enumerate() {
        push_line(&mut text, &format!("cpu{number} {}", join(row)));
    }
    own.lines().filter(|line| !line.starts_with("cpu")).for_each(|line| push_line(&mut text, line));
    text
}

fn processor_rows(text: &str, processors: u32) -> Vec<Vec<u64>> {
    let is_processor = |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let rows: Vec<Vec<u64>> = text.lines().filter(is_processor).map(numbers).collect();
    rows.iter().cycle().take(processors as usize).cloned().collect()
}

/// /proc/meminfo of the whole: the first host's lines, each the sum over all hosts.
#[must_use]
pub fn memory_info(hosts: &[String]) -> String {
    let mut text = String::new();
    for line in hosts.first().map_or("", String::as_str).lines() {
        let Some((name, own)) = line.split_once(':') else {
            push_line(&mut text, line);
            continue;
        };
        // Addresses the kernel could give out and the size of a page are no memory: equal on all hosts.
        let is_sum = !matches!(name, "VmallocTotal" | "Hugepagesize");
        let sum = hosts.iter().filter_map(|host| memory_field(host, name)).fold(0_u64, u64::saturating_add);
        match own.trim().strip_suffix(" kB") {
            Some(_) if is_sum => push_line(&mut text, &format!("{:<16}{sum:>8} kB", format!("{name}:"))),
            None if is_sum => push_line(&mut text, &format!("{:<16}{sum:>8}", format!("{name}:"))),
            _ => push_line(&mut text, line),
        }
    }
    text
}

/// A number of /proc/meminfo.
#[must_use]
pub fn memory_field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// `/sys/devices/system/node/node0/meminfo` of the whole; `own` is the root's, `memory` [`memory_info`] of all.
#[must_use]
pub fn node_memory_info(own: &str, memory: &str) -> String {
    let mut text = String::new();
    for line in own.lines() {
        let Some((name, rest)) = line.strip_prefix("Node 0 ").and_then(|line| line.split_once(':')) else {
            push_line(&mut text, line);
            continue;
        };
        let value = match name {
            "MemUsed" => {
                Some(memory_field(memory, "MemTotal").unwrap_or(0).saturating_sub(memory_field(memory, "MemFree").unwrap_or(0)))
            }
            _ => memory_field(memory, name),
        };
        match (value, rest.trim().strip_suffix(" kB")) {
            (Some(value), Some(_)) => push_line(&mut text, &format!("Node 0 {:<16}{value:>8} kB", format!("{name}:"))),
            (Some(value), None) => push_line(&mut text, &format!("Node 0 {:<16}{value:>8}", format!("{name}:"))),
            (None, _) => push_line(&mut text, line),
        }
    }
    text
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// The numbers after a line's first word.
fn numbers(line: &str) -> Vec<u64> {
    line.split_ascii_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect()
}

fn join(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::read_to_string;

    fn hosts(texts: &[(&str, u32)]) -> Vec<(String, u32)> {
        texts.iter().map(|(text, processors)| ((*text).to_owned(), *processors)).collect()
    }

    #[test]
    fn processors_of_all_hosts_are_numbered_on() {
        let one = "processor\t: 0\nmodel name\t: X: Y\nphysical id\t: 3\ncore id\t\t: 3\ncpu cores\t: 2\nflags\t\t: fpu a b\n\nprocessor\t: 1\n\n";
        let two = "processor\t: 0\nmodel name\t: Z\nphysical id\t: 0\ncore id\t\t: 0\ncpu cores\t: 8\nflags\t\t: fpu b c\n\n";
        let block = |number, name, package, core, cores| {
            format!(
                "processor\t: {number}\nmodel name\t: {name}\nphysical id\t: {package}\ncore id\t\t: {core}\ncpu cores\t: {cores}\nflags\t\t: b\n\n"
            )
        };
        let expected = [block(0, "X: Y", 0, 0, 1), block(1, "Z", 1, 0, 2), block(2, "Z", 1, 1, 2)].concat();
        assert_eq!(cpu_info(&hosts(&[(one, 1), (two, 2)]), &["fpu".to_owned()]), expected);
        assert_eq!(cpu_info(&hosts(&[("odd", 3)]), &[]), "odd");
    }

    #[test]
    fn times_are_listed_and_summed() {
        let one = "cpu  3 5\ncpu0 1 2\ncpu1 2 3\nintr 7\nctxt 8\n";
        let two = "cpu  9 9\ncpu0 4 5\n";
        assert_eq!(stat(&hosts(&[(one, 1), (two, 2)])), "cpu  9 12\ncpu0 1 2\ncpu1 4 5\ncpu2 4 5\nintr 7\nctxt 8\n");
        assert_eq!(stat(&hosts(&[("intr 7\n", 3)])), "intr 7\n");
    }

    #[test]
    fn memory_is_summed() {
        let one =
            "MemTotal:        1024 kB\nHugePages_Total:       1\nHugepagesize:       2048 kB\nVmallocTotal:   34359738367 kB\n";
        let two = "MemTotal:        1000 kB\nHugePages_Total:       4\nHugepagesize:       2048 kB\n";
        let expected = "MemTotal:           2024 kB\nHugePages_Total:       5\nHugepagesize:       2048 kB\nVmallocTotal:   34359738367 kB\n";
        let all = memory_info(&[one.to_owned(), two.to_owned()]);
        assert_eq!(all, expected);
        let node = "Node 0 MemTotal:       9 kB\nNode 0 MemUsed:       9 kB\nNode 0 Other:       9 kB\n";
        let expected = "Node 0 MemTotal:           2024 kB\nNode 0 MemUsed:            2024 kB\nNode 0 Other:       9 kB\n";
        assert_eq!(node_memory_info(node, &all), expected);
    }

    /// One host alone sees its own kernel's words, line by line.
    #[test]
    fn this_kernel_s_fields_stay() {
        let names =
            |text: &str| text.lines().map(|line| line.split([':', ' ']).next().unwrap_or("").to_owned()).collect::<Vec<_>>();
        let memory = read_to_string("/proc/meminfo").unwrap();
        assert_eq!(names(&memory_info(std::slice::from_ref(&memory))), names(&memory));
        assert_eq!(memory_field(&memory_info(std::slice::from_ref(&memory)), "MemTotal"), memory_field(&memory, "MemTotal"));
        let times = read_to_string("/proc/stat").unwrap();
        let processors = times.lines().filter(|line| line.starts_with("cpu")).count() as u32 - 1;
        assert_eq!(names(&stat(&[(times.clone(), processors)])), names(&times));
        let processor = read_to_string("/proc/cpuinfo").unwrap();
        assert_eq!(names(&cpu_info(&[(processor.clone(), processors)], &[])), names(&processor));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(cpu[0-9]? [0-9 ]{0,40}\n|[a-z]+: [0-9]{0,30} kB\n|processor\t: 0\n\n?|.{0,20}\n){0,8}", count in 0u32..70) {
            let hosts = [(text.clone(), count), (text.clone(), 1)];
            drop((cpu_info(&hosts, &[]), stat(&hosts), memory_info(&[text.clone(), text.clone()]), node_memory_info(&text, &text)));
        }
    }
}

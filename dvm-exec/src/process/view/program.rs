//! What /proc/self says of the program: its memory, threads and arguments, not those of the husk around it.
//!
//! Owns the texts. Must not ask other hosts: it is given what they said.

use super::cpuset::CpuSet;
use crate::sys::user::{self, BadAddress};
use std::fmt::Write;
use std::ops::Range;

/// Entries of argv, envp and the auxiliary vector that are looked at.
const WORDS_MAX: u64 = 1 << 20;
const PAGE_KIB: u64 = 4;

/// What the loader put on the program's stack.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The first stack pointer.
    pub stack_pointer: u64,
    /// Where the arguments' strings are.
    pub arguments: Range<u64>,
    /// Where the environment's strings are.
    pub environment: Range<u64>,
    /// The auxiliary vector.
    pub auxiliary: Vec<u8>,
}

impl Image {
    /// Reads what lies above `stack_pointer` before the program has run.
    ///
    /// # Errors
    /// When nothing lies there.
    pub fn read(stack_pointer: u64) -> Result<Self, BadAddress> {
        let count = user::read_u64(stack_pointer)?;
        let first_argument = user::read_u64(stack_pointer + 8)?;
        let mut at = stack_pointer + 8 + (count + 1) * 8;
        let first_variable = user::read_u64(at)?;
        let end = at + WORDS_MAX * 8;
        while at < end && user::read_u64(at)? != 0 {
            at += 8;
        }
        at += 8;
        let (mut auxiliary, mut strings_end) = (Vec::new(), 0);
        while at < end {
            let pair = user::read_vec(at, 16)?;
            let (key, value) = (user::read_u64(at)?, user::read_u64(at + 8)?);
            auxiliary.extend(pair);
            if key == libc::AT_EXECFN {
                strings_end = value;
            }
            if key == libc::AT_NULL {
                break;
            }
            at += 16;
        }
        let environment = if first_variable == 0 { strings_end..strings_end } else { first_variable..strings_end };
        let arguments = if count == 0 { environment.start..environment.start } else { first_argument..environment.start };
        Ok(Self { stack_pointer, arguments, environment, auxiliary })
    }

    /// The strings of a range as they are now: programs write over them to change their title.
    pub fn strings(range: &Range<u64>) -> Vec<u8> {
        user::read_vec(range.start, (range.end - range.start) as usize).unwrap_or_default()
    }
}

/// Sums over the areas of a maps text, in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// All areas.
    pub all: u64,
    /// Private and writable ones, without the stack.
    pub data: u64,
    /// The stack.
    pub stack: u64,
    /// Code of the program's file.
    pub code: u64,
    /// Code of other files.
    pub libraries: u64,
    /// First and last address of the program's code.
    pub code_range: (u64, u64),
}

impl Totals {
    /// Those of `maps`, where `executable` is the program's file.
    #[must_use]
    pub fn of(maps: &str, executable: &str) -> Self {
        let mut totals = Self::default();
        for line in maps.lines() {
            let Some((range, rights, name)) = area(line) else { continue };
            let kib = (range.end - range.start) / 1024;
            totals.all += kib;
            if name == "[stack]" {
                totals.stack += kib;
            } else if rights.contains('x') && name == executable {
                let first = if totals.code == 0 { range.start } else { totals.code_range.0 };
                totals.code_range = (first, range.end);
                totals.code += kib;
            } else if rights.contains('x') && name.starts_with('/') {
                totals.libraries += kib;
            } else if rights.contains('w') && rights.ends_with('p') {
                totals.data += kib;
            }
        }
        totals
    }
}

/// Range, rights and name of a line of maps.
fn area(line: &str) -> Option<(Range<u64>, &str, &str)> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
    let rights = words.next()?;
    let name = line.find('/').or_else(|| line.find('[')).map_or("", |at| &line[at..]);
    (range.start <= range.end).then_some((range, rights, name))
}

/// What takes the place of the husk's own figures.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Threads of the program.
    pub threads: usize,
    /// Of its areas.
    pub totals: Totals,
    /// KiB of its pages on all hosts.
    pub resident_kib: u64,
    /// Processors the thread wishes to run on, or all.
    pub allowed: CpuSet,
    /// Processors of all hosts.
    pub processors: u32,
    /// Signals the program ignores.
    pub ignored: u64,
    /// Signals it catches.
    pub caught: u64,
    /// Clock ticks in user mode and in the kernel.
    pub ticks: (u64, u64),
    /// The processor it ran on last.
    pub processor: u64,
    /// What was on its stack at the start.
    pub image: Image,
}

/// `status`, from the kernel's text of the husk.
#[must_use]
pub fn status(own: &str, facts: &Facts) -> String {
    let Facts { totals, resident_kib, .. } = facts;
    let kib = |value: u64| format!("{value:>8} kB");
    let mut text = String::new();
    for line in own.lines() {
        let name = line.split(':').next().unwrap_or("");
        let value = match name {
            "Threads" => facts.threads.to_string(),
            "VmPeak" | "VmSize" => kib(totals.all),
            "VmHWM" | "VmRSS" | "RssAnon" => kib(*resident_kib),
            "RssFile" | "RssShmem" => kib(0),
            "VmData" => kib(totals.data),
            "VmStk" => kib(totals.stack),
            "VmExe" => kib(totals.code),
            "VmLib" => kib(totals.libraries),
            "SigIgn" => format!("{:016x}", facts.ignored),
            "SigCgt" => format!("{:016x}", facts.caught),
            "Cpus_allowed" => facts.allowed.mask(facts.processors),
            "Cpus_allowed_list" => facts.allowed.list(),
            "Mems_allowed" => "1".to_owned(),
            "Mems_allowed_list" => "0".to_owned(),
            _ => {
                push(&mut text, format_args!("{line}\n"));
                continue;
            }
        };
        push(&mut text, format_args!("{name}:\t{value}\n"));
    }
    text
}

/// `stat` of the process or a thread, from the kernel's text. Field numbers are those of proc(5).
#[must_use]
pub fn stat(own: &str, facts: &Facts) -> String {
    const AFTER_NAME: usize = 3;
    let Some((head, rest)) = own.rsplit_once(") ") else { return own.to_owned() };
    let mut fields: Vec<String> = rest.split_ascii_whitespace().map(str::to_owned).collect();
    let Facts { totals, image, .. } = facts;
    let changes = [
        (14, facts.ticks.0),
        (15, facts.ticks.1),
        (20, facts.threads as u64),
        (23, totals.all * 1024),
        (24, facts.resident_kib / PAGE_KIB),
        (26, totals.code_range.0),
        (27, totals.code_range.1),
        (28, image.stack_pointer),
        (39, facts.processor),
        (48, image.arguments.start),
        (49, image.arguments.end),
        (50, image.environment.start),
        (51, image.environment.end),
    ];
    for (number, value) in changes {
        if let Some(field) = fields.get_mut(number - AFTER_NAME) {
            *field = value.to_string();
        }
    }
    format!("{head}) {}\n", fields.join(" "))
}

/// `statm`.
#[must_use]
pub fn pages(facts: &Facts) -> String {
    let Totals { all, data, stack, code, .. } = facts.totals;
    let [all, resident, code, data] = [all, facts.resident_kib, code, data + stack].map(|kib| kib / PAGE_KIB);
    format!("{all} {resident} 0 {code} 0 {data} 0\n")
}

/// `smaps`: each line of maps with its figures; `resident` says how many KiB of a range are here.
#[must_use]
pub fn smaps(maps: &str, resident: impl Fn(&Range<u64>) -> u64) -> String {
    let mut text = String::new();
    for line in maps.lines() {
        let Some((range, rights, _)) = area(line) else { continue };
        let kib = resident(&range);
        push(&mut text, format_args!("{line}\n"));
        push_figures(&mut text, Some((range.end - range.start) / 1024), kib);
        push(&mut text, format_args!("THPeligible:           0\nVmFlags:"));
        for (right, flag) in [('r', "rd"), ('w', "wr"), ('x', "ex"), ('s', "sh")] {
            if rights.contains(right) {
                push(&mut text, format_args!(" {flag}"));
            }
        }
        push(&mut text, format_args!(" mr mw me \n"));
    }
    text
}

/// `smaps_rollup`.
#[must_use]
pub fn smaps_rollup(maps: &str, resident: impl Fn(&Range<u64>) -> u64) -> String {
    let ranges: Vec<Range<u64>> = maps.lines().filter_map(|line| Some(area(line)?.0)).collect();
    let (first, last) = (ranges.first().map_or(0, |range| range.start), ranges.last().map_or(0, |range| range.end));
    let head = format!("{first:08x}-{last:08x} ---p 00000000 00:00 0 ");
    let mut text = format!("{head:<73}[rollup]\n");
    push_figures(&mut text, None, ranges.iter().map(resident).sum());
    text
}

/// All pages count as private and dirty: which host shares them is not the program's affair.
fn push_figures(text: &mut String, size_kib: Option<u64>, resident_kib: u64) {
    const NAMES: [&str; 16] = [
        "Shared_Clean",
        "Shared_Dirty",
        "Private_Clean",
        "Private_Dirty",
        "Referenced",
        "Anonymous",
        "KSM",
        "LazyFree",
        "AnonHugePages",
        "ShmemPmdMapped",
        "FilePmdMapped",
        "Shared_Hugetlb",
        "Private_Hugetlb",
        "Swap",
        "SwapPss",
        "Locked",
    ];
    let mut field = |name: &str, kib: u64| push(text, format_args!("{:<16}{kib:>8} kB\n", format!("{name}:")));
    if let Some(size) = size_kib {
        [("Size", size), ("KernelPageSize", PAGE_KIB), ("MMUPageSize", PAGE_KIB)]
            .into_iter()
            .for_each(|(name, kib)| field(name, kib));
    }
    let shares: &[&str] = if size_kib.is_some() {
        &["Rss", "Pss", "Pss_Dirty"]
    } else {
        &["Rss", "Pss", "Pss_Dirty", "Pss_Anon", "Pss_File", "Pss_Shmem"]
    };
    for name in shares {
        field(name, if matches!(*name, "Pss_File" | "Pss_Shmem") { 0 } else { resident_kib });
    }
    for name in NAMES {
        field(name, if matches!(name, "Private_Dirty" | "Referenced" | "Anonymous") { resident_kib } else { 0 });
    }
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("writing to a String does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::read_to_string;

    const MAPS: &str = "\
00400000-00402000 r-xp 00000000 08:01 7                                  /bin/prog
00402000-00403000 rw-p 00000000 00:00 0 
00500000-00504000 rw-p 00000000 00:00 0                                  [heap]
10000000-10001000 r-xp 00000000 08:01 9                                  /lib/libx.so
20000000-20010000 rw-p 00000000 00:00 0                                  [stack]
";

    fn facts() -> Facts {
        Facts {
            threads: 5,
            totals: Totals::of(MAPS, "/bin/prog"),
            resident_kib: 40,
            allowed: CpuSet::of(0..6),
            processors: 6,
            caught: 3,
            ticks: (11, 12),
            ..Facts::default()
        }
    }

    fn names(text: &str) -> Vec<&str> {
        text.lines().map(|line| line.split(':').next().unwrap_or("")).collect()
    }

    #[test]
    fn areas_are_summed() {
        let expected = Totals { all: 96, data: 20, stack: 64, code: 8, libraries: 4, code_range: (0x40_0000, 0x40_2000) };
        assert_eq!(Totals::of(MAPS, "/bin/prog"), expected);
        assert_eq!(pages(&facts()), "24 10 0 2 0 21 0\n");
    }

    /// The same fields in the same order as this kernel's.
    #[test]
    fn this_kernel_s_fields_stay() {
        let own = read_to_string("/proc/self/status").unwrap();
        let text = status(&own, &facts());
        assert_eq!(names(&text), names(&own));
        for line in
            ["Threads:\t5", "VmSize:\t      96 kB", "VmRSS:\t      40 kB", "Cpus_allowed_list:\t0-5", "SigCgt:\t0000000000000003"]
        {
            assert!(text.lines().any(|found| found == line), "{line} is not in {text}");
        }
        let own = read_to_string("/proc/self/stat").unwrap();
        let text = stat(&own, &facts());
        let fields: Vec<&str> = text.rsplit_once(") ").unwrap().1.split_ascii_whitespace().collect();
        assert_eq!(fields.len(), own.rsplit_once(") ").unwrap().1.split_ascii_whitespace().count());
        assert_eq!((fields[14 - 3], fields[20 - 3], fields[24 - 3]), ("11", "5", "10"));
    }

    #[test]
    fn smaps_has_this_kernel_s_fields() {
        let block = |text: &str| -> Vec<String> {
            let lines = text.lines().skip(1).take_while(|line| line.split(' ').next().is_some_and(|word| word.ends_with(':')));
            let known = lines.filter(|line| !line.starts_with("ProtectionKey"));
            known.map(|line| line.split(':').next().unwrap().to_owned()).collect()
        };
        let own = read_to_string("/proc/self/smaps").unwrap();
        assert_eq!(block(&smaps(MAPS, |_| 4)), block(&own));
        let own = read_to_string("/proc/self/smaps_rollup").unwrap();
        let text = smaps_rollup(MAPS, |_| 4);
        assert_eq!(block(&text), block(&own));
        assert!(text.contains("Rss:                  20 kB\n"), "{text}");
        assert_eq!(smaps(MAPS, |_| 0).lines().filter(|line| line.contains('-') && !line.contains(':')).count(), 0);
    }

    #[test]
    fn no_maps_panic() {
        for text in ["", "x", "1-", "5-1 rw-p", "1-2", "g-2 r", "[stack]"] {
            assert_eq!(Totals::of(text, "").all, 0, "{text}");
            drop(smaps(text, |_| 0));
        }
    }
}

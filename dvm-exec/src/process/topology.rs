//! The one big machine as a program sees it in /sys and /proc.
//!
//! Owns the texts and which paths have them. Must not read files: it is given the host's own text where it needs it.

/// A path that is not answered by the host's file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpecialPath {
    /// `/sys/devices/system/cpu/{online,possible,present}`: [`cpu_list`].
    CpuList,
    /// `/proc/cpuinfo`: [`cpu_info`].
    CpuInfo,
    /// `/proc/stat`: [`stat`].
    Stat,
    /// `/proc/meminfo`: [`memory_info`].
    MemoryInfo,
    /// `/proc/self/exe`: the program's real path.
    Executable,
    /// `/proc/self/maps`: the address space's text.
    Maps,
    /// `/proc/self/mem` and others that would show the husk: refuse with EACCES.
    Hidden,
}

/// Recognises an absolute path. `pid` is the program's process id: `/proc/<pid>/` and `/proc/thread-self/` are its own, too.
#[must_use]
pub fn recognise(path: &[u8], pid: u32) -> Option<SpecialPath> {
    match path {
        b"/sys/devices/system/cpu/online" | b"/sys/devices/system/cpu/possible" | b"/sys/devices/system/cpu/present" => {
            return Some(SpecialPath::CpuList);
        }
        b"/proc/cpuinfo" => return Some(SpecialPath::CpuInfo),
        b"/proc/stat" => return Some(SpecialPath::Stat),
        b"/proc/meminfo" => return Some(SpecialPath::MemoryInfo),
        _ => {}
    }
    match own_entry(path, pid)? {
        b"exe" => Some(SpecialPath::Executable),
        b"maps" => Some(SpecialPath::Maps),
        b"mem" | b"smaps" | b"smaps_rollup" | b"numa_maps" | b"pagemap" | b"map_files" | b"auxv" | b"clear_refs" => {
            Some(SpecialPath::Hidden)
        }
        entry if entry.starts_with(b"map_files/") => Some(SpecialPath::Hidden),
        _ => None,
    }
}

/// What follows the program's own directory in /proc, or one of its threads'.
fn own_entry(path: &[u8], pid: u32) -> Option<&[u8]> {
    let (owner, mut entry) = split(path.strip_prefix(b"/proc/")?)?;
    let is_own = owner == b"self" || owner == b"thread-self" || owner == pid.to_string().as_bytes();
    if let Some((b"task", rest)) = split(entry) {
        let (thread, rest) = split(rest)?;
        if !thread.iter().all(u8::is_ascii_digit) {
            return None;
        }
        entry = rest;
    }
    is_own.then_some(entry)
}

/// The first name of a relative path, and the rest after one or more slashes.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = path.iter().position(|&byte| byte == b'/')?;
    let rest = &path[at..];
    let names = rest.iter().position(|&byte| byte != b'/')?;
    Some((&path[..at], &rest[names..]))
}

/// `0-N\n`.
#[must_use]
pub fn cpu_list(processors: u32) -> String {
    match processors {
        0 | 1 => "0\n".to_owned(),
        _ => format!("0-{}\n", processors - 1),
    }
}

/// /proc/cpuinfo of the whole: the host's first block, renumbered.
#[must_use]
pub fn cpu_info(host_text: &str, processors: u32) -> String {
    let block = host_text.split("\n\n").next().unwrap_or("");
    if !block.starts_with("processor") {
        return host_text.to_owned();
    }
    let mut text = String::new();
    for processor in 0..processors.max(1) {
        for line in block.lines() {
            let name = line.split(':').next().unwrap_or("");
            match name.trim_end() {
                "processor" | "core id" | "apicid" | "initial apicid" => push_line(&mut text, &format!("{name}: {processor}")),
                "siblings" | "cpu cores" => push_line(&mut text, &format!("{name}: {}", processors.max(1))),
                _ => push_line(&mut text, line),
            }
        }
        text.push('\n');
    }
    text
}

/// /proc/stat of the whole: the host's text with a line for each processor. The host's own lines come round again, and
/// the first line is their sum, so that tools which compare them find no nonsense.
#[must_use]
pub fn stat(host_text: &str, processors: u32) -> String {
    let is_processor = |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let rows: Vec<Vec<u64>> = host_text.lines().filter(is_processor).map(numbers).collect();
    let Some(columns) = rows.iter().map(Vec::len).max() else { return host_text.to_owned() };
    let all: Vec<&Vec<u64>> = rows.iter().cycle().take(processors.max(1) as usize).collect();
    let sum = |column: usize| all.iter().filter_map(|row| row.get(column)).fold(0_u64, |sum, value| sum.wrapping_add(*value));
    let mut text = String::new();
    push_line(&mut text, &format!("cpu  {}", join(&(0..columns).map(sum).collect::<Vec<_>>())));
    for (number, row) in all.iter().enumerate() {
        push_line(&mut text, &format!("cpu{number} {}", join(row)));
    }
    host_text.lines().filter(|line| !line.starts_with("cpu")).for_each(|line| push_line(&mut text, line));
    text
}

/// /proc/meminfo of the whole: sums of the host's text `hosts` times over.
#[must_use]
pub fn memory_info(host_text: &str, hosts: u32) -> String {
    let mut text = String::new();
    for line in host_text.lines() {
        let scaled = line.strip_suffix(" kB").and_then(|line| {
            let (name, value) = line.split_once(':')?;
            // Addresses the kernel could give out, not memory: equal on all hosts.
            let factor = if name == "VmallocTotal" { 1 } else { u64::from(hosts.max(1)) };
            let value: u64 = value.trim().parse().ok()?;
            Some(format!("{:<16}{:>8} kB", format!("{name}:"), value.saturating_mul(factor)))
        });
        push_line(&mut text, scaled.as_deref().unwrap_or(line));
    }
    text
}

/// What sched_getaffinity writes for a buffer of `buffer_bytes`; its length is the call's result.
///
/// # Errors
/// EINVAL if the buffer is too small or no multiple of 8.
pub fn affinity_mask(processors: u32, buffer_bytes: u64) -> Result<Vec<u8>, i32> {
    let processors = processors.max(1) as usize;
    let bytes = processors.div_ceil(64) * 8;
    if !buffer_bytes.is_multiple_of(8) || buffer_bytes < bytes as u64 {
        return Err(libc::EINVAL);
    }
    let mut mask = vec![0; bytes];
    for processor in 0..processors {
        mask[processor / 8] |= 1 << (processor % 8);
    }
    Ok(mask)
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

    #[test]
    fn paths_are_recognised() {
        let check = |path: &str, expected| assert_eq!(recognise(path.as_bytes(), 42), expected, "{path}");
        check("/sys/devices/system/cpu/online", Some(SpecialPath::CpuList));
        check("/sys/devices/system/cpu/present", Some(SpecialPath::CpuList));
        check("/sys/devices/system/cpu/cpu0/online", None);
        check("/proc/cpuinfo", Some(SpecialPath::CpuInfo));
        check("/proc/stat", Some(SpecialPath::Stat));
        check("/proc/meminfo", Some(SpecialPath::MemoryInfo));
        check("/proc/self/exe", Some(SpecialPath::Executable));
        check("/proc/self//maps", Some(SpecialPath::Maps));
        check("/proc/42/maps", Some(SpecialPath::Maps));
        check("/proc/43/maps", None);
        check("/proc/thread-self/exe", Some(SpecialPath::Executable));
        check("/proc/self/task/77/maps", Some(SpecialPath::Maps));
        check("/proc/self/task/x/maps", None);
        check("/proc/self/mem", Some(SpecialPath::Hidden));
        check("/proc/self/map_files/1-2", Some(SpecialPath::Hidden));
        check("/proc/self/stat", None);
        check("/proc/self", None);
        check("/proc/", None);
        check("proc/stat", None);
        check("", None);
    }

    #[test]
    fn processors_are_listed() {
        assert_eq!(cpu_list(1), "0\n");
        assert_eq!(cpu_list(12), "0-11\n");
        let host = "processor\t: 0\nmodel name\t: X: Y\ncore id\t\t: 3\ncpu cores\t: 2\nflags\t\t: fpu\n\nprocessor\t: 1\n\n";
        let block = |n| format!("processor\t: {n}\nmodel name\t: X: Y\ncore id\t\t: {n}\ncpu cores\t: 3\nflags\t\t: fpu\n\n");
        assert_eq!(cpu_info(host, 3), [block(0), block(1), block(2)].concat());
        assert_eq!(cpu_info("odd", 3), "odd");
    }

    #[test]
    fn times_are_repeated_and_summed() {
        let host = "cpu  3 5\ncpu0 1 2\ncpu1 2 3\nintr 7\nctxt 8\n";
        assert_eq!(stat(host, 3), "cpu  4 7\ncpu0 1 2\ncpu1 2 3\ncpu2 1 2\nintr 7\nctxt 8\n");
        assert_eq!(stat("intr 7\n", 3), "intr 7\n");
    }

    #[test]
    fn memory_is_summed() {
        let host = "MemTotal:        1024 kB\nHugePages_Total:       0\nVmallocTotal:   34359738367 kB\n";
        let expected = "MemTotal:           3072 kB\nHugePages_Total:       0\nVmallocTotal:   34359738367 kB\n";
        assert_eq!(memory_info(host, 3), expected);
    }

    #[test]
    fn affinity_is_that_of_all() {
        assert_eq!(affinity_mask(3, 8), Ok(vec![7, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(affinity_mask(65, 128).map(|mask| (mask.len(), mask[8])), Ok((16, 1)));
        assert_eq!(affinity_mask(65, 8), Err(libc::EINVAL));
        assert_eq!(affinity_mask(3, 12), Err(libc::EINVAL));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(cpu[0-9]? [0-9 ]{0,40}\n|[a-z]+: [0-9]{0,30} kB\n|processor\t: 0\n\n?|.{0,20}\n){0,8}", count in 0u32..70) {
            drop((cpu_info(&text, count), stat(&text, count), memory_info(&text, count)));
            let _special = recognise(text.as_bytes(), count);
        }
    }
}

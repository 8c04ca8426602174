//! Which paths the host's own files do not answer.
//!
//! Owns the names under /proc, /sys and /dev that show the whole machine or the program, and what each stands for. Must not
//! open anything.

use super::affinity::range_of;
use super::cpuset::CpuSet;

const PROCESSORS: &[u8] = b"/sys/devices/system/cpu";
const NODES: &[u8] = b"/sys/devices/system/node";
const CONTROL_GROUPS: &[u8] = b"/sys/fs/cgroup";
/// The index of the cache that the processors of a package share.
const SHARED_CACHE_FIRST: u32 = 3;

/// What a path stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A file with a text of ours.
    Text(Text),
    /// The file of this host at `Found::host_path`.
    Host,
    /// /proc/self/exe.
    Executable,
    /// One of the program's open files under /proc/self/fd.
    Descriptor,
    /// Not to be opened: it would show the husk.
    Denied,
    /// Not there.
    Absent,
}

/// A text of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Text {
    /// This one.
    Known(String),
    /// /proc/cpuinfo.
    CpuInfo,
    /// /proc/stat.
    Times,
    /// /proc/meminfo.
    Memory,
    /// meminfo of the only node.
    NodeMemory,
    /// /proc/self/maps.
    Maps,
    /// /proc/self/smaps.
    Smaps,
    /// /proc/self/smaps_rollup.
    SmapsRollup,
    /// status of a thread.
    Status(i32),
    /// stat of the process.
    Stat,
    /// stat of a thread.
    ThreadStat(i32),
    /// /proc/self/statm.
    Pages,
    /// /proc/self/cmdline.
    Arguments,
    /// /proc/self/environ.
    Environment,
    /// /proc/self/auxv.
    Auxiliary,
}

/// A path that is not the host's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it stands for.
    pub entry: Entry,
    /// The path on this host that has its attributes.
    pub host_path: Vec<u8>,
}

/// A directory whose list is not the host's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directory {
    /// One with an entry `cpuN` for each processor.
    Processors,
    /// /sys/devices/system/node.
    Nodes,
    /// /proc/self/task.
    Threads,
    /// /proc/self/fd, /proc/self/fdinfo.
    Descriptors,
}

/// What recognition must know of the job.
pub struct Scene<'a> {
    /// The program's process number.
    pub pid: i32,
    /// The calling thread's.
    pub tid: i32,
    /// Processors of each host, the root first.
    pub processors: &'a [u32],
    /// Processors that this host's /sys has.
    pub host_processors: u32,
    /// Whether a number is a thread of the program.
    pub is_thread: &'a dyn Fn(i32) -> bool,
    /// Whether a descriptor is the husk's.
    pub is_hidden: &'a dyn Fn(u64) -> bool,
}

/// An absolute path without empty names, `.` and `..`.
#[must_use]
pub fn normalise(path: &[u8]) -> Vec<u8> {
    let mut names: Vec<&[u8]> = Vec::new();
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    let joined = names.join(&b'/');
    [b"/".as_slice(), &joined].concat()
}

/// Whether a path may concern us at all: a quick look.
#[must_use]
pub fn is_candidate(path: &[u8]) -> bool {
    [b"/proc/".as_slice(), b"/sys/devices/system/", b"/sys/fs/cgroup/", b"/dev/fd/"].iter().any(|start| path.starts_with(start))
}

impl Scene<'_> {
    /// What a normalised path stands for; `None`: what it does on this host.
    pub fn recognise(&self, path: &[u8]) -> Option<Found> {
        if let Some(rest) = below(path, PROCESSORS) {
            return self.processor_entry(path, rest);
        }
        if let Some(rest) = below(path, NODES) {
            return self.node_entry(path, rest);
        }
        if below(path, CONTROL_GROUPS).is_some() {
            return self.group_entry(path);
        }
        if let Some(number) = below(path, b"/dev/fd") {
            return self.descriptor(path, number);
        }
        match path {
            b"/proc/cpuinfo" => return Some(found(path, Entry::Text(Text::CpuInfo))),
            b"/proc/stat" => return Some(found(path, Entry::Text(Text::Times))),
            b"/proc/meminfo" => return Some(found(path, Entry::Text(Text::Memory))),
            _ => {}
        }
        self.own_entry(path)
    }

    /// The kind of directory at a path, as the kernel names it.
    pub fn directory(&self, path: &[u8]) -> Option<Directory> {
        match path {
            PROCESSORS | b"/sys/devices/system/node/node0" => return Some(Directory::Processors),
            NODES => return Some(Directory::Nodes),
            _ => {}
        }
        match self.own(path)? {
            (None, b"task") => Some(Directory::Threads),
            (_, b"fd" | b"fdinfo") => Some(Directory::Descriptors),
            _ => None,
        }
    }

    /// Processors of all hosts.
    pub fn all(&self) -> u32 {
        self.processors.iter().sum()
    }

    fn processor_entry(&self, path: &[u8], rest: &[u8]) -> Option<Found> {
        let all = || CpuSet::of(0..self.all());
        let (name, rest) = split(rest);
        let text = match (name, rest) {
            (b"online" | b"possible" | b"present" | b"enabled", b"") => format!("{}\n", all().list()),
            (b"offline", b"") => "\n".to_owned(),
            _ => return self.one_processor(path, name, rest),
        };
        Some(found(path, Entry::Text(Text::Known(text))))
    }

    /// `cpuN/...`: a processor of this host stands for each; where it differs, its place among all is told.
    fn one_processor(&self, path: &[u8], name: &[u8], rest: &[u8]) -> Option<Found> {
        let number = numbered(name, b"cpu")?;
        if number >= self.all() {
            return Some(found(path, Entry::Absent));
        }
        let model = number % self.host_processors.max(1);
        let below = if rest.is_empty() { Vec::new() } else { [b"/", rest].concat() };
        let host_path = [PROCESSORS, format!("/cpu{model}").as_bytes(), &below].concat();
        let entry = self.topology(number, rest).map_or(Entry::Host, |text| Entry::Text(Text::Known(text + "\n")));
        let is_same = host_path == path && entry == Entry::Host;
        (!is_same).then_some(Found { entry, host_path })
    }

    fn topology(&self, number: u32, rest: &[u8]) -> Option<String> {
        let host = (0..self.processors.len()).find(|host| range_of(self.processors, *host).contains(&number))?;
        let package = range_of(self.processors, host);
        let (first, last) = split(rest);
        if first == b"topology" {
            return Some(match last {
                b"core_id" => (number - package.start).to_string(),
                b"physical_package_id" => host.to_string(),
                b"thread_siblings" | b"core_cpus" | b"cluster_cpus" => CpuSet::of(number..number + 1).mask(self.all()),
                b"thread_siblings_list" | b"core_cpus_list" | b"cluster_cpus_list" => number.to_string(),
                b"core_siblings" | b"package_cpus" | b"die_cpus" => CpuSet::of(package).mask(self.all()),
                b"core_siblings_list" | b"package_cpus_list" | b"die_cpus_list" => CpuSet::of(package).list(),
                _ => return None,
            });
        }
        let (index, file) = split(last);
        let index = numbered(index, b"index").filter(|_| first == b"cache")?;
        let is_shared = index >= SHARED_CACHE_FIRST;
        let sharers = if is_shared { package } else { number..number + 1 };
        match file {
            b"shared_cpu_list" => Some(CpuSet::of(sharers).list()),
            b"shared_cpu_map" => Some(CpuSet::of(sharers).mask(self.all())),
            b"id" => Some(if is_shared { host.to_string() } else { number.to_string() }),
            _ => None,
        }
    }

    fn node_entry(&self, path: &[u8], rest: &[u8]) -> Option<Found> {
        let (name, rest) = split(rest);
        let known = |text: String| Some(found(path, Entry::Text(Text::Known(text + "\n"))));
        if rest.is_empty() && matches!(name, b"online" | b"possible" | b"has_cpu" | b"has_memory" | b"has_normal_memory") {
            return known("0".to_owned());
        }
        if numbered(name, b"node")? > 0 {
            return Some(found(path, Entry::Absent));
        }
        let all = CpuSet::of(0..self.all());
        match rest {
            b"cpulist" => known(all.list()),
            b"cpumap" => known(all.mask(self.all())),
            b"distance" => known("10".to_owned()),
            b"meminfo" => Some(found(path, Entry::Text(Text::NodeMemory))),
            _ => {
                let (name, rest) = split(rest);
                self.one_processor(path, name, rest)
            }
        }
    }

    /// A control group limits what the root's host gives; the other hosts give more.
    fn group_entry(&self, path: &[u8]) -> Option<Found> {
        let name = path.rsplit(|byte| *byte == b'/').next()?;
        let text = match name {
            b"cpu.max" => "max 100000\n".to_owned(),
            b"cpu.cfs_quota_us" => "-1\n".to_owned(),
            b"cpuset.cpus.effective" | b"cpuset.effective_cpus" | b"cpuset.cpus" => {
                format!("{}\n", CpuSet::of(0..self.all()).list())
            }
            b"cpuset.mems.effective" | b"cpuset.effective_mems" | b"cpuset.mems" => "0\n".to_owned(),
            _ => return None,
        };
        Some(found(path, Entry::Text(Text::Known(text))))
    }

    /// The thread named, if one is, and what follows the program's own directory in /proc.
    fn own<'a>(&self, path: &'a [u8]) -> Option<(Option<i32>, &'a [u8])> {
        let (owner, rest) = split(below(path, b"/proc")?);
        let mut thread = None;
        match owner {
            b"self" => {}
            b"thread-self" => thread = Some(self.tid),
            owner => {
                let number = number(owner)? as i32;
                if number != self.pid && !(self.is_thread)(number) {
                    return None;
                }
            }
        }
        let (first, inner) = split(rest);
        if first == b"task" && !inner.is_empty() {
            let (name, rest) = split(inner);
            return Some((Some(number(name)? as i32), rest));
        }
        Some((thread, rest))
    }

    fn own_entry(&self, path: &[u8]) -> Option<Found> {
        let (thread, rest) = self.own(path)?;
        if thread.is_some_and(|tid| !(self.is_thread)(tid)) {
            return Some(found(path, Entry::Absent));
        }
        let (first, inner) = split(rest);
        let text = match (first, inner) {
            (b"exe", b"") => return Some(found(path, Entry::Executable)),
            (b"fd" | b"fdinfo", number) if !number.is_empty() => return self.descriptor(path, number),
            (b"map_files", _) | (b"mem" | b"numa_maps" | b"pagemap" | b"clear_refs", b"") => {
                return Some(found(path, Entry::Denied));
            }
            (b"maps", b"") => Text::Maps,
            (b"smaps", b"") => Text::Smaps,
            (b"smaps_rollup", b"") => Text::SmapsRollup,
            (b"status", b"") => Text::Status(thread.unwrap_or(self.pid)),
            (b"stat", b"") => thread.map_or(Text::Stat, Text::ThreadStat),
            (b"statm", b"") => Text::Pages,
            (b"cmdline", b"") => Text::Arguments,
            (b"environ", b"") => Text::Environment,
            (b"auxv", b"") => Text::Auxiliary,
            _ => return None,
        };
        Some(found(path, Entry::Text(text)))
    }

    fn descriptor(&self, path: &[u8], name: &[u8]) -> Option<Found> {
        let number = number(split(name).0)?;
        let is_hidden = (self.is_hidden)(u64::from(number));
        Some(found(path, if is_hidden { Entry::Absent } else { Entry::Descriptor }))
    }
}

fn found(path: &[u8], entry: Entry) -> Found {
    Found { entry, host_path: path.to_vec() }
}

/// What follows a directory and a slash.
fn below<'a>(path: &'a [u8], directory: &[u8]) -> Option<&'a [u8]> {
    path.strip_prefix(directory)?.strip_prefix(b"/")
}

/// The first name of a relative path, and the rest.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().position(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (path, b""),
    }
}

fn number(name: &[u8]) -> Option<u32> {
    let is_plain = !name.is_empty() && name.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(name).ok().filter(|_| is_plain)?.parse().ok()
}

/// N of a name such as `cpuN`.
pub(super) fn numbered(name: &[u8], kind: &[u8]) -> Option<u32> {
    number(name.strip_prefix(kind)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn on_scene<T>(run: impl FnOnce(&Scene<'_>) -> T) -> T {
        let (is_thread, is_hidden) = (|tid| tid == 42 || tid == 77, |descriptor| descriptor >= 1000);
        let processors = [2, 2, 1];
        run(&Scene {
            pid: 42,
            tid: 77,
            processors: &processors,
            host_processors: 2,
            is_thread: &is_thread,
            is_hidden: &is_hidden,
        })
    }

    fn entry(path: &str) -> Option<Entry> {
        on_scene(|scene| scene.recognise(&normalise(path.as_bytes())).map(|found| found.entry))
    }

    #[test]
    fn processors_of_all_hosts_are_there() {
        let check = |path: &str, text: &str| {
            let path = format!("/sys/devices/system/cpu/{path}");
            assert_eq!(entry(&path), Some(Entry::Text(Text::Known(format!("{text}\n")))), "{path}");
        };
        check("online", "0-4");
        check("possible", "0-4");
        check("offline", "");
        check("cpu3/topology/core_id", "1");
        check("cpu4/topology/physical_package_id", "2");
        check("cpu3/topology/core_cpus", "08");
        check("cpu3/topology/core_siblings_list", "2-3");
        check("cpu2/cache/index0/shared_cpu_list", "2");
        check("cpu2/cache/index3/shared_cpu_map", "0c");
        let host = |path: &str| on_scene(|scene| scene.recognise(path.as_bytes()));
        let model = Found { entry: Entry::Host, host_path: b"/sys/devices/system/cpu/cpu1/cache".to_vec() };
        assert_eq!(host("/sys/devices/system/cpu/cpu3/cache"), Some(model));
        assert_eq!(host("/sys/devices/system/cpu/cpu1/cache"), None);
        assert_eq!(entry("/sys/devices/system/cpu/cpu5/cache"), Some(Entry::Absent));
        assert_eq!(entry("/sys/devices/system/cpu/smt/active"), None);
    }

    #[test]
    fn there_is_one_node_and_no_group_s_limit() {
        let known = |text: &str| Some(Entry::Text(Text::Known(format!("{text}\n"))));
        assert_eq!(entry("/sys/devices/system/node/online"), known("0"));
        assert_eq!(entry("/sys/devices/system/node/node0/cpulist"), known("0-4"));
        assert_eq!(entry("/sys/devices/system/node/node0/cpu4/topology/core_id"), known("0"));
        assert_eq!(entry("/sys/devices/system/node/node1/cpulist"), Some(Entry::Absent));
        assert_eq!(entry("/sys/fs/cgroup/a/cpu.max"), known("max 100000"));
        assert_eq!(entry("/sys/fs/cgroup/cpuset/a/cpuset.effective_cpus"), known("0-4"));
        assert_eq!(entry("/sys/fs/cgroup/a/memory.max"), None);
    }

    #[test]
    fn the_program_s_own_files_are_recognised() {
        let check = |path: &str, expected| assert_eq!(entry(path), expected, "{path}");
        let text = |text| Some(Entry::Text(text));
        check("/proc/cpuinfo", text(Text::CpuInfo));
        check("/proc/self/exe", Some(Entry::Executable));
        check("/proc/self//./maps", text(Text::Maps));
        check("/proc/42/../42/maps", text(Text::Maps));
        check("/proc/77/maps", text(Text::Maps));
        check("/proc/43/maps", None);
        check("/proc/self/status", text(Text::Status(42)));
        check("/proc/thread-self/status", text(Text::Status(77)));
        check("/proc/self/stat", text(Text::Stat));
        check("/proc/self/task/77/stat", text(Text::ThreadStat(77)));
        check("/proc/self/task/78/stat", Some(Entry::Absent));
        check("/proc/self/task/78", Some(Entry::Absent));
        check("/proc/self/task/77", None);
        check("/proc/self/task", None);
        check("/proc/self/task/x/maps", None);
        check("/proc/self/mem", Some(Entry::Denied));
        check("/proc/self/map_files/1-2", Some(Entry::Denied));
        check("/proc/self/fd/3", Some(Entry::Descriptor));
        check("/proc/self/fd/1003", Some(Entry::Absent));
        check("/dev/fd/1003", Some(Entry::Absent));
        check("/proc/self/comm", None);
        check("/proc/self", None);
        check("/proc", None);
        check("/etc/passwd", None);
    }

    #[test]
    fn lists_are_recognised() {
        let check = |path: &str, expected| assert_eq!(on_scene(|scene| scene.directory(path.as_bytes())), expected, "{path}");
        check("/sys/devices/system/cpu", Some(Directory::Processors));
        check("/sys/devices/system/node", Some(Directory::Nodes));
        check("/proc/42/task", Some(Directory::Threads));
        check("/proc/42/fd", Some(Directory::Descriptors));
        check("/proc/42/task/77/fd", Some(Directory::Descriptors));
        check("/proc/43/fd", None);
        check("/home", None);
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "(/(proc|sys|self|42|task|cpu[0-9]{0,12}|node0|fd|devices|system|\\.\\.|cache|index3|[0-9]{1,12})){0,9}") {
            let path = normalise(path.as_bytes());
            prop_assert!(path.starts_with(b"/"));
            drop(on_scene(|scene| (scene.recognise(&path), scene.directory(&path))));
        }
    }
}

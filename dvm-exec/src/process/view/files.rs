//! Calls with paths that show the whole machine or the program: opened, looked at, read as links.
//!
//! Owns what such a call answers. Must not know the texts.

use super::super::calls::{self, NamedPath, PathUse};
use super::super::descriptors;
use super::super::husk::Root;
use super::super::limits;
use super::super::say;
use super::super::thread::current;
use super::super::wire::Question;
use super::cpuset::CpuSet;
use super::paths::{self, Entry, Found, Scene, Text};
use super::program::{self, Facts, Image, Totals};
use super::{give, machine, usage};
use crate::sys::{call, cpu, mapping, user};
use std::ffi::{CString, OsStr};
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::OnceLock;

const PATH_BYTES_MAX: usize = 4096;
/// Areas whose resident pages are counted; larger ones count as not resident.
const COUNTED_BYTES_MAX: u64 = 1 << 32;

/// Answers a call that names a path of ours.
pub(super) fn answer(root: &'static Root, number: i64, arguments: &[u64; 6]) -> Option<i64> {
    let named = calls::named_path(number as u64)?;
    let path = user::read_text(arguments[named.path as usize], PATH_BYTES_MAX).ok()?;
    let path = absolute(named.directory.map(|index| arguments[index as usize]), &path)?;
    let found = with_scene(root, None, |scene| scene.recognise(&path))?;
    match (found.entry, named.action) {
        (Entry::Absent, _) => Some(-i64::from(libc::ENOENT)),
        (Entry::Denied, PathUse::Open | PathUse::ReadLink) => {
            // One line for all of a kind, whichever thread's or range's.
            let name = ["map_files", "mem", "numa_maps", "pagemap", "clear_refs"].iter().find(|name| names(&path, name));
            let kind = format!("/proc/self/{}", name.unwrap_or(&"*"));
            say::refused(&kind, "this host's kernel would show the husk, and no page that is elsewhere");
            Some(-i64::from(libc::EACCES))
        }
        (Entry::Denied, PathUse::Look) => None,
        (Entry::Executable, PathUse::ReadLink) => Some(tell_link(&root.executable, number, named, arguments)),
        (Entry::Executable, PathUse::Look) if !follows_links(number, arguments) => None,
        (Entry::Executable, PathUse::Open | PathUse::Look) => Some(instead(number, named, arguments, &root.executable)),
        (Entry::Descriptor, PathUse::ReadLink) => read_descriptor(&found.host_path, number, named, arguments),
        (Entry::Descriptor, PathUse::Open | PathUse::Look) => None,
        (Entry::Text(text), PathUse::Open) => open(root, number, arguments, &path, &Found { entry: Entry::Host, ..found }, &text),
        (Entry::Host | Entry::Text(_), _) if found.host_path == path => None,
        (Entry::Host | Entry::Text(_), _) => Some(instead(number, named, arguments, &found.host_path)),
    }
}

/// Whether a path names the program's own file, as /proc/self/exe does.
pub fn is_own_executable(root: &Root, path: &[u8]) -> bool {
    let found = absolute(None, path).and_then(|path| with_scene(root, None, |scene| scene.recognise(&path)));
    found.is_some_and(|found| found.entry == Entry::Executable)
}

/// Lets `run` look at the job; the calling thread is `tid`, or the program's that runs here.
pub(super) fn with_scene<T>(root: &Root, tid: Option<i32>, run: impl FnOnce(&Scene<'_>) -> T) -> T {
    let processors = super::processors(root);
    let (is_thread, is_hidden) = (|tid| root.tasks.find(tid).is_some(), descriptors::is_hidden);
    let caller = current();
    // A shadow's own number is the one the program sees.
    let tid = tid.or_else(|| caller.as_ref().map(|thread| thread.tid)).unwrap_or_else(cpu::thread_id);
    run(&Scene {
        // A child's is its own.
        pid: caller.map_or(root.pid(), |thread| thread.pid),
        tid,
        processors: &processors,
        host_processors: host_processors(),
        is_thread: &is_thread,
        is_hidden: &is_hidden,
    })
}

/// How many processors this host's /sys shows.
fn host_processors() -> u32 {
    static COUNT: OnceLock<u32> = OnceLock::new();
    *COUNT.get_or_init(|| {
        let entries = std::fs::read_dir("/sys/devices/system/cpu").into_iter().flatten().flatten();
        entries.filter(|entry| paths::numbered(entry.file_name().as_bytes(), b"cpu").is_some()).count().max(1) as u32
    })
}

/// The path of an open file of this process, as the kernel names it.
pub(super) fn path_of(descriptor: u64) -> Option<Vec<u8>> {
    let link = std::fs::read_link(format!("/proc/self/fd/{}", descriptor as u32)).ok()?;
    Some(link.into_os_string().into_vec()).filter(|path| path.starts_with(b"/"))
}

/// The normalised path, if it may concern us.
fn absolute(directory: Option<u64>, path: &[u8]) -> Option<Vec<u8>> {
    let whole = match path.first()? {
        b'/' => path.to_vec(),
        _ => {
            let base = match directory {
                Some(descriptor) if descriptor as i32 != libc::AT_FDCWD => path_of(descriptor)?,
                _ => std::env::current_dir().ok()?.into_os_string().into_vec(),
            };
            [&base, b"/".as_slice(), path].concat()
        }
    };
    Some(paths::normalise(&whole)).filter(|path| paths::is_candidate(path))
}

/// Makes the call on another path.
fn instead(number: i64, named: NamedPath, arguments: &[u64; 6], path: &[u8]) -> i64 {
    let Ok(path) = CString::new(path) else { return -i64::from(libc::ENOENT) };
    let mut changed = *arguments;
    changed[named.path as usize] = path.as_ptr() as u64;
    call::raw(number, &changed)
}

/// Whether a part of a path is this name.
fn names(path: &[u8], name: &str) -> bool {
    path.split(|byte| *byte == b'/').any(|part| part == name.as_bytes())
}

fn follows_links(number: i64, arguments: &[u64; 6]) -> bool {
    let flags = match number {
        libc::SYS_lstat => return false,
        libc::SYS_newfstatat | libc::SYS_faccessat2 => arguments[3],
        libc::SYS_statx => arguments[2],
        _ => 0,
    };
    flags & libc::AT_SYMLINK_NOFOLLOW as u64 == 0
}

fn tell_link(target: &[u8], _number: i64, named: NamedPath, arguments: &[u64; 6]) -> i64 {
    let at = named.path as usize;
    let bytes = (arguments[at + 2] as usize).min(target.len());
    if bytes == 0 {
        return -i64::from(libc::EINVAL);
    }
    give(arguments[at + 1], &target[..bytes], bytes as i64)
}

/// A text of ours is a file without a name; its link says the path that was opened.
fn read_descriptor(path: &[u8], number: i64, named: NamedPath, arguments: &[u64; 6]) -> Option<i64> {
    let link = std::fs::read_link(OsStr::from_bytes(path)).ok()?.into_os_string().into_vec();
    let opened = link.strip_prefix(b"/memfd:")?.strip_suffix(b" (deleted)").filter(|path| path.starts_with(b"/"))?;
    Some(tell_link(opened, number, named, arguments))
}

/// Opens a text of ours; `None` where the kernel refuses by itself or shows the real file: directories, O_PATH.
fn open(root: &'static Root, number: i64, arguments: &[u64; 6], path: &[u8], found: &Found, text: &Text) -> Option<i64> {
    let flags = match number {
        libc::SYS_open => arguments[1],
        libc::SYS_openat2 => user::read_u64(arguments[2]).ok()?,
        _ => arguments[2],
    };
    if flags & (libc::O_PATH | libc::O_DIRECTORY) as u64 != 0 {
        return None;
    }
    if !OsStr::from_bytes(&found.host_path).to_str().is_some_and(|path| std::path::Path::new(path).exists()) {
        return Some(-i64::from(libc::ENOENT));
    }
    if flags & libc::O_ACCMODE as u64 != libc::O_RDONLY as u64 {
        return Some(-i64::from(libc::EACCES));
    }
    let file = {
        let _room = limits::room();
        mapping::file_of_text(path, &bytes_of(root, &found.host_path, text), descriptors::FLOOR)
    };
    Some(match file.and_then(|file| mapping::open_again(&file, flags & libc::O_CLOEXEC as u64 != 0)) {
        Ok(descriptor) => i64::from(descriptor),
        Err(error) => -i64::from(error.raw_os_error().unwrap_or(libc::ENOMEM)),
    })
}

fn bytes_of(root: &'static Root, host_path: &[u8], text: &Text) -> Vec<u8> {
    let own = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let host_own = || std::fs::read_to_string(OsStr::from_bytes(host_path)).unwrap_or_default();
    let maps = || root.space.map().maps_text();
    let with_counts = |texts: Vec<String>| texts.into_iter().zip(super::processors(root)).collect::<Vec<_>>();
    let text = match text {
        Text::Known(text) => text.clone(),
        Text::CpuInfo => {
            machine::cpu_info(&with_counts(usage::texts(root, Question::Processor, &own("/proc/cpuinfo"))), &root.masking.names)
        }
        Text::Times => machine::stat(&with_counts(usage::texts(root, Question::Times, &own("/proc/stat")))),
        Text::Memory => usage::memory_text(root),
        Text::NodeMemory => machine::node_memory_info(&host_own(), &usage::memory_text(root)),
        Text::Maps => maps(),
        Text::Smaps => program::smaps(&maps(), resident_kib),
        Text::SmapsRollup => program::smaps_rollup(&maps(), resident_kib),
        Text::Status(tid) => program::status(&own(&format!("/proc/self/task/{tid}/status")), &facts(root, Some(*tid))),
        Text::Stat => program::stat(&own("/proc/self/stat"), &facts(root, None)),
        Text::ThreadStat(tid) => program::stat(&own(&format!("/proc/self/task/{tid}/stat")), &facts(root, Some(*tid))),
        Text::Pages => program::pages(&facts(root, None)),
        Text::Arguments => return Image::strings(&root.image().arguments),
        Text::Environment => return Image::strings(&root.image().environment),
        Text::Auxiliary => return root.image().auxiliary,
    };
    text.into_bytes()
}

/// What is told of the program, or of one of its threads.
fn facts(root: &'static Root, tid: Option<i32>) -> Facts {
    let used = usage::of_all(root);
    let (ignored, caught) = root.actions.masks();
    let processors: u32 = super::processors(root).iter().sum();
    let task = tid.and_then(|tid| root.tasks.find(tid));
    let per_tick_us = 1_000_000 / cpu::auxiliary(libc::AT_CLKTCK).max(1);
    let [user, system] = used.resources.times_us().map(|us| us / per_tick_us);
    let (mut ticks, mut processor) = ((user, system), 0);
    if let Some(thread) = tid.and_then(|tid| usage::of_thread(root, tid)) {
        ticks = (thread.user_ticks, thread.system_ticks);
        let first = task.as_ref().map_or(0, |task| super::affinity::range_of(&super::processors(root), task.host()).start);
        processor = thread.processor + u64::from(first);
    }
    Facts {
        threads: root.tasks.count(),
        totals: Totals::of(&root.space.map().maps_text(), &String::from_utf8_lossy(&root.executable)),
        resident_kib: used.resident_kib,
        allowed: task.and_then(|task| task.wish()).unwrap_or_else(|| CpuSet::of(0..processors)),
        processors,
        ignored,
        caught,
        ticks,
        processor,
        image: root.image(),
    }
}

/// KiB of a range of the program that are at the root.
fn resident_kib(range: &Range<u64>) -> u64 {
    const PAGE_BYTES: u64 = 4096;
    let bytes = range.end - range.start;
    if bytes > COUNTED_BYTES_MAX {
        return 0;
    }
    let mut pages = vec![0_u8; bytes.div_ceil(PAGE_BYTES) as usize];
    let result = call::raw(libc::SYS_mincore, &[range.start, bytes, pages.as_mut_ptr() as u64, 0, 0, 0]);
    if result < 0 { 0 } else { pages.iter().filter(|page| **page & 1 == 1).count() as u64 * PAGE_BYTES / 1024 }
}

//! execve: of a child, and of the program itself.
//!
//! Owns what the next program finds that the husk had changed, and the choice between a new job and the kernel. Must not load
//! programs.
//!
//! A child's program runs natively: the kernel's execve ends everything of the husk (descriptors are close-on-exec, handlers
//! become default, dispatch is off). The program's own next program runs in a job of its own: this process executes `dvm-exec`
//! again with the same options, so that number, directory, descriptors, mask and ignored signals stay what they are. Files that
//! no husk can load, and what the kernel refuses, are left to the kernel: the errors are its own.

use super::birth::set_death_signal;
use super::child::Child;
use crate::process::husk::{Options, Root};
use crate::process::limits;
use crate::process::signals::Actions;
use crate::process::view::is_own_executable;
use crate::process::{agent, load, preload};
use crate::sys::signal::{Disposition, set_disposition};
use crate::sys::user::{self, BadAddress};
use crate::sys::{call, cpu};
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

const PATH_BYTES_MAX: usize = 4096;
/// Longest single argument, as in the kernel.
const TEXT_BYTES_MAX: usize = 128 * 1024;
/// All arguments and the environment together: a quarter of the stack, as in the kernel.
const TEXTS_BYTES_MAX: usize = (load::STACK_BYTES / 4) as usize;

/// execve or execveat of a child; returns only a negative error.
pub fn in_child(root: &Root, child: &Child, number: i64, arguments: &[u64; 6]) -> i64 {
    set_death_signal(child.seen.death_signal().load(Ordering::Relaxed) as i32);
    let result = natively(root, &child.actions, true, (number, arguments));
    set_death_signal(libc::SIGKILL);
    result
}

/// execve or execveat of a thread of the program; returns only a negative error.
pub fn program(root: &Root, number: i64, arguments: &[u64; 6]) -> i64 {
    if root.space.is_own() {
        return natively(root, &root.actions, false, (number, arguments));
    }
    let (wanted, texts) = match Wanted::read(root, number, arguments) {
        Ok(wanted) => wanted,
        Err(error) => return -i64::from(error),
    };
    let anew = {
        let _room = limits::room();
        wanted.filter(|path| load::is_loadable(path)).and_then(|path| anew(&root.options, path, texts.arguments))
    };
    let Some(anew) = anew else {
        return natively(root, &root.actions, false, (number, arguments));
    };
    root.leave_job();
    let _handed_on = HandedOn::new(root, &root.actions, false);
    let pointers = |texts: &[CString]| texts.iter().map(|text| text.as_ptr() as u64).chain([0]).collect::<Vec<_>>();
    let environment = if root.options.has_page_allocator { preload::without(texts.environment) } else { texts.environment };
    let (arguments, environment) = (pointers(&anew), pointers(&environment));
    let path = c"/proc/self/exe".as_ptr() as u64;
    let result = call::raw(libc::SYS_execve, &[path, arguments.as_ptr() as u64, environment.as_ptr() as u64, 0, 0, 0]);
    crate::process::say::line(&format!("cannot start the next program: error {}", -result));
    cpu::exit(i32::from(crate::exit::Failure::Internal(String::new()).code()))
}

/// Has the kernel execute the file; returns only a negative error.
fn natively(root: &Root, actions: &Actions, is_child: bool, (number, arguments): (i64, &[u64; 6])) -> i64 {
    let _handed_on = HandedOn::new(root, actions, is_child);
    let mut arguments = *arguments;
    let at = usize::from(number == libc::SYS_execveat);
    // What the program takes for its own file.
    let own = is_own_file(root, arguments[at]).then(|| CString::new(root.executable.clone()).ok()).flatten();
    if let Some(own) = &own {
        arguments[at] = own.as_ptr() as u64;
    }
    call::raw(number, &arguments)
}

fn is_own_file(root: &Root, path: u64) -> bool {
    user::read_text(path, PATH_BYTES_MAX).is_ok_and(|path| is_own_executable(root, &path))
}

/// What the husk had changed is as the next program shall find it, until this is dropped.
struct HandedOn {
    limits: Vec<(u32, (u64, u64))>,
    caught: Vec<i32>,
}

impl HandedOn {
    fn new(root: &Root, actions: &Actions, is_child: bool) -> Self {
        let limits = [files_again(root, is_child), if is_child { None } else { stack_again(root) }];
        let caught: Vec<i32> = actions.ignored_but_caught().collect();
        for signal in &caught {
            set_disposition(*signal, Disposition::Ignore).unwrap_or(());
        }
        Self { limits: limits.into_iter().flatten().collect(), caught }
    }
}

impl Drop for HandedOn {
    fn drop(&mut self) {
        for (resource, (soft, hard)) in &self.limits {
            cpu::set_limit(*resource, *soft, *hard).unwrap_or(());
        }
        for signal in &self.caught {
            let own = if *signal == libc::SIGSYS { Disposition::Dispatch } else { Disposition::Catch };
            set_disposition(*signal, own).unwrap_or(());
        }
    }
}

/// Gives the limit of open files the value that the program has set, or else that the user had; says what it was.
fn files_again(root: &Root, is_child: bool) -> Option<(u32, (u64, u64))> {
    let before = root.options.files_limit.0;
    let (soft, hard) = cpu::limit(libc::RLIMIT_NOFILE).ok()?;
    let set = limits::files_set();
    if let Some((soft_set, hard_set)) = set.filter(|_| !is_child) {
        // The kernel's hard one was kept where the husk could raise the soft one.
        let is_set = cpu::set_limit(libc::RLIMIT_NOFILE, soft_set, hard_set).is_ok();
        return is_set.then_some((libc::RLIMIT_NOFILE, (soft, hard)));
    }
    let is_ours = set.is_none() && soft == limits::raised(hard).max(before) && soft != before;
    (is_ours && cpu::set_limit(libc::RLIMIT_NOFILE, before, hard).is_ok()).then_some((libc::RLIMIT_NOFILE, (soft, hard)))
}

/// Gives the stack the limit that the program sees; says what it was.
fn stack_again(root: &Root) -> Option<(u32, (u64, u64))> {
    let former = cpu::limit(libc::RLIMIT_STACK).ok()?;
    let (soft, hard) = *root.stack_limit.lock().unwrap_or_else(PoisonError::into_inner);
    (former != (soft, hard) && cpu::set_limit(libc::RLIMIT_STACK, soft, hard).is_ok()).then_some((libc::RLIMIT_STACK, former))
}

/// Arguments and environment of the next program.
struct Texts {
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

/// The next program as it was asked for.
struct Wanted;

impl Wanted {
    /// Its path, unless only the kernel can follow it, and its texts.
    fn read(root: &Root, number: i64, arguments: &[u64; 6]) -> Result<(Option<PathBuf>, Texts), i32> {
        let [first, second, third, fourth, fifth, _] = *arguments;
        let (directory, path, list, environment, flags) = if number == libc::SYS_execveat {
            (first as i32, second, third, fourth, fifth as i32)
        } else {
            (libc::AT_FDCWD, first, second, third, 0)
        };
        let name = user::read_text(path, PATH_BYTES_MAX).map_err(|BadAddress| libc::EFAULT)?;
        let mut bytes_left = TEXTS_BYTES_MAX;
        let texts =
            Texts { arguments: read_texts(list, &mut bytes_left)?, environment: read_texts(environment, &mut bytes_left)? };
        let path = if is_own_executable(root, &name) {
            Some(PathBuf::from(OsString::from_vec(root.executable.clone())))
        } else {
            find(directory, name, flags)
        };
        Ok((path, texts))
    }
}

/// The path that a directory descriptor and a name mean.
fn find(directory: i32, name: Vec<u8>, flags: i32) -> Option<PathBuf> {
    let is_by_descriptor = name.is_empty() && flags & libc::AT_EMPTY_PATH != 0;
    let name = PathBuf::from(OsString::from_vec(name));
    if flags & !libc::AT_EMPTY_PATH != 0 || (name.as_os_str().is_empty() && !is_by_descriptor) {
        return None;
    }
    if directory == libc::AT_FDCWD || name.is_absolute() {
        return Some(name);
    }
    let opened = std::fs::read_link(format!("/proc/self/fd/{directory}")).ok()?;
    let path = if is_by_descriptor { opened } else { opened.join(name) };
    // A file without a name can be executed, but not opened again.
    path.exists().then_some(path)
}

fn read_texts(list: u64, bytes_left: &mut usize) -> Result<Vec<CString>, i32> {
    let mut texts = Vec::new();
    if list == 0 {
        return Ok(texts);
    }
    loop {
        let address = user::read_u64(list + texts.len() as u64 * 8).map_err(|BadAddress| libc::EFAULT)?;
        if address == 0 {
            return Ok(texts);
        }
        let text = user::read_text(address, TEXT_BYTES_MAX).map_err(|BadAddress| libc::E2BIG)?;
        *bytes_left = bytes_left.checked_sub(text.len() + 1 + size_of::<u64>()).ok_or(libc::E2BIG)?;
        texts.push(CString::new(text).map_err(|_| libc::EFAULT)?);
    }
}

/// The command line by which `dvm-exec` runs the program at `path` with the options of this job.
fn anew(options: &Options, path: PathBuf, arguments: Vec<CString>) -> Option<Vec<CString>> {
    let mut words: Vec<OsString> = vec!["dvm-exec".into()];
    let mut add = |name: &str, value: &std::ffi::OsStr| {
        let mut word = OsString::from(format!("--{name}="));
        word.push(value);
        words.push(word);
    };
    if !options.hosts.is_empty() {
        add("hosts", options.hosts.join(",").as_ref());
    }
    if let Some(placement) = options.placement {
        add("place", placement.to_string().as_ref());
    }
    if let Some(count) = options.threads_per_host {
        add("threads-per-host", count.to_string().as_ref());
    }
    if let Some(file) = &options.stat_json {
        add("stat-json", file.as_os_str());
    }
    if let Some(file) = &options.output {
        add("output", file.as_os_str());
    }
    if !options.is_local_test && !options.is_check {
        add("socket", agent::find_socket(options.socket.as_deref()).ok()?.as_os_str());
    }
    if options.hot_pages > 0 {
        add("hot-pages", options.hot_pages.to_string().as_ref());
    }
    add("image", path.as_os_str());
    let switches = [
        (options.stat, "--stat"),
        (options.has_stages, "--stages"),
        (options.has_page_allocator, "--page-allocator"),
        (options.accepts_unequal, "--unequal-cpus"),
        (options.is_check, "--check"),
        (options.has_strace, "--strace"),
        (options.is_local_test, "--local-test"),
    ];
    words.extend(switches.into_iter().filter(|(is_on, _)| *is_on).map(|(_, word)| word.into()));
    words.push("--".into());
    let words = words.into_iter().map(|word| CString::new(word.into_vec()));
    let mut words: Vec<CString> = words.collect::<Result<_, _>>().ok()?;
    // A program without any argument gets an empty one, as from the kernel.
    let none = arguments.is_empty().then(CString::default);
    words.extend(none.into_iter().chain(arguments));
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::placement::Placement;

    fn options() -> Options {
        Options {
            command: Vec::new(),
            hosts: vec!["a".to_owned(), "b".to_owned()],
            placement: Some(Placement::Block(2)),
            threads_per_host: Some(3),
            stat: true,
            stat_json: None,
            has_stages: false,
            hot_pages: 5,
            has_page_allocator: true,
            socket: Some("/run/dvm/a.sock".into()),
            is_local_test: false,
            is_check: false,
            accepts_unequal: false,
            has_strace: false,
            output: None,
            stack_limit: (0, 0),
            files_limit: (0, 0),
            image: None,
        }
    }

    #[test]
    fn a_job_begins_anew() {
        let words = |arguments: &[&str]| {
            let arguments = arguments.iter().map(|text| CString::new(*text).expect("no zero")).collect();
            let words = anew(&options(), "/bin/x".into(), arguments).expect("words");
            words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        let options = ["dvm-exec", "--hosts=a,b", "--place=block=2", "--threads-per-host=3", "--socket=/run/dvm/a.sock"];
        let rest_of_options = ["--hot-pages=5", "--image=/bin/x", "--stat", "--page-allocator", "--"];
        let expected = |rest: &[&'static str]| [&options, rest_of_options.as_slice(), rest].concat();
        assert_eq!(words(&["-y", "--stat"]), expected(&["-y", "--stat"]));
        assert_eq!(words(&[]), expected(&[""]));
    }

    #[test]
    fn names_and_descriptors() {
        let name = |directory, name: &[u8], flags| find(directory, name.to_vec(), flags);
        assert_eq!(name(libc::AT_FDCWD, b"x/y", 0), Some("x/y".into()));
        assert_eq!(name(-1, b"/bin/sh", 0), Some("/bin/sh".into()));
        assert_eq!(name(-1, b"sh", 0), None, "the kernel says EBADF");
        assert_eq!(name(libc::AT_FDCWD, b"", 0), None, "the kernel says ENOENT");
        assert_eq!(name(libc::AT_FDCWD, b"x", libc::AT_SYMLINK_NOFOLLOW), None);
        let directory = std::fs::File::open("/").expect("a root");
        let raw = std::os::fd::AsRawFd::as_raw_fd(&directory);
        assert_eq!(name(raw, b"proc/self", 0), Some("/proc/self".into()));
        assert_eq!(name(raw, b"", libc::AT_EMPTY_PATH), Some("/".into()));
    }
}

//! Executes a call of the program at the root, on the thread that stands for it there.
//!
//! Owns what the root does differently from its kernel: memory, descriptors of the husk, synthesized files, process end.
//! Must not know whether the caller is the program's own thread or a shadow.

use super::calls::{self, Class};
use super::husk::{Ending, Root};
use super::thread::Task;
use super::topology::{self, SpecialPath};
use super::{descriptors, say};
use crate::sys::{call, mapping, user};
use std::sync::atomic::{AtomicU32, Ordering};

const PATH_BYTES_MAX: usize = 4096;
/// How often a futex call that modifies the word is tried again after its page went away.
const FUTEX_ATTEMPTS_MAX: u32 = 64;

/// Executes call `number`; `flag` keeps it from blocking once a signal waits. Returns the kernel's kind of result.
pub fn execute(root: &'static Root, task: &Task, flag: &AtomicU32, number: i64, arguments: &[u64; 6]) -> i64 {
    match calls::classify(number as u64, arguments) {
        Class::Memory => {
            let value = root.space.call(number, arguments);
            root.sites.note_call(task.tid, number, arguments, value);
            return value;
        }
        Class::Answer(value) => return value,
        Class::Refuse(refusal) => {
            if !refusal.quiet {
                say::refused(&named(number), refusal.reason);
            }
            return -i64::from(refusal.errno);
        }
        Class::Local | Class::Delegate | Class::Marshal(_) | Class::Thread | Class::Signal => {}
    }
    if let Some(value) = guard_descriptors(number, arguments) {
        return value;
    }
    if let Some(value) = special_path(root, number, arguments) {
        return value;
    }
    match number {
        libc::SYS_set_tid_address => {
            task.clear_tid.store(arguments[0], Ordering::Relaxed);
            i64::from(task.tid)
        }
        libc::SYS_set_robust_list => {
            task.robust.store(arguments[0], Ordering::Relaxed);
            0
        }
        libc::SYS_rt_sigaction => root.actions.call(arguments),
        libc::SYS_exit_group => root.finish(Ending::Exit(arguments[0] as i32)),
        libc::SYS_futex => futex(flag, arguments),
        libc::SYS_prlimit64 | libc::SYS_getrlimit => limit(root, number, arguments),
        _ => call::raw_unless(flag, number, arguments),
    }
}

fn named(number: i64) -> String {
    match calls::name(number as u64) {
        "unknown" => format!("system call {number}"),
        name => name.to_owned(),
    }
}

/// Futex calls run in this kernel on the root's copy of the word. Those by which the kernel itself changes the word fail
/// with EFAULT while its page is away, so it is fetched and the call repeated.
fn futex(flag: &AtomicU32, arguments: &[u64; 6]) -> i64 {
    for _ in 0..FUTEX_ATTEMPTS_MAX {
        let result = call::raw_unless(flag, libc::SYS_futex, arguments);
        let command = arguments[1] as i32 & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);
        if result != -i64::from(libc::EFAULT) || command == libc::FUTEX_WAIT || command == libc::FUTEX_WAKE {
            return result;
        }
        let word = if command == libc::FUTEX_WAKE_OP { arguments[4] } else { arguments[0] };
        // Exchanging zero for zero writes without changing anything.
        if user::exchange_u32(word, 0, 0).is_err() {
            return result;
        }
    }
    -i64::from(libc::EFAULT)
}

fn guard_descriptors(number: i64, arguments: &[u64; 6]) -> Option<i64> {
    let bad = Some(-i64::from(libc::EBADF));
    match number {
        libc::SYS_close if descriptors::is_hidden(arguments[0]) => bad,
        libc::SYS_dup2 | libc::SYS_dup3 if descriptors::is_hidden(arguments[0]) || descriptors::is_hidden(arguments[1]) => bad,
        libc::SYS_dup | libc::SYS_fcntl | libc::SYS_read | libc::SYS_write if descriptors::is_hidden(arguments[0]) => bad,
        libc::SYS_close_range => Some(descriptors::close_range(arguments[0], arguments[1], arguments[2])),
        _ => None,
    }
}

fn limit(root: &Root, number: i64, arguments: &[u64; 6]) -> i64 {
    let (resource, new, old) =
        if number == libc::SYS_getrlimit { (arguments[0], 0, arguments[1]) } else { (arguments[1], arguments[2], arguments[3]) };
    let own = number == libc::SYS_getrlimit || arguments[0] == 0 || arguments[0] == root.pid as u64;
    if !own || resource != u64::from(libc::RLIMIT_STACK) || new != 0 {
        return call::raw(number, arguments);
    }
    let (soft, hard) = root.stack_limit;
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&soft.to_le_bytes());
    bytes[8..].copy_from_slice(&hard.to_le_bytes());
    if user::write(old, &bytes).is_err() { -i64::from(libc::EFAULT) } else { 0 }
}

/// Calls on paths that show one big machine, or the program instead of its husk.
fn special_path(root: &'static Root, number: i64, arguments: &[u64; 6]) -> Option<i64> {
    let opened = calls::opened_path(number as u64)?;
    let path = user::read_text(arguments[opened.path as usize], PATH_BYTES_MAX).ok()?;
    let special = topology::recognise(&path, root.pid as u32)?;
    if special == SpecialPath::Executable {
        return Some(on_executable(root, number, arguments, opened));
    }
    if special == SpecialPath::Hidden {
        return Some(-i64::from(libc::EACCES));
    }
    if !opened.opens {
        return None;
    }
    let host_text = || std::fs::read_to_string(String::from_utf8_lossy(&path).as_ref()).unwrap_or_default();
    let processors = root.processors;
    let text = match special {
        SpecialPath::CpuList => topology::cpu_list(processors),
        SpecialPath::CpuInfo => topology::cpu_info(&host_text(), processors),
        SpecialPath::Stat => topology::stat(&host_text(), processors),
        SpecialPath::MemoryInfo => topology::memory_info(&host_text(), root.hosts.len() as u32),
        SpecialPath::Maps => root.space.map().maps_text(),
        SpecialPath::Executable | SpecialPath::Hidden => return None,
    };
    let flags = if number == libc::SYS_open { arguments[1] } else { arguments[2] };
    let is_cloexec = flags & libc::O_CLOEXEC as u64 != 0;
    Some(match mapping::file_of_text(text.as_bytes(), is_cloexec) {
        Ok(descriptor) => i64::from(descriptor),
        Err(error) => -i64::from(error.raw_os_error().unwrap_or(libc::ENOMEM)),
    })
}

fn on_executable(root: &Root, number: i64, arguments: &[u64; 6], opened: calls::OpenedPath) -> i64 {
    if opened.opens {
        let Ok(path) = std::ffi::CString::new(root.executable.clone()) else { return -i64::from(libc::ENOENT) };
        let mut changed = *arguments;
        changed[opened.path as usize] = path.as_ptr() as u64;
        return call::raw(number, &changed);
    }
    let at = opened.path as usize;
    let bytes = (arguments[at + 2] as usize).min(root.executable.len());
    if user::write(arguments[at + 1], &root.executable[..bytes]).is_err() {
        return -i64::from(libc::EFAULT);
    }
    bytes as i64
}

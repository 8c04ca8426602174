//! Executes a call of the program at the root, on the thread that stands for it there.
//!
//! Owns what the root does differently from its kernel: memory, descriptors of the husk, process end.
//! Must not know whether the caller is the program's own thread or a shadow.

use super::calls::{self, Class};
use super::children::{replace, whole};
use super::husk::{Ending, Root};
use super::thread::Task;
use super::{barrier, cputimers, descriptors, inherit, limits, say, view};
use crate::sys::{call, user};
use std::sync::atomic::{AtomicU32, Ordering};

/// How often a futex call that modifies the word is tried again after its page went away.
const FUTEX_ATTEMPTS_MAX: u32 = 1024;
/// Bytes of struct robust_list_head.
const ROBUST_HEAD_BYTES: u64 = 24;

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
    if let Some(value) = cputimers::answer(root, task, number, arguments) {
        return value;
    }
    if let Some(value) = view::answer(root, task, number, arguments) {
        return value;
    }
    match number {
        libc::SYS_set_tid_address => {
            task.clear_tid.store(arguments[0], Ordering::Relaxed);
            i64::from(task.tid)
        }
        libc::SYS_set_robust_list if arguments[1] != ROBUST_HEAD_BYTES => -i64::from(libc::EINVAL),
        libc::SYS_set_robust_list => {
            task.robust.store(arguments[0], Ordering::Relaxed);
            0
        }
        libc::SYS_get_robust_list => robust_list(root, task, arguments),
        libc::SYS_membarrier => barrier::call(root, arguments),
        libc::SYS_rt_sigaction => root.actions.call(arguments),
        libc::SYS_prctl if arguments[0] == libc::PR_SET_PDEATHSIG as u64 => {
            whole::await_mother();
            call::raw(number, arguments)
        }
        libc::SYS_execve | libc::SYS_execveat => replace::program(root, number, arguments),
        libc::SYS_exit_group => root.finish(Ending::Exit(arguments[0] as i32)),
        libc::SYS_futex => inherit::call(root, task, flag, arguments).unwrap_or_else(|| futex(flag, arguments)),
        libc::SYS_prlimit64 | libc::SYS_getrlimit | libc::SYS_setrlimit => limits::call(root, number, arguments),
        _ => call::raw_unless(flag, number, arguments),
    }
}

fn robust_list(root: &Root, task: &Task, arguments: &[u64; 6]) -> i64 {
    let [tid, head, bytes, ..] = *arguments;
    let list = |task: &Task| task.robust.load(Ordering::Relaxed);
    let found = if tid == 0 { Some(list(task)) } else { root.tasks.find(tid as i32).as_deref().map(list) };
    let Some(list) = found else { return -i64::from(libc::ESRCH) };
    let stored = user::write(bytes, &ROBUST_HEAD_BYTES.to_le_bytes()).and_then(|()| user::write(head, &list.to_le_bytes()));
    stored.map_or(-i64::from(libc::EFAULT), |()| 0)
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

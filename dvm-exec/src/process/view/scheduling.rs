//! Calls that change how a thread is scheduled: the thread that runs the program is meant, on whatever host it is.
//!
//! Owns how the change gets there. Must not know policies.

use super::super::husk::Root;
use super::super::service;
use super::super::thread::Task;
use super::super::wire::Question;
use crate::sys::call;
use crate::sys::cpu::Scheduling;

/// The shadow is changed first, so that the kernel judges and remembers; then the thread itself.
pub(super) fn answer(root: &Root, task: &Task, number: i64, arguments: &[u64; 6]) -> Option<i64> {
    let tid = match number {
        libc::SYS_setpriority if arguments[0] == u64::from(libc::PRIO_PROCESS) => arguments[1] as i32,
        libc::SYS_setpriority => return None,
        _ => arguments[0] as i32,
    };
    let tid = if tid == 0 { task.tid } else { tid };
    let host = root.tasks.find(tid)?.host();
    let member = service::of_host(root, host)?;
    let result = call::raw(number, arguments);
    if result < 0 {
        return Some(result);
    }
    let told = service::ask(std::slice::from_ref(member), Question::Schedule(tid, Scheduling::of(tid)));
    let told = told.first().and_then(|told| told.first_chunk()).map_or(0, |word| i64::from_le_bytes(*word));
    Some(if told < 0 { told } else { result })
}

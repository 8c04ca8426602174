//! What the program has used on all hosts, and what all hosts have: getrusage, times, CPU clocks, sysinfo.
//!
//! Owns the sums. Must not know how a host is asked.

use super::super::ask::{ResourceUsage, ThreadUsage, Usage};
use super::super::husk::Root;
use super::super::limits;
use super::super::service;
use super::super::wire::Question;
use super::{give, machine};
use crate::sys::{call, cpu};

/// A clock that measures CPU time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CpuClock {
    /// Of one thread, else of a process.
    pub is_thread: bool,
    /// Its number, 0 for the caller's own.
    pub of: i32,
    /// What is counted: [`CpuClock::RUN`], [`CpuClock::USER_TICKS`] or [`CpuClock::ALL_TICKS`].
    pub kind: i32,
}

impl CpuClock {
    /// The time it ran, to the nanosecond.
    pub const RUN: i32 = 2;
    /// The time in user mode, by ticks.
    pub const USER_TICKS: i32 = 1;
    /// All of the time, by ticks.
    pub const ALL_TICKS: i32 = 0;

    /// What `clock` measures, if that is CPU time.
    #[must_use]
    pub fn of(clock: u64) -> Option<Self> {
        const DEVICE: i32 = 3;
        match clock as i32 {
            libc::CLOCK_PROCESS_CPUTIME_ID => Some(Self { is_thread: false, of: 0, kind: Self::RUN }),
            libc::CLOCK_THREAD_CPUTIME_ID => Some(Self { is_thread: true, of: 0, kind: Self::RUN }),
            clock if clock < 0 && clock & 3 != DEVICE => {
                Some(Self { is_thread: clock & 4 != 0, of: !(clock >> 3), kind: clock & 3 })
            }
            _ => None,
        }
    }
}

/// What the husks of all hosts have used.
pub fn of_all(root: &Root) -> Usage {
    let mut usage = Usage::of_this_process();
    for told in service::ask(root.members(), Question::Usage) {
        usage.add(&Usage::from_bytes(&told));
    }
    usage
}

/// What a thread of the program has used on the host where it runs; `None` for no thread of the program.
pub fn of_thread(root: &Root, tid: i32) -> Option<ThreadUsage> {
    let task = root.tasks.find(tid)?;
    let Some(member) = service::of_host(root, task.host()) else {
        return Some(ThreadUsage::of(tid).since(&task.used_before()));
    };
    let told = service::ask(std::slice::from_ref(member), Question::Thread(tid));
    Some(ThreadUsage::from_bytes(told.first().map_or(&[], Vec::as_slice)))
}

pub(super) fn answer(root: &Root, number: i64, arguments: &[u64; 6]) -> Option<i64> {
    if root.hosts.len() == 1 {
        return None;
    }
    let _room = limits::room();
    match number {
        libc::SYS_getrusage if arguments[0] as i32 == libc::RUSAGE_SELF => {
            Some(give(arguments[1], &of_all(root).resources.to_bytes(), 0))
        }
        libc::SYS_times => Some(times(root, arguments[0])),
        libc::SYS_sysinfo => Some(system_information(root, arguments[0])),
        libc::SYS_clock_gettime => clock(root, arguments),
        _ => None,
    }
}

fn clock(root: &Root, arguments: &[u64; 6]) -> Option<i64> {
    let used_ns = used_ns(root, CpuClock::of(arguments[0])?)?;
    let time = [used_ns / 1_000_000_000, used_ns % 1_000_000_000];
    Some(give(arguments[1], &time.map(u64::to_le_bytes).concat(), 0))
}

/// What a clock of the program or of one of its threads shows; `None` for others.
pub fn used_ns(root: &Root, clock: CpuClock) -> Option<u64> {
    let is_own = clock.of == 0 || clock.of == root.pid();
    Some(match clock {
        CpuClock { is_thread: true, of, kind } => {
            let usage = of_thread(root, of)?;
            by_kind(kind, usage.cpu_ns, usage.user_ticks * tick_us(), usage.system_ticks * tick_us())
        }
        CpuClock { kind, .. } if is_own => {
            let usage = of_all(root);
            let [user, system] = usage.resources.times_us();
            by_kind(kind, usage.cpu_ns, user, system)
        }
        CpuClock { .. } => return None,
    })
}

fn by_kind(kind: i32, run_ns: u64, user_us: u64, system_us: u64) -> u64 {
    match kind {
        CpuClock::ALL_TICKS => (user_us + system_us) * 1_000,
        CpuClock::USER_TICKS => user_us * 1_000,
        _ => run_ns,
    }
}

/// Microseconds of a clock tick.
fn tick_us() -> u64 {
    1_000_000 / cpu::auxiliary(libc::AT_CLKTCK).max(1)
}

fn times(root: &Root, address: u64) -> i64 {
    let ticks = call::raw(libc::SYS_times, &[0; 6]);
    if address == 0 {
        return ticks;
    }
    let [own, children] = [of_all(root).resources, ResourceUsage::of_kernel(libc::RUSAGE_CHILDREN)].map(|usage| usage.times_us());
    let bytes = [own, children].concat().into_iter().flat_map(|us| (us / tick_us()).to_le_bytes()).collect::<Vec<_>>();
    give(address, &bytes, ticks)
}

/// sysinfo, its memory that of all hosts.
fn system_information(root: &Root, address: u64) -> i64 {
    const WORDS: usize = 14;
    /// Where struct sysinfo has its mem_unit.
    const UNIT_WORD: usize = 13;
    const FIELDS: [(usize, &str); 6] =
        [(4, "MemTotal"), (5, "MemFree"), (6, "Shmem"), (7, "Buffers"), (8, "SwapTotal"), (9, "SwapFree")];
    let mut words = [0_u64; WORDS];
    let result = call::raw(libc::SYS_sysinfo, &[words.as_mut_ptr() as u64, 0, 0, 0, 0, 0]);
    if result < 0 {
        return result;
    }
    let unit = (words[UNIT_WORD] & 0xffff_ffff).max(1);
    let all = memory_text(root);
    for (word, name) in FIELDS {
        if let Some(kib) = machine::memory_field(&all, name) {
            words[word] = kib.saturating_mul(1024) / unit;
        }
    }
    give(address, &words.map(u64::to_le_bytes).concat(), result)
}

/// /proc/meminfo of all hosts together; a host that does not answer counts as this one.
pub fn memory_text(root: &Root) -> String {
    let own = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    machine::memory_info(&texts(root, Question::Memory, &own))
}

/// A text of each host, `own` first and for those who do not answer or cannot be asked.
pub fn texts(root: &Root, question: Question, own: &str) -> Vec<String> {
    let told = service::ask(root.members(), question).into_iter().map(|told| match told.is_empty() {
        true => own.to_owned(),
        false => String::from_utf8_lossy(&told).into_owned(),
    });
    let others = told.chain(std::iter::repeat(own.to_owned()));
    std::iter::once(own.to_owned()).chain(others).take(root.hosts.len().max(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_told_apart() {
        let check = |clock: i32, expected| assert_eq!(CpuClock::of(clock as u64), expected, "{clock}");
        let run = |is_thread, of| Some(CpuClock { is_thread, of, kind: CpuClock::RUN });
        check(2, run(false, 0));
        check(3, run(true, 0));
        check(0, None);
        check(11, None);
        check(!1234 << 3 | 2, run(false, 1234));
        check(!1234 << 3 | 6, run(true, 1234));
        check(!0 << 3 | 6, run(true, 0));
        check(!5 << 3 | 3, None);
    }
}

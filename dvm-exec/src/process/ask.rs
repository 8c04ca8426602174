//! What hosts tell the root about themselves while the program runs: their /proc, and what the program has used there.
//!
//! Owns the member's answers and their layout. Must not know what the program is shown.

use super::memberhusk::Carrier;
use super::wire::{Question, TOLD_BYTES_MAX};
use crate::sys::{call, cpu};
use std::fs::read_to_string;

const USAGE_WORDS: usize = 18;

/// struct rusage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceUsage(pub [u64; USAGE_WORDS]);

/// What a husk has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What getrusage says of it.
    pub resources: ResourceUsage,
    /// CPU time in nanoseconds.
    pub cpu_ns: u64,
    /// KiB of the program's pages mapped there, as RssShmem has it.
    pub resident_kib: u64,
}

/// What a kernel thread has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadUsage {
    /// CPU time in nanoseconds.
    pub cpu_ns: u64,
    /// Clock ticks in user mode.
    pub user_ticks: u64,
    /// Clock ticks in the kernel.
    pub system_ticks: u64,
    /// The processor it ran on last.
    pub processor: u64,
}

/// The answer to `question` on this host, where `carrier` finds the kernel thread of a thread of the program.
pub fn answer(question: Question, carrier: impl Fn(i32) -> Option<Carrier>) -> Vec<u8> {
    let lines = |path: &str, is_wanted: fn(&str) -> bool| {
        let text = read_to_string(path).unwrap_or_default();
        text.lines().take_while(|line| is_wanted(line)).flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect()
    };
    let mut answer: Vec<u8> = match question {
        Question::Memory => lines("/proc/meminfo", |_| true),
        Question::Processor => lines("/proc/cpuinfo", |line| !line.is_empty()),
        Question::Times => lines("/proc/stat", |line| line.starts_with("cpu")),
        Question::Usage => Usage::of_this_process().to_bytes(),
        Question::Thread(tid) => match carrier(tid) {
            Some(Carrier { tid, before }) => ThreadUsage::of(tid).since(&before).to_bytes(),
            None => Vec::new(),
        },
        Question::Schedule(tid, scheduling) => {
            // A thread that has just ended is scheduled as anybody likes.
            let result = carrier(tid).map_or(0, |carrier| scheduling.apply(carrier.tid));
            words_to_bytes(&[result as u64])
        }
    };
    answer.truncate(TOLD_BYTES_MAX);
    answer
}

impl ResourceUsage {
    /// What the kernel says of this process (RUSAGE_SELF), its children or the calling thread.
    pub fn of_kernel(who: i32) -> Self {
        let mut words = [0_u64; USAGE_WORDS];
        call::raw(libc::SYS_getrusage, &[who as u64, words.as_mut_ptr() as u64, 0, 0, 0, 0]);
        Self(words)
    }

    /// Adds what another host has used; times carry.
    pub fn add(&mut self, other: &Self) {
        for (own, other) in self.0.iter_mut().zip(other.0) {
            *own = own.saturating_add(other);
        }
        for seconds in [0, 2] {
            self.0[seconds] += self.0[seconds + 1] / 1_000_000;
            self.0[seconds + 1] %= 1_000_000;
        }
    }

    /// User and system time in microseconds.
    pub fn times_us(&self) -> [u64; 2] {
        [0, 2].map(|at| self.0[at] * 1_000_000 + self.0[at + 1])
    }

    /// Sets user and system time.
    pub fn set_times_us(&mut self, times: [u64; 2]) {
        for (at, time) in [0, 2].into_iter().zip(times) {
            self.0[at..at + 2].copy_from_slice(&[time / 1_000_000, time % 1_000_000]);
        }
    }

    /// Takes away what a kernel thread had used before.
    pub fn subtract_times(&mut self, before: &ThreadUsage) {
        let us_of_tick = 1_000_000 / cpu::auxiliary(libc::AT_CLKTCK).max(1);
        let [user, system] = self.times_us();
        let without = |time: u64, ticks: u64| since(time, ticks.wrapping_mul(us_of_tick));
        self.set_times_us([without(user, before.user_ticks), without(system, before.system_ticks)]);
    }

    /// As the kernel writes it.
    pub fn to_bytes(self) -> Vec<u8> {
        words_to_bytes(&self.0)
    }
}

impl Usage {
    /// That of this husk.
    pub fn of_this_process() -> Self {
        let status = read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("RssShmem:")).unwrap_or("");
        Self {
            resources: ResourceUsage::of_kernel(libc::RUSAGE_SELF),
            cpu_ns: cpu::process_time_ns(),
            resident_kib: resident.split_ascii_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0),
        }
    }

    /// Reads an answer; nothing was used where there is none.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let words: [u64; USAGE_WORDS + 2] = bytes_to_words(bytes);
        let mut usage = Self { cpu_ns: words[USAGE_WORDS], resident_kib: words[USAGE_WORDS + 1], ..Self::default() };
        usage.resources.0.copy_from_slice(&words[..USAGE_WORDS]);
        usage
    }

    fn to_bytes(self) -> Vec<u8> {
        [self.resources.to_bytes(), words_to_bytes(&[self.cpu_ns, self.resident_kib])].concat()
    }

    /// Adds what another host has used.
    pub fn add(&mut self, other: &Self) {
        self.resources.add(&other.resources);
        self.cpu_ns += other.cpu_ns;
        self.resident_kib += other.resident_kib;
    }
}

impl ThreadUsage {
    /// That of kernel thread `tid` of this process; zeros if it is gone.
    pub fn of(tid: i32) -> Self {
        let text = read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap_or_default();
        let fields: Vec<&str> = text.rsplit_once(") ").map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
        // The first field after the name is number 3 of proc(5).
        let field = |number: usize| fields.get(number - 3).and_then(|word| word.parse().ok()).unwrap_or(0);
        Self { cpu_ns: cpu::time_of_thread_ns(tid), user_ticks: field(14), system_ticks: field(15), processor: field(39) }
    }

    /// What was used since `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            cpu_ns: since(self.cpu_ns, before.cpu_ns),
            user_ticks: since(self.user_ticks, before.user_ticks),
            system_ticks: since(self.system_ticks, before.system_ticks),
            processor: self.processor,
        }
    }

    /// What must have been used before for [`Self::since`] to count `elsewhere` in: less than nothing (modulo 2^64) where a
    /// thread brings along more than the kernel thread had used.
    pub fn before(&self, elsewhere: &Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.wrapping_sub(elsewhere.cpu_ns),
            user_ticks: self.user_ticks.wrapping_sub(elsewhere.user_ticks),
            system_ticks: self.system_ticks.wrapping_sub(elsewhere.system_ticks),
            processor: self.processor,
        }
    }

    /// Reads an answer; nothing was used where there is none.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let [cpu_ns, user_ticks, system_ticks, processor] = bytes_to_words(bytes);
        Self { cpu_ns, user_ticks, system_ticks, processor }
    }

    fn to_bytes(self) -> Vec<u8> {
        words_to_bytes(&[self.cpu_ns, self.user_ticks, self.system_ticks, self.processor])
    }
}

/// Time since `before`, which may be less than nothing; zero if the clock is gone.
pub fn since(time: u64, before: u64) -> u64 {
    (time.wrapping_sub(before) as i64).max(0) as u64
}

fn words_to_bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn bytes_to_words<const COUNT: usize>(bytes: &[u8]) -> [u64; COUNT] {
    let mut words = [0; COUNT];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usages_travel_and_add_up() {
        let mut one = Usage { cpu_ns: 5, resident_kib: 7, ..Usage::default() };
        one.resources.0[..4].copy_from_slice(&[1, 700_000, 2, 400_000]);
        assert_eq!(Usage::from_bytes(&one.to_bytes()), one);
        assert_eq!(Usage::from_bytes(&[]), Usage::default());
        let mut sum = one;
        sum.add(&one);
        assert_eq!(sum.resources.times_us(), [3_400_000, 4_800_000]);
        assert_eq!((sum.cpu_ns, sum.resident_kib), (10, 14));
    }

    #[test]
    fn what_was_used_elsewhere_counts() {
        let usage = |cpu_ns, user_ticks| ThreadUsage { cpu_ns, user_ticks, system_ticks: 1, processor: 3 };
        let before = usage(100, 9).before(&usage(5_000, 4));
        assert_eq!(usage(130, 11).since(&before), ThreadUsage { system_ticks: 1, ..usage(5_030, 6) });
        assert_eq!(ThreadUsage::default().since(&usage(5, 5)), ThreadUsage::default(), "a thread that is gone");
        let mut resources = ResourceUsage::default();
        resources.set_times_us([2_000_000, 0]);
        resources.subtract_times(&ThreadUsage { user_ticks: 0_u64.wrapping_sub(100), ..ThreadUsage::default() });
        let tick_us = 1_000_000 / cpu::auxiliary(libc::AT_CLKTCK).max(1);
        assert_eq!(resources.times_us(), [2_000_000 + 100 * tick_us, 0]);
    }

    #[test]
    fn this_thread_has_used_something() {
        let tid = cpu::thread_id();
        let usage = ThreadUsage::of(tid);
        assert!(usage.cpu_ns > 0);
        assert_eq!(ThreadUsage::from_bytes(&usage.to_bytes()), usage);
        assert!(cpu::thread_time_ns() >= usage.cpu_ns);
        assert!(Usage::of_this_process().cpu_ns >= usage.cpu_ns);
    }
}

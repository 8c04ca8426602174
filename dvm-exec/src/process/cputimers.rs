//! Timers on CPU time: ITIMER_PROF, ITIMER_VIRTUAL, and timer_create on clocks of the process or of a thread.
//!
//! Owns what such a timer is set to, and the thread that looks every few milliseconds whether one has expired: one kernel counts
//! what one host's threads use. Must not know how CPU time is summed.
//!
//! A timer of timer_create is one of the kernel on CLOCK_MONOTONIC, which is set to expire at once when it is due. So its number,
//! signal and thread are the kernel's affair.

use super::husk::Root;
use super::limits;
use super::thread::Task;
use super::view::usage::{self, CpuClock};
use crate::sys::call;
use crate::sys::signal::replace_mask;
use crate::sys::user::{self, BadAddress};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often the time used is looked at, at most and at least, while a timer is set.
const TICK_NS: u64 = 4_000_000;
const TICK_NS_MAX: u64 = 64_000_000;
/// Timers a program may have on CPU time.
const TIMERS_MAX: usize = 4096;

/// The timers of the program.
#[derive(Default)]
pub struct CpuTimers(Mutex<Timers>);

#[derive(Default)]
struct Timers {
    by_key: BTreeMap<Key, Timer>,
    is_watched: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// ITIMER_PROF or ITIMER_VIRTUAL.
    Interval(i32),
    /// The kernel's number of a timer.
    Kernel(i32),
}

struct Timer {
    clock: CpuClock,
    setting: Setting,
}

/// When a timer expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Setting {
    /// On its clock; none: not at all.
    at_ns: Option<u64>,
    /// Then every so often; 0: once.
    interval_ns: u64,
}

impl Setting {
    fn left_ns(&self, used_ns: u64) -> u64 {
        // One that is about to expire has something left.
        self.at_ns.map_or(0, |at| at.saturating_sub(used_ns).max(1_000))
    }

    /// Whether it has expired; then it is set to the next time.
    fn expire(&mut self, used_ns: u64) -> bool {
        let Some(at) = self.at_ns.filter(|at| used_ns >= *at) else { return false };
        let missed = (used_ns - at).checked_div(self.interval_ns);
        self.at_ns = missed.map(|missed| at.saturating_add((missed + 1).saturating_mul(self.interval_ns)));
        true
    }
}

/// Answers a call on such a timer; `None`: it is the kernel's.
pub fn answer(root: &'static Root, task: &Task, number: i64, arguments: &[u64; 6]) -> Option<i64> {
    // One kernel counts what a child uses.
    if root.hosts.len() == 1 || root.space.is_copy() {
        return None;
    }
    let [first, second, third, fourth, ..] = *arguments;
    let result = match number {
        libc::SYS_setitimer => {
            root.cpu_timers.know_interval(root, first)?;
            // Without a value it is unset.
            let new = if second == 0 { Ok([0; 4]) } else { read_times(second) };
            new.and_then(|new| set(root, Key::Interval(first as i32), new, third, false))
        }
        libc::SYS_getitimer => {
            root.cpu_timers.know_interval(root, first)?;
            get(root, Key::Interval(first as i32), second)
        }
        libc::SYS_timer_create => return create(root, task, arguments),
        libc::SYS_timer_settime if root.cpu_timers.knows(first) => {
            let is_absolute = second & libc::TIMER_ABSTIME as u64 != 0;
            read_times(third).and_then(|new| set(root, Key::Kernel(first as i32), new, fourth, is_absolute))
        }
        libc::SYS_timer_gettime if root.cpu_timers.knows(first) => get(root, Key::Kernel(first as i32), second),
        libc::SYS_timer_delete => {
            root.cpu_timers.lock().by_key.remove(&Key::Kernel(first as i32));
            return None;
        }
        _ => return None,
    };
    Some(result.map_or_else(|errno| -i64::from(errno), |()| 0))
}

impl CpuTimers {
    fn lock(&self) -> MutexGuard<'_, Timers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn knows(&self, number: u64) -> bool {
        self.lock().by_key.contains_key(&Key::Kernel(number as i32))
    }

    /// Whether this is an interval timer on CPU time.
    fn know_interval(&self, root: &Root, which: u64) -> Option<()> {
        let kind = match which as i32 {
            libc::ITIMER_PROF => CpuClock::ALL_TICKS,
            libc::ITIMER_VIRTUAL => CpuClock::USER_TICKS,
            _ => return None,
        };
        let clock = CpuClock { is_thread: false, of: root.pid(), kind };
        let timer = || Timer { clock, setting: Setting::default() };
        self.lock().by_key.entry(Key::Interval(which as i32)).or_insert_with(timer);
        Some(())
    }
}

fn create(root: &Root, task: &Task, arguments: &[u64; 6]) -> Option<i64> {
    let mut clock = CpuClock::of(arguments[0])?;
    if clock.of == 0 {
        clock.of = if clock.is_thread { task.tid } else { root.pid() };
    }
    let is_ours = if clock.is_thread { root.tasks.find(clock.of).is_some() } else { clock.of == root.pid() };
    if !is_ours {
        return None;
    }
    let mut timers = root.cpu_timers.lock();
    if timers.by_key.len() >= TIMERS_MAX {
        return Some(-i64::from(libc::EAGAIN));
    }
    let mut changed = *arguments;
    changed[0] = libc::CLOCK_MONOTONIC as u64;
    let result = call::raw(libc::SYS_timer_create, &changed);
    if let (0, Ok(number)) = (result, user::read_u32(arguments[2])) {
        timers.by_key.insert(Key::Kernel(number as i32), Timer { clock, setting: Setting::default() });
    }
    Some(result)
}

/// The unit in which a timer is told.
fn unit_ns(key: Key) -> u64 {
    match key {
        Key::Interval(_) => 1_000,
        Key::Kernel(_) => 1,
    }
}

/// Nanoseconds of seconds and units; `None` where the kernel says EINVAL.
fn to_ns(seconds: u64, units: u64, unit_ns: u64) -> Option<u64> {
    let is_valid = seconds as i64 >= 0 && units < 1_000_000_000 / unit_ns;
    is_valid.then(|| seconds.saturating_mul(1_000_000_000).saturating_add(units * unit_ns))
}

fn read_times(address: u64) -> Result<[u64; 4], i32> {
    let mut words = [0; 4];
    for (at, word) in words.iter_mut().enumerate() {
        *word = user::read_u64(address + at as u64 * 8).map_err(|BadAddress| libc::EFAULT)?;
    }
    Ok(words)
}

fn write_times(address: u64, key: Key, setting: &Setting, used_ns: u64) -> Result<(), i32> {
    let pair = |ns: u64| [ns / 1_000_000_000, ns % 1_000_000_000 / unit_ns(key)];
    let words = [pair(setting.interval_ns), pair(setting.left_ns(used_ns))].concat();
    let bytes: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    user::write(address, &bytes).map_err(|BadAddress| libc::EFAULT)
}

/// What its clock shows, and how it is set.
fn look(root: &Root, key: Key) -> Result<(u64, Setting), i32> {
    let clock = root.cpu_timers.lock().by_key.get(&key).map(|timer| timer.clock).ok_or(libc::EINVAL)?;
    let used_ns = usage::used_ns(root, clock).unwrap_or(0);
    let timers = root.cpu_timers.lock();
    timers.by_key.get(&key).map(|timer| (used_ns, timer.setting)).ok_or(libc::EINVAL)
}

fn get(root: &Root, key: Key, to: u64) -> Result<(), i32> {
    let (used_ns, setting) = look(root, key)?;
    write_times(to, key, &setting, used_ns)
}

fn set(root: &'static Root, key: Key, new: [u64; 4], old: u64, is_absolute: bool) -> Result<(), i32> {
    let unit = unit_ns(key);
    let interval_ns = to_ns(new[0], new[1], unit).ok_or(libc::EINVAL)?;
    let value_ns = to_ns(new[2], new[3], unit).ok_or(libc::EINVAL)?;
    let (used_ns, former) = look(root, key)?;
    let at_ns = if is_absolute { value_ns } else { used_ns.saturating_add(value_ns) };
    let mut timers = root.cpu_timers.lock();
    let timer = timers.by_key.get_mut(&key).ok_or(libc::EINVAL)?;
    timer.setting = Setting { at_ns: (value_ns > 0).then_some(at_ns), interval_ns };
    if value_ns > 0 && !timers.is_watched {
        let former = replace_mask(u64::MAX);
        let spawned = std::thread::Builder::new().name("timers".to_owned()).spawn(move || watch(root));
        replace_mask(former);
        if spawned.is_err() {
            return Err(libc::EAGAIN);
        }
        timers.is_watched = true;
    }
    drop(timers);
    if old == 0 { Ok(()) } else { write_times(old, key, &former, used_ns) }
}

/// Lets timers expire until none is set.
fn watch(root: &'static Root) {
    let processors = root.hosts.iter().map(|host| u64::from(host.processors)).sum::<u64>().max(1);
    let (mut pause_ns, mut sum_before) = (TICK_NS, 0);
    loop {
        std::thread::sleep(Duration::from_nanos(pause_ns));
        let clocks: BTreeSet<CpuClock> = {
            let mut timers = root.cpu_timers.lock();
            let set = timers.by_key.values().filter(|timer| timer.setting.at_ns.is_some());
            let clocks = set.map(|timer| timer.clock).collect();
            timers.is_watched = !BTreeSet::is_empty(&clocks);
            clocks
        };
        if clocks.is_empty() {
            return;
        }
        let used: BTreeMap<CpuClock, u64> = {
            let _room = limits::room();
            clocks.into_iter().map(|clock| (clock, usage::used_ns(root, clock).unwrap_or(0))).collect()
        };
        let (expired, left_ns) = expire(&mut root.cpu_timers.lock(), &used);
        expired.into_iter().for_each(|key| fire(root, key));
        let sum: u64 = used.values().sum();
        // Looking costs time that counts: whoever sleeps is looked at less often.
        let is_idle = sum.abs_diff(sum_before) < pause_ns / 8;
        pause_ns = if is_idle { pause_ns * 2 } else { left_ns / processors }.clamp(TICK_NS, TICK_NS_MAX);
        sum_before = sum;
    }
}

/// The timers that have expired, and what is left at least to the next.
fn expire(timers: &mut Timers, used: &BTreeMap<CpuClock, u64>) -> (Vec<Key>, u64) {
    let (mut expired, mut left_ns) = (Vec::new(), u64::MAX);
    for (key, timer) in &mut timers.by_key {
        let Some(used_ns) = used.get(&timer.clock) else { continue };
        if timer.setting.expire(*used_ns) {
            expired.push(*key);
        }
        if timer.setting.at_ns.is_some() {
            left_ns = left_ns.min(timer.setting.left_ns(*used_ns));
        }
    }
    (expired, left_ns)
}

fn fire(root: &Root, key: Key) {
    match key {
        Key::Interval(which) => {
            let signal = if which == libc::ITIMER_PROF { libc::SIGPROF } else { libc::SIGVTALRM };
            call::raw(libc::SYS_kill, &[root.pid() as u64, signal as u64, 0, 0, 0, 0]);
        }
        Key::Kernel(number) => {
            let at_once = [0_u64, 0, 0, 1];
            // One that was deleted meanwhile is not missed.
            call::raw(libc::SYS_timer_settime, &[number as u64, 0, at_once.as_ptr() as u64, 0, 0, 0]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_expires_once_or_again() {
        let mut once = Setting { at_ns: Some(100), interval_ns: 0 };
        assert!(!once.expire(99) && once.expire(100) && !once.expire(1_000));
        assert_eq!((once, once.left_ns(0)), (Setting::default(), 0));
        let mut again = Setting { at_ns: Some(10_000), interval_ns: 5_000 };
        assert!(again.expire(10_000) && !again.expire(14_999));
        assert_eq!(again.at_ns, Some(15_000));
        assert!(again.expire(31_000));
        assert_eq!((again.at_ns, again.left_ns(31_000), again.left_ns(34_999)), (Some(35_000), 4_000, 1_000));
    }

    #[test]
    fn each_timer_has_its_clock() {
        let clock = |of| CpuClock { is_thread: true, of, kind: CpuClock::RUN };
        let timer = |of, at| Timer { clock: clock(of), setting: Setting { at_ns: Some(at), interval_ns: 0 } };
        let by_key = BTreeMap::from([
            (Key::Kernel(0), timer(1, 5_000)),
            (Key::Kernel(1), timer(2, 5_000)),
            (Key::Kernel(2), timer(1, 9_000)),
        ]);
        let mut timers = Timers { by_key, is_watched: true };
        let used = BTreeMap::from([(clock(1), 5_000), (clock(2), 4_000)]);
        assert_eq!(expire(&mut timers, &used), (vec![Key::Kernel(0)], 1_000));
        assert_eq!(expire(&mut timers, &BTreeMap::new()), (Vec::new(), u64::MAX));
    }

    #[test]
    fn times_are_judged() {
        assert_eq!(to_ns(1, 999_999, 1_000), Some(1_999_999_000));
        assert_eq!(to_ns(1, 1_000_000, 1_000), None);
        assert_eq!(to_ns(0, 999_999_999, 1), Some(999_999_999));
        assert_eq!(to_ns(u64::MAX, 0, 1), None);
        assert_eq!(to_ns(0, u64::MAX, 1), None);
    }
}

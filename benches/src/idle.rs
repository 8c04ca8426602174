//! How long a processor was idle, looked at all the time while something else runs.
//!
//! Owns the watch. Must not know what is measured by it. The kernel's own count of idle states is exact to the microsecond; its
//! counts of busy time are not (it looks once a tick).

use anyhow::{Context, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(1);

/// The time, and the idle time until then, both in nanoseconds.
type Look = (u64, u64);

/// A watch over one processor that goes on until it is asked.
pub struct IdleWatch {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Look>>>,
}

impl IdleWatch {
    /// Watches processor `cpu` from another one.
    pub fn start(cpu: usize) -> Result<Self> {
        let states = PathBuf::from(format!("/sys/devices/system/cpu/cpu{cpu}/cpuidle"));
        let entries = fs::read_dir(&states).with_context(|| format!("{}: the kernel counts no idle time", states.display()))?;
        let files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path().join("time"))).collect::<Result<_>>()?;
        ensure!(!files.is_empty(), "{}: no idle states", states.display());
        let is_over = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut looks = Vec::new();
            while !told.load(Ordering::Relaxed) {
                looks.push((monotonic_ns()?, idle_ns(&files)?));
                std::thread::sleep(EVERY);
            }
            Ok(looks)
        });
        Ok(Self { is_over, thread })
    }

    /// How long the processor was busy between two times of CLOCK_MONOTONIC, in nanoseconds.
    pub fn busy_ns(self, from: u64, to: u64) -> Result<u64> {
        self.is_over.store(true, Ordering::Relaxed);
        let looks = self.thread.join().map_err(|_| anyhow::anyhow!("the watch over idle time panicked"))??;
        let [first, last] = [from, to].map(|time| idle_at(&looks, time));
        let (first, last) = (first.context("not watched from the beginning")?, last.context("not watched to the end")?);
        Ok((to - from).saturating_sub(last - first))
    }
}

/// Idle time until `time`, between the looks before and after it.
fn idle_at(looks: &[Look], time: u64) -> Option<u64> {
    let after = looks.partition_point(|(at, _)| *at < time);
    let [(before_at, before), (after_at, after)] = [*looks.get(after.checked_sub(1)?)?, *looks.get(after)?];
    let part = u128::from(after - before) * u128::from(time - before_at) / u128::from((after_at - before_at).max(1));
    Some(before + part as u64)
}

fn idle_ns(files: &[PathBuf]) -> Result<u64> {
    files.iter().try_fold(0, |sum, file| {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let microseconds: u64 = text.trim().parse().with_context(|| format!("{}: `{}`", file.display(), text.trim()))?;
        Ok(sum + microseconds * 1000)
    })
}

fn monotonic_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("reading CLOCK_MONOTONIC")?;
    Ok(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

#[cfg(test)]
mod tests {
    use super::idle_at;

    #[test]
    fn idle_time_between_two_looks_is_in_proportion() {
        let looks = [(100, 0), (200, 50), (300, 50)];
        assert_eq!(idle_at(&looks, 150), Some(25));
        assert_eq!(idle_at(&looks, 200), Some(50));
        assert_eq!(idle_at(&looks, 260), Some(50));
        assert_eq!(idle_at(&looks, 301), None);
        assert_eq!(idle_at(&looks, 99), None);
    }
}

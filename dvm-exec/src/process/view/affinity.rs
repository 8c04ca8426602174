//! sched_getaffinity and sched_setaffinity: a wish for a place among the processors of all hosts.
//!
//! Owns what the calls answer. Must not know how threads are placed.

use super::super::husk::Root;
use super::super::thread::Task;
use super::cpuset::CpuSet;
use super::give;
use crate::sys::user;
use std::ops::Range;
use std::sync::Arc;

/// Longest mask that is read.
const MASK_BYTES_MAX: u64 = 1 << 16;

/// The host in which all of a thread's wish lies, if it is one; `processors` are the hosts' in order.
pub fn wished_host(wish: Option<&CpuSet>, processors: &[u32]) -> Option<usize> {
    let wish = wish?;
    (0..processors.len()).find(|host| wish.is_within(&range_of(processors, *host)))
}

/// Numbers of the processors of one host.
pub fn range_of(processors: &[u32], host: usize) -> Range<u32> {
    let first = processors.iter().take(host).sum();
    first..first + processors.get(host).copied().unwrap_or(0)
}

pub(super) fn answer(root: &Root, task: &Task, number: i64, arguments: &[u64; 6]) -> Option<i64> {
    let [tid, bytes, mask, ..] = *arguments;
    let tid = tid as i32;
    let named: Arc<Task>;
    let task = if tid == 0 || tid == task.tid {
        task
    } else {
        // Another process's is the kernel's to answer.
        named = root.tasks.find(tid)?;
        &named
    };
    let processors: u32 = super::processors(root).iter().sum();
    let all = CpuSet::of(0..processors);
    if number == libc::SYS_sched_getaffinity {
        let wish = task.wish().unwrap_or(all).to_bytes(processors);
        if bytes < wish.len() as u64 || !bytes.is_multiple_of(8) {
            return Some(-i64::from(libc::EINVAL));
        }
        return Some(give(mask, &wish, wish.len() as i64));
    }
    let Ok(given) = user::read_vec(mask, bytes.min(MASK_BYTES_MAX) as usize) else {
        return Some(-i64::from(libc::EFAULT));
    };
    let wish = CpuSet::from_bytes(&given).and(&all);
    if wish.is_empty() {
        return Some(-i64::from(libc::EINVAL));
    }
    task.set_wish((wish != all).then_some(wish));
    Some(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_within_one_host_names_it() {
        let hosts = [2, 4, 2];
        let wished = |range: Range<u32>| wished_host(Some(&CpuSet::of(range)), &hosts);
        assert_eq!((wished(0..2), wished(3..5), wished(6..8)), (Some(0), Some(1), Some(2)));
        assert_eq!((wished(1..3), wished(0..8), wished_host(None, &hosts)), (None, None, None));
    }
}

//! The hosts of a job as one machine, and the program without its husk: what files under /proc and /sys say, and the calls
//! that tell of processors, memory and times used.
//!
//! Owns which calls are answered so. Must not know how a call came to the root.

pub mod affinity;
pub mod cpuset;
mod directories;
mod files;
pub mod machine;
mod paths;
mod program;
mod scheduling;
pub mod usage;

use super::husk::Root;
use super::limits;
use super::thread::Task;
use crate::sys::mapping;

pub use files::is_own_executable;
pub use program::Image;

/// The answer to a call that shows the machine or the program; `None` where the kernel's own is right.
pub fn answer(root: &'static Root, task: &Task, number: i64, arguments: &[u64; 6]) -> Option<i64> {
    match number {
        libc::SYS_getdents | libc::SYS_getdents64 => directories::list(root, number, arguments),
        libc::SYS_sched_getaffinity | libc::SYS_sched_setaffinity => affinity::answer(root, task, number, arguments),
        libc::SYS_getrusage | libc::SYS_times | libc::SYS_sysinfo | libc::SYS_clock_gettime => {
            usage::answer(root, number, arguments)
        }
        libc::SYS_sched_setscheduler | libc::SYS_sched_setparam | libc::SYS_sched_setattr | libc::SYS_setpriority => {
            scheduling::answer(root, task, number, arguments)
        }
        libc::SYS_get_mempolicy => Some(memory_policy(arguments)),
        _ => files::answer(root, number, arguments),
    }
}

/// The first host's processors are 0 and up, then come the next host's.
pub fn processors(root: &Root) -> Vec<u32> {
    root.hosts.iter().map(|host| host.processors).collect()
}

/// GLIBC_TUNABLES with these processor features taken away, after the user's own value.
pub fn masks_environment(masked: &[String], own: Option<&str>) -> String {
    // glibc has two names of its own; it passes over those that it does not know.
    let name = |name: &String| match name.as_str() {
        "pni" => "-SSE3".to_owned(),
        "abm" => "-LZCNT".to_owned(),
        name => format!("-{}", name.to_uppercase()),
    };
    let masks = masked.iter().filter(|name| !name.contains(' ')).map(name).collect::<Vec<_>>().join(",");
    let own = own.filter(|own| !own.is_empty()).map_or_else(String::new, |own| format!("{own}:"));
    format!("{own}glibc.cpu.hwcaps={masks}")
}

/// Copies a result to where a call wants it: to the program, or to the husk's buffer when the answer travels.
fn give(address: u64, bytes: &[u8], result: i64) -> i64 {
    let _room = limits::room();
    match mapping::copy_by_kernel(address, bytes) {
        Ok(()) => result,
        Err(error) => -i64::from(error.raw_os_error().unwrap_or(libc::EFAULT)),
    }
}

/// All memory is one node's, under the default policy.
fn memory_policy(arguments: &[u64; 6]) -> i64 {
    const MPOL_F_NODE: u64 = 1;
    const MPOL_F_MEMS_ALLOWED: u64 = 4;
    let [mode, nodes, nodes_max, _, flags, _] = *arguments;
    if flags & MPOL_F_MEMS_ALLOWED != 0 && flags & MPOL_F_NODE != 0 {
        return -i64::from(libc::EINVAL);
    }
    let mut result = 0;
    if mode != 0 {
        result = give(mode, &0_u32.to_le_bytes(), 0);
    }
    if nodes != 0 && nodes_max > 0 && result == 0 {
        let mut mask = vec![0_u8; (nodes_max.min(4096).div_ceil(64) * 8) as usize];
        mask[0] = u8::from(flags & MPOL_F_MEMS_ALLOWED != 0);
        result = give(nodes, &mask, 0);
    }
    result
}

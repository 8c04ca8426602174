//! membarrier over all hosts: every thread of the program passes a barrier before the call returns.
//!
//! Owns which commands there are and who has registered. Must not know how members are reached.
//!
//! A page goes to another host only after the kernel here has taken it from every processor, which is a barrier for the
//! threads on both; what is left to do is to have each host's kernel make its own threads pass one.

use super::husk::Root;
use super::service;
use crate::sys::call;
use std::sync::atomic::{AtomicBool, Ordering};

const QUERY: u64 = 0;
const GLOBAL: u64 = 1;
const PRIVATE_EXPEDITED: u64 = 8;
const REGISTER_PRIVATE_EXPEDITED: u64 = 16;
const SUPPORTED: i64 = (GLOBAL | PRIVATE_EXPEDITED | REGISTER_PRIVATE_EXPEDITED) as i64;

static IS_REGISTERED: AtomicBool = AtomicBool::new(false);

/// membarrier of the program, at the root.
pub fn call(root: &Root, arguments: &[u64; 6]) -> i64 {
    let [command, flags, ..] = *arguments;
    match command {
        _ if flags != 0 => -i64::from(libc::EINVAL),
        QUERY => SUPPORTED,
        REGISTER_PRIVATE_EXPEDITED => {
            IS_REGISTERED.store(true, Ordering::SeqCst);
            0
        }
        PRIVATE_EXPEDITED if !IS_REGISTERED.load(Ordering::SeqCst) => -i64::from(libc::EPERM),
        GLOBAL | PRIVATE_EXPEDITED => {
            service::barrier_everywhere(root.members());
            pass_here()
        }
        _ => -i64::from(libc::EINVAL),
    }
}

/// Makes the program's threads on this host pass a barrier.
pub fn pass_here() -> i64 {
    call::raw(libc::SYS_membarrier, &[REGISTER_PRIVATE_EXPEDITED, 0, 0, 0, 0, 0]);
    call::raw(libc::SYS_membarrier, &[PRIVATE_EXPEDITED, 0, 0, 0, 0, 0])
}

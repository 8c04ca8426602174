//! Priority-inheriting futexes, done by ordinary ones.
//!
//! Owns the word's protocol for FUTEX_LOCK_PI and its kin. Must not know threads' priorities: the kernel would lend them
//! to the owner, but it sees a stand-in for a thread of another host, and it gives up on a word whose page is away.

use super::husk::Root;
use super::thread::Task;
use crate::sys::asm::{INTERRUPTED, NOT_BEGUN};
use crate::sys::call;
use crate::sys::user::{self, BadAddress};
use std::sync::atomic::AtomicU32;

const FUTEX_LOCK_PI2: i32 = 13;
const FUTEX_WAITERS: u32 = 0x8000_0000;
const FUTEX_OWNER_DIED: u32 = 0x4000_0000;
const FUTEX_TID_MASK: u32 = 0x3fff_ffff;
const ANY_BIT: u64 = 0xffff_ffff;
/// What comes back after a signal: the kernel repeats these calls whatever the action says.
const AGAIN: i64 = NOT_BEGUN;

/// A futex call by which the kernel would change the word as a lock; `None` if `arguments` name another one.
pub fn call(root: &Root, task: &Task, flag: &AtomicU32, arguments: &[u64; 6]) -> Option<i64> {
    let operation = arguments[1] as i32;
    let command = operation & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);
    let lock = Lock {
        word: arguments[0],
        tid: task.tid as u32,
        private: operation & libc::FUTEX_PRIVATE_FLAG,
        // Of the first kind, deadlines are always on that clock.
        clock: if command == libc::FUTEX_LOCK_PI { libc::FUTEX_CLOCK_REALTIME } else { operation & libc::FUTEX_CLOCK_REALTIME },
        deadline: arguments[3],
    };
    let done = match command {
        _ if matches!(command, libc::FUTEX_LOCK_PI | FUTEX_LOCK_PI2 | libc::FUTEX_TRYLOCK_PI | libc::FUTEX_UNLOCK_PI)
            && !lock.word.is_multiple_of(4) =>
        {
            Ok(-i64::from(libc::EINVAL))
        }
        libc::FUTEX_LOCK_PI | FUTEX_LOCK_PI2 => lock.lock(root, Some(flag)),
        libc::FUTEX_TRYLOCK_PI => lock.lock(root, None),
        libc::FUTEX_UNLOCK_PI => lock.unlock(),
        _ => return None,
    };
    Some(done.unwrap_or_else(|BadAddress| -i64::from(libc::EFAULT)))
}

struct Lock {
    word: u64,
    tid: u32,
    private: i32,
    clock: i32,
    deadline: u64,
}

impl Lock {
    /// Takes the lock; waits for it only with the `flag` that signals raise.
    fn lock(&self, root: &Root, flag: Option<&AtomicU32>) -> Result<i64, BadAddress> {
        // One who has waited cannot know whether others still do.
        let mut others = 0;
        loop {
            let seen = user::read_u32(self.word)?;
            let owner = seen & FUTEX_TID_MASK;
            if owner == self.tid {
                return Ok(-i64::from(libc::EDEADLK));
            }
            if owner == 0 {
                let own = self.tid | seen & (FUTEX_OWNER_DIED | FUTEX_WAITERS) | others;
                if user::exchange_u32(self.word, seen, own)? == seen {
                    return Ok(0);
                }
                continue;
            }
            if !root.tasks.is_living(owner as i32) {
                return Ok(-i64::from(libc::ESRCH));
            }
            let Some(flag) = flag else { return Ok(-i64::from(libc::EAGAIN)) };
            let waited = seen | FUTEX_WAITERS;
            if seen != waited && user::exchange_u32(self.word, seen, waited)? != seen {
                continue;
            }
            others = FUTEX_WAITERS;
            match self.wait(flag, waited) {
                0 => {}
                error if error == -i64::from(libc::EAGAIN) => {}
                NOT_BEGUN | INTERRUPTED => return Ok(AGAIN),
                error if error == -i64::from(libc::EINTR) => return Ok(AGAIN),
                error => return Ok(error),
            }
        }
    }

    fn wait(&self, flag: &AtomicU32, value: u32) -> i64 {
        let operation = libc::FUTEX_WAIT_BITSET | self.private | self.clock;
        let arguments = [self.word, operation as u64, u64::from(value), self.deadline, 0, ANY_BIT];
        call::raw_unless(flag, libc::SYS_futex, &arguments)
    }

    fn unlock(&self) -> Result<i64, BadAddress> {
        loop {
            let seen = user::read_u32(self.word)?;
            if seen & FUTEX_TID_MASK != self.tid {
                return Ok(-i64::from(libc::EPERM));
            }
            if user::exchange_u32(self.word, seen, 0)? == seen {
                let operation = libc::FUTEX_WAKE | self.private;
                if seen & FUTEX_WAITERS != 0 {
                    call::raw(libc::SYS_futex, &[self.word, operation as u64, 1, 0, 0, 0]);
                }
                return Ok(0);
            }
        }
    }
}

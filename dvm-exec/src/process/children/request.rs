//! Which new processes a program can have.
//!
//! Owns the judgement of clone's flags, and of calls that show that a child goes on without another program. Must not make
//! processes.

use crate::process::clone::{CLEAR_ACTIONS, CloneRequest};

/// What a child has for memory until it has a program of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A copy, page by page as it touches them: fork.
    Copy,
    /// The program's own; the parent's thread stands still: vfork, posix_spawn.
    Beside,
}

/// Why there is no child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What the program gets, positive.
    pub errno: i32,
    /// For the line on stderr.
    pub reason: &'static str,
}

/// Calls a copy may make before it has to have a program of its own; closing every descriptor takes thousands.
pub const CALLS_MAX: u32 = 20_000;

const SIGNAL_MASK: u64 = 0xff;
/// Flags that are done, or that change nothing for a process of its own.
const KNOWN: u64 = SIGNAL_MASK
    | CLEAR_ACTIONS
    | (libc::CLONE_VM
        | libc::CLONE_VFORK
        | libc::CLONE_PIDFD
        | libc::CLONE_SETTLS
        | libc::CLONE_PARENT_SETTID
        | libc::CLONE_CHILD_SETTID
        | libc::CLONE_CHILD_CLEARTID
        | libc::CLONE_UNTRACED) as u64;
const NAMESPACES: u64 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32 as u64;

/// What kind of child these flags ask for.
///
/// # Errors
/// [`Refused`] for those that cannot be had.
pub fn judge(request: &CloneRequest) -> Result<Kind, Refused> {
    let flags = request.flags;
    let has = |flag: i32| flags & flag as u32 as u64 != 0;
    let refuse = |reason| Err(Refused { errno: libc::ENOSYS, reason });
    if has(libc::CLONE_THREAD) || has(libc::CLONE_SIGHAND) {
        return refuse("threads share memory, signal actions and process");
    }
    if flags & NAMESPACES != 0 {
        return Err(Refused { errno: libc::EPERM, reason: "a child cannot be born into another namespace" });
    }
    if flags & !KNOWN != 0 {
        return refuse("a child process shares neither descriptors nor directory nor parent with the program");
    }
    match (has(libc::CLONE_VM), has(libc::CLONE_VFORK)) {
        (true, true) => Ok(Kind::Beside),
        (true, false) => refuse("a process that runs on the program's memory beside it has no place in the space"),
        (false, _) if flags & SIGNAL_MASK == libc::SIGCHLD as u64 => Ok(Kind::Copy),
        (false, _) => refuse("a forked child tells of its end by SIGCHLD only"),
    }
}

/// Whether a copy that makes this call means to go on as it is: it makes or awaits processes, serves, or waits for what
/// only another thread could do.
pub fn goes_on(number: i64, arguments: &[u64; 6]) -> bool {
    match number {
        libc::SYS_clone
        | libc::SYS_clone3
        | libc::SYS_fork
        | libc::SYS_vfork
        | libc::SYS_wait4
        | libc::SYS_waitid
        | libc::SYS_listen
        | libc::SYS_accept
        | libc::SYS_accept4
        | libc::SYS_epoll_wait
        | libc::SYS_epoll_pwait
        | libc::SYS_epoll_pwait2
        | libc::SYS_pause
        | libc::SYS_rt_sigsuspend
        | libc::SYS_rt_sigtimedwait => true,
        libc::SYS_futex => {
            let command = arguments[1] as i32 & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);
            command == libc::FUTEX_WAIT || command == libc::FUTEX_WAIT_BITSET
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(flags: i32, signal: i32) -> Result<Kind, Refused> {
        judge(&CloneRequest { flags: flags as u32 as u64 | signal as u64, ..CloneRequest::default() })
    }

    #[test]
    fn kinds() {
        let vfork = libc::CLONE_VM | libc::CLONE_VFORK;
        assert_eq!(of(0, libc::SIGCHLD), Ok(Kind::Copy), "fork");
        assert_eq!(of(libc::CLONE_CHILD_SETTID | libc::CLONE_CHILD_CLEARTID, libc::SIGCHLD), Ok(Kind::Copy), "of glibc");
        assert_eq!(of(libc::CLONE_VFORK, libc::SIGCHLD), Ok(Kind::Copy));
        assert_eq!(of(vfork, libc::SIGCHLD), Ok(Kind::Beside));
        assert_eq!(of(vfork, 0), Ok(Kind::Beside), "of posix_spawn in older glibc");
        assert_eq!(of(vfork | libc::CLONE_PIDFD, libc::SIGCHLD), Ok(Kind::Beside), "of Go");
        assert_eq!(
            judge(&CloneRequest { flags: CLEAR_ACTIONS | vfork as u64 | libc::SIGCHLD as u64, ..CloneRequest::default() }),
            Ok(Kind::Beside),
            "of posix_spawn in newer glibc"
        );
    }

    #[test]
    fn refusals() {
        let errno = |flags, signal| of(flags, signal).expect_err("refused").errno;
        assert_eq!(errno(libc::CLONE_VM, libc::SIGCHLD), libc::ENOSYS);
        assert_eq!(errno(libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES, libc::SIGCHLD), libc::ENOSYS);
        assert_eq!(errno(libc::CLONE_VM | libc::CLONE_THREAD, 0), libc::ENOSYS, "half a thread");
        assert_eq!(errno(libc::CLONE_PARENT, libc::SIGCHLD), libc::ENOSYS);
        assert_eq!(errno(0, libc::SIGUSR1), libc::ENOSYS);
        assert_eq!(errno(0, 0), libc::ENOSYS);
        assert_eq!(errno(libc::CLONE_NEWUSER | libc::CLONE_NEWPID, libc::SIGCHLD), libc::EPERM);
    }

    #[test]
    fn going_on() {
        let plain = |number| goes_on(number, &[0; 6]);
        assert!([libc::SYS_fork, libc::SYS_wait4, libc::SYS_accept4, libc::SYS_pause].into_iter().all(plain));
        assert!(![libc::SYS_execve, libc::SYS_close, libc::SYS_dup2, libc::SYS_write, libc::SYS_mmap].into_iter().any(plain));
        assert!(goes_on(libc::SYS_futex, &[0, 128, 0, 0, 0, 0]) && !goes_on(libc::SYS_futex, &[0, 129, 0, 0, 0, 0]));
    }
}

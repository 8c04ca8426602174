//! The table of calls: one line each, by number.
//!
//! Owns names, classes and shapes. Must not know arguments' values; where they matter, `refine` decides.

use super::Class::{self, Answer, Delegate, Local, Memory, Signal, Thread};
use super::Refusal;
use super::shape::Argument::{self, In, InOut, Out, Path, Value as V, VectorIn, VectorOut};
use super::shape::Fill::{Always, Pointed as AsPointed, Result as ByResult, ResultElements as ByElements, Whole};
use super::shape::Length::{Argument as Arg, Bytes, DescriptorSet, Elements, Pointed};
use super::shape::shape;
use libc::{EINTR, ENOSYS, EPERM};

/// struct stat.
const STAT: u32 = 144;
/// struct timespec or timeval.
const TIME: u32 = 16;
/// struct itimerspec or itimerval.
const TIMER: u32 = 32;
/// struct timex.
const TIMEX: u32 = 208;
/// struct rusage.
const USAGE: u32 = 144;
/// struct rlimit.
const LIMIT: u32 = 16;
/// siginfo_t.
const INFO: u32 = 128;
/// select's descriptor sets.
const SET: Argument = InOut(DescriptorSet(0), Whole);
/// A file offset that is used and moved on.
const OFFSET: Argument = InOut(Bytes(8), Whole);
/// A socklen_t that is used and set.
const LENGTH: Argument = InOut(Bytes(4), Whole);
/// A uid or gid to be told.
const ID: Argument = Out(Bytes(4), Whole);

/// Number of the first entry of [`HIGH`]; between the tables no number was ever given out.
pub(super) const HIGH_FIRST: u64 = 424;

macro_rules! marshal {
    [$($argument:expr),+] => { Class::Marshal(&shape([$($argument),+])) };
}

const fn refuse(errno: i32, reason: &'static str) -> Class {
    Class::Refuse(Refusal { errno, reason, quiet: false })
}

const fn refuse_quietly(errno: i32, reason: &'static str) -> Class {
    Class::Refuse(Refusal { errno, reason, quiet: true })
}

/// Calls from 0.
#[rustfmt::skip]
pub(super) static LOW: [(&str, Class); 335] = [
    // 0
    ("read", marshal![V, Out(Arg(2), ByResult), V]),
    ("write", marshal![V, In(Arg(2)), V]),
    ("open", marshal![Path, V, V]),
    ("close", Delegate),
    ("stat", marshal![Path, Out(Bytes(STAT), Whole)]),
    ("fstat", marshal![V, Out(Bytes(STAT), Whole)]),
    ("lstat", marshal![Path, Out(Bytes(STAT), Whole)]),
    ("poll", marshal![InOut(Elements(1, 8), Whole), V, V]),
    ("lseek", Delegate),
    ("mmap", Memory),
    // 10
    ("mprotect", Memory),
    ("munmap", Memory),
    ("brk", Memory),
    ("rt_sigaction", Signal),
    ("rt_sigprocmask", Signal),
    ("rt_sigreturn", Signal),
    ("ioctl", Delegate),
    ("pread64", marshal![V, Out(Arg(2), ByResult), V, V]),
    ("pwrite64", marshal![V, In(Arg(2)), V, V]),
    ("readv", marshal![V, VectorOut(2), V]),
    // 20
    ("writev", marshal![V, VectorIn(2), V]),
    ("access", marshal![Path, V]),
    ("pipe", marshal![Out(Bytes(8), Whole)]),
    ("select", marshal![V, SET, SET, SET, InOut(Bytes(TIME), Always)]),
    ("sched_yield", Local),
    ("mremap", Memory),
    ("msync", Memory),
    ("mincore", Memory),
    ("madvise", Memory),
    ("shmget", refuse(ENOSYS, "System V shared memory cannot span hosts")),
    // 30
    ("shmat", refuse(ENOSYS, "System V shared memory cannot span hosts")),
    ("shmctl", refuse(ENOSYS, "System V shared memory cannot span hosts")),
    ("dup", Delegate),
    ("dup2", Delegate),
    ("pause", Delegate),
    ("nanosleep", Local),
    ("getitimer", marshal![V, Out(Bytes(TIMER), Whole)]),
    ("alarm", Delegate),
    ("setitimer", marshal![V, In(Bytes(TIMER)), Out(Bytes(TIMER), Whole)]),
    ("getpid", Local),
    // 40
    ("sendfile", marshal![V, V, OFFSET, V]),
    ("socket", Delegate),
    ("connect", marshal![V, In(Arg(2)), V]),
    ("accept", marshal![V, Out(Pointed(2), AsPointed(2)), LENGTH]),
    ("sendto", marshal![V, In(Arg(2)), V, V, In(Arg(5)), V]),
    ("recvfrom", marshal![V, Out(Arg(2), ByResult), V, V, Out(Pointed(5), AsPointed(5)), LENGTH]),
    ("sendmsg", Delegate),
    ("recvmsg", Delegate),
    ("shutdown", Delegate),
    ("bind", marshal![V, In(Arg(2)), V]),
    // 50
    ("listen", Delegate),
    ("getsockname", marshal![V, Out(Pointed(2), AsPointed(2)), LENGTH]),
    ("getpeername", marshal![V, Out(Pointed(2), AsPointed(2)), LENGTH]),
    ("socketpair", marshal![V, V, V, Out(Bytes(8), Whole)]),
    ("setsockopt", Delegate),
    ("getsockopt", Delegate),
    ("clone", Thread),
    ("fork", Thread),
    ("vfork", Thread),
    ("execve", Thread),
    // 60
    ("exit", Thread),
    ("wait4", marshal![V, Out(Bytes(4), Whole), V, Out(Bytes(USAGE), Whole)]),
    ("kill", Delegate),
    ("uname", marshal![Out(Bytes(390), Whole)]),
    ("semget", Delegate),
    ("semop", Delegate),
    ("semctl", Delegate),
    ("shmdt", refuse(ENOSYS, "System V shared memory cannot span hosts")),
    ("msgget", Delegate),
    ("msgsnd", Delegate),
    // 70
    ("msgrcv", Delegate),
    ("msgctl", Delegate),
    ("fcntl", Delegate),
    ("flock", Delegate),
    ("fsync", Delegate),
    ("fdatasync", Delegate),
    ("truncate", marshal![Path, V]),
    ("ftruncate", Delegate),
    ("getdents", marshal![V, Out(Arg(2), ByResult), V]),
    ("getcwd", marshal![Out(Arg(1), ByResult), V]),
    // 80
    ("chdir", marshal![Path]),
    ("fchdir", Delegate),
    ("rename", marshal![Path, Path]),
    ("mkdir", marshal![Path, V]),
    ("rmdir", marshal![Path]),
    ("creat", marshal![Path, V]),
    ("link", marshal![Path, Path]),
    ("unlink", marshal![Path]),
    ("symlink", marshal![Path, Path]),
    ("readlink", marshal![Path, Out(Arg(2), ByResult), V]),
    // 90
    ("chmod", marshal![Path, V]),
    ("fchmod", Delegate),
    ("chown", marshal![Path, V, V]),
    ("fchown", Delegate),
    ("lchown", marshal![Path, V, V]),
    ("umask", Delegate),
    ("gettimeofday", Local),
    ("getrlimit", marshal![V, Out(Bytes(LIMIT), Whole)]),
    ("getrusage", marshal![V, Out(Bytes(USAGE), Whole)]),
    ("sysinfo", marshal![Out(Bytes(112), Whole)]),
    // 100
    ("times", marshal![Out(Bytes(32), Whole)]),
    ("ptrace", refuse(EPERM, "a program of several hosts cannot trace or be traced")),
    ("getuid", Delegate),
    ("syslog", Delegate),
    ("getgid", Delegate),
    ("setuid", Delegate),
    ("setgid", Delegate),
    ("geteuid", Delegate),
    ("getegid", Delegate),
    ("setpgid", Delegate),
    // 110
    ("getppid", Delegate),
    ("getpgrp", Delegate),
    ("setsid", Delegate),
    ("setreuid", Delegate),
    ("setregid", Delegate),
    ("getgroups", marshal![V, Out(Elements(0, 4), ByElements(4))]),
    ("setgroups", marshal![V, In(Elements(0, 4))]),
    ("setresuid", Delegate),
    ("getresuid", marshal![ID, ID, ID]),
    ("setresgid", Delegate),
    // 120
    ("getresgid", marshal![ID, ID, ID]),
    ("getpgid", Delegate),
    ("setfsuid", Delegate),
    ("setfsgid", Delegate),
    ("getsid", Delegate),
    ("capget", Delegate),
    ("capset", Delegate),
    ("rt_sigpending", Signal),
    ("rt_sigtimedwait", marshal![In(Arg(3)), Out(Bytes(INFO), Whole), In(Bytes(TIME)), V]),
    ("rt_sigqueueinfo", marshal![V, V, In(Bytes(INFO))]),
    // 130
    ("rt_sigsuspend", Signal),
    ("sigaltstack", Signal),
    ("utime", marshal![Path, In(Bytes(16))]),
    ("mknod", marshal![Path, V, V]),
    ("uselib", refuse(ENOSYS, "obsolete")),
    ("personality", refuse(EPERM, "the personality is fixed")),
    ("ustat", Delegate),
    ("statfs", marshal![Path, Out(Bytes(120), Whole)]),
    ("fstatfs", marshal![V, Out(Bytes(120), Whole)]),
    ("sysfs", Delegate),
    // 140
    ("getpriority", Delegate),
    ("setpriority", Delegate),
    ("sched_setparam", marshal![V, In(Bytes(4))]),
    ("sched_getparam", marshal![V, Out(Bytes(4), Whole)]),
    ("sched_setscheduler", marshal![V, V, In(Bytes(4))]),
    ("sched_getscheduler", Delegate),
    ("sched_get_priority_max", Delegate),
    ("sched_get_priority_min", Delegate),
    ("sched_rr_get_interval", marshal![V, Out(Bytes(TIME), Whole)]),
    ("mlock", Memory),
    // 150
    ("munlock", Memory),
    ("mlockall", Answer(0)),
    ("munlockall", Answer(0)),
    ("vhangup", Delegate),
    ("modify_ldt", refuse(ENOSYS, "segments cannot be changed")),
    ("pivot_root", Delegate),
    ("_sysctl", refuse(ENOSYS, "obsolete")),
    ("prctl", Delegate),
    ("arch_prctl", Local),
    ("adjtimex", marshal![InOut(Bytes(TIMEX), Whole)]),
    // 160
    ("setrlimit", marshal![V, In(Bytes(LIMIT))]),
    ("chroot", marshal![Path]),
    ("sync", Delegate),
    ("acct", Delegate),
    ("settimeofday", Delegate),
    ("mount", Delegate),
    ("umount2", Delegate),
    ("swapon", Delegate),
    ("swapoff", Delegate),
    ("reboot", Delegate),
    // 170
    ("sethostname", Delegate),
    ("setdomainname", Delegate),
    ("iopl", refuse(EPERM, "no access to ports")),
    ("ioperm", refuse(EPERM, "no access to ports")),
    ("create_module", refuse(ENOSYS, "obsolete")),
    ("init_module", Delegate),
    ("delete_module", Delegate),
    ("get_kernel_syms", refuse(ENOSYS, "obsolete")),
    ("query_module", refuse(ENOSYS, "obsolete")),
    ("quotactl", Delegate),
    // 180
    ("nfsservctl", refuse(ENOSYS, "obsolete")),
    ("getpmsg", refuse(ENOSYS, "obsolete")),
    ("putpmsg", refuse(ENOSYS, "obsolete")),
    ("afs_syscall", refuse(ENOSYS, "obsolete")),
    ("tuxcall", refuse(ENOSYS, "obsolete")),
    ("security", refuse(ENOSYS, "obsolete")),
    ("gettid", Local),
    ("readahead", Delegate),
    ("setxattr", marshal![Path, Path, In(Arg(3)), V, V]),
    ("lsetxattr", marshal![Path, Path, In(Arg(3)), V, V]),
    // 190
    ("fsetxattr", marshal![V, Path, In(Arg(3)), V, V]),
    ("getxattr", marshal![Path, Path, Out(Arg(3), ByResult), V]),
    ("lgetxattr", marshal![Path, Path, Out(Arg(3), ByResult), V]),
    ("fgetxattr", marshal![V, Path, Out(Arg(3), ByResult), V]),
    ("listxattr", marshal![Path, Out(Arg(2), ByResult), V]),
    ("llistxattr", marshal![Path, Out(Arg(2), ByResult), V]),
    ("flistxattr", marshal![V, Out(Arg(2), ByResult), V]),
    ("removexattr", marshal![Path, Path]),
    ("lremovexattr", marshal![Path, Path]),
    ("fremovexattr", marshal![V, Path]),
    // 200
    ("tkill", Delegate),
    ("time", Local),
    ("futex", Delegate),
    ("sched_setaffinity", marshal![V, V, In(Arg(1))]),
    ("sched_getaffinity", marshal![V, V, Out(Arg(1), ByResult)]),
    ("set_thread_area", refuse(ENOSYS, "segments cannot be changed")),
    ("io_setup", refuse(ENOSYS, "asynchronous I/O pins pages")),
    ("io_destroy", refuse(ENOSYS, "asynchronous I/O pins pages")),
    ("io_getevents", refuse(ENOSYS, "asynchronous I/O pins pages")),
    ("io_submit", refuse(ENOSYS, "asynchronous I/O pins pages")),
    // 210
    ("io_cancel", refuse(ENOSYS, "asynchronous I/O pins pages")),
    ("get_thread_area", refuse(ENOSYS, "segments cannot be changed")),
    ("lookup_dcookie", refuse(ENOSYS, "obsolete")),
    ("epoll_create", Delegate),
    ("epoll_ctl_old", refuse(ENOSYS, "obsolete")),
    ("epoll_wait_old", refuse(ENOSYS, "obsolete")),
    ("remap_file_pages", refuse(ENOSYS, "obsolete")),
    ("getdents64", marshal![V, Out(Arg(2), ByResult), V]),
    ("set_tid_address", Thread),
    ("restart_syscall", refuse(EINTR, "the husk restarts calls itself")),
    // 220
    ("semtimedop", Delegate),
    ("fadvise64", Delegate),
    ("timer_create", marshal![V, In(Bytes(64)), Out(Bytes(4), Whole)]),
    ("timer_settime", marshal![V, V, In(Bytes(TIMER)), Out(Bytes(TIMER), Whole)]),
    ("timer_gettime", marshal![V, Out(Bytes(TIMER), Whole)]),
    ("timer_getoverrun", Delegate),
    ("timer_delete", Delegate),
    ("clock_settime", marshal![V, In(Bytes(TIME))]),
    ("clock_gettime", Local),
    ("clock_getres", Local),
    // 230
    ("clock_nanosleep", Local),
    ("exit_group", Thread),
    ("epoll_wait", marshal![V, Out(Elements(2, 12), ByElements(12)), V, V]),
    ("epoll_ctl", marshal![V, V, V, In(Bytes(12))]),
    ("tgkill", Delegate),
    ("utimes", marshal![Path, In(Bytes(32))]),
    ("vserver", refuse(ENOSYS, "obsolete")),
    ("mbind", Answer(0)),
    ("set_mempolicy", Answer(0)),
    ("get_mempolicy", marshal![Out(Bytes(4), Whole), V, V, V, V]),
    // 240
    ("mq_open", marshal![Path, V, V, In(Bytes(64))]),
    ("mq_unlink", marshal![Path]),
    ("mq_timedsend", marshal![V, In(Arg(2)), V, V, In(Bytes(TIME))]),
    ("mq_timedreceive", marshal![V, Out(Arg(2), ByResult), V, Out(Bytes(4), Whole), In(Bytes(TIME))]),
    ("mq_notify", Delegate),
    ("mq_getsetattr", marshal![V, In(Bytes(64)), Out(Bytes(64), Whole)]),
    ("kexec_load", Delegate),
    ("waitid", marshal![V, V, Out(Bytes(INFO), Whole), V, Out(Bytes(USAGE), Whole)]),
    ("add_key", Delegate),
    ("request_key", Delegate),
    // 250
    ("keyctl", Delegate),
    ("ioprio_set", Delegate),
    ("ioprio_get", Delegate),
    ("inotify_init", Delegate),
    ("inotify_add_watch", marshal![V, Path, V]),
    ("inotify_rm_watch", Delegate),
    ("migrate_pages", refuse(ENOSYS, "memory policy is the cluster's")),
    ("openat", marshal![V, Path, V, V]),
    ("mkdirat", marshal![V, Path, V]),
    ("mknodat", marshal![V, Path, V, V]),
    // 260
    ("fchownat", marshal![V, Path, V, V, V]),
    ("futimesat", marshal![V, Path, In(Bytes(32))]),
    ("newfstatat", marshal![V, Path, Out(Bytes(STAT), Whole), V]),
    ("unlinkat", marshal![V, Path, V]),
    ("renameat", marshal![V, Path, V, Path]),
    ("linkat", marshal![V, Path, V, Path, V]),
    ("symlinkat", marshal![Path, V, Path]),
    ("readlinkat", marshal![V, Path, Out(Arg(3), ByResult), V]),
    ("fchmodat", marshal![V, Path, V]),
    ("faccessat", marshal![V, Path, V]),
    // 270
    ("pselect6", Delegate),
    ("ppoll", marshal![InOut(Elements(1, 8), Whole), V, InOut(Bytes(TIME), Always), In(Arg(4)), V]),
    ("unshare", refuse(EPERM, "namespaces are fixed")),
    ("set_robust_list", Thread),
    ("get_robust_list", Delegate),
    ("splice", marshal![V, OFFSET, V, OFFSET, V, V]),
    ("tee", Delegate),
    ("sync_file_range", Delegate),
    ("vmsplice", refuse(ENOSYS, "it pins pages")),
    ("move_pages", refuse(ENOSYS, "memory policy is the cluster's")),
    // 280
    ("utimensat", marshal![V, Path, In(Bytes(32)), V]),
    ("epoll_pwait", marshal![V, Out(Elements(2, 12), ByElements(12)), V, V, In(Arg(5)), V]),
    ("signalfd", marshal![V, In(Arg(2)), V]),
    ("timerfd_create", Delegate),
    ("eventfd", Delegate),
    ("fallocate", Delegate),
    ("timerfd_settime", marshal![V, V, In(Bytes(TIMER)), Out(Bytes(TIMER), Whole)]),
    ("timerfd_gettime", marshal![V, Out(Bytes(TIMER), Whole)]),
    ("accept4", marshal![V, Out(Pointed(2), AsPointed(2)), LENGTH, V]),
    ("signalfd4", marshal![V, In(Arg(2)), V, V]),
    // 290
    ("eventfd2", Delegate),
    ("epoll_create1", Delegate),
    ("dup3", Delegate),
    ("pipe2", marshal![Out(Bytes(8), Whole), V]),
    ("inotify_init1", Delegate),
    ("preadv", marshal![V, VectorOut(2), V, V, V]),
    ("pwritev", marshal![V, VectorIn(2), V, V, V]),
    ("rt_tgsigqueueinfo", marshal![V, V, V, In(Bytes(INFO))]),
    ("perf_event_open", refuse(EPERM, "a program of several hosts cannot be measured by one kernel")),
    ("recvmmsg", Delegate),
    // 300
    ("fanotify_init", Delegate),
    ("fanotify_mark", Delegate),
    ("prlimit64", marshal![V, V, In(Bytes(LIMIT)), Out(Bytes(LIMIT), Whole)]),
    ("name_to_handle_at", Delegate),
    ("open_by_handle_at", Delegate),
    ("clock_adjtime", marshal![V, InOut(Bytes(TIMEX), Whole)]),
    ("syncfs", Delegate),
    ("sendmmsg", Delegate),
    ("setns", refuse(EPERM, "namespaces are fixed")),
    ("getcpu", Local),
    // 310
    ("process_vm_readv", refuse(ENOSYS, "it would bypass the page owners")),
    ("process_vm_writev", refuse(ENOSYS, "it would bypass the page owners")),
    ("kcmp", refuse(ENOSYS, "it would show the husk")),
    ("finit_module", Delegate),
    ("sched_setattr", Delegate),
    ("sched_getattr", marshal![V, Out(Arg(2), Whole), V, V]),
    ("renameat2", marshal![V, Path, V, Path, V]),
    ("seccomp", refuse(ENOSYS, "filters would stop the husk")),
    ("getrandom", marshal![Out(Arg(1), ByResult), V, V]),
    ("memfd_create", marshal![Path, V]),
    // 320
    ("kexec_file_load", Delegate),
    ("bpf", refuse(EPERM, "not for a program of several hosts")),
    ("execveat", Thread),
    ("userfaultfd", refuse(ENOSYS, "the program's faults are the agent's")),
    ("membarrier", Delegate),
    ("mlock2", Memory),
    ("copy_file_range", marshal![V, OFFSET, V, OFFSET, V, V]),
    ("preadv2", marshal![V, VectorOut(2), V, V, V, V]),
    ("pwritev2", marshal![V, VectorIn(2), V, V, V, V]),
    ("pkey_mprotect", refuse(ENOSYS, "protection keys are per host")),
    // 330
    ("pkey_alloc", refuse(ENOSYS, "protection keys are per host")),
    ("pkey_free", refuse(ENOSYS, "protection keys are per host")),
    ("statx", marshal![V, Path, V, V, Out(Bytes(256), Whole)]),
    ("io_pgetevents", refuse(ENOSYS, "asynchronous I/O pins pages")),
    ("rseq", refuse_quietly(ENOSYS, "the kernel would write the program's memory at each preemption")),
];

/// Calls from [`HIGH_FIRST`].
#[rustfmt::skip]
pub(super) static HIGH: [(&str, Class); 46] = [
    ("pidfd_send_signal", marshal![V, V, In(Bytes(INFO)), V]),
    ("io_uring_setup", refuse(ENOSYS, "io_uring pins pages")),
    ("io_uring_enter", refuse(ENOSYS, "io_uring pins pages")),
    ("io_uring_register", refuse(ENOSYS, "io_uring pins pages")),
    ("open_tree", Delegate),
    ("move_mount", Delegate),
    // 430
    ("fsopen", Delegate),
    ("fsconfig", Delegate),
    ("fsmount", Delegate),
    ("fspick", Delegate),
    ("pidfd_open", Delegate),
    ("clone3", Thread),
    ("close_range", Delegate),
    ("openat2", marshal![V, Path, In(Arg(3)), V]),
    ("pidfd_getfd", Delegate),
    ("faccessat2", marshal![V, Path, V, V]),
    // 440
    ("process_madvise", refuse(ENOSYS, "it would bypass the address-space map")),
    ("epoll_pwait2", marshal![V, Out(Elements(2, 12), ByElements(12)), V, In(Bytes(TIME)), In(Arg(5)), V]),
    ("mount_setattr", Delegate),
    ("quotactl_fd", Delegate),
    ("landlock_create_ruleset", Delegate),
    ("landlock_add_rule", Delegate),
    ("landlock_restrict_self", Delegate),
    ("memfd_secret", refuse(ENOSYS, "secret memory cannot travel")),
    ("process_mrelease", refuse(ENOSYS, "it would bypass the address-space map")),
    ("futex_waitv", Delegate),
    // 450
    ("set_mempolicy_home_node", refuse_quietly(ENOSYS, "memory policy is the cluster's")),
    ("cachestat", Delegate),
    ("fchmodat2", marshal![V, Path, V, V]),
    ("map_shadow_stack", refuse_quietly(ENOSYS, "no shadow stacks")),
    ("futex_wake", Delegate),
    ("futex_wait", Delegate),
    ("futex_requeue", Delegate),
    ("statmount", Delegate),
    ("listmount", Delegate),
    ("lsm_get_self_attr", Delegate),
    // 460
    ("lsm_set_self_attr", Delegate),
    ("lsm_list_modules", Delegate),
    ("mseal", refuse_quietly(ENOSYS, "areas cannot be sealed")),
    ("setxattrat", Delegate),
    ("getxattrat", Delegate),
    ("listxattrat", Delegate),
    ("removexattrat", Delegate),
    ("open_tree_attr", Delegate),
    ("file_getattr", Delegate),
    ("file_setattr", Delegate),
];

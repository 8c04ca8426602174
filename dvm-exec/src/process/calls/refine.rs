//! Calls whose class depends on an argument: futex, ioctl, fcntl, prctl and others.
//!
//! Owns those decisions. Must not know calls that the table decides alone.

use super::shape::Argument::{In, InOut, Out, Value as V};
use super::shape::Fill::{Pointed as AsPointed, Whole};
use super::shape::Length::{Argument as Arg, Bytes, Pointed};
use super::shape::{Shape, shape};
use super::{Class, Refusal};

const TIME: u32 = 16;
const FLOCK: u32 = 32;
const TERMIOS: u32 = 36;
const NAME: u32 = 16;

static FUTEX_WAIT: Shape = shape([V, V, V, In(Bytes(TIME))]);
static OPTION_IN: Shape = shape([V, V, V, In(Arg(4))]);
static OPTION_OUT: Shape = shape([V, V, V, Out(Pointed(4), AsPointed(4)), InOut(Bytes(4), Whole)]);
static LOCK_IN: Shape = shape([V, V, In(Bytes(FLOCK))]);
static LOCK_BOTH: Shape = shape([V, V, InOut(Bytes(FLOCK), Whole)]);
static THIRD_IN_4: Shape = shape([V, V, In(Bytes(4))]);
static THIRD_IN_8: Shape = shape([V, V, In(Bytes(8))]);
static THIRD_OUT_4: Shape = shape([V, V, Out(Bytes(4), Whole)]);
static THIRD_OUT_8: Shape = shape([V, V, Out(Bytes(8), Whole)]);
static TERMIOS_IN: Shape = shape([V, V, In(Bytes(TERMIOS))]);
static TERMIOS_OUT: Shape = shape([V, V, Out(Bytes(TERMIOS), Whole)]);
static NAME_IN: Shape = shape([V, In(Bytes(NAME))]);
static NAME_OUT: Shape = shape([V, Out(Bytes(NAME), Whole)]);
static SECOND_OUT_4: Shape = shape([V, Out(Bytes(4), Whole)]);

/// The class of a call with these arguments, if they matter.
pub(super) fn refine(number: i64, arguments: &[u64; 6]) -> Option<Class> {
    match number {
        libc::SYS_futex => futex(arguments[1]),
        libc::SYS_ioctl => ioctl(arguments[1]).map(Class::Marshal),
        libc::SYS_fcntl => fcntl(arguments[1]).map(Class::Marshal),
        libc::SYS_prctl => prctl(arguments[0]),
        libc::SYS_getrusage if arguments[0] as i32 == libc::RUSAGE_THREAD => Some(Class::Local),
        libc::SYS_arch_prctl => arch_prctl(arguments[0]),
        libc::SYS_setsockopt => is_plain_option(arguments, arguments[4]).then_some(Class::Marshal(&OPTION_IN)),
        libc::SYS_getsockopt => is_plain_option(arguments, 0).then_some(Class::Marshal(&OPTION_OUT)),
        // Asking for the personality, or setting the one it has.
        libc::SYS_personality if matches!(arguments[0] as u32, 0 | u32::MAX) => Some(Class::Answer(0)),
        _ => None,
    }
}

fn refuse(errno: i32, reason: &'static str, quiet: bool) -> Option<Class> {
    Some(Class::Refuse(Refusal { errno, reason, quiet }))
}

/// The word's address stays raw: it names the word in the root's kernel.
fn futex(operation: u64) -> Option<Class> {
    let command = operation as i32 & !(libc::FUTEX_PRIVATE_FLAG | libc::FUTEX_CLOCK_REALTIME);
    match command {
        libc::FUTEX_WAIT | libc::FUTEX_WAIT_BITSET => Some(Class::Marshal(&FUTEX_WAIT)),
        libc::FUTEX_WAIT_REQUEUE_PI | libc::FUTEX_CMP_REQUEUE_PI => {
            refuse(libc::ENOSYS, "waiters cannot be moved to a priority-inheriting lock", false)
        }
        _ => None,
    }
}

fn ioctl(request: u64) -> Option<&'static Shape> {
    Some(match request {
        libc::TCGETS => &TERMIOS_OUT,
        libc::TCSETS | libc::TCSETSW | libc::TCSETSF => &TERMIOS_IN,
        libc::TIOCGWINSZ => &THIRD_OUT_8,
        libc::TIOCSWINSZ => &THIRD_IN_8,
        libc::TIOCGPGRP | libc::TIOCGSID | libc::FIONREAD | libc::TIOCOUTQ => &THIRD_OUT_4,
        libc::TIOCSPGRP | libc::FIONBIO | libc::FIOASYNC => &THIRD_IN_4,
        _ => return None,
    })
}

fn fcntl(command: u64) -> Option<&'static Shape> {
    Some(match command as i32 {
        libc::F_GETLK | libc::F_OFD_GETLK => &LOCK_BOTH,
        libc::F_SETLK | libc::F_SETLKW | libc::F_OFD_SETLK | libc::F_OFD_SETLKW => &LOCK_IN,
        15 | 1036 | 1038 => &THIRD_IN_8,  // F_SETOWN_EX, F_SET_RW_HINT, F_SET_FILE_RW_HINT
        16 | 1035 | 1037 => &THIRD_OUT_8, // F_GETOWN_EX, F_GET_RW_HINT, F_GET_FILE_RW_HINT
        _ => return None,
    })
}

fn prctl(option: u64) -> Option<Class> {
    match option as i32 {
        libc::PR_SET_NAME => Some(Class::Marshal(&NAME_IN)),
        libc::PR_GET_NAME => Some(Class::Marshal(&NAME_OUT)),
        libc::PR_GET_PDEATHSIG | libc::PR_GET_TSC | libc::PR_GET_CHILD_SUBREAPER => Some(Class::Marshal(&SECOND_OUT_4)),
        libc::PR_SET_VMA => Some(Class::Local),
        libc::PR_SET_SECCOMP => refuse(libc::EINVAL, "filters would stop the husk", false),
        59 => refuse(libc::EINVAL, "Syscall User Dispatch is the husk's", false),
        libc::PR_SET_MM => refuse(libc::EPERM, "the kernel's map is the husk's", false),
        libc::PR_SET_TSC => refuse(libc::EINVAL, "the husk reads the time-stamp counter", false),
        _ => None,
    }
}

fn arch_prctl(code: u64) -> Option<Class> {
    match code {
        0x1002 | 0x1003 => None, // ARCH_SET_FS, ARCH_GET_FS
        0x1001 | 0x1004 => refuse(libc::EINVAL, "the GS base cannot be changed", false),
        // Shadow stacks, AMX permission and others: every libc asks and goes on without.
        _ => refuse(libc::EINVAL, "not available", true),
    }
}

/// Options of sockets, TCP, UDP, IP and IPv6 that carry no pointers and no tables.
fn is_plain_option(arguments: &[u64; 6], bytes: u64) -> bool {
    const FILTERS: [u64; 3] = [26, 51, 50]; // SO_ATTACH_FILTER, SO_ATTACH_REUSEPORT_CBPF, SO_ATTACH_BPF
    let (level, option) = (arguments[1], arguments[2]);
    let is_filter = level == libc::SOL_SOCKET as u64 && FILTERS.contains(&option);
    // TCP_ZEROCOPY_RECEIVE carries an address.
    let is_zerocopy = level == libc::IPPROTO_TCP as u64 && option == 35;
    matches!(level as i32, libc::SOL_SOCKET | libc::IPPROTO_TCP | libc::IPPROTO_UDP | libc::IPPROTO_IP | libc::IPPROTO_IPV6)
        && !is_filter
        && !is_zerocopy
        && option < 80
        && bytes <= 256
}

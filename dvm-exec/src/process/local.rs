//! Calls answered on the host where the thread runs: clocks, sleeps, identity, FS base, the alternate stack.
//!
//! Owns those answers, and which clocks are the host's own. Results go through husk memory, because a member's kernel would refuse pages that the member has
//! not yet been granted. Must not ask the root.

use super::ask::{self, ResourceUsage, ThreadUsage};
use super::husk;
use super::thread::{Side, Thread};
use super::view::usage::CpuClock;
use crate::sys::context::Context;
use crate::sys::user::{self, BadAddress};
use crate::sys::{asm, call, cpu};

const ARCH_SET_FS: u64 = 0x1002;
const ARCH_GET_FS: u64 = 0x1003;
const TIME_BYTES: usize = 16;

/// Answers a call of the class Local; `None` if the root must do it.
pub fn answer(thread: &Thread, context: &Context, number: i64, arguments: &[u64; 6]) -> Option<i64> {
    let result = match number {
        libc::SYS_gettid => Ok(i64::from(thread.tid)),
        libc::SYS_getpid => Ok(i64::from(thread.pid)),
        libc::SYS_sched_yield => Ok(call::raw(number, arguments)),
        libc::SYS_arch_prctl => change_fs(context, arguments),
        libc::SYS_clock_gettime => match own_clock(thread, arguments[0]) {
            OwnClock::None => return None,
            OwnClock::Thread => thread_time(thread, arguments),
            OwnClock::Host => time_out(number, arguments),
        },
        libc::SYS_clock_getres => time_out(number, arguments),
        libc::SYS_getrusage => thread_usage(thread, arguments),
        libc::SYS_gettimeofday | libc::SYS_time => coarse_time(number, arguments),
        libc::SYS_nanosleep | libc::SYS_clock_nanosleep => sleep(context, number, arguments),
        libc::SYS_getcpu => processor(arguments),
        libc::SYS_prctl => Ok(name_memory(arguments)),
        _ => return None,
    };
    Some(result.unwrap_or_else(|BadAddress| -i64::from(libc::EFAULT)))
}

fn change_fs(context: &Context, arguments: &[u64; 6]) -> Result<i64, BadAddress> {
    match arguments[0] {
        ARCH_SET_FS => context.set_app_fs(arguments[1]),
        ARCH_GET_FS => user::write(arguments[1], &context.app_fs().to_le_bytes())?,
        _ => return Ok(-i64::from(libc::EINVAL)),
    }
    Ok(0)
}

fn time_out(number: i64, arguments: &[u64; 6]) -> Result<i64, BadAddress> {
    let mut time = [0_u64; 2];
    let clock = arguments[0];
    let result = call::raw(number, &[clock, time.as_mut_ptr() as u64, 0, 0, 0, 0]);
    if result == 0 && number == libc::SYS_clock_gettime {
        correct(clock, &mut time);
    }
    if result == 0 && (arguments[1] != 0 || number == libc::SYS_clock_gettime) {
        user::write(arguments[1], &pair(time))?;
    }
    Ok(result)
}

/// Clocks that count from the boot show the root's.
fn correct(clock: u64, time: &mut [u64; 2]) {
    const SECOND_NS: i64 = 1_000_000_000;
    let correction = husk::clock_correction_ns();
    if correction == 0 || !super::vdso::is_corrected(clock) {
        return;
    }
    let total = time[0] as i64 * SECOND_NS + time[1] as i64 + correction;
    *time = [total.div_euclid(SECOND_NS) as u64, total.rem_euclid(SECOND_NS) as u64];
}

fn pair(words: [u64; 2]) -> [u8; TIME_BYTES] {
    let mut bytes = [0; TIME_BYTES];
    bytes[..8].copy_from_slice(&words[0].to_le_bytes());
    bytes[8..].copy_from_slice(&words[1].to_le_bytes());
    bytes
}

fn coarse_time(number: i64, arguments: &[u64; 6]) -> Result<i64, BadAddress> {
    let mut time = [0_u64; 2];
    let mut zone = [0_u32; 2];
    if number == libc::SYS_time {
        let seconds = call::raw(number, &[0; 6]);
        if arguments[0] != 0 {
            user::write(arguments[0], &seconds.to_le_bytes())?;
        }
        return Ok(seconds);
    }
    let result = call::raw(number, &[time.as_mut_ptr() as u64, zone.as_mut_ptr() as u64, 0, 0, 0, 0]);
    if arguments[0] != 0 {
        user::write(arguments[0], &pair(time))?;
    }
    if arguments[1] != 0 {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&zone[0].to_le_bytes());
        bytes[4..].copy_from_slice(&zone[1].to_le_bytes());
        user::write(arguments[1], &bytes)?;
    }
    Ok(result)
}

fn sleep(context: &Context, number: i64, arguments: &[u64; 6]) -> Result<i64, BadAddress> {
    let (clock, flags, wanted, rest) = if number == libc::SYS_nanosleep {
        (libc::CLOCK_MONOTONIC as u64, 0, arguments[0], arguments[1])
    } else {
        (arguments[0], arguments[1], arguments[2], arguments[3])
    };
    let mut time = [user::read_u64(wanted)?, user::read_u64(wanted + 8)?];
    let is_absolute = flags & libc::TIMER_ABSTIME as u64 != 0;
    if is_absolute && husk::clock_correction_ns() != 0 && super::vdso::is_corrected(clock) {
        const SECOND_NS: i64 = 1_000_000_000;
        let total = (time[0] as i64).saturating_mul(SECOND_NS).saturating_add(time[1] as i64) - husk::clock_correction_ns();
        time = [total.div_euclid(SECOND_NS) as u64, total.rem_euclid(SECOND_NS) as u64];
    }
    let mut left = time;
    let result = loop {
        let raw = [clock, flags, time.as_ptr() as u64, left.as_mut_ptr() as u64, 0, 0];
        let result = call::raw_unless(context.flag(), libc::SYS_clock_nanosleep, &raw);
        if result != asm::INTERRUPTED {
            break result;
        }
        // No signal of the program broke the sleep off: the thread was asked to move.
        if !is_absolute {
            time = left;
        }
    };
    if result == -i64::from(libc::EINTR) && !is_absolute && rest != 0 {
        user::write(rest, &pair(left))?;
    }
    Ok(result)
}

/// Who knows a clock.
enum OwnClock {
    /// This host's kernel.
    Host,
    /// This host's kernel, for the thread alone.
    Thread,
    /// The root: CPU time of the program or of another thread.
    None,
}

fn own_clock(thread: &Thread, clock: u64) -> OwnClock {
    match CpuClock::of(clock) {
        None if (clock as i32) < 0 => OwnClock::None,
        None => OwnClock::Host,
        Some(CpuClock { is_thread: true, of: 0, .. }) => OwnClock::Thread,
        Some(CpuClock { is_thread: true, of, kind: CpuClock::RUN }) if of == thread.tid => OwnClock::Thread,
        Some(_) => OwnClock::None,
    }
}

/// What the kernel thread had used before it carried this thread of the program, less what that used elsewhere.
pub fn used_before(thread: &Thread) -> ThreadUsage {
    match &thread.side {
        Side::Root(task) => task.used_before(),
        Side::Child(_) => ThreadUsage::default(),
        Side::Member(link) => link.borrow().used_before(),
    }
}

fn thread_time(thread: &Thread, arguments: &[u64; 6]) -> Result<i64, BadAddress> {
    let used = ask::since(cpu::thread_time_ns(), used_before(thread).cpu_ns);
    user::write(arguments[1], &pair([used / 1_000_000_000, used % 1_000_000_000]))?;
    Ok(0)
}

/// getrusage(RUSAGE_THREAD).
fn thread_usage(thread: &Thread, arguments: &[u64; 6]) -> Result<i64, BadAddress> {
    let mut usage = ResourceUsage::of_kernel(libc::RUSAGE_THREAD);
    usage.subtract_times(&used_before(thread));
    user::write(arguments[1], &usage.to_bytes())?;
    Ok(0)
}

/// prctl(PR_SET_VMA): names for anonymous memory are judged, but not kept, since nothing is lost without.
fn name_memory(arguments: &[u64; 6]) -> i64 {
    let [option, what, address, ..] = *arguments;
    call::raw(libc::SYS_prctl, &[option, what, address, 0, 0, 0])
}

fn processor(arguments: &[u64; 6]) -> Result<i64, BadAddress> {
    let (mut number, mut node) = (0_u32, 0_u32);
    let result = call::raw(libc::SYS_getcpu, &[&raw mut number as u64, &raw mut node as u64, 0, 0, 0, 0]);
    if arguments[0] != 0 {
        let own = husk::processors();
        user::write(arguments[0], &(own.start + number % (own.end - own.start).max(1)).to_le_bytes())?;
    }
    if arguments[1] != 0 {
        user::write(arguments[1], &node.to_le_bytes())?;
    }
    Ok(result)
}

/// sigaltstack of the program, whose stack pointer is `stack_pointer`.
pub fn change_alternate_stack(thread: &Thread, stack_pointer: u64, arguments: &[u64; 6]) -> i64 {
    let former = thread.alternate.get();
    if arguments[0] != 0 {
        let mut bytes = [0; 24];
        if user::read(arguments[0], &mut bytes).is_err() {
            return -i64::from(libc::EFAULT);
        }
        let bytes_min = cpu::auxiliary(libc::AT_MINSIGSTKSZ).max(2048);
        match former.replace(super::sigframe::AltStack::from_bytes(&bytes), stack_pointer, bytes_min) {
            Ok(stack) => thread.alternate.set(stack),
            Err(error) => return -i64::from(error),
        }
    }
    if arguments[1] != 0 && user::write(arguments[1], &former.report(stack_pointer).to_bytes()).is_err() {
        return -i64::from(libc::EFAULT);
    }
    0
}

//! What must be right before anything else: signals and descriptors as they were inherited, and a finite stack limit.
//!
//! Owns the code that runs before `main`, and starting this program anew. Must not know jobs.

use super::signal::{self, Disposition};
use super::{call, cpu};
use std::ffi::CString;
use std::io::Error;
use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A finite limit for husks whose user has none: with an unlimited stack the kernel maps libraries from the bottom of
/// the address space, into the program's part.
pub const STACK_LIMIT_BYTES: u64 = 8 << 20;
/// Carries the user's limit through the new start.
pub const LIMIT_VARIABLE: &str = "DVM_STACK_LIMIT";

/// Standard input, output and error.
const STANDARD: std::ops::Range<u64> = 0..3;

static PIPE_WAS_IGNORED: AtomicBool = AtomicBool::new(false);
/// One bit for each standard descriptor that was closed.
static CLOSED: AtomicU64 = AtomicU64::new(0);

/// Notes what Rust's runtime is about to change: it ignores SIGPIPE, and opens /dev/null where a standard descriptor is closed.
extern "C" fn note_inherited() {
    PIPE_WAS_IGNORED.store(signal::is_ignored(libc::SIGPIPE), Ordering::Relaxed);
    let is_closed = |raw: &u64| call::raw(libc::SYS_fcntl, &[*raw, libc::F_GETFD as u64, 0, 0, 0, 0]) < 0;
    CLOSED.store(STANDARD.filter(is_closed).map(|raw| 1 << raw).sum(), Ordering::Relaxed);
}

#[used]
// SAFETY: the C runtime calls each pointer of this section before main, with a valid stack and no other thread.
#[unsafe(link_section = ".init_array")]
static NOTE_INHERITED: extern "C" fn() = note_inherited;

/// Undoes the runtime's change, so that the program inherits what the user's shell gave us.
pub fn restore_signals() {
    if !PIPE_WAS_IGNORED.load(Ordering::Relaxed) {
        signal::set_disposition(libc::SIGPIPE, Disposition::Default).unwrap_or(());
    }
}

/// Closes the standard descriptors that were closed when we were started: whoever comes after us finds them so. What is
/// opened from here on may get their numbers.
pub fn close_again() {
    let closed = CLOSED.swap(0, Ordering::Relaxed);
    for raw in STANDARD.filter(|raw| closed >> raw & 1 == 1) {
        call::raw(libc::SYS_close, &[raw, 0, 0, 0, 0, 0]);
    }
}

/// Makes sure that the stack limit is finite, by starting this program anew if it is not. Returns the limit that the
/// user had: soft, hard.
///
/// # Errors
/// The kernel's error.
pub fn with_finite_stack() -> Result<(u64, u64), Error> {
    let (soft, hard) = cpu::limit(libc::RLIMIT_STACK)?;
    if let Some(soft) = std::env::var(LIMIT_VARIABLE).ok().and_then(|text| text.parse().ok()) {
        return Ok((soft, hard));
    }
    if soft != libc::RLIM_INFINITY {
        return Ok((soft, hard));
    }
    cpu::set_limit(libc::RLIMIT_STACK, STACK_LIMIT_BYTES, hard)?;
    let text = |value: std::ffi::OsString| CString::new(value.into_vec()).map_err(|_| Error::from_raw_os_error(libc::EINVAL));
    let arguments = std::env::args_os().map(text).collect::<Result<Vec<_>, _>>()?;
    let variables = std::env::vars_os().map(|(name, value)| {
        let mut pair = name;
        pair.push("=");
        pair.push(value);
        pair
    });
    let note = std::ffi::OsString::from(format!("{LIMIT_VARIABLE}={soft}"));
    let environment = variables.chain([note]).map(text).collect::<Result<Vec<_>, _>>()?;
    let pointers = |texts: &[CString]| -> Vec<*const libc::c_char> {
        texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect()
    };
    let (arguments_raw, environment_raw) = (pointers(&arguments), pointers(&environment));
    close_again();
    // SAFETY: both arrays end with null and point to strings that live across the call.
    unsafe { libc::execve(c"/proc/self/exe".as_ptr(), arguments_raw.as_ptr(), environment_raw.as_ptr()) };
    Err(Error::last_os_error())
}

//! Raw system calls with the kernel's own error convention.
//!
//! Owns the two ways into the kernel. Must not know which calls are made.

use super::asm;
use std::sync::atomic::AtomicU32;

/// Makes a system call; a negative result above -4096 is an error number. The caller answers for what the arguments
/// do to memory: program calls only name program memory, which no Rust reference ever covers.
pub fn raw(number: i64, arguments: &[u64; 6]) -> i64 {
    // SAFETY: the assembly follows the C calling convention; what the kernel does with program memory cannot break
    // Rust's rules because program memory is never borrowed, and husk callers pass addresses of their own locals.
    unsafe { asm::dvm_call(number, arguments.as_ptr()) }
}

/// As [`raw`], but answers [`asm::NOT_BEGUN`] without entering the kernel while `flag` is not zero; a signal that raises
/// the flag between the test and the kernel's entry has the same effect. A call that a signal breaks off gives
/// [`asm::INTERRUPTED`] where SA_RESTART would repeat it, EINTR where not: the kernel decides.
pub fn raw_unless(flag: &AtomicU32, number: i64, arguments: &[u64; 6]) -> i64 {
    // SAFETY: as in `raw`; the flag is an aligned word that outlives the call.
    unsafe { asm::dvm_call_unless(number, arguments.as_ptr(), flag.as_ptr()) }
}

/// As [`raw`], with errors as errors.
///
/// # Errors
/// The kernel's error.
pub fn checked(number: i64, arguments: &[u64; 6]) -> Result<u64, std::io::Error> {
    let result = raw(number, arguments);
    if (-4095..0).contains(&result) {
        return Err(std::io::Error::from_raw_os_error(-result as i32));
    }
    Ok(result as u64)
}

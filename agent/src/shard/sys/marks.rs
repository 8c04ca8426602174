//! Places in a fault's way that `dvm-agent trace` finds in a running agent by their names.
//!
//! Owns the names and the registers of the arguments, which `ebpf/prog/src/trace` reads. Must not do anything: untraced, each is a
//! call, a no-op and a return.
#![expect(unsafe_code, reason = "a probe finds a function by its unmangled name and its arguments in registers")]

macro_rules! marks {
    ($($(#[$doc:meta])* $name:ident = $number:literal;)*) => {$(
        $(#[$doc])*
        // SAFETY: no other symbol begins with `dvm_mark_`.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub(in crate::shard) extern "C" fn $name(page: u64, other: u64) {
            // SAFETY: a no-op. That it takes the registers of the first two arguments keeps the callers from leaving them
            // unset. It has the five bytes that Linux 6.18 can turn into a call, which costs less than a trap. The number,
            // in a second no-op, keeps the functions apart: equal ones would become one.
            unsafe {
                std::arch::asm!(
                    concat!(".byte 0x0f, 0x1f, 0x44, 0x00, 0x00, 0x0f, 0x1f, 0x40, ", $number),
                    in("rdi") page,
                    in("rsi") other,
                    options(nomem, nostack, preserves_flags)
                );
            }
        }
    )*};
}

marks! {
    /// The event of a fault was read: page, thread.
    dvm_mark_fault_read = 1;
    /// A request is queued: first page, count; a count of 0 if it may be on another host's behalf.
    dvm_mark_request_out = 2;
    /// An answer has come in: first page, count.
    dvm_mark_grant_in = 3;
    /// A fault is served: page, whether it came from another host.
    dvm_mark_installed = 4;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn marks_are_told_apart() {
        let marks: [extern "C" fn(u64, u64); 4] =
            [dvm_mark_fault_read, dvm_mark_request_out, dvm_mark_grant_in, dvm_mark_installed];
        let addresses: BTreeSet<usize> = marks.iter().map(|mark| *mark as usize).collect();
        assert_eq!(addresses.len(), marks.len());
    }
}

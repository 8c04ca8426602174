//! The first contents of a program's stack: argument count, pointers, auxiliary vector, strings.
//!
//! Owns the layout. Must not know where the values come from or how bytes get into memory.

use thiserror::Error;

/// Longest single argument or environment string, as in the kernel.
pub const STRING_BYTES_MAX: usize = 128 * 1024;

/// What the program is told at its start.
#[derive(Clone, Debug, Default)]
pub struct StackContents<'a> {
    /// argv, without terminating zeros.
    pub arguments: &'a [Vec<u8>],
    /// envp, each `NAME=value`.
    pub environment: &'a [Vec<u8>],
    /// Path of the program (AT_EXECFN).
    pub executable: &'a [u8],
    /// Numbers of the auxiliary vector.
    pub auxiliary: Auxiliary,
    /// AT_RANDOM.
    pub random: [u8; 16],
}

/// The auxiliary vector but for its pointers into the stack. AT_RSEQ_* are left out: the kernel would write into the
/// program's memory at each preemption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Auxiliary {
    /// AT_SYSINFO_EHDR, 0 for none.
    pub vdso: u64,
    /// AT_PHDR.
    pub headers: u64,
    /// AT_PHNUM.
    pub header_count: u16,
    /// AT_BASE: bias of the interpreter, 0 without one.
    pub interpreter_base: u64,
    /// AT_ENTRY: the program's, not the interpreter's.
    pub entry: u64,
    /// AT_UID.
    pub uid: u32,
    /// AT_EUID.
    pub effective_uid: u32,
    /// AT_GID.
    pub gid: u32,
    /// AT_EGID.
    pub effective_gid: u32,
    /// AT_HWCAP.
    pub hwcap: u64,
    /// AT_HWCAP2.
    pub hwcap2: u64,
    /// AT_CLKTCK.
    pub clock_ticks: u64,
    /// AT_MINSIGSTKSZ.
    pub signal_stack_bytes_min: u64,
}

/// Bytes for `[stack_pointer, stack_pointer + bytes.len())`, which ends at the top given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StackImage {
    /// The program's first stack pointer, a multiple of 16; argc stands there.
    pub stack_pointer: u64,
    /// What stands from there to the top.
    pub bytes: Vec<u8>,
}

/// Why a stack cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StackError {
    /// More than a quarter of the stack, the kernel's rule.
    #[error("arguments and environment take {bytes} bytes, at most {bytes_max} fit: shorten them")]
    TooLarge {
        /// What they take.
        bytes: usize,
        /// What may be.
        bytes_max: usize,
    },
    /// One string is too long.
    #[error("an argument or environment string has {0} bytes, at most {STRING_BYTES_MAX} are allowed")]
    StringTooLong(usize),
    /// A string has a zero byte.
    #[error("an argument or environment string contains a zero byte")]
    ZeroByte,
    /// The top is not a multiple of 16.
    #[error("stack top {0:#x} is not a multiple of 16")]
    Unaligned(u64),
}

/// Lays out the stack below `top`; at most `bytes_max` bytes.
///
/// # Errors
/// [`StackError`].
pub fn build(_top: u64, _bytes_max: usize, _contents: &StackContents<'_>) -> Result<StackImage, StackError> {
    todo!()
}

//! The x86-64 signal frame: what a handler finds on the stack and what `rt_sigreturn` reads back.
//!
//! Owns the layout and the choice of the stack, and the register block that threads travel in. Must not touch memory or
//! the kernel's own frame.

use thiserror::Error;

/// Bytes of the fxsave area.
pub const FXSAVE_BYTES: usize = 512;
/// Bytes of siginfo_t.
pub const SIGINFO_BYTES: usize = 128;
/// Bytes of ucontext_t as the kernel lays it out.
pub const UCONTEXT_BYTES: usize = 304;
/// Largest XSAVE area taken, with its end mark.
pub const XSAVE_BYTES_MAX: usize = 16 * 1024;

/// A thread's registers; the first eighteen stand as in sigcontext.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the processor's")]
pub struct Registers {
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rax: u64,
    pub rcx: u64,
    pub rsp: u64,
    pub rip: u64,
    pub flags: u64,
}

/// The x87 and SSE state as fxsave64 writes it.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fxsave(pub [u8; FXSAVE_BYTES]);

/// Everything a thread needs to run elsewhere.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadState {
    /// x87 and SSE.
    pub fxsave: Fxsave,
    /// General registers.
    pub registers: Registers,
    /// FS base.
    pub fs_base: u64,
}

/// sigaltstack of a thread.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AltStack {
    /// ss_sp.
    pub address: u64,
    /// ss_flags as the program set them; SS_DISABLE at first.
    pub flags: u32,
    /// ss_size.
    pub bytes: u64,
}

/// A signal action as rt_sigaction takes it (four u64 in memory: handler, flags, restorer, mask).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Action {
    /// SIG_DFL 0, SIG_IGN 1, or the handler's address.
    pub handler: u64,
    /// SA_*.
    pub flags: u64,
    /// Where the handler returns to.
    pub restorer: u64,
    /// Signals blocked meanwhile.
    pub mask: u64,
}

/// siginfo_t, opaque but for what the husk needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalInfo(pub [u8; SIGINFO_BYTES]);

/// What a delivery starts from.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// Which signal.
    pub info: &'a SignalInfo,
    /// What the program asked for.
    pub action: Action,
    /// Where the thread was.
    pub registers: &'a Registers,
    /// The floating-point area of the kernel's own frame: `extended_size` bytes with the end mark, or 512.
    pub floating: &'a [u8],
    /// The mask to be restored by rt_sigreturn.
    pub mask: u64,
    /// The thread's alternate stack.
    pub altstack: AltStack,
    /// err, trapno and cr2 of the kernel's own frame (faults); zero otherwise.
    pub fault: FaultWords,
}

/// Words of sigcontext that describe a processor exception.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultWords {
    /// err.
    pub error: u64,
    /// trapno.
    pub trap: u64,
    /// cr2.
    pub address: u64,
}

/// What to write, and how the thread goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Where the bytes go: the new stack pointer.
    pub address: u64,
    /// The frame: return address, ucontext, siginfo, floating-point area.
    pub bytes: Vec<u8>,
    /// Registers at the handler's first instruction.
    pub registers: Registers,
    /// Signal mask while it runs.
    pub mask: u64,
    /// The alternate stack from now on (SS_AUTODISARM).
    pub altstack: AltStack,
}

/// What rt_sigreturn restores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// General registers.
    pub registers: Registers,
    /// Signal mask.
    pub mask: u64,
    /// Alternate stack.
    pub altstack: AltStack,
    /// Where the floating-point area is; 0: initial state.
    pub floating_address: u64,
}

/// Why a frame cannot be built or read; the thread gets SIGSEGV.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// SA_RESTORER is missing.
    #[error("signal {0} has no restorer (SA_RESTORER): the program's libc must set one")]
    NoRestorer(i32),
    /// It does not fit the alternate stack.
    #[error("signal frame of {bytes} bytes does not fit the alternate stack of {stack_bytes}")]
    StackOverflow {
        /// What it needs.
        bytes: u64,
        /// What there is.
        stack_bytes: u64,
    },
    /// An area of impossible size or content.
    #[error("floating-point area is malformed: {0}")]
    Floating(&'static str),
    /// The frame is elsewhere than a program's memory.
    #[error("signal frame at {0:#x} is outside the program's memory")]
    Outside(u64),
}

impl Default for Fxsave {
    /// The state of a new program: control words 0x37f and 0x1f80.
    fn default() -> Self {
        let mut bytes = [0; FXSAVE_BYTES];
        bytes[0..2].copy_from_slice(&0x37f_u16.to_le_bytes());
        bytes[24..28].copy_from_slice(&0x1f80_u32.to_le_bytes());
        Self(bytes)
    }
}

impl Default for AltStack {
    fn default() -> Self {
        Self { address: 0, flags: AltStack::DISABLE, bytes: 0 }
    }
}

impl AltStack {
    /// SS_ONSTACK.
    pub const ON_STACK: u32 = 1;
    /// SS_DISABLE.
    pub const DISABLE: u32 = 2;
    /// SS_AUTODISARM.
    pub const AUTODISARM: u32 = 1 << 31;

    /// sigaltstack's new value, judged; errno otherwise. `stack_pointer` is the program's.
    ///
    /// # Errors
    /// EPERM on the stack itself, EINVAL for flags, ENOMEM below `bytes_min`.
    pub fn replace(&self, _new: AltStack, _stack_pointer: u64, _bytes_min: u64) -> Result<AltStack, i32> {
        todo!()
    }

    /// What sigaltstack reports: flags say whether the thread is on it.
    #[must_use]
    pub fn report(&self, _stack_pointer: u64) -> AltStack {
        todo!()
    }

    /// Reads stack_t.
    #[must_use]
    pub fn from_bytes(_bytes: &[u8; 24]) -> Self {
        todo!()
    }

    /// Writes stack_t.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 24] {
        todo!()
    }
}

impl Action {
    /// Reads struct kernel_sigaction.
    #[must_use]
    pub fn from_bytes(_bytes: &[u8; 32]) -> Self {
        todo!()
    }

    /// Writes struct kernel_sigaction.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 32] {
        todo!()
    }
}

impl SignalInfo {
    /// si_signo.
    #[must_use]
    pub fn signal(&self) -> i32 {
        todo!()
    }

    /// si_code.
    #[must_use]
    pub fn code(&self) -> i32 {
        todo!()
    }

    /// si_addr.
    #[must_use]
    pub fn address(&self) -> u64 {
        todo!()
    }

    /// A fault's siginfo: signal, code, address.
    #[must_use]
    pub fn fault(_signal: i32, _code: i32, _address: u64) -> Self {
        todo!()
    }
}

/// Builds the frame and the registers with which the handler starts.
///
/// # Errors
/// [`FrameError`].
pub fn build(_delivery: &Delivery<'_>) -> Result<Frame, FrameError> {
    todo!()
}

/// Reads the ucontext that rt_sigreturn finds at the program's stack pointer.
#[must_use]
pub fn parse(_ucontext: &[u8; UCONTEXT_BYTES]) -> Restored {
    todo!()
}

/// How many bytes the floating-point area has, judged from its first 512: the whole with its end mark, or 512.
#[must_use]
pub fn floating_bytes(_fxsave: &[u8; FXSAVE_BYTES]) -> usize {
    todo!()
}

/// Makes a program's floating-point area fit to overwrite the kernel's own of this thread (`own`): same size, no bit
/// that would make the kernel kill the thread.
///
/// # Errors
/// [`FrameError::Floating`].
pub fn accept_floating(_program: &[u8], _own: &[u8]) -> Result<Vec<u8>, FrameError> {
    todo!()
}

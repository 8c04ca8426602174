//! Signal frames, actions and masks as the kernel has them.
//!
//! Owns the layout of the kernel's `ucontext` and the raw calls. Must not know which signal the program wants.

use super::asm;
use super::call;
use crate::process::sigframe::{self, FXSAVE_BYTES, Fxsave, Registers, ThreadState};

/// The bit of SIGSYS in a mask: never blocked.
pub const SIGSYS_BIT: u64 = 1 << (libc::SIGSYS - 1);
/// Signals by which the processor reports what a thread did itself: blocked, they would end the process.
pub const FAULT_BITS: u64 = 1 << (libc::SIGSEGV - 1)
    | 1 << (libc::SIGBUS - 1)
    | 1 << (libc::SIGFPE - 1)
    | 1 << (libc::SIGILL - 1)
    | 1 << (libc::SIGTRAP - 1);
const SA_RESTORER: u64 = 0x0400_0000;
const GENERAL_FIRST: u64 = 40;
const FLOAT_POINTER: u64 = 224;
const MASK: u64 = 296;

/// Words of the kernel's `mcontext` that are looked at one by one, by their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// Fifth argument of a call.
    R8 = 0,
    /// Sixth argument.
    R9 = 1,
    /// Fourth argument.
    R10 = 2,
    /// First argument.
    Rdi = 8,
    /// Second argument.
    Rsi = 9,
    /// A register of no call.
    Rbx = 11,
    /// Third argument.
    Rdx = 12,
    /// Number and result.
    Rax = 13,
    /// Where a system call returns to: the call's instruction overwrites it.
    Rcx = 14,
    /// Stack pointer.
    Rsp = 15,
    /// Instruction pointer.
    Rip = 16,
    /// Error code of an exception.
    Error = 19,
    /// Its number.
    Trap = 20,
    /// The address it was about.
    Address = 22,
}

/// The interrupted state that the kernel restores when the handler returns.
#[derive(Clone, Copy, Debug)]
pub struct Frame(u64);

impl Frame {
    /// The frame whose `ucontext` is at `address`; only the signal entries make one.
    pub(super) fn new(address: u64) -> Self {
        Self(address)
    }

    /// Where it is.
    pub(super) fn address(self) -> u64 {
        self.0
    }

    fn read(self, offset: u64) -> u64 {
        // SAFETY: the kernel wrote a complete ucontext at this address and it stays until the handler returns; Frames
        // are made by the signal entries only and do not outlive them.
        unsafe { ((self.0 + offset) as *const u64).read_volatile() }
    }

    fn write(self, offset: u64, value: u64) {
        // SAFETY: as in `read`; the frame is this thread's own.
        unsafe { ((self.0 + offset) as *mut u64).write_volatile(value) }
    }

    /// Value of a register.
    #[must_use]
    pub fn get(self, register: Register) -> u64 {
        self.read(GENERAL_FIRST + register as u64 * 8)
    }

    /// Sets a register.
    pub fn set(self, register: Register, value: u64) {
        self.write(GENERAL_FIRST + register as u64 * 8, value);
    }

    /// Instruction pointer.
    #[must_use]
    pub fn rip(self) -> u64 {
        self.get(Register::Rip)
    }

    /// Stack pointer.
    #[must_use]
    pub fn rsp(self) -> u64 {
        self.get(Register::Rsp)
    }

    /// The signal mask that will be restored.
    pub fn set_mask(self, mask: u64) {
        self.write(MASK, mask & !SIGSYS_BIT);
    }

    /// Bytes of the floating-point state of this frame.
    #[must_use]
    pub fn float_bytes(self) -> usize {
        let mut header = [0_u8; FXSAVE_BYTES];
        self.copy_float(&mut header);
        sigframe::floating_bytes(&header)
    }

    fn copy_float(self, into: &mut [u8]) {
        let from = self.read(FLOAT_POINTER) as *const u8;
        // SAFETY: the kernel's frame has at least FXSAVE_BYTES there, and callers ask for more only after the header
        // has said that they exist.
        unsafe { std::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
    }

    /// The floating-point state.
    #[must_use]
    pub fn float_state(self) -> Vec<u8> {
        let mut state = vec![0; self.float_bytes()];
        self.copy_float(&mut state);
        state
    }

    /// Replaces the floating-point state by `state`, which the program may have changed.
    pub fn set_float_state(self, state: &[u8]) {
        let bytes = state.len().min(self.float_bytes());
        let to = self.read(FLOAT_POINTER) as *mut u8;
        // SAFETY: at most the bytes that the frame has.
        unsafe { std::ptr::copy_nonoverlapping(state.as_ptr(), to, bytes) };
    }

    /// Makes the floating-point state that of a new program, as handlers find it. Protection keys stay.
    pub fn reset_float_state(self) {
        let fresh = sigframe::initial_floating(&self.float_state());
        self.set_float_state(&fresh);
    }

    /// The general registers.
    #[must_use]
    pub fn registers(self) -> Registers {
        // SAFETY: the kernel's mcontext starts with the eighteen words that `Registers` (repr(C)) is made of.
        unsafe { ((self.0 + GENERAL_FIRST) as *const Registers).read_volatile() }
    }

    /// Replaces the general registers; segments stay.
    pub fn set_registers(self, registers: &Registers) {
        // SAFETY: as in `registers`; the frame is this thread's own.
        unsafe { ((self.0 + GENERAL_FIRST) as *mut Registers).write_volatile(*registers) };
    }

    /// The state of a new thread that goes on from here: RAX is 0.
    #[must_use]
    pub fn state(self, fs_base: u64) -> ThreadState {
        let mut fxsave = Fxsave::default();
        self.copy_float(&mut fxsave.0);
        let mut registers = self.registers();
        registers.rax = 0;
        ThreadState { fxsave, registers, fs_base }
    }
}

#[repr(C)]
struct KernelAction {
    handler: u64,
    flags: u64,
    restorer: u64,
    mask: u64,
}

/// What this process natively does with a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// The kernel's default.
    Default,
    /// Ignored.
    Ignore,
    /// The husk's catcher, on the thread's block.
    Catch,
    /// The husk's system call entry; SIGSYS only.
    Dispatch,
}

/// Sets the native disposition of `signal`; errors (SIGKILL, SIGSTOP) are the kernel's.
///
/// # Errors
/// The kernel's error.
pub fn set_disposition(signal: i32, disposition: Disposition) -> Result<(), std::io::Error> {
    set_disposition_with(signal, disposition, 0)
}

/// As [`set_disposition`], with more flags (SA_NOCLDSTOP, SA_NOCLDWAIT).
///
/// # Errors
/// The kernel's error.
pub fn set_disposition_with(signal: i32, disposition: Disposition, more: u64) -> Result<(), std::io::Error> {
    let entry = |function: unsafe extern "C" fn()| function as usize as u64;
    let (handler, flags, mask) = match disposition {
        Disposition::Default => (libc::SIG_DFL as u64, 0, 0),
        Disposition::Ignore => (libc::SIG_IGN as u64, 0, 0),
        // Restarting natively makes the kernel tell which calls SA_RESTART repeats.
        Disposition::Catch => {
            (entry(asm::dvm_catch), libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART, !(SIGSYS_BIT | FAULT_BITS))
        }
        Disposition::Dispatch => (entry(asm::dvm_sigsys), libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER, 0),
    };
    let restorer = entry(asm::dvm_restore);
    let action = KernelAction { handler, flags: flags as u32 as u64 | SA_RESTORER | more, restorer, mask };
    let address = &raw const action as u64;
    call::checked(libc::SYS_rt_sigaction, &[signal as u64, address, 0, 8, 0, 0]).map(drop)
}

/// The native disposition of `signal` inherited from whoever started us: true if it is ignored.
#[must_use]
pub fn is_ignored(signal: i32) -> bool {
    let mut action = KernelAction { handler: 0, flags: 0, restorer: 0, mask: 0 };
    let address = &raw mut action as u64;
    let done = call::checked(libc::SYS_rt_sigaction, &[signal as u64, 0, address, 8, 0, 0]);
    done.is_ok() && action.handler == libc::SIG_IGN as u64
}

/// Replaces the calling thread's native mask and returns the former one. SIGSYS is never blocked.
pub fn replace_mask(mask: u64) -> u64 {
    let (mask, mut former) = (mask & !SIGSYS_BIT, 0_u64);
    let arguments = [libc::SIG_SETMASK as u64, &raw const mask as u64, &raw mut former as u64, 8, 0, 0];
    call::raw(libc::SYS_rt_sigprocmask, &arguments);
    former
}

//! The x86-64 signal frame: what a handler finds on the stack and what `rt_sigreturn` reads back.
//!
//! Owns the layout and the choice of the stack, and the register block that threads travel in. Must not touch memory or
//! the kernel's own frame.

use super::vma::{SPACE_END, SPACE_START};
use thiserror::Error;

#[cfg(test)]
mod tests;

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
#[repr(transparent)]
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
        bytes[MXCSR_OFFSET..MXCSR_OFFSET + 4].copy_from_slice(&0x1f80_u32.to_le_bytes());
        Self(bytes)
    }
}

impl Default for AltStack {
    fn default() -> Self {
        Self { address: 0, flags: AltStack::DISABLE, bytes: 0 }
    }
}

impl Registers {
    /// Bytes of the eighteen words.
    pub const BYTES: usize = 144;

    /// As they stand in sigcontext.
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let words = [
            self.r8, self.r9, self.r10, self.r11, self.r12, self.r13, self.r14, self.r15, self.rdi, self.rsi, self.rbp, self.rbx,
            self.rdx, self.rax, self.rcx, self.rsp, self.rip, self.flags,
        ];
        let mut bytes = [0; Self::BYTES];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads them as they stand in sigcontext.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let word = |index: usize| u64_at(bytes, index * 8);
        Self {
            r8: word(0),
            r9: word(1),
            r10: word(2),
            r11: word(3),
            r12: word(4),
            r13: word(5),
            r14: word(6),
            r15: word(7),
            rdi: word(8),
            rsi: word(9),
            rbp: word(10),
            rbx: word(11),
            rdx: word(12),
            rax: word(13),
            rcx: word(14),
            rsp: word(15),
            rip: word(16),
            flags: word(17),
        }
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
    pub fn replace(&self, new: AltStack, stack_pointer: u64, bytes_min: u64) -> Result<AltStack, i32> {
        if self.is_on(stack_pointer) {
            return Err(libc::EPERM);
        }
        match new.flags & !Self::AUTODISARM {
            Self::DISABLE => Ok(Self { address: 0, flags: new.flags, bytes: 0 }),
            0 | Self::ON_STACK if new.bytes < bytes_min => Err(libc::ENOMEM),
            0 | Self::ON_STACK => Ok(Self { flags: new.flags & Self::AUTODISARM, ..new }),
            _ => Err(libc::EINVAL),
        }
    }

    /// What sigaltstack reports: flags say whether the thread is on it.
    #[must_use]
    pub fn report(&self, stack_pointer: u64) -> AltStack {
        let state = match (self.bytes, self.is_on(stack_pointer)) {
            (0, _) => Self::DISABLE,
            (_, true) => Self::ON_STACK,
            (_, false) => 0,
        };
        Self { flags: state | self.flags & Self::AUTODISARM, ..*self }
    }

    /// Reads stack_t.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 24]) -> Self {
        Self { address: u64_at(bytes, 0), flags: u32_at(bytes, 8), bytes: u64_at(bytes, 16) }
    }

    /// Writes stack_t.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&self.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.flags.to_le_bytes());
        bytes[16..].copy_from_slice(&self.bytes.to_le_bytes());
        bytes
    }

    /// Whether a thread with this stack pointer runs on it. With SS_AUTODISARM it is disarmed meanwhile: never.
    fn is_on(&self, stack_pointer: u64) -> bool {
        // As in the kernel: a full stack's pointer stands at its end, an empty one's above its start.
        self.flags & Self::AUTODISARM == 0 && stack_pointer > self.address && stack_pointer - self.address <= self.bytes
    }

    fn is_enabled(&self) -> bool {
        self.flags & Self::DISABLE == 0 && self.bytes > 0
    }
}

impl Action {
    /// SA_ONSTACK.
    pub const ON_STACK: u64 = 0x0800_0000;
    /// SA_RESTORER.
    pub const RESTORER: u64 = 0x0400_0000;
    /// SA_NODEFER.
    pub const NO_DEFER: u64 = 0x4000_0000;

    /// The mask while this action's handler for `signal` runs, entered under `mask`.
    #[must_use]
    pub fn running_mask(&self, signal: i32, mask: u64) -> u64 {
        let blocks_itself = if self.flags & Self::NO_DEFER == 0 { signal_bit(signal) } else { 0 };
        mask | self.mask | blocks_itself
    }

    /// Reads struct kernel_sigaction.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self { handler: u64_at(bytes, 0), flags: u64_at(bytes, 8), restorer: u64_at(bytes, 16), mask: u64_at(bytes, 24) }
    }

    /// Writes struct kernel_sigaction.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (place, word) in bytes.chunks_exact_mut(8).zip([self.handler, self.flags, self.restorer, self.mask]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

impl SignalInfo {
    /// si_signo.
    #[must_use]
    pub fn signal(&self) -> i32 {
        u32_at(&self.0, 0) as i32
    }

    /// si_code.
    #[must_use]
    pub fn code(&self) -> i32 {
        u32_at(&self.0, 8) as i32
    }

    /// si_addr.
    #[must_use]
    pub fn address(&self) -> u64 {
        u64_at(&self.0, 16)
    }

    /// A fault's siginfo: signal, code, address.
    #[must_use]
    pub fn fault(signal: i32, code: i32, address: u64) -> Self {
        let mut bytes = [0; SIGINFO_BYTES];
        bytes[..4].copy_from_slice(&signal.to_le_bytes());
        bytes[8..12].copy_from_slice(&code.to_le_bytes());
        bytes[16..24].copy_from_slice(&address.to_le_bytes());
        Self(bytes)
    }
}

/// Bytes below the stack pointer that belong to the interrupted function.
const RED_ZONE_BYTES: u64 = 128;
/// Return address, ucontext, siginfo.
const FRAME_BYTES: u64 = (8 + UCONTEXT_BYTES + SIGINFO_BYTES) as u64;
/// UC_FP_XSTATE, and UC_SIGCONTEXT_SS with UC_STRICT_RESTORE_SS.
const UC_FP_XSTATE: u64 = 1;
const UC_SS: u64 = 6;
/// Direction, trap and resume flags are off in a handler.
const FLAGS_OFF: u64 = 0x400 | 0x100 | 0x1_0000;
const USER_CS: u16 = 0x33;
const USER_SS: u16 = 0x2b;
// Offsets in ucontext.
const UC_STACK: usize = 16;
const UC_REGISTERS: usize = 40;
const UC_SEGMENTS: usize = UC_REGISTERS + Registers::BYTES;
const UC_FAULT: usize = UC_SEGMENTS + 8;
const UC_FLOATING: usize = UC_FAULT + 32;
const UC_MASK: usize = UC_FLOATING + 8 + 64;
// Offsets in the floating-point area.
const MXCSR_OFFSET: usize = 24;
const MXCSR_MASK_OFFSET: usize = 28;
const SOFTWARE_OFFSET: usize = 464;
const HEADER_OFFSET: usize = 512;
const HEADER_BYTES: usize = 64;
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;

const _: () = assert!(UC_MASK + 8 == UCONTEXT_BYTES && size_of::<Registers>() == Registers::BYTES);

/// Builds the frame and the registers with which the handler starts.
///
/// # Errors
/// [`FrameError`].
pub fn build(delivery: &Delivery<'_>) -> Result<Frame, FrameError> {
    let Delivery { info, action, registers, floating, altstack, fault, .. } = *delivery;
    let signal = info.signal();
    if action.flags & Action::RESTORER == 0 {
        return Err(FrameError::NoRestorer(signal));
    }
    if !(FXSAVE_BYTES..=XSAVE_BYTES_MAX).contains(&floating.len()) {
        return Err(FrameError::Floating("its size is impossible"));
    }
    let on_alternate = altstack.is_on(registers.rsp);
    let switches = action.flags & Action::ON_STACK != 0 && altstack.is_enabled() && !on_alternate;
    let top = if switches { altstack.address.wrapping_add(altstack.bytes) } else { registers.rsp.wrapping_sub(RED_ZONE_BYTES) };
    let floating_address = top.wrapping_sub(floating.len() as u64) & !63;
    // As after a call: 8 below a multiple of 16.
    let address = (floating_address.wrapping_sub(FRAME_BYTES) & !15).wrapping_sub(8);
    judge_place(address, top, (switches || on_alternate).then_some(altstack))?;
    let mut bytes = Vec::with_capacity((floating_address - address) as usize + floating.len());
    bytes.extend_from_slice(&action.restorer.to_le_bytes());
    bytes.extend_from_slice(&ucontext(delivery, floating_address, fault));
    bytes.extend_from_slice(&info.0);
    bytes.resize((floating_address - address) as usize, 0);
    bytes.extend_from_slice(floating);
    let disarms = altstack.flags & AltStack::AUTODISARM != 0;
    Ok(Frame {
        address,
        bytes,
        registers: Registers {
            rdi: signal as u64,
            rsi: address + (8 + UCONTEXT_BYTES) as u64,
            rdx: address + 8,
            rax: 0,
            rsp: address,
            rip: action.handler,
            flags: registers.flags & !FLAGS_OFF,
            ..*registers
        },
        altstack: if disarms { AltStack::default() } else { altstack },
    })
}

/// The frame lies in the space and, if on an alternate stack, in that.
fn judge_place(address: u64, top: u64, stack: Option<AltStack>) -> Result<(), FrameError> {
    if address >= top || address < SPACE_START || top > SPACE_END {
        return Err(FrameError::Outside(address));
    }
    match stack {
        Some(stack) if address < stack.address => {
            Err(FrameError::StackOverflow { bytes: top - address, stack_bytes: stack.bytes })
        }
        _ => Ok(()),
    }
}

fn ucontext(delivery: &Delivery<'_>, floating_address: u64, fault: FaultWords) -> [u8; UCONTEXT_BYTES] {
    let mut bytes = [0; UCONTEXT_BYTES];
    let mut put = |offset: usize, part: &[u8]| bytes[offset..offset + part.len()].copy_from_slice(part);
    let has_xstate = floating_state(delivery.floating).is_some();
    put(0, &(UC_SS | if has_xstate { UC_FP_XSTATE } else { 0 }).to_le_bytes());
    put(UC_STACK, &delivery.altstack.to_bytes());
    put(UC_REGISTERS, &delivery.registers.to_bytes());
    put(UC_SEGMENTS, &USER_CS.to_le_bytes());
    put(UC_SEGMENTS + 6, &USER_SS.to_le_bytes());
    put(UC_FAULT, &fault.error.to_le_bytes());
    put(UC_FAULT + 8, &fault.trap.to_le_bytes());
    put(UC_FAULT + 16, &delivery.mask.to_le_bytes());
    put(UC_FAULT + 24, &fault.address.to_le_bytes());
    put(UC_FLOATING, &floating_address.to_le_bytes());
    put(UC_MASK, &delivery.mask.to_le_bytes());
    bytes
}

/// Reads the ucontext that rt_sigreturn finds at the program's stack pointer.
#[must_use]
pub fn parse(ucontext: &[u8; UCONTEXT_BYTES]) -> Restored {
    let registers = ucontext[UC_REGISTERS..].first_chunk().expect("a ucontext holds its registers");
    let stack = ucontext[UC_STACK..].first_chunk().expect("a ucontext holds its stack");
    Restored {
        registers: Registers::from_bytes(registers),
        mask: u64_at(ucontext, UC_MASK),
        altstack: AltStack::from_bytes(stack),
        floating_address: u64_at(ucontext, UC_FLOATING),
    }
}

/// How many bytes the floating-point area has, judged from its first 512: the whole with its end mark, or 512.
#[must_use]
pub fn floating_bytes(fxsave: &[u8; FXSAVE_BYTES]) -> usize {
    floating_sizes(fxsave).map_or(FXSAVE_BYTES, |(extended, _)| extended)
}

/// Bytes with and without the end mark, if the software-reserved words announce an XSAVE area.
fn floating_sizes(floating: &[u8]) -> Option<(usize, usize)> {
    if u32_at(floating, SOFTWARE_OFFSET) != MAGIC1 {
        return None;
    }
    let extended = u32_at(floating, SOFTWARE_OFFSET + 4) as usize;
    let state = u32_at(floating, SOFTWARE_OFFSET + 16) as usize;
    let is_sound = state >= HEADER_OFFSET + HEADER_BYTES && extended >= state + 4 && extended <= XSAVE_BYTES_MAX;
    is_sound.then_some((extended, state))
}

/// The XSAVE part of an area that has both its marks.
fn floating_state(floating: &[u8]) -> Option<&[u8]> {
    let (extended, state) = floating_sizes(floating)?;
    (floating.len() >= extended && u32_at(floating, state) == MAGIC2).then(|| &floating[..state])
}

/// Makes a program's floating-point area fit to overwrite the kernel's own of this thread (`own`): same size, no bit
/// that would make the kernel kill the thread.
///
/// # Errors
/// [`FrameError::Floating`].
pub fn accept_floating(program: &[u8], own: &[u8]) -> Result<Vec<u8>, FrameError> {
    if program.len() < FXSAVE_BYTES || own.len() < FXSAVE_BYTES {
        return Err(FrameError::Floating("it is shorter than 512 bytes"));
    }
    // Zero stands for the mask of the first processors with SSE.
    let allowed = match u32_at(own, MXCSR_MASK_OFFSET) {
        0 => 0xffbf,
        mask => mask,
    };
    if u32_at(program, MXCSR_OFFSET) & !allowed != 0 {
        return Err(FrameError::Floating("MXCSR has reserved bits"));
    }
    let mut accepted = own.to_vec();
    accepted[..SOFTWARE_OFFSET].copy_from_slice(&program[..SOFTWARE_OFFSET]);
    accepted[MXCSR_MASK_OFFSET..MXCSR_MASK_OFFSET + 4].copy_from_slice(&own[MXCSR_MASK_OFFSET..MXCSR_MASK_OFFSET + 4]);
    let Some(own_state) = floating_state(own) else { return Ok(accepted) };
    // What the thread's own frame can hold: the components that the kernel said it would restore.
    let components = u64_at(own, SOFTWARE_OFFSET + 8);
    let Some(state) = floating_state(program) else {
        // Without the marks only x87 and SSE are restored, as in the kernel; the others start anew.
        accepted[HEADER_OFFSET..HEADER_OFFSET + 8].copy_from_slice(&(components & 3).to_le_bytes());
        return Ok(accepted);
    };
    if state.len() != own_state.len() {
        return Err(FrameError::Floating("its size is that of another processor"));
    }
    let header = &state[HEADER_OFFSET..HEADER_OFFSET + HEADER_BYTES];
    if u64_at(header, 0) & !components != 0 || header[8..].iter().any(|&byte| byte != 0) {
        return Err(FrameError::Floating("its header names components that are not there"));
    }
    accepted[HEADER_OFFSET..state.len()].copy_from_slice(&state[HEADER_OFFSET..]);
    Ok(accepted)
}

/// The floating-point area `own` with its state at the start of a program: a handler's state.
#[must_use]
pub fn initial_floating(own: &[u8]) -> Vec<u8> {
    const PROTECTION_KEYS: u64 = 1 << 9;
    let mut fresh = own.to_vec();
    let kept =
        [MXCSR_MASK_OFFSET..MXCSR_MASK_OFFSET + 4, SOFTWARE_OFFSET..FXSAVE_BYTES].map(|range| (range.clone(), &own[range]));
    fresh[..FXSAVE_BYTES].copy_from_slice(&Fxsave::default().0);
    for (range, bytes) in kept {
        fresh[range].copy_from_slice(bytes);
    }
    if floating_state(own).is_some() {
        let components = u64_at(own, HEADER_OFFSET) & PROTECTION_KEYS;
        fresh[HEADER_OFFSET..HEADER_OFFSET + 8].copy_from_slice(&components.to_le_bytes());
    }
    fresh
}

fn signal_bit(signal: i32) -> u64 {
    // Signals are 1 to 64; anything else blocks nothing.
    signal.checked_sub(1).and_then(|bit| u32::try_from(bit).ok()).and_then(|bit| 1_u64.checked_shl(bit)).unwrap_or(0)
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(*bytes[offset..].first_chunk().expect("offsets are within their structures"))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(*bytes[offset..].first_chunk().expect("offsets are within their structures"))
}

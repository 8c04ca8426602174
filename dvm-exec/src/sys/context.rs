//! The block of memory behind each thread that carries program code: its context and its alternate stack.
//!
//! Owns the way into the program and out of it, and the queue of signals seen while the husk was at work. Must not know
//! what calls and signals mean; [`crate::process::dispatch`] and [`crate::process::signals`] decide that.

use super::asm::{self, BLOCK_BYTES};
use super::call;
use super::signal::Frame;
use super::{HUSK_END, LINE, TRAP_END};
use crate::process::sigframe::{SignalInfo, ThreadState};
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Signals one thread can have queued.
pub const PENDING_MAX: usize = 32;
/// Bytes kept for the context at the base of the block.
const CONTEXT_BYTES: usize = 16 * 1024;
const PR_SET_SYSCALL_USER_DISPATCH: u64 = 59;

/// What a thread is doing, as its signal handlers must know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// In the program, or on the way back into it with everything decided: signals are delivered at once.
    Program,
    /// In the husk on behalf of the program: signals are queued.
    Husk,
}

/// What the two signal entries decide about the thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Back to where the signal came from.
    Resume,
    /// The thread has ended: back to the caller of [`Block::run`].
    Leave,
}

#[repr(C)]
struct Slot {
    sequence: AtomicU64,
    info: UnsafeCell<SignalInfo>,
}

/// State of one thread at the base of its block; found from any handler by masking the stack pointer.
#[repr(C)]
pub struct Context {
    pub(super) husk_rsp: AtomicU64,
    pub(super) husk_fs: AtomicU64,
    pub(super) app_fs: AtomicU64,
    pub(super) phase: AtomicU32,
    signalled: AtomicU32,
    pub(super) frame: AtomicU64,
    sequence: AtomicU64,
    is_carrier: AtomicU32,
    arrived: AtomicU32,
    pending: [Slot; PENDING_MAX],
}

const _: () = assert!(size_of::<Context>() <= CONTEXT_BYTES);

impl Context {
    /// FS base of the program.
    pub fn app_fs(&self) -> u64 {
        self.app_fs.load(Ordering::Relaxed)
    }

    /// Sets the FS base the program will find when it goes on.
    pub fn set_app_fs(&self, value: u64) {
        self.app_fs.store(value, Ordering::Relaxed);
    }

    /// Whether program code runs on this thread (false for a shadow).
    pub fn is_carrier(&self) -> bool {
        self.is_carrier.load(Ordering::Relaxed) != 0
    }

    /// What the thread was doing when the frame's signal came, which found the FS base `fs`.
    pub fn phase(&self, frame: &Frame) -> Phase {
        if !self.is_carrier() {
            return Phase::Husk;
        }
        let rip = frame.rip();
        if rip < LINE {
            return Phase::Program;
        }
        if asm::is_entering(rip) || self.phase.load(Ordering::SeqCst) != 0 {
            return Phase::Husk;
        }
        Phase::Program
    }

    /// The frame the program will be resumed from: `nested` itself if it interrupted program code, else (the handler
    /// was on its way out, on this block's stack) that of the system call.
    pub fn resumed_frame(&self, nested: Frame) -> Frame {
        let base = std::ptr::from_ref(self) as u64;
        if (base..base + BLOCK_BYTES as u64).contains(&nested.rsp()) {
            return Frame::new(self.frame.load(Ordering::SeqCst));
        }
        nested
    }

    /// The thread is in the husk on behalf of the program, as in a call, which will be resumed from `frame`.
    pub fn hold(&self, frame: Frame) {
        self.frame.store(frame.address(), Ordering::SeqCst);
        self.phase.store(1, Ordering::SeqCst);
    }

    /// Marks that everything about the current call is decided; true if a signal was queued meanwhile and the end of
    /// the call must be looked at again.
    pub fn is_signalled_on_exit(&self) -> bool {
        self.phase.store(0, Ordering::SeqCst);
        if self.signalled.load(Ordering::SeqCst) == 0 {
            return false;
        }
        self.phase.store(1, Ordering::SeqCst);
        true
    }

    /// The flag that keeps an interruptible call from entering the kernel.
    pub fn flag(&self) -> &AtomicU32 {
        &self.signalled
    }

    /// Queues a signal; async-signal-safe. A standard signal already queued is merged, an overflow is dropped.
    pub fn queue(&self, info: &SignalInfo) {
        let number = info.signal();
        let mut free = None;
        for slot in &self.pending {
            if slot.sequence.load(Ordering::Acquire) == 0 {
                free = free.or(Some(slot));
                continue;
            }
            // SAFETY: a slot with a sequence is only emptied by this thread's code that this handler interrupted, so
            // its bytes do not change while we read them.
            let queued = unsafe { *slot.info.get() };
            if number < 32 && queued.signal() == number {
                self.signalled.store(1, Ordering::SeqCst);
                return;
            }
        }
        if let Some(slot) = free {
            let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
            // SAFETY: an empty slot is only filled by signal handlers of this thread, of which each keeps the next one out.
            unsafe { *slot.info.get() = *info };
            slot.sequence.store(sequence, Ordering::Release);
            self.arrived.store(1, Ordering::SeqCst);
            self.signalled.store(1, Ordering::SeqCst);
        }
    }

    /// The flag that is raised whenever a signal is queued; a shadow waits for calls until then.
    pub fn arrival(&self) -> &AtomicU32 {
        &self.arrived
    }

    /// Puts the flag right for `mask`: whether a queued signal is not blocked by it.
    pub fn recheck(&self, mask: u64) -> bool {
        self.signalled.store(0, Ordering::SeqCst);
        let is_waiting = self.pending.iter().any(|slot| {
            // SAFETY: as in `take_oldest`.
            slot.sequence.load(Ordering::Acquire) != 0 && mask & 1 << (unsafe { *slot.info.get() }.signal() - 1) == 0
        });
        if is_waiting {
            self.signalled.store(1, Ordering::SeqCst);
        }
        is_waiting
    }

    /// The arrival was noted.
    pub fn clear_arrival(&self) {
        self.arrived.store(0, Ordering::SeqCst);
    }

    /// Takes the oldest queued signal that `mask` does not block. With none left the flag is down.
    pub fn take(&self, mask: u64) -> Option<SignalInfo> {
        self.signalled.store(0, Ordering::SeqCst);
        let info = self.take_oldest(|signal| mask & (1 << (signal - 1)) == 0)?;
        // Whether there is another one, the next look tells.
        self.signalled.store(1, Ordering::SeqCst);
        Some(info)
    }

    /// Takes the oldest queued signal that `mask` blocks.
    pub fn take_blocked(&self, mask: u64) -> Option<SignalInfo> {
        self.take_oldest(|signal| mask & (1 << (signal - 1)) != 0)
    }

    /// The oldest queued signal wanted.
    fn take_oldest(&self, is_wanted: impl Fn(i32) -> bool) -> Option<SignalInfo> {
        let mut oldest: Option<(&Slot, u64)> = None;
        for slot in &self.pending {
            let sequence = slot.sequence.load(Ordering::Acquire);
            if sequence == 0 {
                continue;
            }
            // SAFETY: the slot is full and only this function empties slots; it is not re-entered, because handlers
            // only call `queue`.
            let info = unsafe { *slot.info.get() };
            if !is_wanted(info.signal()) {
                continue;
            }
            if oldest.is_none_or(|(_, first)| sequence < first) {
                oldest = Some((slot, sequence));
            }
        }
        let (slot, _) = oldest?;
        // SAFETY: as above.
        let info = unsafe { *slot.info.get() };
        slot.sequence.store(0, Ordering::Release);
        Some(info)
    }

    /// Raises the flag: something must be looked at before the program goes on.
    pub fn raise_flag(&self) {
        self.signalled.store(1, Ordering::SeqCst);
    }

    /// Lowers the flag: what raised it is being looked at.
    pub fn lower_flag(&self) {
        self.signalled.store(0, Ordering::SeqCst);
    }

    /// Whether the flag is up.
    pub fn is_signalled(&self) -> bool {
        self.signalled.load(Ordering::SeqCst) != 0
    }
}

/// Owns one aligned block; its thread is the one that made it.
pub struct Block {
    base: *mut Context,
    former: libc::stack_t,
}

impl Block {
    /// Maps a block and makes it the calling thread's alternate signal stack. `is_carrier`: program code will run here.
    ///
    /// # Errors
    /// The kernel's error when memory is short.
    pub fn install(is_carrier: bool) -> Result<Self, std::io::Error> {
        let base = map_aligned()?.cast::<Context>();
        let mut former = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: 0, ss_size: 0 };
        let stack = libc::stack_t {
            ss_sp: base.cast::<u8>().wrapping_add(CONTEXT_BYTES).cast(),
            ss_flags: 0,
            ss_size: BLOCK_BYTES - CONTEXT_BYTES,
        };
        // SAFETY: `base` is a fresh zeroed mapping of BLOCK_BYTES; all-zero is a valid Context.
        unsafe {
            (*base).husk_fs = AtomicU64::new(fs_base());
            (*base).is_carrier = AtomicU32::new(u32::from(is_carrier));
            (*base).phase = AtomicU32::new(1);
        }
        // SAFETY: both structures are valid; the stack lies in our mapping, which lives until `drop` has switched back.
        if unsafe { libc::sigaltstack(&raw const stack, &raw mut former) } != 0 {
            return Err(std::io::Error::last_os_error());
        }
        Ok(Self { base, former })
    }

    /// The context at the block's base.
    pub fn context(&self) -> &Context {
        // SAFETY: the mapping lives as long as the block, and everything in it that changes is atomic or guarded.
        unsafe { &*self.base }
    }

    /// Runs program code from `state` until the thread ends. System calls of addresses below [`TRAP_END`] arrive in
    /// [`on_call`].
    pub fn run(&self, state: &ThreadState) -> Result<(), std::io::Error> {
        let arguments = [1, TRAP_END, HUSK_END - TRAP_END, 0];
        call::checked(libc::SYS_prctl, &with_option(PR_SET_SYSCALL_USER_DISPATCH, arguments))?;
        self.context().phase.store(0, Ordering::SeqCst);
        // SAFETY: the context is this thread's own, the registers are a complete image, and the program comes back
        // through the handlers' leave path only, which restores what `dvm_enter` saved.
        unsafe { asm::dvm_enter(self.base, state) };
        self.context().phase.store(1, Ordering::SeqCst);
        call::checked(libc::SYS_prctl, &with_option(PR_SET_SYSCALL_USER_DISPATCH, [0; 4]))?;
        Ok(())
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: the former stack is what the thread had before; nothing runs on ours any more.
        unsafe { libc::sigaltstack(&raw const self.former, std::ptr::null_mut()) };
        // SAFETY: the block was mapped by `map_aligned` with this size and no reference to it is left.
        unsafe { libc::munmap(self.base.cast(), BLOCK_BYTES) };
    }
}

fn with_option(option: u64, rest: [u64; 4]) -> [u64; 6] {
    [option, rest[0], rest[1], rest[2], rest[3], 0]
}

fn fs_base() -> u64 {
    let value: u64;
    // SAFETY: FSGSBASE was checked at start; the instruction only reads a register.
    unsafe { std::arch::asm!("rdfsbase {}", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}

fn map_aligned() -> Result<*mut u8, std::io::Error> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh anonymous mapping touches nothing that exists.
    let raw = unsafe { libc::mmap(std::ptr::null_mut(), BLOCK_BYTES * 2, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if raw == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    let start = raw as usize;
    let aligned = start.next_multiple_of(BLOCK_BYTES);
    let end = start + BLOCK_BYTES * 2;
    for (first, last) in [(start, aligned), (aligned + BLOCK_BYTES, end)] {
        if last > first {
            // SAFETY: the trimmed parts belong to the mapping just made and nobody has seen them.
            unsafe { libc::munmap(first as *mut libc::c_void, last - first) };
        }
    }
    Ok(aligned as *mut u8)
}

/// Entered from `dvm_sigsys` on the block's stack, with the husk's FS base.
pub(super) extern "C" fn on_call(context: *const Context, _info: *const u8, frame: u64) -> u32 {
    // SAFETY: the stub found the context by masking the stack pointer of a thread that `Block::install` prepared.
    let context = unsafe { &*context };
    let frame = Frame::new(frame);
    match crate::process::dispatch::handle_call(context, frame) {
        Verdict::Resume => 0,
        Verdict::Leave => 1,
    }
}

/// Entered from `dvm_catch`, with the husk's FS base; the stub restores the one it found.
pub(super) extern "C" fn on_signal(context: *const Context, number: i32, info: *const SignalInfo, frame: u64, fs: u64) -> u32 {
    // SAFETY: as in `on_call`.
    let context = unsafe { &*context };
    // SAFETY: the kernel passes a complete siginfo to SA_SIGINFO handlers.
    let info = unsafe { *info };
    let frame = Frame::new(frame);
    if context.is_carrier() && fs != context.husk_fs.load(Ordering::Relaxed) && frame.rip() < LINE {
        context.set_app_fs(fs);
    }
    match crate::process::signals::handle_signal(context, number, &info, frame) {
        Verdict::Resume => 0,
        Verdict::Leave => 1,
    }
}

//! The instructions that no compiler writes: entering and leaving the program, signal entry, restartable calls, guarded copies.
//!
//! Owns the label ranges the signal handlers compare against. Must not know anything but register and field offsets.

use super::context::Context;
use crate::process::sigframe::{Registers, ThreadState};
use std::arch::global_asm;
use std::mem::offset_of;

/// Bytes of an alternate stack; it is aligned to its size, with the [`Context`] at its base.
pub const BLOCK_BYTES: usize = 256 * 1024;
/// Result of an interruptible call that a signal kept from entering the kernel (ERESTARTNOINTR there).
pub const NOT_BEGUN: i64 = -513;
/// Result of an interruptible call that a signal broke off and that SA_RESTART would repeat (ERESTARTSYS there).
pub const INTERRUPTED: i64 = -512;

const _: () = assert!(offset_of!(ThreadState, fxsave) == 0 && offset_of!(ThreadState, registers) == 512);
const _: () = assert!(offset_of!(ThreadState, fs_base) == 656 && offset_of!(Registers, rip) == 128);
const _: () = assert!(offset_of!(Context, husk_rsp) == 0 && offset_of!(Context, husk_fs) == 8);
const _: () = assert!(offset_of!(Context, app_fs) == 16 && offset_of!(Context, phase) == 24);
const _: () = assert!(offset_of!(Context, frame) == 32);
const _: () = assert!(BLOCK_BYTES == 0x40000);

global_asm!(
    // enter(context: rdi, state: rsi): runs the program until `leave`.
    ".globl dvm_enter",
    ".globl dvm_enter_end",
    "dvm_enter:",
    "push rbx; push rbp; push r12; push r13; push r14; push r15",
    "mov [rdi], rsp",
    "rdfsbase rax",
    "mov [rdi + 8], rax",
    "fxrstor64 [rsi]",
    "mov rax, [rsi + 656]",
    "wrfsbase rax",
    "mov rcx, rsi",
    "mov rbx, [rcx + 600]",
    "mov rdx, [rcx + 608]",
    "mov rsi, [rcx + 584]",
    "mov rdi, [rcx + 576]",
    "mov rbp, [rcx + 592]",
    "mov rsp, [rcx + 632]",
    "mov r8, [rcx + 512]",
    "mov r9, [rcx + 520]",
    "mov r10, [rcx + 528]",
    "mov r11, [rcx + 536]",
    "mov r12, [rcx + 544]",
    "mov r13, [rcx + 552]",
    "mov r14, [rcx + 560]",
    "mov r15, [rcx + 568]",
    "mov rax, [rcx + 616]",
    "mov rcx, [rcx + 640]",
    "jmp rcx",
    "dvm_enter_end:",
    // SIGSYS: FS still is the program's, rsp lies in the block that starts with the context.
    ".globl dvm_sigsys_begin",
    ".globl dvm_sigsys_end",
    ".globl dvm_sigsys",
    "dvm_sigsys:",
    "dvm_sigsys_begin:",
    "cld",
    // SYS_USER_DISPATCH; any other SIGSYS was sent by somebody.
    "cmp dword ptr [rsi + 8], 2",
    "jne dvm_catch",
    "mov rax, rsp",
    "and rax, -0x40000",
    "rdfsbase rcx",
    "mov [rax + 16], rcx",
    "mov rcx, [rax + 8]",
    "wrfsbase rcx",
    "mov [rax + 32], rdx",
    "mov dword ptr [rax + 24], 1",
    "dvm_sigsys_end:",
    "mov rdi, rax",
    "sub rsp, 8",
    "call {on_call}",
    "add rsp, 8",
    "mov rcx, rsp",
    "and rcx, -0x40000",
    "test eax, eax",
    "jnz 2f",
    "mov rcx, [rcx + 16]",
    "wrfsbase rcx",
    "ret",
    // The thread has ended: back into the frame of `dvm_enter`.
    "2:",
    "mov rsp, [rcx]",
    "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
    "cld",
    "ret",
    // Every other signal: FS may be the husk's or the program's.
    ".globl dvm_catch",
    "dvm_catch:",
    "cld",
    "mov rax, rsp",
    "and rax, -0x40000",
    "rdfsbase rcx",
    "push rcx",
    "mov r8, [rax + 8]",
    "wrfsbase r8",
    "mov r8, rcx",
    "mov rcx, rdx",
    "mov rdx, rsi",
    "mov rsi, rdi",
    "mov rdi, rax",
    "call {on_signal}",
    "pop rcx",
    "test eax, eax",
    "jnz 3f",
    "wrfsbase rcx",
    "ret",
    "3:",
    "mov rcx, rsp",
    "and rcx, -0x40000",
    "mov rsp, [rcx]",
    "pop r15; pop r14; pop r13; pop r12; pop rbp; pop rbx",
    "cld",
    "ret",
    ".globl dvm_restore",
    "dvm_restore:",
    "mov eax, 15",
    "syscall",
    // call(number: rdi, arguments: rsi): a plain system call with the kernel's error convention.
    ".globl dvm_call",
    "dvm_call:",
    "mov rax, rdi",
    "mov r9, [rsi + 40]",
    "mov r8, [rsi + 32]",
    "mov r10, [rsi + 24]",
    "mov rdx, [rsi + 16]",
    "mov rdi, [rsi]",
    "mov rsi, [rsi + 8]",
    "syscall",
    "ret",
    // call_unless(number: rdi, arguments: rsi, flag: rdx): NOT_BEGUN if the flag is set before the kernel is entered.
    // rcx is 0 until the kernel has been entered; then it holds the address after the instruction.
    ".globl dvm_call_unless",
    ".globl dvm_call_unless_begin",
    ".globl dvm_call_unless_enter",
    ".globl dvm_call_unless_end",
    ".globl dvm_call_unless_abort",
    ".globl dvm_call_unless_interrupted",
    "dvm_call_unless:",
    "push rbx",
    "mov rbx, rdx",
    "mov rax, rdi",
    "mov r9, [rsi + 40]",
    "mov r8, [rsi + 32]",
    "mov r10, [rsi + 24]",
    "mov rdx, [rsi + 16]",
    "mov rdi, [rsi]",
    "mov rsi, [rsi + 8]",
    "xor ecx, ecx",
    "dvm_call_unless_begin:",
    "cmp dword ptr [rbx], 0",
    "jne dvm_call_unless_abort",
    "dvm_call_unless_enter:",
    "syscall",
    "dvm_call_unless_end:",
    "pop rbx",
    "ret",
    "dvm_call_unless_abort:",
    "mov rax, {not_begun}",
    "pop rbx",
    "ret",
    "dvm_call_unless_interrupted:",
    "mov rax, {interrupted}",
    "pop rbx",
    "ret",
    // copy(to: rdi, from: rsi, bytes: rdx): returns the bytes not copied.
    ".globl dvm_copy",
    ".globl dvm_copy_begin",
    ".globl dvm_copy_end",
    "dvm_copy:",
    "mov rcx, rdx",
    "dvm_copy_begin:",
    "rep movsb",
    "dvm_copy_end:",
    "mov rax, rcx",
    "ret",
    // exchange32(address: rdi, expected: esi, new: edx, seen: rcx): 0, or 1 after a fault.
    ".globl dvm_exchange",
    ".globl dvm_exchange_begin",
    ".globl dvm_exchange_end",
    ".globl dvm_exchange_fault",
    "dvm_exchange:",
    "mov eax, esi",
    "dvm_exchange_begin:",
    "lock cmpxchg [rdi], edx",
    "dvm_exchange_end:",
    "mov [rcx], eax",
    "xor eax, eax",
    "ret",
    "dvm_exchange_fault:",
    "mov eax, 1",
    "ret",
    // store32(address: rdi, value: esi): 0, or 1 after a fault.
    ".globl dvm_store",
    ".globl dvm_store_begin",
    ".globl dvm_store_end",
    ".globl dvm_store_fault",
    "dvm_store:",
    "dvm_store_begin:",
    "xchg [rdi], esi",
    "dvm_store_end:",
    "xor eax, eax",
    "ret",
    "dvm_store_fault:",
    "mov eax, 1",
    "ret",
    not_begun = const NOT_BEGUN,
    interrupted = const INTERRUPTED,
    on_call = sym super::context::on_call,
    on_signal = sym super::context::on_signal,
);

unsafe extern "C" {
    pub(super) fn dvm_enter(context: *mut Context, state: *const ThreadState);
    fn dvm_enter_end();
    pub(super) fn dvm_sigsys();
    pub(super) fn dvm_sigsys_begin();
    pub(super) fn dvm_sigsys_end();
    pub(super) fn dvm_catch();
    pub(super) fn dvm_restore();
    pub(super) fn dvm_call(number: i64, arguments: *const u64) -> i64;
    pub(super) fn dvm_call_unless(number: i64, arguments: *const u64, flag: *const u32) -> i64;
    pub(super) fn dvm_call_unless_begin();
    pub(super) fn dvm_call_unless_enter();
    pub(super) fn dvm_call_unless_end();
    pub(super) fn dvm_call_unless_abort();
    pub(super) fn dvm_call_unless_interrupted();
    pub(super) fn dvm_copy(to: u64, from: u64, bytes: u64) -> u64;
    pub(super) fn dvm_copy_begin();
    pub(super) fn dvm_copy_end();
    pub(super) fn dvm_exchange(address: u64, expected: u32, new: u32, seen: *mut u32) -> u32;
    pub(super) fn dvm_exchange_begin();
    pub(super) fn dvm_exchange_end();
    pub(super) fn dvm_exchange_fault();
    pub(super) fn dvm_store(address: u64, value: u32) -> u32;
    pub(super) fn dvm_store_begin();
    pub(super) fn dvm_store_end();
    pub(super) fn dvm_store_fault();
}

type Label = unsafe extern "C" fn();

fn is_between(rip: u64, begin: Label, end: Label) -> bool {
    rip >= begin as usize as u64 && rip < end as usize as u64
}

/// Where to go on after a fault at `rip`, if `rip` is one of the guarded accesses to program memory.
#[must_use]
pub fn fault_landing(rip: u64) -> Option<u64> {
    if is_between(rip, dvm_copy_begin, dvm_copy_end) {
        return Some(dvm_copy_end as *const () as u64);
    }
    if is_between(rip, dvm_exchange_begin, dvm_exchange_end) {
        return Some(dvm_exchange_fault as *const () as u64);
    }
    is_between(rip, dvm_store_begin, dvm_store_end).then_some(dvm_store_fault as *const () as u64)
}

/// Where to go on after a signal at `rip`, if `rip` stands before the kernel entry of an interruptible call, or is back
/// there because the kernel would restart it; `rcx` tells which.
#[must_use]
pub fn call_landing(rip: u64, rcx: u64) -> Option<u64> {
    let end = dvm_call_unless_end as *const () as u64;
    if rip == dvm_call_unless_enter as *const () as u64 && rcx == end {
        return Some(dvm_call_unless_interrupted as *const () as u64);
    }
    is_between(rip, dvm_call_unless_begin, dvm_call_unless_end).then_some(dvm_call_unless_abort as *const () as u64)
}

/// Where to go on if a signal that is none of the program's came at `rip` with `rax`, and an interruptible call came back for it
/// with the kernel's EINTR: then it is as if SA_RESTART repeated it.
#[must_use]
pub fn wish_landing(rip: u64, rax: u64) -> Option<u64> {
    let is_broken = rip == dvm_call_unless_end as *const () as u64 && rax as i64 == -i64::from(libc::EINTR);
    is_broken.then_some(dvm_call_unless_interrupted as *const () as u64)
}

/// Whether `rip` stands in the way into the program or in the first instructions of the SIGSYS handler, where the
/// context's phase is not yet true.
#[must_use]
pub fn is_entering(rip: u64) -> bool {
    let enter = dvm_enter as *const () as u64;
    is_between(rip, dvm_sigsys_begin, dvm_sigsys_end) || (enter..dvm_enter_end as *const () as u64).contains(&rip)
}

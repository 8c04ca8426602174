//! First instructions: of the boot processor, of those it starts, and of exceptions and interrupts.
//!
//! Owns the assembly and the tables of a processor. Must not know what is done after that.
//!
//! A processor's block in private memory, 64 KiB from a multiple of that on, so that the stack pointer tells the processor:
//! page of the interrupt flag, interrupt table, segments, words of its own, stack of interrupts, stack.

use super::memory::{write, write_byte};
use crate::boot;
use core::arch::{asm, global_asm};

/// Where a started processor begins: a page below 1 MiB.
pub const START_PAGE: u64 = 8;
/// Number of the processor that is being started.
const START_NUMBER: u64 = START_PAGE * 4096 + 0xff0;
const TABLE: u64 = 0x1000;
const SEGMENTS: u64 = 0x2000;
/// Words of the processor itself.
pub const WORDS: u64 = 0x3000;
const INTERRUPT_STACK_END: u64 = 0x8000;
const TASK: u64 = 0x80;
const TASK_SELECTOR: u16 = 0x40;
/// The exception of a register that there is not.
const PROTECTION: u64 = 13;

global_asm!(
    r#"
    .section .text.start,"ax"
    .globl dvm_start
dvm_start:
    xor %edi, %edi
    # Processor number in edi: the stack is the end of its block.
dvm_common:
    mov %edi, %eax
    inc %eax
    shl $16, %eax
    mov $0xd0800000, %esp
    add %rax, %rsp
    xor %ebp, %ebp
    call dvm_begin
1:  hlt
    jmp 1b

    # Copied to page 8 for the others, which come here in real mode.
    .balign 16
    .globl dvm_other
    .globl dvm_other_end
    .code16
dvm_other:
    cli
    xor %ax, %ax
    mov %ax, %ds
    lgdtl 0x8000 + (dvm_other_table - dvm_other)
    mov $0x620, %eax
    mov %eax, %cr4
    mov $0xd0100000, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx
    mov $0x901, %eax
    xor %edx, %edx
    wrmsr
    mov $0x80050033, %eax
    mov %eax, %cr0
    ljmpl $0x10, $(0x8000 + (dvm_other_long - dvm_other))
    .code64
dvm_other_long:
    mov $0x18, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov 0x8ff0, %edi
    mov $dvm_common, %eax
    jmp *%rax
    .balign 8
dvm_other_segments:
    .quad 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff
dvm_other_table:
    .word 31
    .long 0x8000 + (dvm_other_segments - dvm_other)
dvm_other_end:

    # An entry of eight bytes for each vector; the address it calls from tells which.
    .balign 8
    .globl dvm_entries
dvm_entries:
    .rept 2
    .balign 8
    call dvm_exception
    .endr
    .balign 8
    call dvm_vector
    .rept 29
    .balign 8
    call dvm_exception
    .endr
    .rept 224
    .balign 8
    call dvm_vector
    .endr

    .macro dvm_save
    push %rax
    push %rcx
    push %rdx
    push %rsi
    push %rdi
    push %r8
    push %r9
    push %r10
    push %r11
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, %rbx
    mov %rsp, %rdi
    cld
    and $-16, %rsp
    .endm

    .macro dvm_restore
    mov %rbx, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    pop %r11
    pop %r10
    pop %r9
    pop %r8
    pop %rdi
    pop %rsi
    pop %rdx
    pop %rcx
    pop %rax
    .endm

dvm_exception:
    dvm_save
    call dvm_on_exception
    # Only one with an error code comes back.
    dvm_restore
    add $16, %rsp
    iretq

dvm_vector:
    dvm_save
    call dvm_on_vector
    dvm_restore
    add $8, %rsp
    iretq

    # Reads a register that there may not be; then 0.
    .globl dvm_probe
    .globl dvm_probe_end
dvm_read_probe:
    mov %edi, %ecx
dvm_probe:
    rdmsr
dvm_probe_end:
    shl $32, %rdx
    or %rdx, %rax
    ret
    .text
    "#,
    options(att_syntax)
);

unsafe extern "C" {
    static dvm_other: u8;
    static dvm_other_end: u8;
    static dvm_entries: u8;
    static dvm_probe: u8;
    static dvm_probe_end: u8;
    fn dvm_read_probe(index: u32) -> u64;
}

unsafe extern "Rust" {
    fn dvm_main(cpu: usize) -> u8;
}

/// What was pushed before a handler.
#[repr(C)]
struct Frame {
    saved: [u64; 12],
    rdx: u64,
    rcx: u64,
    rax: u64,
    /// Behind the call of the entry.
    entry: u64,
    rest: [u64; 6],
}

#[unsafe(no_mangle)]
extern "C" fn dvm_begin(cpu: usize) -> ! {
    crate::start::begin(cpu)
}

#[unsafe(no_mangle)]
extern "C" fn dvm_on_vector(frame: &Frame) {
    crate::interrupt::arrive(vector(frame) as u8);
}

#[unsafe(no_mangle)]
extern "C" fn dvm_on_exception(frame: &mut Frame) {
    let vector = vector(frame);
    let [code, instruction, ..] = frame.rest;
    if vector == PROTECTION && instruction == &raw const dvm_probe as u64 {
        frame.rest[1] = &raw const dvm_probe_end as u64;
        (frame.rax, frame.rdx) = (0, 0);
        return;
    }
    let cpu = crate::processor::number();
    crate::print!("processor {cpu}: exception {vector}, code or address {code:#x}, {instruction:#x}\n");
    super::port::shutdown(102)
}

fn vector(frame: &Frame) -> u64 {
    (frame.entry - &raw const dvm_entries as u64) / 8
}

/// The program.
pub fn main(cpu: usize) -> u8 {
    // SAFETY: `guest!` defines it.
    unsafe { dvm_main(cpu) }
}

/// Puts the first instructions of the others where they are expected; `cpu` is the one to be started next.
pub fn prepare_start(cpu: usize) {
    let (first, end) = (&raw const dvm_other as u64, &raw const dvm_other_end as u64);
    for offset in 0..end - first {
        write_byte(START_PAGE * 4096 + offset, super::memory::read_byte(first + offset));
    }
    write(START_NUMBER, cpu as u64);
}

/// Reads a model-specific register; 0 if there is none.
pub fn probe(index: u32) -> u64 {
    // SAFETY: the exception of a register that there is not goes on behind the instruction.
    unsafe { dvm_read_probe(index) }
}

/// Gate of `vector` in the table of the block.
pub fn set_gate(block: u64, vector: u64) {
    const INTERRUPT_GATE: u64 = 0x8e;
    let handler = &raw const dvm_entries as u64 + vector * 8;
    let low = handler & 0xffff | 0x10 << 16 | INTERRUPT_GATE << 40 | (handler >> 16 & 0xffff) << 48;
    write(block + TABLE + vector * 16, low);
    write(block + TABLE + vector * 16 + 8, handler >> 32);
}

/// Segments, task and interrupt table of the processor with this block.
pub fn load_tables(block: u64) {
    let (segments, task) = (block + SEGMENTS, block + SEGMENTS + TASK);
    // Without those of user mode, to which nothing here goes, and with the task at their end.
    for (index, descriptor) in (0..).zip([0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff]) {
        write(segments + index * 8, descriptor);
    }
    let low = 0x67 | (task & 0xff_ffff) << 16 | 0x89 << 40 | (task >> 24 & 0xff) << 56;
    write(segments + u64::from(TASK_SELECTOR), low);
    write(segments + u64::from(TASK_SELECTOR) + 8, task >> 32);
    // The stack for what comes while a machine runs this program in user mode: at an odd place of the structure.
    let stack = block + INTERRUPT_STACK_END;
    for (index, byte) in (0..).zip(stack.to_le_bytes()) {
        write_byte(task + 4 + index, byte);
    }
    let descriptor = |base: u64, bytes: u16| -> [u16; 5] {
        [bytes - 1, base as u16, (base >> 16) as u16, (base >> 32) as u16, (base >> 48) as u16]
    };
    let (global, table) = (descriptor(segments, TASK_SELECTOR + 16), descriptor(block + TABLE, 4096));
    // SAFETY: both tables have just been written into memory that nobody else uses; code and stack stay what they are.
    unsafe {
        asm!(
            "lgdt [{global}]",
            "lidt [{table}]",
            "mov ds, {data:e}",
            "mov es, {data:e}",
            "mov ss, {data:e}",
            "push 0x10",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "ltr {selector:x}",
            global = in(reg) &raw const global,
            table = in(reg) &raw const table,
            data = in(reg) 0x18,
            selector = in(reg) TASK_SELECTOR,
            scratch = out(reg) _,
        );
    }
}

/// Block of processor `cpu`.
pub fn block(cpu: usize) -> u64 {
    boot::block(cpu)
}

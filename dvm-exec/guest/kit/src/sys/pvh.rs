//! The start by the protocol of PVH, in 32-bit mode, for programs that ask for it by [`pvh!`](crate::pvh!).
//!
//! Owns the note, the way to 64-bit mode and what was handed over. Must not know what is made of it.

/// Has the image say that it can be started by the protocol of PVH; a machine that knows it does so then.
#[macro_export]
macro_rules! pvh {
    () => {
        core::arch::global_asm!(
            r#"
    .section .note.Xen,"a",@note
    .balign 4
    .long 4, 4, 18
    .asciz "Xen"
    .long dvm_pvh_start

    .section .text.pvh,"ax"
    .code32
dvm_pvh_start:
    mov %ebx, {place}
    lgdtl dvm_pvh_table
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
    ljmpl $0x10, $dvm_pvh_long
    .code64
dvm_pvh_long:
    mov $0x18, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $dvm_start, %eax
    jmp *%rax
    .balign 8
dvm_pvh_segments:
    .quad 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff
dvm_pvh_table:
    .word 31
    .long dvm_pvh_segments
    .text
    "#,
            place = const $crate::sys::pvh::PLACE,
            options(att_syntax)
        );
    };
}

/// Where the address of the start information is kept: behind the words of private memory.
pub const PLACE: u32 = 0xd000_0f00;

/// Address of the start information.
#[must_use]
pub fn start_information() -> u64 {
    super::memory::read(u64::from(PLACE)) & 0xffff_ffff
}

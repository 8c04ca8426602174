//! What of the kit needs `unsafe`: instructions, memory by address, the first instructions of a processor and of an interrupt.
//!
//! Owns these as functions. Must not decide when they are used.

pub mod cpu;
pub mod entry;
pub mod lock;
pub mod memory;
pub mod port;
pub mod pvh;

/// Makes a program of a function that every processor runs; the guest ends with the status the first one's returns.
#[macro_export]
macro_rules! guest {
    ($main:path) => {
        #[unsafe(no_mangle)]
        fn dvm_main(cpu: usize) -> u8 {
            $main(cpu)
        }
    };
}

/// Calls a handler that [`crate::interrupt::on`] has stored; 0 is none.
pub(crate) fn call(handler: usize) {
    if handler != 0 {
        // SAFETY: only functions of this type are stored.
        let handler = unsafe { core::mem::transmute::<usize, fn()>(handler) };
        handler();
    }
}

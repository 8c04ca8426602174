//! The kit: what a guest needs that runs on several processors, on one host or several, natively or not.
//!
//! Owns start, processors, interrupts, locks, time, memory, text, virtio devices and the end. Must not know which machine it is on before it has
//! asked: see [`processor::is_native`].
//!
//! A program is a function `fn main(cpu: usize)` given to [`guest!`]; every processor runs it.

#![no_std]

pub mod alloc;
pub mod barrier;
pub mod boot;
pub mod interrupt;
pub mod line;
pub mod print;
pub mod processor;
pub mod start;
pub mod sys;
pub mod time;
pub mod virtio;

pub use barrier::Barrier;
pub use sys::lock::Lock;
pub use sys::port::shutdown;

/// Gives the value of a constant a page of its own: what one processor writes, others do not lose.
#[repr(C, align(4096))]
pub struct Page<T>(pub T);

impl<T> core::ops::Deref for Page<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    print!("panic on processor {}: {info}\n", processor::number());
    shutdown(101)
}

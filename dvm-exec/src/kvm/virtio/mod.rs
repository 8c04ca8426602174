//! The virtio devices of a guest: a console and disks, behind registers in memory.
//!
//! Owns where they are, and who waits for what at each of them. Must not know interrupts: who serves a device raises them.
//!
//! A processor that uses a register has the device's lock for that long; one that tells of new requests takes none and goes on.
//! Requests are served by the device's own thread, one at a time under that lock. Their bytes may have to come from another host:
//! nothing that brings them needs a lock of this process.

pub mod block;
pub mod console;
mod request;
mod transport;

use super::layout::{VIRTIO, VIRTIO_BYTES, VIRTIO_SLOTS};
use crate::sys::vm::Memory;
use request::Request;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use transport::Transport;
use virtio_bindings::bindings::virtio_mmio::{
    VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INTERRUPT_STATUS, VIRTIO_MMIO_QUEUE_NOTIFY, VIRTIO_MMIO_STATUS,
};

pub use virtio_bindings::bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG as CHANGED, VIRTIO_MMIO_INT_VRING as USED};

/// What a device does, without its registers.
pub trait Device: Send {
    /// Its number in the standard.
    fn id(&self) -> u32;

    /// Features beyond those of every device.
    fn features(&self) -> u64;

    /// Its configuration, which never changes.
    fn configuration(&self) -> &[u8];

    /// How many queues it has.
    fn queues(&self) -> usize;

    /// Whether it has something to do for a request in that queue.
    fn is_ready(&self, queue: usize) -> bool;

    /// Serves a request; gives how many bytes of the guest's it has written.
    ///
    /// # Errors
    /// It is none that a driver may make.
    fn serve(&mut self, queue: usize, request: Request<'_>) -> Result<u32, Malformed>;

    /// Input for it; gives how much of it there was room for.
    fn type_in(&mut self, bytes: &[u8]) -> usize;
}

/// A request, or a queue, that no driver may make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// What a use of a register asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    None,
    /// Read the reasons of its interrupt.
    Reasons,
    /// Take these reasons back.
    Answered(u32),
    /// Raise its interrupt for these reasons.
    Raise(u32),
}

/// A place for a device, and what is under way there.
struct Slot {
    transport: Option<Mutex<Transport>>,
    /// Queues with something new, a bit each.
    news: Mutex<u64>,
    rung: Condvar,
}

/// All places.
pub struct Bus {
    slots: Vec<Slot>,
}

/// The device and the register at `address`.
pub fn place(address: u64) -> Option<(usize, u64)> {
    let offset = address.checked_sub(VIRTIO)?;
    let slot = offset / VIRTIO_BYTES;
    (slot < VIRTIO_SLOTS as u64).then_some((slot as usize, offset % VIRTIO_BYTES))
}

impl Bus {
    /// Places with these devices, one after the other; the others stay empty. Requests lie in `memory`.
    pub fn new(devices: Vec<Box<dyn Device>>, memory: &'static Memory) -> Self {
        let mut devices = devices.into_iter();
        let slot = |_| Slot {
            transport: devices.next().map(|device| Mutex::new(Transport::new(device, memory))),
            news: Mutex::new(0),
            rung: Condvar::new(),
        };
        Self { slots: (0..VIRTIO_SLOTS).map(slot).collect() }
    }

    /// Places with devices.
    pub fn occupied(&self) -> impl Iterator<Item = usize> {
        self.slots.iter().enumerate().filter(|(_, slot)| slot.transport.is_some()).map(|(index, _)| index)
    }

    /// Reads a register of the device at `slot`.
    pub fn read(&self, slot: usize, register: u64, data: &mut [u8]) -> Wish {
        data.fill(0);
        if is_word(register, VIRTIO_MMIO_INTERRUPT_STATUS, data) {
            return Wish::Reasons;
        }
        match self.transport(slot) {
            Some(transport) => transport.read(register, data),
            None => transport::read_nothing(register, data),
        }
        Wish::None
    }

    /// Writes one.
    pub fn write(&self, slot: usize, register: u64, data: &[u8]) -> Wish {
        let word = || transport::word(data);
        if is_word(register, VIRTIO_MMIO_INTERRUPT_ACK, data) {
            return Wish::Answered(word());
        }
        if is_word(register, VIRTIO_MMIO_QUEUE_NOTIFY, data) {
            self.ring(slot, word() as usize);
            return Wish::None;
        }
        let Some(mut transport) = self.transport(slot) else { return Wish::None };
        let wish = transport.write(register, data);
        let queues = transport.queues();
        drop(transport);
        if is_word(register, VIRTIO_MMIO_STATUS, data) {
            // A driver that has just come may have left requests before.
            (0..queues).for_each(|queue| self.ring(slot, queue));
        }
        wish
    }

    fn transport(&self, slot: usize) -> Option<MutexGuard<'_, Transport>> {
        let transport = self.slots.get(slot)?.transport.as_ref()?;
        Some(transport.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// There is something new in a queue.
    fn ring(&self, slot: usize, queue: usize) {
        if let (Some(slot), 0..=63) = (self.slots.get(slot), queue) {
            *slot.news.lock().unwrap_or_else(PoisonError::into_inner) |= 1 << queue;
            slot.rung.notify_one();
        }
    }

    /// Input for the device at `slot`; gives how much of it there was room for.
    pub fn type_in(&self, slot: usize, bytes: &[u8]) -> usize {
        let taken = self.transport(slot).map_or(0, |mut transport| transport.type_in(bytes));
        self.ring(slot, console::RECEIVE);
        taken
    }

    /// Serves one request; false if there is none. Under the lock, so that a driver that resets the device meets no late interrupt.
    fn serve_one(&self, slot: usize, queue: usize, raise: impl FnOnce(u32)) -> bool {
        let Some(mut transport) = self.transport(slot) else { return false };
        let reasons = transport.serve(queue);
        if let Some(reasons @ 1..) = reasons {
            raise(reasons);
        }
        reasons.is_some()
    }

    /// Waits for something new at the device at `slot`, serves it, and has its interrupt raised for what it did: for ever.
    pub fn serve(&self, index: usize, raise: impl Fn(u32)) {
        let Some(slot) = self.slots.get(index) else { return };
        loop {
            let news = slot.news.lock().unwrap_or_else(PoisonError::into_inner);
            let mut news = slot.rung.wait_while(news, |news| *news == 0).unwrap_or_else(PoisonError::into_inner);
            let queues = std::mem::take(&mut *news);
            drop(news);
            for queue in (0..64).filter(|queue| queues & 1 << queue != 0) {
                while self.serve_one(index, queue, &raise) {}
            }
        }
    }
}

/// Registers are words.
fn is_word(register: u64, wanted: u32, data: &[u8]) -> bool {
    register == u64::from(wanted) && data.len() == 4
}

#[cfg(test)]
mod tests;

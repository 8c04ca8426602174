//! The registers of a virtio device (virtio 1.2, 4.2.2), and its queues.
//!
//! Owns the status and what a driver has set. Must not know what the device does. A driver that breaks the rules finds
//! `NEEDS_RESET` in the status, and nothing of what it asked after that is done until it resets the device.
//!
//! ```text
//! 0 -> ACKNOWLEDGE -> DRIVER -> FEATURES_OK -> DRIVER_OK -> (NEEDS_RESET) -> 0
//! ```

use super::{CHANGED, Device, Malformed, Request, USED, Wish};
use crate::sys::vm::Memory;
use std::sync::atomic::{Ordering, fence};
use virtio_bindings::bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK as DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK as FEATURES_OK,
    VIRTIO_CONFIG_S_NEEDS_RESET as NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::bindings::virtio_mmio::*;
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

/// Most requests in a queue.
const QUEUE_MAX: u16 = 256;
/// `virt`.
const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const VERSION: u32 = 2;
/// `DVM `.
const VENDOR: u32 = u32::from_le_bytes(*b"DVM ");
const MODERN: u64 = 1 << VIRTIO_F_VERSION_1;
/// A driver that looks for itself wants no interrupts.
const NO_INTERRUPT: u16 = 1;

/// A device behind its registers.
pub struct Transport {
    device: Box<dyn Device>,
    memory: &'static Memory,
    status: u32,
    offered_half: u32,
    accepted_half: u32,
    accepted: u64,
    selected: usize,
    rings: Vec<Ring>,
    generation: u32,
}

/// A queue and what the driver has said of it before it was ready.
struct Ring {
    queue: Queue,
    size: u16,
    table: u64,
    available: u64,
    used: u64,
}

/// The word that was written.
pub fn word(data: &[u8]) -> u32 {
    let mut bytes = [0; 4];
    bytes.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
    u32::from_le_bytes(bytes)
}

/// Reads a register of a place without a device.
pub fn read_nothing(register: u64, data: &mut [u8]) {
    let value = match u32::try_from(register) {
        Ok(VIRTIO_MMIO_MAGIC_VALUE) => MAGIC,
        Ok(VIRTIO_MMIO_VERSION) => VERSION,
        _ => 0,
    };
    give(value, data);
}

fn give(value: u32, data: &mut [u8]) {
    // Registers are words, and nothing else.
    if data.len() == 4 {
        data.copy_from_slice(&value.to_le_bytes());
    }
}

impl Ring {
    fn new() -> Self {
        let queue = Queue::new(QUEUE_MAX).expect("a power of two within the bounds of the standard");
        Self { queue, size: QUEUE_MAX, table: 0, available: 0, used: 0 }
    }

    /// Takes over what the driver has said.
    fn make_ready(&mut self, memory: &Memory) -> Result<(), Malformed> {
        let Self { queue, .. } = self;
        queue.reset();
        queue.try_set_size(self.size).map_err(|_| Malformed)?;
        queue.try_set_desc_table_address(GuestAddress(self.table)).map_err(|_| Malformed)?;
        queue.try_set_avail_ring_address(GuestAddress(self.available)).map_err(|_| Malformed)?;
        queue.try_set_used_ring_address(GuestAddress(self.used)).map_err(|_| Malformed)?;
        queue.set_ready(true);
        // Its iterator takes a ring at 0 for none.
        if self.available == 0 || !queue.is_valid(memory) {
            queue.reset();
            return Err(Malformed);
        }
        Ok(())
    }
}

/// One half of an address changes.
fn set_half(address: &mut u64, is_high: bool, value: u32) {
    let value = u64::from(value);
    *address = if is_high { *address & 0xffff_ffff | value << 32 } else { *address & !0xffff_ffff | value };
}

impl Transport {
    /// A device that no driver knows yet; its requests lie in `memory`.
    pub fn new(device: Box<dyn Device>, memory: &'static Memory) -> Self {
        let rings = (0..device.queues()).map(|_| Ring::new()).collect();
        Self { device, memory, status: 0, offered_half: 0, accepted_half: 0, accepted: 0, selected: 0, rings, generation: 0 }
    }

    /// How many queues it has.
    pub fn queues(&self) -> usize {
        self.rings.len()
    }

    /// Input for the device; gives how much of it there was room for.
    pub fn type_in(&mut self, bytes: &[u8]) -> usize {
        self.device.type_in(bytes)
    }

    fn offered(&self) -> u64 {
        self.device.features() | MODERN
    }

    /// The guest reads a register.
    pub fn read(&self, register: u64, data: &mut [u8]) {
        let Ok(register) = u32::try_from(register) else { return };
        if let Some(offset) = register.checked_sub(VIRTIO_MMIO_CONFIG) {
            let rest = self.device.configuration().get(offset as usize..).unwrap_or_default();
            data.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            return;
        }
        let ring = self.rings.get(self.selected);
        let value = match register {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => VERSION,
            VIRTIO_MMIO_DEVICE_ID => self.device.id(),
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => match self.offered_half {
                0 => self.offered() as u32,
                1 => (self.offered() >> 32) as u32,
                _ => 0,
            },
            VIRTIO_MMIO_QUEUE_NUM_MAX => ring.map_or(0, |_| u32::from(QUEUE_MAX)),
            VIRTIO_MMIO_QUEUE_READY => ring.map_or(0, |ring| u32::from(ring.queue.ready())),
            VIRTIO_MMIO_STATUS => self.status,
            // No memory of its own: a length of -1.
            VIRTIO_MMIO_SHM_LEN_LOW | VIRTIO_MMIO_SHM_LEN_HIGH => u32::MAX,
            VIRTIO_MMIO_CONFIG_GENERATION => self.generation,
            _ => 0,
        };
        give(value, data);
    }

    /// The guest writes to one.
    pub fn write(&mut self, register: u64, data: &[u8]) -> Wish {
        let (Ok(register), 4) = (u32::try_from(register), data.len()) else { return Wish::None };
        let value = word(data);
        match register {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.offered_half = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.accepted_half = value,
            VIRTIO_MMIO_DRIVER_FEATURES if self.status & FEATURES_OK == 0 && self.accepted_half < 2 => {
                set_half(&mut self.accepted, self.accepted_half == 1, value);
            }
            VIRTIO_MMIO_QUEUE_SEL => self.selected = value as usize,
            VIRTIO_MMIO_STATUS => return self.set_status(value),
            VIRTIO_MMIO_QUEUE_READY if value == 0 => {
                if let Some(ring) = self.rings.get_mut(self.selected) {
                    ring.queue.set_ready(false);
                }
            }
            _ => return self.write_ring(register, value),
        }
        Wish::None
    }

    /// What a driver says of a queue counts until it is ready.
    fn write_ring(&mut self, register: u32, value: u32) -> Wish {
        let Some(ring) = self.rings.get_mut(self.selected).filter(|ring| !ring.queue.ready()) else { return Wish::None };
        match register {
            // A size that does not fit becomes one that is refused.
            VIRTIO_MMIO_QUEUE_NUM => ring.size = u16::try_from(value).unwrap_or(0),
            VIRTIO_MMIO_QUEUE_DESC_LOW => set_half(&mut ring.table, false, value),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => set_half(&mut ring.table, true, value),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => set_half(&mut ring.available, false, value),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => set_half(&mut ring.available, true, value),
            VIRTIO_MMIO_QUEUE_USED_LOW => set_half(&mut ring.used, false, value),
            VIRTIO_MMIO_QUEUE_USED_HIGH => set_half(&mut ring.used, true, value),
            VIRTIO_MMIO_QUEUE_READY if ring.make_ready(self.memory).is_err() => return self.give_up(),
            _ => {}
        }
        Wish::None
    }

    fn set_status(&mut self, value: u32) -> Wish {
        if value == 0 {
            for ring in &mut self.rings {
                *ring = Ring::new();
            }
            (self.status, self.accepted, self.selected) = (0, 0, 0);
            (self.offered_half, self.accepted_half) = (0, 0);
            return Wish::Answered(u32::MAX);
        }
        let is_acceptable = self.accepted & !self.offered() == 0 && self.accepted & MODERN != 0;
        let refused = if is_acceptable { 0 } else { FEATURES_OK };
        // A driver takes nothing back but by a reset.
        self.status |= value & !NEEDS_RESET & !refused;
        Wish::None
    }

    /// The driver has broken the rules.
    fn give_up(&mut self) -> Wish {
        self.status |= NEEDS_RESET;
        self.generation = self.generation.wrapping_add(1);
        Wish::Raise(CHANGED)
    }

    /// Serves the next request of a queue; gives the reasons to interrupt, 0 if there are none, or nothing if there is no request.
    pub fn serve(&mut self, queue: usize) -> Option<u32> {
        if self.status & (DRIVER_OK | NEEDS_RESET) != DRIVER_OK || !self.device.is_ready(queue) {
            return None;
        }
        self.try_serve(queue).unwrap_or_else(|Malformed| {
            self.give_up();
            Some(CHANGED)
        })
    }

    fn try_serve(&mut self, index: usize) -> Result<Option<u32>, Malformed> {
        let Some(Ring { queue, available, size, .. }) = self.rings.get_mut(index).filter(|ring| ring.queue.ready()) else {
            return Ok(None);
        };
        let Some(chain) = queue.iter(self.memory).map_err(|_| Malformed)?.next() else { return Ok(None) };
        let request = Request::new(&chain, self.memory, *size)?;
        let written = self.device.serve(index, request)?;
        queue.add_used(self.memory, chain.head_index(), written).map_err(|_| Malformed)?;
        // The driver changes the flags and then looks what was used: one of both sees the other.
        fence(Ordering::SeqCst);
        let flags: u16 = self.memory.load(GuestAddress(*available), Ordering::Acquire).map_err(|_| Malformed)?;
        Ok(Some(if flags & NO_INTERRUPT == 0 { USED } else { 0 }))
    }
}

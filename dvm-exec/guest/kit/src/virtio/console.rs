//! The console (virtio 1.2, 5.3).
//!
//! Owns what was typed and not taken yet.

use super::{Device, Queue, SIZE, WRITE};
use crate::alloc;
use crate::sys::memory::{read_byte, store};
use core::hint::spin_loop;

/// Number of such devices in the standard.
pub const ID: u32 = 3;
/// Bytes of a buffer for what is typed.
const BUFFER: u64 = 256;
const LINE: usize = 2048;

/// A console.
#[derive(Debug)]
pub struct Console {
    device: Device,
    receives: Queue,
    sends: Queue,
    /// Buffers of what is typed; behind them the line that is being shown.
    page: u64,
    /// The buffer that is being taken: where, and how much is left.
    at: u64,
    left: u32,
    taken: Option<u16>,
}

impl Console {
    /// The console.
    #[must_use]
    pub fn find() -> Option<Self> {
        let device = Device::find(ID, 0)?;
        if !device.take() {
            return None;
        }
        let (receives, sends) = (Queue::new(device, 0)?, Queue::new(device, 1)?);
        let page = alloc::pages(8192)?;
        device.begin();
        let mut console = Self { device, receives, sends, page, at: 0, left: 0, taken: None };
        (0..SIZE).for_each(|index| console.offer(index));
        Some(console)
    }

    /// Gives the device a buffer for what is typed.
    fn offer(&mut self, index: u16) {
        self.receives.describe(index, self.page + u64::from(index) * BUFFER, BUFFER as u32, WRITE);
        self.receives.ask(index);
    }

    /// The device, for its line.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// Whether the device is to interrupt when something is typed.
    pub fn want_interrupts(&self, is_wanted: bool) {
        self.receives.want_interrupts(is_wanted);
    }

    /// Shows text, and returns when it is shown.
    pub fn show(&mut self, text: &str) {
        let place = self.page + 4096;
        for piece in text.as_bytes().chunks(LINE) {
            store(place, piece);
            self.sends.describe(0, place, piece.len() as u32, 0);
            self.sends.ask(0);
            while self.sends.poll().is_none() {
                if self.device.is_broken() {
                    return;
                }
                spin_loop();
            }
        }
    }

    /// Whether something was typed that was not taken yet.
    #[must_use]
    pub fn has_typed(&self) -> bool {
        self.left > 0 || self.receives.has_answer()
    }

    /// The next byte that was typed.
    pub fn take(&mut self) -> Option<u8> {
        while self.left == 0 {
            if let Some(index) = self.taken.take() {
                self.offer(index);
            }
            let (index, bytes) = self.receives.poll()?;
            (self.taken, self.at, self.left) = (Some(index), self.page + u64::from(index) * BUFFER, bytes);
        }
        let byte = read_byte(self.at);
        (self.at, self.left) = (self.at + 1, self.left - 1);
        Some(byte)
    }
}

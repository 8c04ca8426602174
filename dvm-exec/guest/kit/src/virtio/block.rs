//! Disks (virtio 1.2, 5.2).
//!
//! Owns a disk's one request at a time. It is waited for by looking.

use super::{CONFIGURATION, Device, NEXT, Queue, WRITE};
use crate::sys::memory::{read_byte, write, write_byte};
use crate::{alloc, time};
use core::hint::spin_loop;

/// Bytes of a sector.
pub const SECTOR: u32 = 512;
const ID: u32 = 2;
const IN: u64 = 0;
const OUT: u64 = 1;
const FLUSH: u64 = 4;
/// How long a request may take.
const PATIENCE_US: u64 = 20_000_000;

/// Why a request was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The disk says so: the sectors are not its own, or it is not to be written.
    Failed,
    /// The disk does not know such requests.
    Unknown,
    /// The device does nothing more until it is reset.
    Broken,
    /// No answer came.
    Late,
}

/// A disk.
#[derive(Debug)]
pub struct Disk {
    device: Device,
    queue: Queue,
    /// Header and status of the request.
    page: u64,
    sectors: u64,
}

impl Disk {
    /// The `nth` disk, from 0 on.
    #[must_use]
    pub fn find(nth: usize) -> Option<Self> {
        let device = Device::find(ID, nth)?;
        if !device.take() {
            return None;
        }
        let (queue, page) = (Queue::new(device, 0)?, alloc::pages(4096)?);
        device.begin();
        let sectors = u64::from(device.read(CONFIGURATION)) | u64::from(device.read(CONFIGURATION + 4)) << 32;
        Some(Self { device, queue, page, sectors })
    }

    /// Resets a disk and takes it over again.
    #[must_use]
    pub fn renew(&mut self) -> bool {
        let is_taken = self.device.take() && self.queue.renew();
        self.device.begin();
        is_taken
    }

    /// Its size in sectors.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// The device, for its line.
    #[must_use]
    pub fn device(&self) -> Device {
        self.device
    }

    /// Its queue, for who asks for what no driver should.
    pub fn queue(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// Reads `bytes`, whole sectors, to `address`.
    ///
    /// # Errors
    /// They were not read.
    pub fn read(&mut self, sector: u64, address: u64, bytes: u32) -> Result<(), Refusal> {
        self.begin(IN, sector, Some((address, bytes)));
        self.finish()
    }

    /// Writes `bytes`, whole sectors, from `address`.
    ///
    /// # Errors
    /// They were not written.
    pub fn write(&mut self, sector: u64, address: u64, bytes: u32) -> Result<(), Refusal> {
        self.begin(OUT, sector, Some((address, bytes)));
        self.finish()
    }

    /// What was written is on the disk when this returns.
    ///
    /// # Errors
    /// It may not be.
    pub fn flush(&mut self) -> Result<(), Refusal> {
        self.begin(FLUSH, 0, None);
        self.finish()
    }

    /// Asks to read; [`Disk::finish`] waits for it.
    pub fn begin_read(&mut self, sector: u64, address: u64, bytes: u32) {
        self.begin(IN, sector, Some((address, bytes)));
    }

    fn begin(&mut self, kind: u64, sector: u64, place: Option<(u64, u32)>) {
        let status = self.page + 64;
        write(self.page, kind);
        write(self.page + 8, sector);
        write_byte(status, u8::MAX);
        self.queue.describe(0, self.page, 16, NEXT);
        let mut last = 1;
        if let Some((address, bytes)) = place {
            self.queue.describe(1, address, bytes, if kind == IN { NEXT | WRITE } else { NEXT });
            last = 2;
        }
        self.queue.describe(last, status, 1, WRITE);
        self.queue.ask(0);
    }

    /// Waits for the request.
    ///
    /// # Errors
    /// It was not done.
    pub fn finish(&mut self) -> Result<(), Refusal> {
        let end = time::now() + time::ticks(PATIENCE_US);
        while self.queue.poll().is_none() {
            if time::now() > end {
                return Err(if self.device.is_broken() { Refusal::Broken } else { Refusal::Late });
            }
            spin_loop();
        }
        match read_byte(self.page + 64) {
            0 => Ok(()),
            2 => Err(Refusal::Unknown),
            _ => Err(Refusal::Failed),
        }
    }
}

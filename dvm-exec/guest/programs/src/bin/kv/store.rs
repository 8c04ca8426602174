//! A processor's part of the disk: a table of sectors by the hash of their key.
//!
//! Owns the form of a sector. A sector is written as a whole and flushed before the answer, so a guest that starts again with the
//! same disk, and as many processors, finds every answer kept.
//!
//! ```text
//! 0 state   1 bytes of the key   2 bytes of the value   8 checksum of all but this   16 key   80 value
//! ```

use crate::text::Text;
use core::sync::atomic::{AtomicU64, Ordering};
use dvm_kit::alloc;
use dvm_kit::sys::memory::{load, store};
use dvm_kit::virtio::block::{Disk, Refusal, SECTOR};

const BYTES: usize = SECTOR as usize;
const KEY: usize = 16;
const KEY_MAX: usize = 64;
const VALUE: usize = KEY + KEY_MAX;
const VALUE_MAX: usize = 400;
const CHECKSUM: usize = 8;
const FULL: u8 = 1;
const REMOVED: u8 = 2;

/// Where sectors are read to.
static BUFFER: AtomicU64 = AtomicU64::new(0);

/// A part.
pub struct Part<'a> {
    disk: &'a mut Disk,
    buffer: u64,
    first: u64,
    sectors: u64,
}

/// The processor that a key belongs to.
pub fn owner(key: &str, cpus: usize) -> usize {
    // Of short keys only the low bits differ.
    (dvm_guests::fnv1a(key.bytes()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as usize % cpus
}

/// What looking for a key finds.
struct Found {
    /// Its sector, if there is one.
    at: Option<(u64, Record)>,
    /// The first where it could be, if there is room and it has none.
    room: Option<u64>,
}

/// A sector, in memory.
struct Record([u8; BYTES]);

impl Record {
    fn full(key: &str, value: &str) -> Self {
        let mut bytes = [0; BYTES];
        bytes[0] = FULL;
        bytes[1] = key.len() as u8;
        bytes[2..4].copy_from_slice(&(value.len() as u16).to_le_bytes());
        bytes[KEY..KEY + key.len()].copy_from_slice(key.as_bytes());
        bytes[VALUE..VALUE + value.len()].copy_from_slice(value.as_bytes());
        Self(bytes).signed()
    }

    fn removed() -> Self {
        let mut bytes = [0; BYTES];
        bytes[0] = REMOVED;
        Self(bytes).signed()
    }

    fn checksum(&self) -> u64 {
        let (head, rest) = self.0.split_at(CHECKSUM);
        dvm_guests::fnv1a(head.iter().chain(rest.iter().skip(8)).copied())
    }

    fn signed(mut self) -> Self {
        let checksum = self.checksum();
        self.0[CHECKSUM..CHECKSUM + 8].copy_from_slice(&checksum.to_le_bytes());
        self
    }

    fn is_empty(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    fn is_whole(&self) -> bool {
        self.is_empty() || self.0[CHECKSUM..CHECKSUM + 8] == self.checksum().to_le_bytes()
    }

    fn key(&self) -> Option<&str> {
        let bytes = self.0.get(KEY..KEY + usize::from(self.0[1]).min(KEY_MAX)).filter(|_| self.0[0] == FULL)?;
        core::str::from_utf8(bytes).ok()
    }

    fn value(&self) -> &str {
        let length = usize::from(u16::from_le_bytes([self.0[2], self.0[3]])).min(VALUE_MAX);
        self.0.get(VALUE..VALUE + length).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or("?")
    }
}

impl<'a> Part<'a> {
    /// The part of processor `cpu` of so many.
    ///
    /// # Errors
    /// There is no memory, or the disk has no sector for each.
    pub fn new(disk: &'a mut Disk, cpu: usize, cpus: usize) -> Result<Self, &'static str> {
        if BUFFER.load(Ordering::Acquire) == 0 {
            BUFFER.store(alloc::pages(u64::from(SECTOR)).ok_or("no memory")?, Ordering::Release);
        }
        let sectors = disk.sectors() / cpus as u64;
        if sectors == 0 {
            return Err("the disk is too small");
        }
        Ok(Self { disk, buffer: BUFFER.load(Ordering::Acquire), first: sectors * cpu as u64, sectors })
    }

    fn read(&mut self, place: u64) -> Result<Record, &'static str> {
        self.disk.read(self.first + place, self.buffer, SECTOR).map_err(reason)?;
        let mut record = Record([0; BYTES]);
        load(self.buffer, &mut record.0);
        if record.is_whole() { Ok(record) } else { Err("a sector is damaged, or of another use") }
    }

    fn write(&mut self, place: u64, record: &Record) -> Result<(), &'static str> {
        store(self.buffer, &record.0);
        self.disk.write(self.first + place, self.buffer, SECTOR).map_err(reason)?;
        self.disk.flush().map_err(reason)
    }

    fn find(&mut self, key: &str) -> Result<Found, &'static str> {
        let start = dvm_guests::fnv1a(key.bytes());
        let mut room = None;
        for step in 0..self.sectors {
            let place = start.wrapping_add(step) % self.sectors;
            let record = self.read(place)?;
            if record.key() == Some(key) {
                return Ok(Found { at: Some((place, record)), room: None });
            }
            if record.0[0] != FULL {
                room = room.or(Some(place));
            }
            if record.is_empty() {
                break;
            }
        }
        Ok(Found { at: None, room })
    }

    /// Keeps a value.
    pub fn put(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        if key.len() > KEY_MAX || value.len() > VALUE_MAX {
            return Err("a key of 64 bytes and a value of 400 are the longest");
        }
        let Found { at, room } = self.find(key)?;
        let place = at.map(|(place, _)| place).or(room).ok_or("the disk is full")?;
        self.write(place, &Record::full(key, value))
    }

    /// The value that was kept.
    pub fn get(&mut self, key: &str) -> Result<Option<Text>, &'static str> {
        let found = self.find(key)?.at;
        Ok(found.map(|(_, record)| Text::of(format_args!("{}", record.value()))))
    }

    /// Forgets a value; false if there was none.
    pub fn remove(&mut self, key: &str) -> Result<bool, &'static str> {
        match self.find(key)?.at {
            Some((place, _)) => self.write(place, &Record::removed()).map(|()| true),
            None => Ok(false),
        }
    }

    /// How many values are kept here.
    pub fn count(&mut self) -> Result<u64, &'static str> {
        (0..self.sectors).try_fold(0, |count, place| Ok(count + u64::from(self.read(place)?.key().is_some())))
    }
}

fn reason(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Failed | Refusal::Unknown => "the disk failed",
        Refusal::Broken => "the disk's device is broken",
        Refusal::Late => "the disk does not answer",
    }
}

//! A disk (virtio 1.2, 5.2), which is a file of the host.
//!
//! Owns the requests of a disk. Must not know registers. A request that cannot be done is answered so; one that a driver may not make
//! breaks the device.

use super::{Device, Malformed, Request};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use virtio_bindings::bindings::virtio_blk::*;

/// Its number in the standard.
const ID: u32 = 2;
/// What sizes and places of a disk are told in.
pub const SECTOR: u64 = 512;
const HEADER_BYTES: usize = 16;
/// As much is copied at once.
const CHUNK_BYTES: usize = 64 << 10;
/// Most pieces of a request: the queue, without header and status.
const PIECES_MAX: u32 = 254;

/// What `--disk` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskName {
    path: PathBuf,
    is_read_only: bool,
}

impl FromStr for DiskName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (path, is_read_only) = match text.rsplit_once(',') {
            Some((path, "ro")) => (path, true),
            Some((path, "rw")) => (path, false),
            _ => (text, false),
        };
        if path.is_empty() {
            return Err("a disk is FILE or FILE,ro".to_owned());
        }
        Ok(Self { path: path.into(), is_read_only })
    }
}

/// A disk.
pub struct Disk {
    file: File,
    bytes: u64,
    is_read_only: bool,
    configuration: Vec<u8>,
}

impl Disk {
    /// Opens a disk; nobody else of this kind writes to it meanwhile.
    ///
    /// # Errors
    /// It cannot be opened, is no disk, or is in use.
    pub fn open(name: &DiskName) -> Result<Self, String> {
        let DiskName { path, is_read_only } = name;
        let refused = |reason: &dyn std::fmt::Display| format!("disk {}: {reason}", path.display());
        let file = OpenOptions::new().read(true).write(!is_read_only).open(path).map_err(|error| refused(&error))?;
        let locked = if *is_read_only { file.try_lock_shared() } else { file.try_lock() };
        locked.map_err(|_| refused(&"it is the disk of another guest: give each one of its own, or all `,ro`"))?;
        Self::of(file, *is_read_only, path)
    }

    fn of(mut file: File, is_read_only: bool, path: &Path) -> Result<Self, String> {
        let refused = |reason: String| format!("disk {}: {reason}", path.display());
        let bytes = file.seek(SeekFrom::End(0)).map_err(|error| refused(error.to_string()))?;
        if bytes == 0 || !bytes.is_multiple_of(SECTOR) {
            return Err(refused(format!("{bytes} bytes: whole sectors of {SECTOR} are needed, one at least")));
        }
        let mut configuration = vec![0; 24];
        configuration[..8].copy_from_slice(&(bytes / SECTOR).to_le_bytes());
        configuration[12..16].copy_from_slice(&PIECES_MAX.to_le_bytes());
        configuration[20..24].copy_from_slice(&(SECTOR as u32).to_le_bytes());
        Ok(Self { file, bytes, is_read_only, configuration })
    }

    /// Where `count` bytes from a sector on begin; none if they are not of the disk.
    fn range(&self, sector: u64, count: usize) -> io::Result<u64> {
        let first = sector.checked_mul(SECTOR).filter(|first| *first <= self.bytes && count as u64 <= self.bytes - first);
        let whole = (count as u64).is_multiple_of(SECTOR);
        first.filter(|_| whole).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    fn read(&self, sector: u64, to: &mut impl Write, count: usize) -> io::Result<()> {
        let first = self.range(sector, count)?;
        chunks(first, count, |offset, chunk| {
            self.file.read_exact_at(chunk, offset)?;
            to.write_all(chunk)
        })
    }

    fn write(&self, sector: u64, from: &mut impl Read, count: usize) -> io::Result<()> {
        let first = self.range(sector, count)?;
        if self.is_read_only {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        chunks(first, count, |offset, chunk| {
            from.read_exact(chunk)?;
            self.file.write_all_at(chunk, offset)
        })
    }
}

fn chunks(first: u64, count: usize, mut copy: impl FnMut(u64, &mut [u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES.min(count)];
    (0..count).step_by(CHUNK_BYTES).try_for_each(|done| {
        let length = CHUNK_BYTES.min(count - done);
        copy(first + done as u64, buffer.get_mut(..length).unwrap_or_default())
    })
}

impl Device for Disk {
    fn id(&self) -> u32 {
        ID
    }

    fn features(&self) -> u64 {
        let read_only = if self.is_read_only { 1 << VIRTIO_BLK_F_RO } else { 0 };
        1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_BLK_SIZE | 1 << VIRTIO_BLK_F_FLUSH | read_only
    }

    fn configuration(&self) -> &[u8] {
        &self.configuration
    }

    fn queues(&self) -> usize {
        1
    }

    fn is_ready(&self, _queue: usize) -> bool {
        true
    }

    fn serve(&mut self, _queue: usize, request: Request<'_>) -> Result<u32, Malformed> {
        let Request { mut from, mut to } = request;
        // The last byte is for the status, the rest for what is read.
        let room = to.available_bytes().checked_sub(1).ok_or(Malformed)?;
        let mut status = to.split_at(room).map_err(|_| Malformed)?;
        let mut header = [0; HEADER_BYTES];
        from.read_exact(&mut header).map_err(|_| Malformed)?;
        let kind = u32::from_le_bytes(header[..4].try_into().map_err(|_| Malformed)?);
        let sector = u64::from_le_bytes(header[8..].try_into().map_err(|_| Malformed)?);
        let done = match kind {
            VIRTIO_BLK_T_IN => self.read(sector, &mut to, room),
            VIRTIO_BLK_T_OUT => {
                let count = from.available_bytes();
                self.write(sector, &mut from, count)
            }
            VIRTIO_BLK_T_FLUSH => self.file.sync_data(),
            VIRTIO_BLK_T_GET_ID => {
                let mut name = [0; VIRTIO_BLK_ID_BYTES as usize];
                name[..3].copy_from_slice(b"dvm");
                to.write_all(name.get(..room).unwrap_or(&name))
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        };
        let code = match done {
            Ok(()) => VIRTIO_BLK_S_OK,
            Err(error) if error.kind() == io::ErrorKind::Unsupported => VIRTIO_BLK_S_UNSUPP,
            Err(_) => VIRTIO_BLK_S_IOERR,
        };
        status.write_all(&[code as u8]).map_err(|_| Malformed)?;
        // Drivers rely on no more of it than that it is not too much.
        Ok(u32::try_from(to.bytes_written() + 1).unwrap_or(u32::MAX))
    }

    fn type_in(&mut self, _bytes: &[u8]) -> usize {
        0
    }
}

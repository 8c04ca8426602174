//! Guarded access to program memory from husk code.
//!
//! Owns copies that report a bad address instead of crashing. Must not hold a lock: every access may fault and wait.

use super::{LINE, VIEW_FIRST, asm};

/// The program gave an address it may not use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadAddress;

fn is_program(address: u64, bytes: u64) -> bool {
    address >= VIEW_FIRST && bytes <= LINE && address <= LINE - bytes
}

/// Copies memory at `address` into `into`: the program's, or of the husk when a call's text came in a message.
///
/// # Errors
/// [`BadAddress`] where the program itself would fault.
pub fn read(address: u64, into: &mut [u8]) -> Result<(), BadAddress> {
    // SAFETY: the destination is ours; reading is harmless anywhere, and a fault is caught and reported by the copy.
    let left = unsafe { asm::dvm_copy(into.as_mut_ptr() as u64, address, into.len() as u64) };
    if left == 0 { Ok(()) } else { Err(BadAddress) }
}

/// Copies `from` to program memory at `address`.
///
/// # Errors
/// [`BadAddress`] where the program itself would fault; a part may have been written.
pub fn write(address: u64, from: &[u8]) -> Result<(), BadAddress> {
    if !is_program(address, from.len() as u64) {
        return Err(BadAddress);
    }
    // SAFETY: the source is ours; the destination lies below LINE, holds no Rust object, and a fault is caught.
    let left = unsafe { asm::dvm_copy(address, from.as_ptr() as u64, from.len() as u64) };
    if left == 0 { Ok(()) } else { Err(BadAddress) }
}

/// Reads `bytes` bytes at `address`.
///
/// # Errors
/// As [`read`].
pub fn read_vec(address: u64, bytes: usize) -> Result<Vec<u8>, BadAddress> {
    let mut into = vec![0; bytes];
    read(address, &mut into)?;
    Ok(into)
}

/// Reads a 64-bit word.
///
/// # Errors
/// As [`read`].
pub fn read_u64(address: u64) -> Result<u64, BadAddress> {
    let mut bytes = [0; 8];
    read(address, &mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

/// Reads a 32-bit word.
///
/// # Errors
/// As [`read`].
pub fn read_u32(address: u64) -> Result<u32, BadAddress> {
    let mut bytes = [0; 4];
    read(address, &mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

/// Stores a 32-bit word in one piece.
///
/// # Errors
/// As [`write`].
pub fn store_u32(address: u64, value: u32) -> Result<(), BadAddress> {
    if !is_program(address, 4) {
        return Err(BadAddress);
    }
    // SAFETY: as in `write`; the instruction is one of the guarded ranges.
    if unsafe { asm::dvm_store(address, value) } == 0 { Ok(()) } else { Err(BadAddress) }
}

/// Replaces `expected` by `new` in one piece; returns the value seen.
///
/// # Errors
/// As [`write`].
pub fn exchange_u32(address: u64, expected: u32, new: u32) -> Result<u32, BadAddress> {
    if !is_program(address, 4) {
        return Err(BadAddress);
    }
    let mut seen = 0;
    // SAFETY: as in `write`; `seen` is ours.
    if unsafe { asm::dvm_exchange(address, expected, new, &raw mut seen) } == 0 { Ok(seen) } else { Err(BadAddress) }
}

/// Reads a NUL-terminated string of at most `bytes_max` bytes, without the NUL.
///
/// # Errors
/// As [`read`]; also if no NUL is found in time.
pub fn read_text(address: u64, bytes_max: usize) -> Result<Vec<u8>, BadAddress> {
    let mut text = Vec::new();
    let mut at = address;
    while text.len() < bytes_max {
        let mut part = [0_u8; 256];
        let to_page_end = (4096 - (at & 4095)) as usize;
        let bytes = to_page_end.min(part.len());
        read(at, &mut part[..bytes])?;
        if let Some(end) = part[..bytes].iter().position(|byte| *byte == 0) {
            text.extend_from_slice(&part[..end]);
            return Ok(text);
        }
        text.extend_from_slice(&part[..bytes]);
        at += bytes as u64;
    }
    Err(BadAddress)
}

//! The kernel in a bzImage, unpacked.
//!
//! Owns the two formats: where a bzImage has its kernel, and LZ4 as Linux packs by (lz4 -l). Must not know what the kernel is for.

/// How such a file begins.
const LZ4: [u8; 4] = [2, 0x21, 0x4c, 0x18];
/// What a block unpacks to at most.
const BLOCK_MAX: usize = 8 << 20;
const MATCH_MIN: usize = 4;

/// The kernel in this bzImage, an ELF file.
///
/// # Errors
/// What is wrong, or which packing is not known.
pub fn kernel(image: &[u8]) -> Result<Vec<u8>, String> {
    let word = |at: usize| image.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_le_bytes);
    let sectors = image.get(0x1f1).copied().unwrap_or(0);
    let places = word(0x248).zip(word(0x24c)).map(|(offset, bytes)| (offset as usize, bytes as usize));
    let (offset, bytes) = places.ok_or("the bzImage is cut off")?;
    let first = (usize::from(sectors) + 1) * 512 + offset;
    let packed = image.get(first..first + bytes).ok_or("the bzImage is cut off")?;
    let blocks = packed.strip_prefix(&LZ4).ok_or("the kernel is packed otherwise than by LZ4")?;
    let (blocks, length) = blocks.split_last_chunk().ok_or("the packed kernel is cut off")?;
    let unpacked = unpack(blocks)?;
    match unpacked.len() == u32::from_le_bytes(*length) as usize {
        true => Ok(unpacked),
        false => Err(format!("the kernel unpacks to {} bytes, not {}", unpacked.len(), u32::from_le_bytes(*length))),
    }
}

/// Blocks, each behind its length.
fn unpack(mut packed: &[u8]) -> Result<Vec<u8>, String> {
    let mut unpacked = Vec::new();
    while let Some((length, rest)) = packed.split_first_chunk() {
        let length = u32::from_le_bytes(*length) as usize;
        let block = rest.get(..length).ok_or("a block is cut off")?;
        packed = &rest[length..];
        let start = unpacked.len();
        unpack_block(block, &mut unpacked, start).ok_or("a block is damaged")?;
    }
    Ok(unpacked)
}

/// None if it is damaged. What is behind `start` in `unpacked` is of this block.
fn unpack_block(mut block: &[u8], unpacked: &mut Vec<u8>, start: usize) -> Option<()> {
    while let Some((token, rest)) = block.split_first() {
        block = rest;
        let literals = length(usize::from(token >> 4), &mut block)?;
        unpacked.extend(block.get(..literals)?);
        block = &block[literals..];
        if block.is_empty() {
            break;
        }
        let (distance, rest) = block.split_first_chunk()?;
        block = rest;
        let distance = usize::from(u16::from_le_bytes(*distance));
        let count = length(usize::from(token & 15), &mut block)? + MATCH_MIN;
        let from = unpacked.len().checked_sub(distance).filter(|from| *from >= start && distance > 0)?;
        // What is copied may be what is being written.
        for at in from..from + count {
            unpacked.push(unpacked[at]);
        }
        if unpacked.len() - start > BLOCK_MAX {
            return None;
        }
    }
    Some(())
}

/// A length of 15 goes on in the bytes that follow.
fn length(nibble: usize, block: &mut &[u8]) -> Option<usize> {
    let mut length = nibble;
    let mut is_last = nibble < 15;
    while !is_last {
        let (more, rest) = block.split_first()?;
        *block = rest;
        length += usize::from(*more);
        is_last = *more < 255;
    }
    Some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bzImage of two sectors around what is packed.
    fn image(blocks: &[&[u8]], length: u32) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image.extend(LZ4);
        for block in blocks {
            image.extend((block.len() as u32).to_le_bytes());
            image.extend(*block);
        }
        image.extend(length.to_le_bytes());
        let bytes = (image.len() - 1024) as u32;
        image[0x24c..0x250].copy_from_slice(&bytes.to_le_bytes());
        image
    }

    #[test]
    fn what_was_packed_comes_out() {
        // As `lz4 -l` packs them: twenty literals; then "ab" again and again.
        let literals = [&[0xf0, 5][..], b"0123456789abcdefghij"].concat();
        let repeated = [&[0x2f][..], b"ab", &[2, 0, 1, 0x50], b"vwxyz"].concat();
        let wanted = format!("0123456789abcdefghij{}vwxyz", "ab".repeat(11));
        assert_eq!(kernel(&image(&[&literals, &repeated], 47)).map(|bytes| String::from_utf8(bytes).unwrap()), Ok(wanted));
    }

    #[test]
    fn what_is_damaged_is_refused() {
        let literals = [&[0xf0, 5][..], b"0123456789abcdefghij"].concat();
        assert!(kernel(&image(&[&literals], 21)).unwrap_err().contains("20 bytes, not 21"));
        assert!(kernel(&image(&[&literals[..7]], 20)).unwrap_err().contains("damaged"));
        assert!(kernel(&image(&[&[0x10, b'a', 9, 0]], 20)).unwrap_err().contains("damaged"), "before the beginning");
        assert!(kernel(&image(&[&[0x10, b'a', 0, 0]], 20)).unwrap_err().contains("damaged"), "no distance");
        assert!(kernel(&image(&[&literals], 20)[..1030]).unwrap_err().contains("cut off"));
        assert!(kernel(&[0; 100]).is_err());
        let mut other = image(&[&literals], 20);
        other[1024] = 0x1f;
        assert!(kernel(&other).unwrap_err().contains("otherwise"));
    }
}

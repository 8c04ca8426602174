//! Values over a pipe: a length, then the bytes.
//!
//! Owns the framing between a husk and its runner processes. Must not know the values.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{Error, ErrorKind, Read, Write};

/// Longest value: all a runner may change, and something to spare.
const FRAME_BYTES_MAX: u32 = 2 << 30;

/// Writes a value.
pub fn write(to: &mut impl Write, value: &impl Serialize) -> Result<(), Error> {
    let bytes = postcard::to_stdvec(value).map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
    let length = u32::try_from(bytes.len()).ok().filter(|length| *length <= FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| Error::new(ErrorKind::InvalidData, format!("{} bytes are too many", bytes.len())))?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(&bytes)?;
    to.flush()
}

/// Reads a value; `None` at the end.
pub fn read<T: DeserializeOwned>(from: &mut impl Read) -> Result<Option<T>, Error> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_le_bytes(length);
    if length > FRAME_BYTES_MAX {
        return Err(Error::new(ErrorKind::InvalidData, format!("a frame of {length} bytes is too long")));
    }
    let mut bytes = vec![0; length as usize];
    from.read_exact(&mut bytes)?;
    postcard::from_bytes(&bytes).map(Some).map_err(|error| Error::new(ErrorKind::InvalidData, error))
}

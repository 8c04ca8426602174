//! A unit: a source of assembly that is linked later, as a relocatable ELF file.
//!
//! Owns the layout of that file. Must not know what the source says: encodings are the shortest ones and depend on where all
//! units lie, so a unit keeps its instructions as text.

use super::{CLASS_64, HEADER_BYTES, LITTLE_ENDIAN, LoadError, MACHINE, MAGIC, SECTION_HEADER_BYTES, VERSION};
use crate::asm::Source;

const TYPE_RELOCATABLE: u16 = 1;
/// The names of the sections: none, the source, its name, these.
const NAMES: &[u8] = b"\0.disa.source\0.disa.name\0.shstrtab\0";
const NAME_OFFSETS: [u32; 4] = [0, 1, 14, 25];
const KINDS: [u32; 4] = [0, 1, 1, 3];

/// The file of a unit.
#[must_use]
pub fn write(source: &Source) -> Vec<u8> {
    let contents = [&[][..], source.text.as_bytes(), source.name.as_bytes(), NAMES];
    let mut file = vec![0; HEADER_BYTES];
    let mut offsets = Vec::new();
    for bytes in contents {
        offsets.push(file.len() as u64);
        file.extend_from_slice(bytes);
        file.resize(file.len().next_multiple_of(8), 0);
    }
    let table = file.len() as u64;
    for (index, (bytes, offset)) in contents.iter().zip(offsets).enumerate() {
        file.extend(NAME_OFFSETS[index].to_le_bytes());
        file.extend(KINDS[index].to_le_bytes());
        for field in [0, 0, if index == 0 { 0 } else { offset }, bytes.len() as u64, 0, u64::from(index > 0), 0] {
            file.extend(field.to_le_bytes());
        }
    }
    let mut header = MAGIC.to_vec();
    header.extend([CLASS_64, LITTLE_ENDIAN, VERSION]);
    header.resize(16, 0);
    header.extend(TYPE_RELOCATABLE.to_le_bytes());
    header.extend(MACHINE.to_le_bytes());
    header.extend(u32::from(VERSION).to_le_bytes());
    header.extend([0; 16]);
    header.extend(table.to_le_bytes());
    header.extend(0u32.to_le_bytes());
    for field in [HEADER_BYTES as u16, 0, 0, SECTION_HEADER_BYTES as u16, 4, 3] {
        header.extend(field.to_le_bytes());
    }
    file[..HEADER_BYTES].copy_from_slice(&header);
    file
}

/// The unit of a file.
///
/// # Errors
/// The file is no unit.
pub fn read(file: &[u8]) -> Result<Source, LoadError> {
    let text = |name| {
        let bytes = super::read::contents(file, TYPE_RELOCATABLE, name)?;
        String::from_utf8(bytes.to_vec()).map_err(|_| LoadError::Unit(name))
    };
    Ok(Source { text: text(".disa.source")?, name: text(".disa.name")? })
}

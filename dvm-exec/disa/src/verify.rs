//! The linear verifier: a text is a row of canonical instructions, and no branch leads between them.
//!
//! Owns what every text must satisfy before it runs. Must not run it.

use crate::decode::{Refusal, decode};
use crate::instruction::{Instruction, Operand};
use crate::map;

/// An instruction and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Bytes from the start of the text.
    pub offset: u64,
    /// How many it has.
    pub length: u32,
    /// The instruction.
    pub instruction: Instruction,
}

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// No instruction.
    #[error("offset 0x{offset:x}: {refusal}")]
    Refused {
        /// Bytes from the start of the text.
        offset: u64,
        /// Why.
        refusal: Refusal,
    },
    /// A branch to an address where no instruction begins.
    #[error("offset 0x{offset:x}: branch into the middle of an instruction or out of the text, to 0x{target:x}")]
    Branch {
        /// Where the branch is.
        offset: u64,
        /// Where it leads to.
        target: u64,
    },
    /// The first instruction is none.
    #[error("entry 0x{0:x} is no instruction of the text")]
    Entry(u64),
    /// More than fits.
    #[error("text of {0} bytes: at most {max} are allowed", max = map::TEXT.bytes)]
    TooLong(u64),
}

/// All instructions of a text that begins at [`map::TX`].
///
/// # Errors
/// Not all of it are canonical instructions, or a branch leads to where none begins.
pub fn verify(text: &[u8]) -> Result<Vec<Placed>, VerifyError> {
    let placed = linear(text)?;
    for one in &placed {
        if let Some(Operand::Code(target)) = one.instruction.target()
            && target != map::TX.base + text.len() as u64
            && find(&placed, target).is_none()
        {
            return Err(VerifyError::Branch { offset: one.offset, target });
        }
    }
    Ok(placed)
}

/// All instructions of a text, wherever they lead.
///
/// # Errors
/// Not all of it are canonical instructions.
pub(crate) fn linear(text: &[u8]) -> Result<Vec<Placed>, VerifyError> {
    if text.len() as u64 > map::TEXT.bytes {
        return Err(VerifyError::TooLong(text.len() as u64));
    }
    let mut placed = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let offset = at as u64;
        let (instruction, length) =
            decode(rest, map::TX.base + offset).map_err(|refusal| VerifyError::Refused { offset, refusal })?;
        placed.push(Placed { offset, length: length as u32, instruction });
        at += length;
    }
    Ok(placed)
}

/// The index of the instruction at an address.
#[must_use]
pub fn find(placed: &[Placed], address: u64) -> Option<usize> {
    let offset = address.checked_sub(map::TX.base)?;
    placed.binary_search_by_key(&offset, |one| one.offset).ok()
}

//! A text made ready to run: instructions by index, addresses to indices.
//!
//! Owns the way from an address to its instruction. Must not run it.

use crate::instruction::{Instruction, Operand};
use crate::limits::INSTRUCTION_BYTES_MAX;
use crate::map;
use crate::quick::{Jump, Quick};
use crate::verify::{self, Placed, VerifyError};

/// No instruction begins here.
const NOWHERE: u32 = u32::MAX;

/// Whether a jump is backwards, or further than an instruction is long.
pub const fn is_far(from: u64, to: u64) -> bool {
    to.wrapping_sub(from).wrapping_sub(1) >= INSTRUCTION_BYTES_MAX as u64
}

/// An instruction, what follows it, and where it leads if that is known.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// `None`: bytes that are no instruction.
    pub instruction: Option<Instruction>,
    /// Its address.
    pub pc: u64,
    /// The address behind it.
    pub next_pc: u64,
    /// The index of the constant target; out of range if there is none.
    pub target: u32,
}

/// Instructions that can be run.
#[derive(Clone, Debug)]
pub struct Code {
    steps: Vec<Step>,
    /// By index as well.
    quick: Vec<Quick>,
    by_offset: Vec<u32>,
}

impl Code {
    /// A verified text.
    ///
    /// # Errors
    /// It does not pass the verifier.
    pub fn verified(text: &[u8]) -> Result<Self, VerifyError> {
        Ok(Self::new(&verify::verify(text)?, text.len(), None))
    }

    /// A text of which only the beginning may be instructions: what follows them traps ILLEGAL.
    #[must_use]
    pub fn unverified(text: &[u8]) -> Self {
        match verify::verify(text) {
            Ok(placed) => Self::new(&placed, text.len(), None),
            Err(VerifyError::Refused { offset, .. }) => {
                let whole = verify::linear(&text[..offset as usize]).unwrap_or_default();
                Self::new(&whole, text.len(), Some(offset))
            }
            Err(_) => Self::new(&verify::linear(text).unwrap_or_default(), text.len(), None),
        }
    }

    fn new(placed: &[Placed], bytes: usize, illegal: Option<u64>) -> Self {
        let mut by_offset = vec![NOWHERE; bytes];
        for (index, one) in placed.iter().enumerate() {
            by_offset[one.offset as usize] = index as u32;
        }
        if let Some(slot) = illegal.and_then(|offset| by_offset.get_mut(offset as usize)) {
            *slot = placed.len() as u32;
        }
        let mut code = Self { steps: Vec::with_capacity(placed.len() + 1), quick: Vec::new(), by_offset };
        for one in placed {
            let pc = map::TX.base + one.offset;
            let target = match one.instruction.target() {
                Some(Operand::Code(address)) => code.index(address),
                _ => NOWHERE,
            };
            let next_pc = pc + u64::from(one.length);
            code.steps.push(Step { instruction: Some(one.instruction), pc, next_pc, target });
        }
        if let Some(offset) = illegal {
            let pc = map::TX.base + offset;
            code.steps.push(Step { instruction: None, pc, next_pc: pc, target: NOWHERE });
        }
        code.quick = code.steps.iter().map(|step| code.quick_of(step)).collect();
        code
    }

    fn quick_of(&self, step: &Step) -> Quick {
        let jump = self.step(step.target).map(|target| Jump { target: step.target, is_far: is_far(step.pc, target.pc) });
        Quick::new(step, jump)
    }

    /// The quick form of an instruction, by index.
    #[inline]
    pub(crate) fn quick(&self, index: u32) -> &Quick {
        self.quick.get(index as usize).unwrap_or(&Quick::No)
    }

    /// The index of the instruction at an address; out of range if there is none.
    #[must_use]
    pub fn index(&self, pc: u64) -> u32 {
        let offset = usize::try_from(pc.wrapping_sub(map::TX.base)).unwrap_or(usize::MAX);
        self.by_offset.get(offset).copied().unwrap_or(NOWHERE)
    }

    /// An instruction by index.
    #[must_use]
    pub fn step(&self, index: u32) -> Option<&Step> {
        self.steps.get(index as usize)
    }

    /// How many instructions there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The instruction at an address.
    #[must_use]
    pub fn instruction(&self, pc: u64) -> Option<Instruction> {
        self.step(self.index(pc))?.instruction
    }
}

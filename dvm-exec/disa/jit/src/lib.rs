//! The second engine of DISA: hot code becomes machine code.
//!
//! Owns what is translated when, and that nobody can tell it from the interpreter but by the clock. Must not know what memory is
//! behind a runner: it asks for regions, and leaves the rest to the interpreter.
//!
//! ```text
//!   Jit -- by text --> Translation: Engine
//!     interpret, counting arrivals --hot--> shape -> lower -> compiler -> Unit
//!          ^                                                               | enter
//!          '--- surrender: an instruction that traps, ends or is rare -----'
//! ```

mod choice;
mod compiler;
mod frame;
mod limits;
mod lower;
mod shape;
mod sys;
mod translation;

pub use compiler::JitError;
pub use limits::ARRIVALS_BEFORE;
pub use translation::Translation;

use compiler::Compiler;
use dvm_disa::verify::VerifyError;
use limits::TEXTS_MAX;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// A translator, and everything it has translated: one for all runners of a process.
#[derive(Debug)]
pub struct Jit {
    compiler: Arc<Compiler>,
    texts: Mutex<HashMap<Vec<u8>, Arc<Translation>>>,
    arrivals_before: u32,
}

impl Jit {
    /// A translator for this machine.
    ///
    /// # Errors
    /// There is none for it.
    pub fn new() -> Result<Self, JitError> {
        Self::after(ARRIVALS_BEFORE)
    }

    /// One that translates what was arrived at so often.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn after(arrivals_before: u32) -> Result<Self, JitError> {
        Ok(Self { compiler: Arc::new(Compiler::new()?), texts: Mutex::default(), arrivals_before })
    }

    /// The engine for a text; the same for the same text.
    ///
    /// # Errors
    /// The text does not pass the verifier.
    pub fn load(&self, text: &[u8]) -> Result<Arc<Translation>, VerifyError> {
        let mut texts = self.texts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(translation) = texts.get(text) {
            return Ok(Arc::clone(translation));
        }
        let translation = Arc::new(Translation::new(text, Arc::clone(&self.compiler), self.arrivals_before)?);
        if texts.len() >= TEXTS_MAX {
            texts.clear();
        }
        texts.insert(text.to_vec(), Arc::clone(&translation));
        Ok(translation)
    }
}

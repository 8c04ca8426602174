//! What carries runners from their first instruction to their end.
//!
//! Owns the choice. Must not know how either engine works.

use dvm_disa::engine::{Engine, Interpreted};
use dvm_disa::object::Object;
use dvm_jit::Jit;
use std::sync::Arc;

/// The engine of a tier for a program: 0 interprets everything, 1 translates what is executed often.
///
/// # Errors
/// No code is generated for this machine, or the text does not pass the verifier.
pub fn of(object: &Object, tier: u8) -> anyhow::Result<Arc<dyn Engine + Send + Sync>> {
    if tier == 0 {
        return Ok(Arc::new(Interpreted));
    }
    Ok(Jit::new()?.load(&object.text)?)
}

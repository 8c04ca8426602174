//! The code generator, set up for this machine.
//!
//! Owns its settings, and how much code there may be. Must not know when something is worth translating.

use crate::limits::CODE_BYTES_MAX;
use crate::lower::lower;
use crate::shape::Shape;
use crate::sys::{Executable, Unit};
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{AbiParam, Function, Signature, UserFuncName, types};
use cranelift_codegen::isa::{CallConv, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable, SetError};
use cranelift_codegen::{CodegenError, Context};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use dvm_disa::code::Code;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Why there is no translator.
#[derive(Debug, thiserror::Error)]
pub enum JitError {
    /// Not this machine.
    #[error("no code is generated for this machine ({0}): run with --tier 0")]
    Machine(&'static str),
    /// The code generator does not know what we want of it.
    #[error("the code generator refused a setting")]
    Setting(#[from] SetError),
    /// The same.
    #[error("the code generator refused this machine")]
    Generator(#[from] CodegenError),
}

/// Makes units.
pub struct Compiler {
    isa: OwnedTargetIsa,
    contexts: Mutex<(Context, FunctionBuilderContext)>,
    bytes: AtomicUsize,
}

impl fmt::Debug for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiler").field("triple", self.isa.triple()).field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Compiler {
    pub fn new() -> Result<Self, JitError> {
        let mut flags = settings::builder();
        flags.set("opt_level", "speed")?;
        flags.set("enable_probestack", "false")?;
        flags.set("unwind_info", "false")?;
        flags.set("enable_verifier", if cfg!(debug_assertions) { "true" } else { "false" })?;
        let isa = cranelift_native::builder().map_err(JitError::Machine)?.finish(settings::Flags::new(flags))?;
        let contexts = Mutex::new((Context::new(), FunctionBuilderContext::new()));
        Ok(Self { isa, contexts, bytes: AtomicUsize::new(0) })
    }

    /// Translates the unit that begins at an instruction. `None`: it stays with the interpreter.
    pub fn unit(&self, code: &Code, root: u32) -> Option<Unit> {
        if self.bytes.load(Ordering::Relaxed) >= CODE_BYTES_MAX {
            return None;
        }
        let shape = Shape::new(code, root)?;
        let mut signature = Signature::new(CallConv::SystemV);
        signature.params.push(AbiParam::new(types::I64));
        signature.returns.push(AbiParam::new(types::I64));
        // Contexts are cleared before use, so one left by a panic does no harm.
        let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
        let (context, functions) = &mut *contexts;
        context.clear();
        context.func = Function::with_name_signature(UserFuncName::default(), signature);
        let mut builder = FunctionBuilder::new(&mut context.func, functions);
        let sites = lower(&mut builder, code, &shape);
        builder.finalize(self.isa.frontend_config());
        let compiled = context.compile(&*self.isa, &mut ControlPlane::default());
        // What the machine has no instruction for would call a library: that is the interpreter's.
        let compiled = compiled.ok().filter(|compiled| compiled.buffer.relocs().is_empty())?;
        let code = Executable::new(compiled.code_buffer()).ok()?;
        self.bytes.fetch_add(compiled.code_buffer().len(), Ordering::Relaxed);
        Some(Unit { code, sites })
    }
}

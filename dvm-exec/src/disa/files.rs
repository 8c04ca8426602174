//! Files of DISA: sources, programs, input.
//!
//! Owns reading and writing them, and errors with their names. Must not know what is in them.

use super::compile;
use anyhow::{Context, anyhow, ensure};
use dvm_dcc::Define;
use dvm_disa::elf::{self, MAGIC};
use dvm_disa::machine::{Machine, Recording, Settings};
use dvm_disa::object::Object;
use dvm_disa::record;
use std::path::Path;

/// A source, assembled.
pub fn assemble(path: &Path) -> anyhow::Result<Object> {
    dvm_disa::asm::assemble(&text(path)?, &path.display().to_string()).map_err(|errors| anyhow!("{errors}"))
}

/// A program: an ELF file, or a source that is compiled or assembled.
pub fn load(path: &Path, defines: &[Define]) -> anyhow::Result<Object> {
    if compile::is_compiled(path) {
        return compile::program(&[path.to_owned()], defines);
    }
    ensure!(defines.is_empty(), "-D is for constants of a source of dcc (.dc)");
    let bytes = bytes(path)?;
    if bytes.starts_with(&MAGIC) {
        return elf::read(&bytes).with_context(|| path.display().to_string());
    }
    assemble(path)
}

/// A recording: a file that is one, or a program that is run for it.
pub fn recording(path: &Path) -> anyhow::Result<Recording> {
    let bytes = bytes(path)?;
    if bytes.starts_with(&record::MAGIC) {
        return record::read(&bytes).with_context(|| path.display().to_string());
    }
    let object = load(path, &[])?;
    let mut machine = Machine::new(&object, Settings::default())?;
    machine.record();
    machine.run();
    machine.recording().cloned().context("the machine keeps no recording")
}

/// The bytes of a file.
pub fn bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// The text of a file.
pub fn text(path: &Path) -> anyhow::Result<String> {
    String::from_utf8(bytes(path)?).with_context(|| format!("{} is neither a DISA program nor text", path.display()))
}

/// Writes a file.
pub fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

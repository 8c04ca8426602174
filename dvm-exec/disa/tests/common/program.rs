//! Programs that are run on the machine of one host.
//!
//! Owns the way from a source to what came of it. Must not judge.

use dvm_disa::asm::assemble;
use dvm_disa::machine::{Machine, Report, Settings};

/// Runs a program; with its report, the quads that `names` are the addresses of.
pub fn run(source: &str, settings: Settings, names: &[&str]) -> (Report, Vec<u64>) {
    let object = assemble(source, "t.disa").unwrap_or_else(|errors| panic!("{errors}\n{source}"));
    let mut machine = Machine::new(&object, settings).expect("the assembler verified it");
    let report = machine.run().clone();
    let value = |name: &&str| machine.quad(object.symbol(name).unwrap_or_else(|| panic!("no symbol {name}")));
    (report, names.iter().map(value).collect())
}

/// What it prints.
pub fn output(report: &Report) -> String {
    String::from_utf8_lossy(&report.output).into_owned()
}

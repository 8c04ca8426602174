//! Sources that are compiled and run on the machine of one host.
//!
//! Owns the way from a source to what it printed. Must not judge.

use dvm_dcc::{Define, compile};
use dvm_disa::asm::{Source, link};
use dvm_disa::machine::{Machine, Report, Settings};
use dvm_disa::object::Object;

/// A program of one source.
pub fn object(source: &str, defines: &[(&str, i64)]) -> Object {
    let defines: Vec<Define> = defines.iter().map(|(name, value)| Define { name: (*name).into(), value: *value }).collect();
    let compiled = compile(source, "t.dc", &defines).unwrap_or_else(|errors| panic!("{errors}\n{source}"));
    let name = "t.dc".into();
    link(&[Source { name, text: compiled.text.clone() }]).unwrap_or_else(|errors| panic!("{errors:?}\n{}", compiled.text))
}

/// What came of a program of one source.
pub fn run(source: &str, defines: &[(&str, i64)], settings: Settings) -> Report {
    let object = object(source, defines);
    let mut machine = Machine::new(&object, settings).expect("the assembler verified it");
    machine.run().clone()
}

/// What a program prints that ends well.
pub fn printed(source: &str, defines: &[(&str, i64)], settings: Settings) -> String {
    let report = run(source, defines, settings);
    assert_eq!((report.exit_status(), &report.failures[..]), (0, &[][..]), "{:?}\n{source}", report.armed);
    String::from_utf8(report.output).expect("it prints text")
}

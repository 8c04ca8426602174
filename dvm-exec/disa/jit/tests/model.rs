//! Both engines agree with the reference model of DISA-1, which lies beside the project's folder where there is one.
//!
//! Owns how many programs a test run tries, and that the comparison can fail. Must not know how programs are made.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../../shared/reference/disa");
/// Programs of one test run; `cargo xtask soak` goes on.
const PROGRAMS: &str = "1500";
/// Programs until a mistake made on purpose is found.
const PLANTED: &str = "400";

/// Where the model is; `None` is told past the test harness, which would swallow it.
fn model(test: &str) -> Option<PathBuf> {
    let python = Command::new("python3").arg("--version").output();
    let lack = match python {
        Err(error) => format!("python3: {error}"),
        Ok(_) if !Path::new(DIRECTORY).join("disa_ref.py").is_file() => {
            "the reference model is not beside this folder".to_owned()
        }
        Ok(_) => return Some(DIRECTORY.into()),
    };
    std::io::stderr().write_all(format!("skipped: model::{test}: {lack}\n").as_bytes()).expect("stderr is open");
    None
}

fn compare(model: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_disa-model")).arg(model).args(arguments).output().expect("it was built")
}

#[test]
fn programs_do_what_the_model_does() {
    let Some(model) = model("programs_do_what_the_model_does") else { return };
    let found = compare(&model, &["0", PROGRAMS]);
    let said = String::from_utf8_lossy(&found.stdout);
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
    assert!(said.starts_with("23 cases and 4 programs of the model: no difference\n"), "{said}");
    // A store reaches into a cell that the model does not fill.
    let found = compare(&model, &["67651", "1"]);
    assert!(found.status.success(), "{}", String::from_utf8_lossy(&found.stderr));
}

#[test]
fn the_comparison_finds_differences() {
    let Some(model) = model("the_comparison_finds_differences") else { return };
    for mistake in ["fuel", "grain"] {
        let found = compare(&model, &["1", PLANTED, mistake]);
        let said = String::from_utf8_lossy(&found.stderr);
        assert!(!found.status.success() && said.contains(" differs\n"), "{mistake}: {said}");
    }
}

//! Loads every program of the fast path and of the trace once and prints what the verifier counted: for `cargo xtask ebpf`.
//!
//! Owns the output: name, instructions walked, instructions as loaded; exit code 2 if this process may not load. Must not
//! attach anything.

use std::process::ExitCode;

const FORBIDDEN: u8 = 2;

fn main() -> ExitCode {
    match dsm_bpf::verified() {
        Ok(counts) => {
            for count in counts {
                println!("{} {} {}", count.program, count.walked, count.loaded);
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}", error.told_with_log());
            if error.is_forbidden() { ExitCode::from(FORBIDDEN) } else { ExitCode::FAILURE }
        }
    }
}

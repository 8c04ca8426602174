//! Numbers: linear algebra with threads.
//!
//! Owns the arguments of the programs. Must not know how they are run.

use super::{Need, PLAIN, Program};

pub const PROGRAMS: &[Program] = &[Program {
    name: "numpy",
    command: Some("python3"),
    arguments: &["-c", include_str!("../../../programs/linear.py")],
    environment: &[("OPENBLAS_NUM_THREADS", "4")],
    needs: &[Need::Program("python3"), Need::Program("f2py3")],
    ..PLAIN
}];

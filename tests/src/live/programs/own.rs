//! Programs of this repository that do much with threads.
//!
//! Owns their arguments. Must not know how they are run.

use super::{GCC, Need, PLAIN, Program};

pub const PROGRAMS: &[Program] = &[
    Program {
        name: "openmp",
        arguments: &["16", "6"],
        environment: &[("OMP_NUM_THREADS", "4"), ("OMP_WAIT_POLICY", "passive"), ("GOMP_SPINCOUNT", "0")],
        needs: &[GCC],
        ..PLAIN
    },
    Program { name: "threads", arguments: &["6"], needs: &[Need::Program("cc")], ..PLAIN },
    Program { name: "stress", arguments: &["6"], needs: &[GCC], ..PLAIN },
    Program { name: "stress-static", arguments: &["6"], needs: &[GCC], ..PLAIN },
    Program { name: "stress-static-pie", arguments: &["6"], needs: &[GCC], ..PLAIN },
];

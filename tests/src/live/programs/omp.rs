//! Ways to synchronise: OpenMP that sleeps and that spins, stolen tasks, parallel algorithms, thread pools, numeric libraries.
//!
//! Owns their arguments and what they are compiled with. Must not know how they are run.

use super::{GCC, Need, PLAIN, Program};

const FOUR: (&str, &str) = ("OMP_NUM_THREADS", "4");
const CXX: Need = Need::Program("g++");

pub const PROGRAMS: &[Program] = &[
    Program { name: "tasks", arguments: &["100"], environment: &[FOUR, ("OMP_WAIT_POLICY", "passive")], needs: &[GCC], ..PLAIN },
    Program {
        name: "tasks-active",
        command: Some("tasks"),
        arguments: &["100"],
        environment: &[FOUR, ("OMP_WAIT_POLICY", "active")],
        needs: &[GCC],
        ..PLAIN
    },
    Program { name: "reductions", environment: &[FOUR], needs: &[Need::Program("gfortran")], ..PLAIN },
    Program {
        name: "reductions-active",
        command: Some("reductions"),
        environment: &[FOUR, ("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "infinite")],
        needs: &[Need::Program("gfortran")],
        ..PLAIN
    },
    Program { name: "stealing", needs: &[CXX, Need::Header("oneapi/tbb.h")], ..PLAIN },
    Program { name: "policies", needs: &[CXX, Need::Header("oneapi/tbb.h")], ..PLAIN },
    Program { name: "spin", needs: &[GCC], ..PLAIN },
    Program { name: "pools", needs: &[GCC, Need::Header("glib-2.0/glib.h")], ..PLAIN },
    Program { name: "boosted", needs: &[CXX, Need::Header("boost/thread.hpp")], ..PLAIN },
    Program {
        name: "blas",
        arguments: &["400"],
        environment: &[("OPENBLAS_NUM_THREADS", "4")],
        needs: &[GCC, Need::Header("x86_64-linux-gnu/cblas.h")],
        ..PLAIN
    },
    Program { name: "fft", arguments: &["24"], needs: &[GCC, Need::Header("fftw3.h")], ..PLAIN },
];

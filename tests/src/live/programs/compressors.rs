//! Compressors with threads.
//!
//! Owns their arguments. Must not know how they are run.

use super::{Need, PLAIN, Program};

pub const PROGRAMS: &[Program] = &[
    Program { name: "pigz", arguments: &["-p", "6", "-n", "-c"], input_mebibytes: 16, needs: &[Need::Program("pigz")], ..PLAIN },
    Program {
        name: "xz",
        arguments: &["-T", "4", "-3", "--block-size=1MiB", "-c"],
        input_mebibytes: 8,
        needs: &[Need::Program("xz")],
        ..PLAIN
    },
    Program {
        name: "zstd",
        arguments: &["-q", "-T4", "-12", "-B1MiB", "-c"],
        input_mebibytes: 8,
        needs: &[Need::Program("zstd")],
        ..PLAIN
    },
    Program { name: "pbzip2", arguments: &["-p4", "-q", "-c"], input_mebibytes: 8, needs: &[Need::Program("pbzip2")], ..PLAIN },
];

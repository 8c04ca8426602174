//! Compressors with threads.
//!
//! Owns their arguments, and what they are given to unpack. Must not know how they are run.

use super::{Bed, Need, PLAIN, Program};
use anyhow::{Context, Result, ensure};
use dvm_hosts::output_within;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const PACKED: &str = "packed";
const PACKED_MEBIBYTES: usize = 8;
const PACKED_LATEST: Duration = Duration::from_secs(60);

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
    Program { name: "lbzip2", arguments: &["-n", "4", "-c"], input_mebibytes: 8, needs: &[Need::Program("lbzip2")], ..PLAIN },
    Program {
        name: "plzip",
        arguments: &["-n", "4", "-3", "-B", "1MiB", "-c"],
        input_mebibytes: 4,
        needs: &[Need::Program("plzip")],
        ..PLAIN
    },
    Program {
        name: "7z-bzip2",
        command: Some("7z"),
        arguments: &["a", "-mmt4", "-mx3", "-si", "-so", "-tbzip2", "archive"],
        input_mebibytes: 4,
        needs: &[Need::Program("7z")],
        ..PLAIN
    },
    Program {
        name: "7z-xz",
        command: Some("7z"),
        arguments: &["a", "-mmt4", "-mx3", "-m0=lzma2:c=512k", "-si", "-so", "-txz", "archive"],
        input_mebibytes: 4,
        needs: &[Need::Program("7z")],
        ..PLAIN
    },
    Program {
        name: "lbzip2-d",
        command: Some("lbzip2"),
        arguments: &["-n", "4", "-d", "-c", PACKED],
        prepare: |bed, directory| pack(bed, directory, "lbzip2", &["-c"]),
        needs: &[Need::Program("lbzip2")],
        ..PLAIN
    },
    Program {
        name: "pbzip2-d",
        command: Some("pbzip2"),
        arguments: &["-p4", "-d", "-c", PACKED],
        prepare: |bed, directory| pack(bed, directory, "pbzip2", &["-c"]),
        needs: &[Need::Program("pbzip2")],
        ..PLAIN
    },
    Program {
        name: "xz-d",
        command: Some("xz"),
        arguments: &["-T", "4", "-d", "-c", "-F", "xz", PACKED],
        prepare: |bed, directory| pack(bed, directory, "xz", &["-T", "2", "-1", "--block-size=1MiB", "-c"]),
        needs: &[Need::Program("xz")],
        ..PLAIN
    },
    Program {
        name: "plzip-d",
        command: Some("plzip"),
        arguments: &["-n", "4", "-d", "-c", PACKED],
        prepare: |bed, directory| pack(bed, directory, "plzip", &["-1", "-B", "512KiB", "-c"]),
        needs: &[Need::Program("plzip")],
        ..PLAIN
    },
];

/// Puts the sample, packed by this program, into the directory.
fn pack(bed: &mut Bed<'_>, directory: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    let shelf = bed.workshop.shelf(&format!("{program}-{PACKED_MEBIBYTES}"));
    if !shelf.exists() {
        let sample = bed.workshop.sample(PACKED_MEBIBYTES)?;
        let mut command = Command::new(bed.workshop.program(program)?);
        let output = output_within(command.args(arguments).arg(sample), PACKED_LATEST);
        let output = output.with_context(|| format!("cannot run {program}"))?;
        ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr).trim());
        fs::write(&shelf, output.stdout)?;
    }
    fs::copy(shelf, directory.join(PACKED))?;
    Ok(())
}

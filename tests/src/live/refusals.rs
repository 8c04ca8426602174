//! Bad input: each kind gets one clear line and its own exit code.
//!
//! Owns the inputs. Must not know where they are refused.

use super::bed::{Bed, shortened};
use super::case::Case;
use anyhow::{Context, Result, ensure};
use dvm_hosts::{User, output_within};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// Exit codes of `docs/operating.md`.
const UNKNOWN_KEY: i32 = 11;
const UNKNOWN_HOST: i32 = 80;
const NOT_ELF: i32 = 71;
const THIRTY_TWO_BIT: i32 = 72;
const NO_AGENT: i32 = 73;
const NOT_RUNNABLE: i32 = 126;
const NOT_FOUND: i32 = 127;
/// A refusal takes no longer than this.
const REFUSED_LATEST: Duration = Duration::from_secs(5);

/// One case per input.
#[must_use]
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("refuse-non-elf", 2, |bed| {
            let path = bed.workshop.executable("text", b"this is no program\n")?;
            refused(bed, &path, &[], NOT_ELF, "text")
        }),
        Case::new("refuse-truncated-elf", 2, |bed| {
            let path = bed.workshop.executable("cut", b"\x7fELF\x02\x01\x01")?;
            refused(bed, &path, &[], NOT_RUNNABLE, "truncated")
        }),
        Case::new("refuse-32-bit-elf", 2, |bed| {
            let path = bed.workshop.executable("old", &thirty_two_bit_elf())?;
            refused(bed, &path, &[], THIRTY_TWO_BIT, "32-bit")
        }),
        Case::new("refuse-missing-program", 2, |bed| refused(bed, Path::new("/nonexistent/program"), &[], NOT_FOUND, "program")),
        Case::new("refuse-directory", 2, |bed| refused(bed, Path::new("/tmp"), &[], NOT_RUNNABLE, "/tmp")),
        Case::new("refuse-missing-host", 2, |bed| {
            refused(bed, Path::new("/bin/true"), &["--hosts", "h0,nowhere"], UNKNOWN_HOST, "nowhere")
        }),
        Case::new("refuse-missing-agent", 2, missing_agent),
        Case::new("refuse-unknown-key", 2, unknown_key),
    ]
}

/// The smallest i386 ELF header with one PT_LOAD: what `gcc -m32` would start with.
fn thirty_two_bit_elf() -> Vec<u8> {
    let mut bytes = vec![0_u8; 4096];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0, b"\x7fELF\x01\x01\x01"); // 32-bit, little-endian, version 1
    put(16, &[2, 0, 3, 0, 1, 0, 0, 0]); // ET_EXEC, EM_386, version 1
    put(24, &0x0804_8054_u32.to_le_bytes()); // entry
    put(28, &52_u32.to_le_bytes()); // program headers
    put(40, &[52, 0, 32, 0, 1, 0]); // header size, program header size and count
    put(52, &[1, 0, 0, 0]); // PT_LOAD
    put(60, &0x0804_8000_u32.to_le_bytes());
    put(68, &[0, 16, 0, 0, 0, 16, 0, 0, 5, 0, 0, 0]); // 4,096 bytes, read and execute
    put(84, b"\xb8\x01\x00\x00\x00\xcd\x80"); // mov eax, 1; int 0x80
    bytes
}

fn refused(bed: &mut Bed<'_>, program: &Path, options: &[&str], code: i32, word: &str) -> Result<String> {
    let mut job = bed.job("true", &[])?.options(options.iter().copied());
    job.program = program.to_path_buf();
    let finished = job.run(bed.hosts, bed.deadline.min(Instant::now() + REFUSED_LATEST))?;
    judge(finished.code(), &finished.stderr, code, word)
}

fn missing_agent(bed: &mut Bed<'_>) -> Result<String> {
    let mut job = bed.job("true", &[])?;
    job.socket = Some("/nonexistent/agent.sock".into());
    let finished = job.run(bed.hosts, bed.deadline.min(Instant::now() + REFUSED_LATEST))?;
    judge(finished.code(), &finished.stderr, NO_AGENT, "/nonexistent/agent.sock")
}

fn judge(code: Option<i32>, stderr: &str, wanted: i32, word: &str) -> Result<String> {
    let said = shortened(stderr);
    ensure!(code == Some(wanted), "exit code {code:?} instead of {wanted}; stderr: {said}");
    ensure!(said.lines().count() == 1, "{} lines instead of one: {said}", said.lines().count());
    ensure!(said.contains(word), "the message does not say `{word}`: {said}");
    Ok(said)
}

fn unknown_key(bed: &mut Bed<'_>) -> Result<String> {
    let host = bed.hosts.host(0)?;
    let directory = bed.workshop.job_directory();
    fs::create_dir_all(&directory)?;
    let node = fs::read_to_string(host.directory.join("node.toml")).context("no node.toml")?;
    let path = directory.join("node.toml");
    let socket = host.socket.display().to_string();
    let node = node.replace(&socket, &directory.join("agent.sock").display().to_string());
    fs::write(&path, node + "colour = \"blue\"\n")?;
    let mut command = bed.hosts.command(0, User::Root, &bed.hosts.binaries().agent)?;
    let cluster = host.directory.join("cluster.toml");
    command.arg("run").arg("--cluster").arg(cluster).arg("--node").arg(&path);
    let output = output_within(&mut command, REFUSED_LATEST).context("the agent with an unknown key")?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    judge(output.status.code(), &stderr, UNKNOWN_KEY, "colour")
}

//! What programs rely on beside their output: exit codes, standard streams, memory that is only reserved.
//!
//! Owns these cases. Must not know the list of programs.

use crate::live::bed::{Bed, same_bytes, shortened};
use anyhow::{Result, bail, ensure};
use dvm_hosts::memory_file_bytes;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// Exit codes, a signal's death, standard input and output of small programs.
pub fn status_and_stdio(bed: &mut Bed<'_>) -> Result<String> {
    for (program, code) in [("true", 0), ("false", 1)] {
        let finished = bed.job(program, &[])?.run(bed.hosts, bed.deadline)?;
        ensure!(finished.code() == Some(code), "{program}: exit code {:?}; {}", finished.code(), shortened(&finished.stderr));
    }
    let mut cat = bed.job("cat", &[])?;
    let sample = bed.workshop.sample(1)?;
    cat.stdin = Some(sample.clone());
    let finished = bed.succeed(&cat)?;
    same_bytes(&sample, &finished.stdout)?;
    let finished = bed.job("cat", &["/nonexistent/file"])?.run(bed.hosts, bed.deadline)?;
    ensure!(finished.code() == Some(1), "cat of a missing file: exit code {:?}", finished.code());
    ensure!(finished.stderr.contains("/nonexistent/file"), "cat's own message is missing: {}", shortened(&finished.stderr));
    Ok("exit codes, stdin, stdout, stderr".into())
}

/// One byte per 2 MiB over 8 GiB may cost 64 MiB, all hosts together.
pub fn sparse_touch(bed: &mut Bed<'_>) -> Result<String> {
    const BYTES_MAX: u64 = 64 << 20;
    let running = bed.job("sparse", &["3"])?.options(["--place", "rr"]).start(bed.hosts)?;
    let patience = bed.deadline.min(Instant::now() + Duration::from_secs(40));
    while !running.output_so_far().contains("touched") {
        if Instant::now() > patience {
            let finished = running.wait(Instant::now(), &AtomicBool::new(true))?;
            bail!("touches too slowly or hangs; stderr: {}\n{}", shortened(&finished.stderr), finished.autopsy);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let mut bytes = 0;
    for index in 0..bed.hosts.hosts().len() {
        bytes += bed.hosts.agent(index)?.map_or(0, |agent| memory_file_bytes(agent.pid));
    }
    let finished = running.wait(bed.deadline, &AtomicBool::new(false))?;
    ensure!(finished.code() == Some(0), "exit code {:?}; stderr: {}", finished.code(), shortened(&finished.stderr));
    ensure!(bytes > 0, "no memfd seen in any agent: nothing was measured");
    ensure!(bytes <= BYTES_MAX, "{} MiB of memory for 4,096 bytes touched: {} allowed", bytes >> 20, BYTES_MAX >> 20);
    Ok(format!("{} MiB", bytes >> 20))
}

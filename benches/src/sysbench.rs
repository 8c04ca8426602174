//! What sysbench says of memory and mutexes, over hosts, on one host and natively.
//!
//! Owns these figures; they have no bars. Must not know how sysbench measures.

use crate::bed::{Bed, processors};
use crate::figure::{Bar, Figure, Samples, seconds};
use crate::list::{Bench, ONE_CORE, ROUNDS, in_turns, on_two_cores};
use anyhow::{Context, Result, ensure};
use dvm_hosts::Job;
use std::path::Path;
use std::time::Duration;

/// All of them.
pub const BENCHES: [Bench; 2] = [Bench { name: "sysbench-memory", run: memory }, Bench { name: "sysbench-mutex", run: mutex }];

const PROGRAM: &str = "/usr/bin/sysbench";
const BOTH_CORES: &str = "0,1";
const MEMORY: &[&str] = &["memory", "--threads=2", "--time=0", "--memory-block-size=4K", "--memory-total-size=4G", "run"];
const MUTEX: &[&str] = &["mutex", "--threads=2", "--mutex-num=64", "--mutex-locks=20000", "--mutex-loops=2000", "run"];

fn memory(bed: &mut Bed) -> Result<Vec<Figure>> {
    beside(bed, "sysbench memory", MEMORY)
}

fn mutex(bed: &mut Bed) -> Result<Vec<Figure>> {
    beside(bed, "sysbench mutex", MUTEX)
}

/// Two threads: on two hosts of one core, on one host of one core, natively on two cores.
fn beside(bed: &mut Bed, name: &str, arguments: &[&str]) -> Result<Vec<Figure>> {
    ensure!(processors() >= 2, "needs two processors");
    on_two_cores(bed)?;
    let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
    let [two, one, native] = in_turns(bed, ROUNDS, |bed| {
        let (_, native) = bed.native(BOTH_CORES, Path::new(PROGRAM), &arguments)?;
        let mut on = |hosts: &str| -> Result<Samples> {
            let job = Job::new(PROGRAM, "").options(["--place", "rr", "--hosts", hosts]).arguments(&arguments);
            total_time(&bed.job(job, ONE_CORE)?.output())
        };
        Ok([on("h0,h1")?, on("h0")?, total_time(&native)?])
    })?;
    let figure = |floor: &Samples, of: &str| {
        let rate = |times: &Samples| 1.0 / seconds(times.median());
        let detail = format!("two hosts of one core: {two}; {of}: {floor}");
        Figure::new(&format!("{name}, two hosts against {of} (runs/s)"), rate(&two), rate(floor), Bar::None, detail)
    };
    Ok(vec![figure(&native, "native on two cores"), figure(&one, "one host of one core")])
}

/// The time sysbench says the threads took.
fn total_time(output: &str) -> Result<Samples> {
    let line = output.lines().find_map(|line| line.trim().strip_prefix("total time:")).context("sysbench says no total time")?;
    let seconds: f64 = line.trim().trim_end_matches('s').parse().with_context(|| format!("total time `{}`", line.trim()))?;
    Ok(Samples::of(Duration::from_secs_f64(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_total_time() {
        let output = "General statistics:\n    total time:                          0.1234s\n    total number of events:  2\n";
        assert_eq!(total_time(output).unwrap(), Samples::of(Duration::from_micros(123_400)));
        assert!(total_time("total time: soon").is_err());
        assert!(total_time("").is_err());
    }
}

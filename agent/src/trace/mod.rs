//! `dvm-agent trace`: where the microseconds of faults on this host go, as the kernel and the running agent are seen to work.
//!
//! Owns how long is looked and what is kept meanwhile. Must not know how records are made (`dsm-bpf`), nor what a fault is
//! ([`join`]).

mod file;
mod join;
mod report;

use crate::client::{self, Target};
use crate::exit::{Exit, Failure};
use anyhow::anyhow;
use dsm_bpf::{NotAttached, Trace, TraceRecord};
use report::Report;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Longest trace.
pub const SECONDS_MAX: u64 = 600;
/// Records kept: 128 MiB. Later ones are counted.
const RECORDS_MAX: usize = 4 << 20;
/// Between two looks at the ring, which has room for 200,000 records.
const LOOK_PAUSE: Duration = Duration::from_millis(5);
/// Without this tracepoint nobody sees a thread run again.
const RESUMES: &str = "sched_exit_tp";
/// Without this one nobody sees it leave.
const LEAVES: &str = "sched_switch";
/// Faults of the kernel on a thread's behalf may go unseen.
const OPTIONAL: [&str; 3] = [RESUMES, LEAVES, "page_fault_kernel"];

/// What is wanted of a trace.
#[derive(Debug)]
pub struct Options {
    /// How long to look.
    pub seconds: u64,
    /// Where the Chrome trace goes.
    pub output: Option<PathBuf>,
    /// One JSON object instead of a table.
    pub is_json: bool,
}

/// Records what happens for some seconds, and gives the table of it.
///
/// # Errors
/// No agent, no right to trace it, or a file that cannot be written.
pub fn trace(target: &Target, options: &Options) -> Result<String, Failure> {
    let agent = client::process(target)?;
    let (mut trace, lacking) = Trace::attach(agent)
        .map_err(|error| Failure::new(Exit::Untraceable, anyhow!("nothing can be traced: {}", error.told())))?;
    if let Some(NotAttached { place, reason }) = lacking.iter().find(|lack| !OPTIONAL.contains(&lack.place)) {
        return Err(Failure::new(Exit::Untraceable, anyhow!("nothing can be traced: {place} of process {agent}: {reason}")));
    }
    // Before anything is waited for: a file that cannot be made is said at once.
    let file = options.output.as_deref().map(created).transpose()?;
    let (records, mut left_out) = collect(&mut trace, Duration::from_secs(options.seconds));
    left_out += trace.lost().map_err(|error| Failure::new(Exit::Internal, anyhow!(error.told())))?;
    drop(trace);
    let sees_resumes = !lacking.iter().any(|lack| [RESUMES, LEAVES].contains(&lack.place));
    let joined = join::join(records, sees_resumes);
    if let (Some(file), Some(path)) = (file, &options.output) {
        file::write(BufWriter::new(file), &joined.faults).map_err(|error| unwritable(path, &error))?;
    }
    let report = Report::of(&joined, agent, options.seconds, left_out, &lacking);
    if options.is_json { report.json() } else { Ok(report.table()) }
}

fn collect(trace: &mut Trace, time: Duration) -> (Vec<TraceRecord>, u64) {
    let (mut records, mut left_out) = (Vec::new(), 0);
    let end = Instant::now() + time;
    loop {
        let is_over = Instant::now() >= end;
        trace.read(|record| {
            if records.len() < RECORDS_MAX {
                records.push(record);
            } else {
                left_out += 1;
            }
        });
        if is_over {
            return (records, left_out);
        }
        sleep(LOOK_PAUSE);
    }
}

fn created(path: &Path) -> Result<File, Failure> {
    File::create(path).map_err(|error| unwritable(path, &error))
}

fn unwritable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Output, anyhow!("cannot write {}: {error}", path.display()))
}

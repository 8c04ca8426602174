//! `cargo xtask demo`: one program over three hosts, its output checked, its figures shown.
//!
//! Owns the order of steps. Must not leave anything behind, however it ends: hosts and files are values that clean up.

mod chart;
mod report;

use crate::interrupt::Interrupt;
use crate::{cargo, ebpf, hosts, setup};
use anyhow::{Context, Result, bail, ensure};
use dvm_hosts::{Binaries, Config, Finished, Job, Links, LocalHosts, write_sample};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// What the demo runs and on what.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Number of hosts.
    #[arg(long, default_value_t = 3)]
    hosts: usize,
    /// Size of the file, in MiB.
    #[arg(long, default_value_t = 64)]
    mebibytes: usize,
    /// Threads of the compressor.
    #[arg(long, default_value_t = 6)]
    threads: usize,
    /// Use xz instead of pigz: more computing per byte.
    #[arg(long)]
    xz: bool,
    /// Where threads go, as dvm-exec --place has it.
    #[arg(long, default_value = "rr")]
    place: String,
    /// MTU of the links.
    #[arg(long, default_value_t = 9000)]
    mtu: u32,
    /// Use the programs in this directory instead of building them.
    #[arg(long)]
    binaries: Option<PathBuf>,
}

/// Longest run over the hosts.
const DEADLINE: Duration = Duration::from_secs(600);
/// Of the job's standard error, shown when it fails.
const STDERR_LINES: usize = 20;

/// The native run.
#[derive(Debug)]
struct Native {
    elapsed: Duration,
    output: PathBuf,
}

/// Runs the demo.
///
/// # Errors
/// A step fails; the message says which and why.
pub fn run(options: &Options) -> Result<ExitCode> {
    let interrupt = Interrupt::listen()?;
    ensure!(setup::is_root(), "the demo makes network namespaces: run it as root");
    let lacks = setup::prepare(setup::FOR_DEMO)?;
    ensure!(lacks.is_empty(), "{}", lacks.join("; "));
    let directory = match &options.binaries {
        Some(directory) => directory.clone(),
        None => {
            say("building dvm-agent and dvm-exec");
            ebpf::provide()?;
            cargo::build(&["dvm-agent", "dvm-exec", "dvm-alloc"])?
        }
    };
    let binaries = Binaries::in_directory(&directory);
    interrupt.check()?;
    say(&format!("starting {} hosts", options.hosts));
    let config = Config {
        instance: "demo".into(),
        hosts: options.hosts,
        links: Links::of_mtu(options.mtu),
        cpus: hosts::processors(),
        fast_paths: Vec::new(),
        memory: None,
        binaries,
    };
    let hosts = LocalHosts::claim(&config)?;
    interrupt.check()?;
    let shown = on_hosts(options, &hosts, &interrupt);
    say("removing the hosts");
    hosts.down()?;
    shown.map(|()| ExitCode::SUCCESS)
}

fn on_hosts(options: &Options, hosts: &LocalHosts, interrupt: &Interrupt) -> Result<()> {
    let scratch = hosts.scratch()?;
    let input = scratch.join("input");
    say(&format!("writing {} MiB of input", options.mebibytes));
    write_sample(&input, options.mebibytes << 20)?;
    let job = job(options, &input, &scratch);
    interrupt.check()?;
    say(&format!("native run: {}", line(&job)));
    let native = run_natively(&job, &scratch)?;
    interrupt.check()?;
    say(&format!("over {} hosts: dvm-exec --stages --place {} -- {}", options.hosts, options.place, line(&job)));
    let finished = job.start(hosts)?.wait(Instant::now() + DEADLINE, interrupt.flag())?;
    interrupt.check()?;
    ended_well(&finished)?;
    same(&native.output, &finished.stdout)?;
    let statistics = finished.statistics.as_ref().context("dvm-exec wrote no figures (--stat-json)")?;
    let sizes = (fs::metadata(&input)?.len(), fs::metadata(&finished.stdout)?.len());
    report::print(&report::Run { what: line(&job), hosts, sizes, native: native.elapsed, finished: &finished, statistics });
    Ok(())
}

fn job(options: &Options, input: &Path, scratch: &Path) -> Job {
    let threads = options.threads.to_string();
    let (program, arguments) = if options.xz {
        ("/usr/bin/xz", vec!["-T".to_owned(), threads, "-6".into(), "--block-size=2MiB".into(), "-c".into()])
    } else {
        ("/usr/bin/pigz", vec!["-p".to_owned(), threads, "-n".into(), "-c".into()])
    };
    let mut job = Job::new(program, scratch.join("job")).options(["--stages", "--place", &options.place]).arguments(arguments);
    job.stdin = Some(input.to_path_buf());
    job
}

fn line(job: &Job) -> String {
    let words = job.arguments.iter().map(|word| word.to_string_lossy().into_owned());
    let name = job.program.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    std::iter::once(name).chain(words).collect::<Vec<_>>().join(" ")
}

fn run_natively(job: &Job, scratch: &Path) -> Result<Native> {
    let output = scratch.join("native");
    let started = Instant::now();
    let mut command = Command::new(&job.program);
    command.args(&job.arguments).stdout(File::create(&output)?);
    if let Some(stdin) = &job.stdin {
        command.stdin(Stdio::from(File::open(stdin)?));
    }
    let status = command.status().with_context(|| format!("cannot start {}", job.program.display()))?;
    ensure!(status.success(), "the native run ended with {status}");
    Ok(Native { elapsed: started.elapsed(), output })
}

fn ended_well(finished: &Finished) -> Result<()> {
    let lines: Vec<&str> = finished.stderr.lines().collect();
    let said = lines.get(lines.len().saturating_sub(STDERR_LINES)..).unwrap_or_default().join("\n");
    match finished.code() {
        Some(0) => Ok(()),
        Some(code) => bail!("dvm-exec ended with {code}: {said}"),
        None => bail!("not over after {} s: {said}\n{}", DEADLINE.as_secs(), finished.autopsy),
    }
}

fn same(expected: &Path, found: &Path) -> Result<()> {
    ensure!(fs::read(expected)? == fs::read(found)?, "the output differs from the native run's");
    Ok(())
}

fn say(text: &str) {
    eprintln!("demo: {text}");
}

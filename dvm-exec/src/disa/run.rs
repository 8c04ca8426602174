//! `dvm-exec disa run`: a program over hosts, or on the machine of one.
//!
//! Owns what of a run is shown where: output on stdout, log and ends on stderr. Must not know how the machine works.

use super::{compile, engine, files, hosts, progress, show, timeline};
use clap::{Args, ValueEnum};
use dvm_dcc::Define;
use dvm_disa::machine::{Machine, Report, Settings};
use dvm_disa::record;
use std::ffi::OsString;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Exit status: 0 if all is well, 1 if a runner died or could not commit, 2 if the program was refused, 3 if watchers were
/// left waiting.
#[derive(Args, Debug)]
pub struct Options {
    /// On this host alone, one instruction after the other: the order of runners follows from the seed.
    #[arg(long)]
    local: bool,
    /// Hosts by name, separated by commas [default: all of the cluster].
    #[arg(long, value_delimiter = ',', conflicts_with = "local")]
    hosts: Vec<String>,
    /// The agent's control socket [default: $DVM_SOCKET, or the only one in /run/dvm].
    #[arg(long, conflicts_with = "local")]
    socket: Option<PathBuf>,
    /// Hosts that have the log of the run. With 2 and more it goes on when the host where it was started is lost, if etcd says who the
    /// hosts are; `disa attach` shows it then [default: 2 on etcd, 1 on a fixed list].
    #[arg(long, conflicts_with = "local", value_parser = clap::value_parser!(u16).range(1..=64))]
    copies: Option<u16>,
    /// The order of runners follows from this number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// 0 interprets everything, 1 translates what is executed often. The result is the same.
    #[arg(long, default_value_t = Settings::default().tier, value_parser = clap::value_parser!(u8).range(..=1))]
    tier: u8,
    /// Runners that run at a time, with --local; over hosts, each processor runs one.
    #[arg(long, default_value_t = 4)]
    slots: usize,
    /// Find conflicts by page or by word [default: as the program says].
    #[arg(long)]
    grain: Option<Grain>,
    /// Most instructions of a runner.
    #[arg(long, default_value_t = Settings::default().limits.fuel)]
    fuel: u64,
    /// Most times that a runner starts again after a conflict.
    #[arg(long, default_value_t = Settings::default().conflicts_max)]
    retries: u32,
    /// Most starts of runners, repeated ones too; then the program is cut off.
    #[arg(long, default_value_t = Settings::default().starts_max)]
    starts: u64,
    /// Lose the host of so many of 100 runs before they commit.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..100))]
    lose: u64,
    /// What the program reads with `sys 3`; - is stdin.
    #[arg(long)]
    input: Option<PathBuf>,
    /// A file that the program may open with `sys 4`, by this name.
    #[arg(long = "file")]
    files: Vec<PathBuf>,
    /// What `sys 6` begins with, in nanoseconds since 1970 [default: now].
    #[arg(long)]
    time: Option<u64>,
    /// Show counts of runners, commits and conflicts on stderr.
    #[arg(long)]
    stat: bool,
    /// Keep a recording, for `replay`, `why`, `dbg` and `prof`.
    #[arg(long, value_name = "FILE", requires = "local")]
    record: Option<PathBuf>,
    /// Write when which runner ran, for chrome://tracing or Perfetto; the unit is an instruction.
    #[arg(long, value_name = "FILE", requires = "local")]
    timeline: Option<PathBuf>,
    /// Show runners born, running, committed and retried a second on stderr, if that is a terminal.
    #[arg(long, requires = "local")]
    progress: bool,
    /// Give a constant of a program in dcc another value.
    #[arg(short = 'D', value_name = "NAME=VALUE", value_parser = compile::define)]
    defines: Vec<Define>,
    /// ELF file or source.
    program: PathBuf,
    /// Arguments of the program.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Grain {
    Page,
    Word,
}

/// Runs the program, and gives the exit status.
pub fn run(options: &Options) -> anyhow::Result<u8> {
    let mut object = files::load(&options.program, &options.defines)?;
    if let Some(grain) = options.grain {
        object.rules.is_page_grain = matches!(grain, Grain::Page);
    }
    if !options.local {
        let request = hosts::Request {
            hosts: options.hosts.clone(),
            socket: options.socket.as_deref(),
            program: &options.program,
            copies: options.copies.map(usize::from),
        };
        let (report, shares) = hosts::run(request, object, settings(options)?)?;
        eprint!("{}", told(&report, options.stat));
        shares.iter().filter(|_| options.stat).for_each(|line| eprintln!("{line}"));
        return Ok(report.exit_status());
    }
    let engine = engine::of(&object, options.tier)?;
    let mut machine = Machine::new(&object, settings(options)?)?.with_engine(&*engine);
    if options.record.is_some() || options.timeline.is_some() {
        machine.record();
    }
    if options.progress {
        progress::run(&mut machine);
    }
    let report = machine.run().clone();
    show(&report.output)?;
    if let (Some(path), Some(recording)) = (&options.record, machine.recording()) {
        files::write(path, &record::write(recording))?;
    }
    if let (Some(path), Some(recording)) = (&options.timeline, machine.recording()) {
        files::write(path, timeline::trace(recording).as_bytes())?;
    }
    eprint!("{}", told(&report, options.stat));
    Ok(report.exit_status())
}

fn settings(options: &Options) -> anyhow::Result<Settings> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    let mut settings = Settings {
        seed: options.seed,
        tier: options.tier,
        slots: options.slots,
        conflicts_max: options.retries,
        starts_max: options.starts,
        losses_percent: options.lose,
        arguments: options.arguments.iter().map(|argument| argument.clone().into_vec()).collect(),
        input: options.input.as_deref().map_or(Ok(Vec::new()), input)?,
        files: hosts::contents(&options.files)?,
        time_ns: options.time.unwrap_or_else(now),
        ..Settings::default()
    };
    settings.limits.fuel = options.fuel;
    Ok(settings)
}

fn input(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path != Path::new("-") {
        return files::bytes(path);
    }
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What is said of the end of a run, beside its output.
pub fn told(report: &Report, is_stat: bool) -> String {
    let mut said = String::from_utf8_lossy(&report.log).into_owned();
    for failure in &report.failures {
        said += &format!("{failure}\n");
    }
    if let [first, ..] = &report.armed[..] {
        said += &format!("{} watchers never fired, the first of them runner {first}\n", report.armed.len());
    }
    if report.is_cut {
        said += "runners were left: the starts of runners are used up\n";
    }
    if is_stat {
        let counts = &report.statistics;
        said += &format!(
            "starts {} instructions {} made {} fired {} committed {} aborted {} trapped {} failed {} conflicts {} lost {}\n",
            counts.starts,
            counts.instructions,
            counts.made,
            counts.fired,
            counts.committed,
            counts.aborted,
            counts.trapped,
            counts.failed,
            counts.conflicts,
            counts.lost
        );
    }
    said
}

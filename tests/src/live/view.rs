//! The hosts seen as one machine: tools and programs count all processors and see themselves, not the husk.
//!
//! Owns what is expected of each. Must not know how it is told to them.

use super::bed::{Bed, shortened};
use super::case::{Case, Lacking, Need};
use anyhow::{Context, Result, ensure};
use dvm_hosts::Finished;
use serde_json::Value;
use std::fs;

/// Exit code of a job whose hosts' processors are too unequal.
const UNEQUAL: i32 = 82;
/// What the program ends with under `--check`.
const CHECKED: i32 = 7;
const PYTHON: &str = "
import os, resource, threading
def burn():
    n = 0
    for i in range(2000000): n += i
workers = [threading.Thread(target=burn) for _ in range(4)]
[worker.start() for worker in workers]
print(os.cpu_count(), len(os.sched_getaffinity(0)), len(os.listdir('/proc/self/task')) <= 5)
[worker.join() for worker in workers]
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime >= sum(os.times()[:2]) - 0.2 > 0, set(map(int, os.listdir('/proc/self/fd'))) <= set(range(1000)))
print(os.path.basename(os.readlink('/proc/self/exe')).startswith('python'), open('/proc/self/comm').read().strip())
";

/// The cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    let gcc = [Need::Program("gcc")];
    let mut cases: Vec<Case> =
        [2, 3].into_iter().map(|hosts| Case::new(format!("view-program-{hosts}"), hosts, program).needs(&gcc)).collect();
    cases.push(Case::new("view-tools", 2, tools).needs(&[Need::Program("lscpu"), Need::Program("free")]));
    cases.push(Case::new("view-python", 2, python).needs(&[Need::Program("python3")]));
    cases.push(Case::new("view-check", 2, check).needs(&gcc));
    cases.push(Case::new("view-strace", 2, strace).needs(&gcc));
    cases.push(Case::new("view-unequal-cpus", 2, unequal).needs(&gcc).harmful());
    cases
}

/// Processors of each host, as its agent offers them.
fn processors(bed: &Bed<'_>) -> Result<usize> {
    let finished = fs::read_to_string(bed.hosts.host(0)?.directory.join("cluster.toml"))?;
    let line = finished.lines().find_map(|line| line.strip_prefix("cpus = ")).context("no cpus in cluster.toml")?;
    Ok(line.parse()?)
}

fn program(bed: &mut Bed<'_>) -> Result<String> {
    let (each, hosts) = (processors(bed)?, bed.hosts.hosts().len());
    let [all, each] = [each * hosts, each].map(|count| count.to_string());
    let job = bed.job("view", &[&all, &each, "6"])?.options(["--place", "rr"]);
    let finished = bed.succeed(&job)?;
    let said = output(&finished)?;
    ensure!(said == format!("{all} processors, threads on {hosts} hosts\n"), "it says {said}");
    bed.all_hosts_worked(&finished)
}

fn tools(bed: &mut Bed<'_>) -> Result<String> {
    let hosts = bed.hosts.hosts().len();
    let all = processors(bed)? * hosts;
    for (program, arguments) in [("nproc", ["--all"].as_slice()), ("nproc", &[]), ("getconf", &["_NPROCESSORS_ONLN"])] {
        let said = run(bed, program, arguments)?;
        ensure!(said.trim() == all.to_string(), "{program} {arguments:?} says {said}");
    }
    let said = run(bed, "lscpu", &["--json"])?;
    let said: Value = serde_json::from_str(&said).context("lscpu --json")?;
    let field = |name: &str| find(&said, name).with_context(|| format!("lscpu says no {name}: {said}"));
    ensure!(field("CPU(s):")? == all.to_string(), "lscpu: {said}");
    ensure!(field("Socket(s):")? == hosts.to_string(), "lscpu: {said}");
    ensure!(field("NUMA node(s):")? == "1", "lscpu: {said}");
    let memory = fs::read_to_string("/proc/meminfo")?;
    let own: u64 = memory.split_whitespace().nth(1).context("no MemTotal")?.parse()?;
    let said = run(bed, "free", &["-k"])?;
    let total: u64 = said.lines().nth(1).and_then(|line| line.split_whitespace().nth(1)).context("free says nothing")?.parse()?;
    ensure!(total == own * hosts as u64, "free says {total} KiB, {hosts} times {own} expected");
    let said = run(bed, "ls", &["/proc/self/task"])?;
    ensure!(said.split_whitespace().count() == 1, "one thread expected, not {said}");
    let said = run(bed, "ls", &["/proc/self/fd"])?;
    let is_husk = |word: &str| word.parse::<u32>().is_ok_and(|descriptor| descriptor >= 1000);
    ensure!(!said.split_whitespace().any(is_husk), "descriptors of the husk are seen: {said}");
    Ok(format!("{all} processors, {} MiB", total >> 10))
}

/// The value of a field of lscpu's tree.
fn find(tree: &Value, name: &str) -> Option<String> {
    match tree {
        Value::Object(fields) if fields.get("field").and_then(Value::as_str) == Some(name) => {
            fields.get("data").and_then(Value::as_str).map(str::to_owned)
        }
        Value::Object(fields) => fields.values().find_map(|value| find(value, name)),
        Value::Array(values) => values.iter().find_map(|value| find(value, name)),
        _ => None,
    }
}

fn python(bed: &mut Bed<'_>) -> Result<String> {
    let all = processors(bed)? * bed.hosts.hosts().len();
    let job = bed.job("python3", &["-c", PYTHON])?.options(["--place", "rr"]);
    let finished = bed.succeed(&job)?;
    let said = output(&finished)?;
    let mut lines = said.lines();
    ensure!(lines.next() == Some(format!("{all} {all} True").as_str()), "it says {said}");
    ensure!(lines.next() == Some("True True"), "it says {said}");
    ensure!(lines.next().is_some_and(|line| line.starts_with("True python3")), "it says {said}");
    bed.all_hosts_worked(&finished)
}

fn check(bed: &mut Bed<'_>) -> Result<String> {
    let job = bed.job("view", &["refused"])?.options(["--check"]);
    let finished = job.run(bed.hosts, bed.deadline)?;
    let said = shortened(&finished.stderr);
    ensure!(finished.code() == Some(CHECKED), "exit code {:?}; stderr: {said}", finished.code());
    let has = |verdict: &str, name: &str| said.lines().any(|line| line.split_whitespace().take(2).eq([verdict, name]));
    ensure!(has("refused", "io_uring_setup") && has("refused", "bpf") && has("differs", "mlockall"), "the table: {said}");
    ensure!(said.lines().all(|line| !line.starts_with("dvm-exec:")), "refusals are named in the table alone: {said}");
    Ok(said.lines().next().unwrap_or("").to_owned())
}

fn strace(bed: &mut Bed<'_>) -> Result<String> {
    let (each, hosts) = (processors(bed)?, bed.hosts.hosts().len());
    let [all, each] = [each * hosts, each].map(|count| count.to_string());
    let job = bed.job("view", &[&all, &each, "2"])?;
    let file = job.directory.join("calls");
    let job = job.options(["--place", "rr", "--strace", "--output"]).options([&file]);
    bed.succeed(&job)?;
    let said = fs::read_to_string(&file).context("no file of calls")?;
    let is_sound = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        words.len() > 5
            && words[0].parse::<f64>().is_ok()
            && words[1] == "h1"
            && words[2].parse::<u32>().is_ok()
            && line.ends_with(" us>")
    };
    for line in said.lines() {
        ensure!(is_sound(line), "not a line of a call: {line}");
    }
    let opened = said.lines().find(|line| line.contains(" openat(-100, \"/proc/cpuinfo\", "));
    let opened = opened.with_context(|| format!("no line of an openat in {}", shortened(&said)))?;
    Ok(format!("{} lines, as {opened}", said.lines().count()))
}

/// The second host's agent says that it lacks AVX-512; then also that CPUID cannot be made to trap.
fn unequal(bed: &mut Bed<'_>) -> Result<String> {
    let own = fs::read_to_string("/proc/cpuinfo")?;
    for flag in ["avx512f", "cpuid_fault"] {
        if !own.split_whitespace().any(|word| word == flag) {
            return Err(Lacking(format!("this processor lacks {flag}: nothing to hide, or no way to")).into());
        }
    }
    bed.hosts.restart_agent(1, &["env", "DVM_TEST_LACKS=avx512f"])?;
    let said = run(bed, "view", &["features"])?;
    let hidden = "avx512f: cpuid 0, cpuinfo 0, libc 0\n".repeat(4);
    ensure!(said == hidden.clone() + "tunables none\n", "hidden features are seen: {said}");
    bed.hosts.restart_agent(1, &["env", "DVM_TEST_LACKS=avx512f,cpuid_fault"])?;
    let job = bed.job("view", &["features"])?.options(["--place", "rr"]);
    let refused = job.run(bed.hosts, bed.deadline)?;
    let reason = shortened(&refused.stderr);
    ensure!(refused.code() == Some(UNEQUAL), "exit code {:?} instead of {UNEQUAL}; stderr: {reason}", refused.code());
    ensure!(reason.contains("host h1 lacks") && reason.contains("avx512f") && reason.lines().count() == 1, "it says {reason}");
    let accepted = bed.succeed(&job.options(["--unequal-cpus"]))?;
    let said = output(&accepted)?;
    ensure!(said.contains("cpuinfo 0") && said.contains("-AVX512F"), "accepted: {said}");
    bed.hosts.restart_agent(1, &[])?;
    Ok(reason)
}

/// Standard output of a program over all hosts.
fn run(bed: &mut Bed<'_>, program: &str, arguments: &[&str]) -> Result<String> {
    let job = bed.job(program, arguments)?.options(["--place", "rr"]);
    let finished = bed.succeed(&job)?;
    output(&finished)
}

fn output(finished: &Finished) -> Result<String> {
    Ok(fs::read_to_string(&finished.stdout)?)
}

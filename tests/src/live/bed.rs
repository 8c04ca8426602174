//! What a case is given: its hosts, its directory, compiled programs and the results of native runs.
//!
//! Owns everything a case writes to disk. Must not know which cases there are.

use super::case::find_program;
use anyhow::{Context, Result, bail, ensure};
use dvm_hosts::{Finished, Job, LocalHosts, descriptors, output_within, wait_within, write_sample};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// CPU time every host must have spent on a job that claims to run on all of them: little beyond what a husk takes to start.
const CPU_LEAST: Duration = Duration::from_millis(1);
/// Longest native run and compilation.
const NATIVE_LATEST: Duration = Duration::from_secs(120);
const COMPILED_LATEST: Duration = Duration::from_secs(120);
/// Of a job's standard error, shown when it fails.
const STDERR_SHOWN_BYTES_MAX: usize = 1500;

/// Source and compiler call of a test program.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// Name of the program.
    pub name: &'static str,
    /// Name of the source file.
    pub file: &'static str,
    /// What is in it.
    pub text: &'static str,
    /// Compiler and its options.
    pub compiler: &'static [&'static str],
}

macro_rules! source {
    ($name:literal, $file:literal, $($word:literal)+) => {
        Source {
            name: $name,
            file: $file,
            text: include_str!(concat!("../../programs/", $file)),
            compiler: &[$($word),+],
        }
    };
}

const SOURCES: &[Source] = &[
    source!("stress", "stress.c", "gcc" "-O2" "-pthread"),
    source!("stress-static", "stress.c", "gcc" "-O2" "-pthread" "-static"),
    source!("stress-static-pie", "stress.c", "gcc" "-O2" "-pthread" "-static-pie"),
    source!("openmp", "openmp.c", "gcc" "-O2" "-fopenmp"),
    source!("threads", "threads.rs", "rustc" "--edition=2024" "-O"),
    source!("endless", "endless.c", "gcc" "-O2" "-pthread"),
    source!("adversity", "adversity.c", "gcc" "-O2" "-pthread"),
    source!("detour", "detour.c", "gcc" "-O2"),
    source!("fill", "fill.c", "gcc" "-O2" "-pthread"),
    source!("sparse", "sparse.c", "gcc" "-O2" "-pthread"),
    source!("children", "children.c", "gcc" "-O2" "-pthread"),
    source!("moments", "moments.c", "gcc" "-O2" "-pthread"),
    source!("memory", "memory.c", "gcc" "-O2" "-pthread"),
    source!("litmus", "litmus.c", "gcc" "-O2" "-pthread"),
    source!("tcx", "tcx.c", "gcc" "-O2"),
    source!("pairs", "pairs.c", "gcc" "-O2" "-pthread"),
    source!("readers", "readers.c", "gcc" "-O2" "-pthread"),
    source!("history", "history.c", "gcc" "-O2" "-pthread"),
    source!("view", "view.c", "gcc" "-O2" "-pthread"),
    source!("signals", "signals.c", "gcc" "-O2" "-pthread"),
    source!("tasks", "tasks.c", "gcc" "-O2" "-fopenmp"),
    source!("reductions", "reductions.f90", "gfortran" "-O2" "-fopenmp"),
    source!("stealing", "stealing.cpp", "g++" "-std=c++20" "-O2" "-ltbb"),
    source!("policies", "policies.cpp", "g++" "-std=c++20" "-O2" "-ltbb"),
    source!("spin", "spin.c", "gcc" "-O2" "-pthread"),
    source!("pools", "pools.c", "gcc" "-O2" "-I/usr/include/glib-2.0" "-I/usr/lib/x86_64-linux-gnu/glib-2.0/include" "-lglib-2.0"),
    source!("boosted", "boosted.cpp", "g++" "-std=c++20" "-O2" "-lboost_thread" "-lboost_chrono" "-pthread"),
    source!("blas", "blas.c", "gcc" "-O2" "-I/usr/include/x86_64-linux-gnu" "-lopenblas" "-lm"),
    source!("fft", "fft.c", "gcc" "-O2" "-lfftw3_threads" "-lfftw3" "-lm"),
];
/// Scripts for python3.
const SCRIPTS: [(&str, &str); 1] = [("jobcontrol.py", include_str!("../../programs/jobcontrol.py"))];
const SCENE: &str = include_str!("../../programs/scene.pov");

/// How much a case that repeats itself does.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Least rounds of a litmus test.
    pub litmus_rounds: u64,
    /// Operations per thread of a history.
    pub history_operations: u64,
    /// Signals of a storm.
    pub signals: u64,
    /// Seed of what is random.
    pub seed: u64,
}

/// Files that outlive single cases.
#[derive(Debug)]
pub struct Workshop {
    directory: PathBuf,
    native: Mutex<BTreeMap<String, PathBuf>>,
    /// One compilation at a time: cases beside each other want the same program.
    compiling: Mutex<()>,
    jobs: AtomicUsize,
}

impl Workshop {
    /// Makes a directory of its own, open to all users.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new() -> Result<Self> {
        let directory = std::env::temp_dir().join(format!("dvm-live-{}", std::process::id()));
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755))?;
        Ok(Self { directory, native: Mutex::default(), compiling: Mutex::default(), jobs: AtomicUsize::new(0) })
    }

    /// A test program, compiled at the first use; or an installed one.
    ///
    /// # Errors
    /// It does not compile, or there is none of that name.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        match SOURCES.iter().find(|source| source.name == name) {
            Some(source) => self.compiled(source),
            None => find_program(name).with_context(|| format!("`{name}` is neither a test program nor installed")),
        }
    }

    /// Writes a file that sources include.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn header(&self, name: &str, text: &str) -> Result<()> {
        let _turn = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        let path = self.directory.join(name);
        if !path.exists() {
            fs::write(&path, text)?;
        }
        Ok(())
    }

    /// The program of a source, compiled at the first use.
    ///
    /// # Errors
    /// It does not compile.
    pub fn compiled(&self, source: &Source) -> Result<PathBuf> {
        let _turn = self.compiling.lock().unwrap_or_else(PoisonError::into_inner);
        let target = self.directory.join(source.name);
        if target.exists() {
            return Ok(target);
        }
        let file = self.directory.join(source.file);
        fs::write(&file, source.text)?;
        let (compiler, options) = source.compiler.split_first().context("a source without compiler")?;
        let mut command = Command::new(compiler);
        let output = output_within(command.arg(&file).args(options).arg("-o").arg(&target), COMPILED_LATEST);
        let output = output.with_context(|| format!("cannot run {compiler}"))?;
        ensure!(output.status.success(), "{compiler} {}: {}", source.file, String::from_utf8_lossy(&output.stderr).trim());
        Ok(target)
    }

    /// The deterministic input file of that many mebibytes.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn sample(&self, mebibytes: usize) -> Result<PathBuf> {
        let path = self.directory.join(format!("sample-{mebibytes}"));
        if !path.exists() {
            write_sample(&path, mebibytes << 20)?;
        }
        Ok(path)
    }

    /// Where a file that several cases are given lies, once one of them has made it.
    #[must_use]
    pub fn shelf(&self, name: &str) -> PathBuf {
        self.directory.join(format!("shelf-{name}"))
    }

    /// A script of the tests.
    ///
    /// # Errors
    /// There is none of that name, or it cannot be written.
    pub fn script(&self, name: &str) -> Result<PathBuf> {
        let (_, text) = SCRIPTS.iter().find(|script| script.0 == name).with_context(|| format!("no script `{name}`"))?;
        let path = self.directory.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    /// The scene for povray.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn scene(&self) -> Result<PathBuf> {
        let path = self.directory.join("scene.pov");
        fs::write(&path, SCENE)?;
        Ok(path)
    }

    /// A file or directory that `make` makes at the first use.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn made(&self, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
        let path = self.directory.join(name);
        if !path.exists() {
            let part = self.directory.join(format!("{name}.part"));
            make(&part).with_context(|| format!("cannot make {name}"))?;
            fs::rename(&part, &path)?;
        }
        Ok(path)
    }

    /// A file with these bytes, executable by all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn executable(&self, name: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.directory.join(name);
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    }

    /// A fresh directory for a job.
    pub fn job_directory(&self) -> PathBuf {
        self.directory.join(format!("job-{}", self.jobs.fetch_add(1, Ordering::Relaxed) + 1))
    }

    /// Where a native run of that name starts, made if it is not there.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn native_directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.directory.join(format!("native-in-{name}"));
        fs::create_dir_all(&path)?;
        Ok(path)
    }

    /// Standard output of the job's program run here without `dvm-exec`; run once, then remembered.
    ///
    /// # Errors
    /// It does not succeed.
    pub fn native(&self, name: &str, job: &Job) -> Result<PathBuf> {
        let mut known = self.native.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = known.get(name) {
            return Ok(path.clone());
        }
        let path = self.directory.join(format!("native-{name}"));
        let mut command = Command::new(&job.program);
        command.args(&job.arguments).envs(job.environment.iter().map(|(name, value)| (name, value)));
        command.env("HOME", &self.directory).env("LC_ALL", "C").current_dir(self.native_directory(name)?);
        command.stdin(match &job.stdin {
            Some(path) => Stdio::from(fs::File::open(path)?),
            None => Stdio::null(),
        });
        let errors = self.directory.join(format!("native-{name}-stderr"));
        let mut child = command.stdout(fs::File::create(&path)?).stderr(fs::File::create(&errors)?).spawn()?;
        let status = wait_within(&mut child, NATIVE_LATEST).with_context(|| format!("native {name}"))?;
        let stderr = fs::read(&errors)?;
        ensure!(status.success(), "native {name} failed ({status}): {}", shortened(&String::from_utf8_lossy(&stderr)));
        known.insert(name.to_owned(), path.clone());
        Ok(path)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            eprintln!("cannot remove {}: {error}", self.directory.display());
        }
    }
}

/// A case's place to work.
pub struct Bed<'a> {
    /// The hosts, idle at the start.
    pub hosts: &'a LocalHosts,
    /// Programs and files.
    pub workshop: &'a Workshop,
    /// When the case must be over.
    pub deadline: Instant,
    /// How much to do.
    pub effort: Effort,
}

impl Bed<'_> {
    /// A job of the named program with these arguments, in a directory of its own.
    ///
    /// # Errors
    /// The program cannot be had.
    pub fn job(&mut self, program: &str, arguments: &[&str]) -> Result<Job> {
        Ok(Job::new(self.workshop.program(program)?, self.workshop.job_directory()).arguments(arguments.iter().copied()))
    }

    /// Runs a job and demands that it ends by itself, in time, with status 0.
    ///
    /// # Errors
    /// It did not.
    pub fn succeed(&self, job: &Job) -> Result<Finished> {
        let finished = job.run(self.hosts, self.deadline)?;
        match finished.code() {
            Some(0) => Ok(finished),
            Some(code) => bail!("exit code {code}; stderr: {}", shortened(&finished.stderr)),
            None => bail!(
                "hangs: killed after {:.1} s; stderr: {}\n{}",
                finished.elapsed.as_secs_f64(),
                shortened(&finished.stderr),
                finished.autopsy
            ),
        }
    }

    /// Demands that every host worked; says how much.
    ///
    /// # Errors
    /// One did not.
    pub fn all_hosts_worked(&self, finished: &Finished) -> Result<String> {
        let mut said = Vec::new();
        for (host, cpu) in self.hosts.hosts().iter().zip(&finished.cpu) {
            // What is seen from outside counts whole ticks of 10 ms, up to the last look; the job itself counts nanoseconds.
            let told = finished.statistics.iter().flat_map(|all| &all.hosts).find(|figures| figures.host == host.name);
            let cpu = told.map_or(*cpu, |figures| figures.cpu().max(*cpu));
            ensure!(cpu >= CPU_LEAST, "{} used {} us of CPU: the program did not run there", host.name, cpu.as_micros());
            said.push(format!("{} {:.2}", host.name, cpu.as_secs_f64()));
        }
        if let Some(statistics) = &finished.statistics {
            for host in &statistics.hosts {
                ensure!(host.threads > 0, "{} ran no thread, says the job", host.host);
            }
        }
        Ok(format!("{:.1} s, CPU s: {}", finished.elapsed.as_secs_f64(), said.join(" ")))
    }
}

/// What is on the hosts beside idle agents: processes, and spaces in the agents.
///
/// # Errors
/// A host cannot be looked at.
pub fn left_behind(hosts: &LocalHosts) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for (index, host) in hosts.hosts().iter().enumerate() {
        for process in hosts.processes(index)? {
            if process.name != "dvm-agent" {
                left.push(format!("{}: process {} {}", host.name, process.pid, process.command));
                continue;
            }
            let census = descriptors(process.pid);
            for kind in ["memfd", "userfaultfd"] {
                if let Some(count) = census.get(kind) {
                    left.push(format!("{}: {count} {kind} in the agent", host.name));
                }
            }
        }
    }
    Ok(left)
}

/// Demands that two files hold the same bytes.
///
/// # Errors
/// They differ: says where first.
pub fn same_bytes(expected: &Path, found: &Path) -> Result<()> {
    let (expected, found) = (fs::read(expected)?, fs::read(found)?);
    if expected == found {
        return Ok(());
    }
    let first = expected.iter().zip(&found).position(|(left, right)| left != right);
    let first = first.unwrap_or(expected.len().min(found.len()));
    let differing = expected.iter().zip(&found).filter(|(left, right)| left != right).count();
    bail!(
        "output differs from the native run's: {} bytes instead of {}, first at byte {first}, {differing} bytes in all",
        found.len(),
        expected.len()
    )
}

/// The end of a text, for a report.
#[must_use]
pub fn shortened(text: &str) -> String {
    let text = text.trim();
    let start = text.len().saturating_sub(STDERR_SHOWN_BYTES_MAX);
    let start = (start..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(start..).unwrap_or_default().to_owned()
}

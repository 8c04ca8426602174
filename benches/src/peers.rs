//! The systems that DISA programs are measured beside: Ray, Dask, PySpark, Hadoop.
//!
//! Owns their environment, which lies beside this program and stays, and their programs. Must not know the figures. What cannot
//! be installed is named, with the reason.

use anyhow::{Context, Result, ensure};
use dvm_hosts::output_within;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const REQUIREMENTS: &str = include_str!("../programs/peers/requirements.txt");
const PROGRAMS: [(&str, &str); 5] = [
    ("common.py", include_str!("../programs/peers/common.py")),
    ("ray_peer.py", include_str!("../programs/peers/ray_peer.py")),
    ("dask_peer.py", include_str!("../programs/peers/dask_peer.py")),
    ("spark_peer.py", include_str!("../programs/peers/spark_peer.py")),
    ("Hadoop.java", include_str!("../programs/peers/Hadoop.java")),
];
/// A gigabyte comes over the network once.
const INSTALL_LATEST: Duration = Duration::from_secs(1800);
const CHECK_LATEST: Duration = Duration::from_secs(120);

/// A system to be measured beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// Tasks and actors.
    Ray,
    /// Graphs of tasks.
    Dask,
    /// Spark in local mode, from Python.
    PySpark,
    /// Hadoop's LocalJobRunner, from the jars of PySpark.
    Hadoop,
}

impl Peer {
    const ALL: [Self; 4] = [Self::Ray, Self::Dask, Self::PySpark, Self::Hadoop];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ray => "Ray",
            Self::Dask => "Dask",
            Self::PySpark => "PySpark",
            Self::Hadoop => "Hadoop",
        }
    }

    /// What it imports besides `common`.
    const fn module(self) -> &'static str {
        match self {
            Self::Ray => "ray",
            Self::Dask => "distributed",
            Self::PySpark | Self::Hadoop => "pyspark",
        }
    }
}

/// The peers that are there.
#[derive(Debug)]
pub struct Peers {
    directory: PathBuf,
    python: PathBuf,
    /// Where Hadoop is.
    jars: PathBuf,
    lacks: BTreeMap<Peer, String>,
}

impl Peers {
    /// Installs what is not there yet, and looks which peers work.
    pub fn prepare() -> Result<Self> {
        let own = std::env::current_exe().context("cannot find this program")?;
        let directory = own.parent().context("this program has no directory")?.join("bench-peers");
        fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
        for (name, text) in PROGRAMS {
            fs::write(directory.join(name), text)?;
        }
        let mut peers =
            Self { python: directory.join("venv/bin/python"), directory, jars: PathBuf::new(), lacks: BTreeMap::new() };
        let installed = peers.install();
        for peer in Peer::ALL {
            if let Err(error) = peers.check(peer) {
                let reason = installed.as_ref().err().map_or_else(String::new, |reason| format!("{reason:#}; "));
                peers.lacks.insert(peer, format!("{reason}{error:#}"));
            }
        }
        Ok(peers)
    }

    /// Why a peer is not there.
    pub fn lack(&self, peer: Peer) -> Option<&str> {
        self.lacks.get(&peer).map(String::as_str)
    }

    /// A command that has so many workers of a peer work, on these processors.
    pub fn command(&self, peer: Peer, list: &str, workload: &str, workers: usize, data: Option<&Path>) -> Result<Command> {
        let mut command = Command::new("taskset");
        command.args(["-c", list]);
        match peer {
            Peer::Ray => command.arg(&self.python).arg("ray_peer.py"),
            Peer::Dask => command.arg(&self.python).arg("dask_peer.py"),
            Peer::PySpark => command.arg(&self.python).arg("spark_peer.py"),
            Peer::Hadoop => command.args(["java", "-cp"]).arg(self.class_path()).arg("Hadoop"),
        };
        command.arg(workload).arg(workers.to_string()).args(data);
        if peer == Peer::Hadoop {
            let scratch = self.directory.join("hadoop");
            if scratch.exists() {
                fs::remove_dir_all(&scratch)?;
            }
            fs::create_dir(&scratch)?;
            command.arg(scratch);
        }
        command.current_dir(&self.directory).env("PYTHONPATH", &self.directory).env("PYSPARK_PYTHON", &self.python);
        // What they leave at home, such as Ray's token, is left here.
        command.env("HOME", &self.directory).env("RAY_USAGE_STATS_ENABLED", "0");
        Ok(command)
    }

    fn class_path(&self) -> String {
        format!("{}:{}/*", self.directory.display(), self.jars.display())
    }

    /// Brings the environment to what is required.
    fn install(&self) -> Result<()> {
        let done = self.directory.join("venv/installed.txt");
        if fs::read_to_string(&done).is_ok_and(|text| text == REQUIREMENTS) {
            return Ok(());
        }
        eprintln!("bench: installing peers into {}", self.directory.display());
        let required = self.directory.join("requirements.txt");
        fs::write(&required, REQUIREMENTS)?;
        let venv = succeed(Command::new("virtualenv").arg(self.directory.join("venv")), CHECK_LATEST);
        venv.context("no environment for peers (package virtualenv)")?;
        succeed(Command::new(&self.python).args(["-m", "pip", "install", "-q", "-r"]).arg(&required), INSTALL_LATEST)?;
        fs::write(&done, REQUIREMENTS).with_context(|| format!("cannot write {}", done.display()))
    }

    /// Whether a peer can be started.
    fn check(&mut self, peer: Peer) -> Result<()> {
        let program = format!("import os, common, {0}; print(os.path.dirname({0}.__file__))", peer.module());
        let mut python = Command::new(&self.python);
        let found = succeed(python.args(["-c", &program]).current_dir(&self.directory), CHECK_LATEST)?;
        match peer {
            Peer::Ray | Peer::Dask => Ok(()),
            Peer::PySpark => succeed(Command::new("java").arg("-version"), CHECK_LATEST).map(drop),
            Peer::Hadoop => {
                self.jars = Path::new(found.trim()).join("jars");
                let mut compiler = Command::new("javac");
                compiler.args(["-cp", &self.class_path()]).arg("Hadoop.java").current_dir(&self.directory);
                succeed(&mut compiler, CHECK_LATEST).map(drop)
            }
        }
    }
}

/// Runs a command that must succeed, and gives its output.
fn succeed(command: &mut Command, limit: Duration) -> Result<String> {
    let words: Vec<_> =
        [command.get_program()].into_iter().chain(command.get_args()).map(|word| word.to_string_lossy()).collect();
    let words = words.join(" ");
    let output = output_within(command, limit).with_context(|| format!("cannot run `{words}`"))?;
    let last = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or_default().to_owned();
    ensure!(output.status.success(), "`{words}` fails: {last}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

//! What the commands need from this machine, and getting it.
//!
//! Owns the list of packages and toolchain components. Must not fail for a lack: it names it, and whoever needs the thing
//! decides.

use crate::cargo;
use anyhow::Result;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// An installed file and the Debian package that brings it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thing {
    file: &'static str,
    package: &'static str,
}

const fn thing(file: &'static str, package: &'static str) -> Thing {
    Thing { file, package }
}

/// What `demo` runs.
pub const FOR_DEMO: &[Thing] = &[thing("ip", "iproute2"), thing("nsenter", "util-linux"), thing("pigz", "pigz")];
/// What the live tests run.
pub const FOR_TEST: &[Thing] = &[
    thing("ip", "iproute2"),
    thing("nsenter", "util-linux"),
    thing("nft", "nftables"),
    thing("pigz", "pigz"),
    thing("xz", "xz-utils"),
    thing("zstd", "zstd"),
    thing("pbzip2", "pbzip2"),
    thing("povray", "povray"),
    thing("gcc", "gcc"),
    thing("7z", "p7zip-full"),
    thing("python3", "python3"),
    thing("lbzip2", "lbzip2"),
    thing("plzip", "plzip"),
    thing("sysbench", "sysbench"),
    thing("f2py3", "python3-numpy"),
    thing("openblas-pthread/libopenblas.so.0", "libopenblas0-pthread"),
    thing("ffmpeg", "ffmpeg"),
    thing("x265", "x265"),
    thing("vpxenc", "vpx-tools"),
    thing("aomenc", "aom-tools"),
    thing("cwebp", "webp"),
    thing("sox", "sox"),
    thing("rg", "ripgrep"),
    thing("fzf", "fzf"),
    thing("gron", "gron"),
    thing("restic", "restic"),
    thing("java", "openjdk-17-jre-headless"),
    thing("javac", "openjdk-17-jdk-headless"),
    thing("node", "nodejs"),
    thing("ruby", "ruby"),
    thing("shasum", "perl"),
    thing("redis-server", "redis-server"),
    thing("memcached", "memcached"),
    thing("nginx", "nginx-light"),
    thing("bwa", "bwa"),
    thing("minimap2", "minimap2"),
    thing("bowtie2-align-s", "bowtie2"),
    thing("samtools", "samtools"),
    thing("blastn", "ncbi-blast+"),
    thing("hmmsearch", "hmmer"),
    thing("gmx", "gromacs"),
    thing("g++", "g++"),
    thing("gfortran", "gfortran"),
    thing("oneapi/tbb.h", "libtbb-dev"),
    thing("glib-2.0/glib.h", "libglib2.0-dev"),
    thing("boost/thread.hpp", "libboost-thread-dev"),
    thing("x86_64-linux-gnu/cblas.h", "libopenblas-dev"),
    thing("fftw3.h", "libfftw3-dev"),
    thing("sshd", "openssh-server"),
    thing("ssh", "openssh-client"),
    thing("etcd", "etcd-server"),
    thing("etcdctl", "etcd-client"),
    thing("openssl", "openssl"),
    thing("chromium", "chromium"),
    thing("virtualenv", "virtualenv"),
    thing("promtool", "prometheus"),
];

/// What an agent that speaks to etcd is built with.
pub const FOR_ETCD: &[Thing] =
    &[thing("protoc", "protobuf-compiler"), thing("google/protobuf/descriptor.proto", "libprotobuf-dev")];

/// What libbpf is built with, for the test that loads the fast path with it.
pub const FOR_LIBBPF: &[Thing] = &[
    thing("ip", "iproute2"),
    thing("gcc", "gcc"),
    thing("make", "make"),
    thing("pkg-config", "pkg-config"),
    thing("libelf.h", "libelf-dev"),
    thing("zlib.h", "zlib1g-dev"),
];

const DIRECTORIES: [&str; 8] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/include", "/usr/lib/x86_64-linux-gnu"];

/// Installs what is missing, if this user may; gives what is still missing, with the reason.
///
/// # Errors
/// Never for a lack; only if this process cannot start others at all.
pub fn prepare(things: &[Thing]) -> Result<Vec<String>> {
    let missing: Vec<Thing> = things.iter().copied().filter(|thing| !thing.is_here()).collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let packages: Vec<&str> = missing.iter().map(|thing| thing.package).collect();
    let reason = match install(&packages) {
        Ok(()) => "installed, but not found".to_owned(),
        Err(reason) => reason,
    };
    let left = missing.iter().filter(|thing| !thing.is_here());
    Ok(left.map(|thing| format!("`{}` is missing (package {}): {reason}", thing.file, thing.package)).collect())
}

/// Whether all of these are here; installs nothing.
#[must_use]
pub fn are_here(things: &[Thing]) -> bool {
    things.iter().all(|thing| thing.is_here())
}

/// Makes sure that clippy and rustfmt are there; gives what is missing.
///
/// # Errors
/// Never for a lack.
pub fn prepare_toolchain() -> Result<Vec<String>> {
    let mut left = Vec::new();
    for (component, probe) in [("clippy", "cargo-clippy"), ("rustfmt", "rustfmt")] {
        if succeeds(Command::new(probe).arg("--version")) {
            continue;
        }
        eprintln!("setup: rustup component add {component}");
        if !succeeds(Command::new("rustup").args(["component", "add", component])) {
            left.push(format!("{component} is missing: `rustup component add {component}` failed"));
        }
    }
    Ok(left)
}

/// Makes sure that the sources of `core` are there, from which it is compiled for the kernel's machine.
///
/// # Errors
/// They are not, and why they could not be had.
pub fn prepare_rust_src() -> Result<(), String> {
    let probe = sysroot()?.join("lib/rustlib/src/rust/library/Cargo.lock");
    if probe.exists() {
        return Ok(());
    }
    eprintln!("setup: rustup component add rust-src");
    if !succeeds(Command::new("rustup").args(["component", "add", "rust-src"])) {
        return Err("rust-src is missing: `rustup component add rust-src` failed: no rustup, or no network?".into());
    }
    if probe.exists() { Ok(()) } else { Err(format!("rust-src is installed, but {} is not there", probe.display())) }
}

/// Where the toolchain is.
///
/// # Errors
/// The compiler does not say.
pub fn sysroot() -> Result<PathBuf, String> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).current_dir(cargo::root()).output();
    let output = output.map_err(|error| format!("cannot start rustc: {error}"))?;
    let told = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && !told.is_empty() {
        return Ok(told.into());
    }
    Err(format!("`rustc --print sysroot`: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// The kernel's release, for the record.
#[must_use]
pub fn kernel() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    read.map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

/// Whether this process is root.
#[must_use]
pub fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|metadata| metadata.uid() == 0)
}

impl Thing {
    fn is_here(self) -> bool {
        DIRECTORIES.iter().any(|directory| Path::new(directory).join(self.file).exists())
    }
}

fn install(packages: &[&str]) -> Result<(), String> {
    if !is_root() {
        return Err("not root: nothing installed".into());
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        return Err("no apt-get here: install it by hand".into());
    }
    eprintln!("setup: apt-get install {}", packages.join(" "));
    let apt = |arguments: &[&str], errors: Stdio| {
        let mut command = Command::new("apt-get");
        command.args(arguments).env("DEBIAN_FRONTEND", "noninteractive").stderr(errors);
        succeeds(&mut command)
    };
    let install: Vec<&str> = ["install", "-y", "-qq", "--no-install-recommends"].iter().chain(packages).copied().collect();
    // A fresh machine has no package lists, or old ones: what is said of that is of no interest.
    if apt(&install, Stdio::null()) {
        return Ok(());
    }
    eprintln!("setup: apt-get update");
    if !apt(&["update", "-qq"], Stdio::inherit()) {
        return Err("`apt-get update` failed: no network?".into());
    }
    if apt(&install, Stdio::inherit()) { Ok(()) } else { Err(format!("`apt-get install {}` failed", packages.join(" "))) }
}

fn succeeds(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

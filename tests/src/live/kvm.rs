//! Guests: on one host and over several, and what is said of those that cannot go on.
//!
//! Owns what is expected of each. Must not know how a guest is run.

use super::bed::{Bed, shortened};
use super::case::{Case, Lacking, Need};
use anyhow::{Context, Result, bail, ensure};
use dvm_hosts::{User, kill_process, output_within};
use std::path::PathBuf;
use std::process::Output;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a guest may take beside a machine that is busy.
const LATEST: Duration = Duration::from_secs(150);
/// How long the end of a guest may take when a host is lost.
const LOSS_LATEST: Duration = Duration::from_secs(5);
const HOST_LOST: i32 = 87;
/// Statuses of docs/kvm.md.
const IMAGE: i32 = 60;
const TRIPLE_FAULT: i32 = 62;
const NOWHERE: i32 = 63;

/// The cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    let device = [Need::Device("/dev/kvm")];
    let mut cases = Vec::new();
    for words in ["x2apic", "xapic"] {
        let name = |place: &str| format!("kvm/conformance-{place}-{words}");
        let local = move |bed: &mut Bed<'_>| conformance(bed, &["--local", "--cpus", "2"], words);
        cases.push(Case::new(name("local"), 2, local));
        for (hosts, cpus) in [(2, "2"), (3, "3")] {
            let over = move |bed: &mut Bed<'_>| conformance(bed, &["--cpus", cpus], words);
            cases.push(Case::new(name(&hosts.to_string()), hosts, over).within_seconds(180));
        }
    }
    for words in ["x2apic", "xapic"] {
        cases.push(Case::new(format!("kvm/kernel-apic-{words}"), 2, move |bed| kernel_apic(bed, words)));
    }
    cases.push(Case::new("kvm/bad-images", 2, bad_images));
    cases.push(Case::new("kvm/bad-guests", 2, bad_guests));
    cases.push(Case::new("kvm/agent-killed", 2, agent_killed).harmful());
    cases.push(Case::new("kvm/husk-killed", 2, husk_killed).harmful());
    cases.into_iter().map(|case| case.needs(&device)).collect()
}

/// An image that `cargo xtask guests` has built.
fn image(name: &str) -> Result<PathBuf> {
    let harness = std::env::current_exe()?;
    let target = harness.parent().context("a program lies in a directory")?;
    let image = target.with_file_name("guests").join(name);
    if !image.exists() {
        bail!(Lacking(format!("{} is not built: cargo xtask guests", image.display())));
    }
    Ok(image)
}

fn run(bed: &Bed<'_>, options: &[&str], image: &PathBuf, words: &[&str]) -> Result<Output> {
    let mut command = bed.hosts.command(0, User::Root, &bed.hosts.binaries().exec)?;
    command.args(["kvm", "run"]);
    if !options.contains(&"--local") {
        command.arg("--socket").arg(&bed.hosts.host(0)?.socket);
    }
    command.args(options).arg(image).args(words);
    Ok(output_within(&mut command, LATEST)?)
}

/// Every case of the guest's own passes, on every processor.
fn conformance(bed: &mut Bed<'_>, options: &[&str], words: &str) -> Result<String> {
    let image = image("conformance")?;
    let started = Instant::now();
    let output = run(bed, &[options, &["--mem", "512M"]].concat(), &image, &[words])?;
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(0), "status {:?}: {}{}", output.status.code(), shortened(&said), shortened(&told));
    let passed = said.lines().filter(|line| line.starts_with("ok ")).count();
    ensure!(said.contains(&format!("{passed} cases, 0 failed")), "{said}");
    Ok(format!("{passed} cases in {:.1} s", started.elapsed().as_secs_f64()))
}

/// The same guest says the same with the kernel's interrupt controllers, which note no error of an illegal vector.
///
/// Halts are left out: a kernel that runs natively in user mode, with its interrupt flag in memory, is not woken by those.
fn kernel_apic(bed: &mut Bed<'_>, words: &str) -> Result<String> {
    const NOT_NOTED: &str = "ipi/illegal-vector";
    let image = image("conformance")?;
    let trace = |options: &[&str]| -> Result<Vec<String>> {
        let output = run(bed, options, &image, &[words, "spin"])?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let results = said.lines().filter(|line| line.starts_with("ok ") || line.starts_with("FAILED "));
        Ok(results.map(str::to_owned).collect())
    };
    let options = ["--local", "--cpus", "2", "--mem", "512M"];
    let ours = trace(&options)?;
    let theirs = trace(&[&options[..], &["--kernel-apic"]].concat())?;
    ensure!(ours.len() == theirs.len() && !ours.is_empty(), "{} results, {} with the kernel's", ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        ensure!(ours.starts_with("ok "), "{ours}");
        ensure!(ours == theirs || ours.ends_with(NOT_NOTED), "`{ours}`, but with the kernel's `{theirs}`");
    }
    Ok(format!("{} results", ours.len()))
}

/// Status and text of a guest that does not come to its own end.
fn refused(bed: &Bed<'_>, name: &str, bytes: &[u8], status: i32, words: &str) -> Result<()> {
    let image = bed.workshop.executable(name, bytes)?;
    let output = run(bed, &["--local"], &image, &[])?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(status), "{name}: status {:?}, not {status}: {told}", output.status.code());
    ensure!(told.contains(words), "{name}: `{words}` is not in `{told}`");
    Ok(())
}

fn bad_images(bed: &mut Bed<'_>) -> Result<String> {
    let good = std::fs::read(image("hello")?)?;
    let mut foreign = good.clone();
    foreign[18] = 183;
    refused(bed, "kvm-cut", &good[..0x1800], IMAGE, "is cut off")?;
    refused(bed, "kvm-foreign", &foreign, IMAGE, "is for machine 183")?;
    refused(bed, "kvm-empty", &[], IMAGE, "is empty")?;
    refused(bed, "kvm-large", &vec![0; 65 << 20], IMAGE, "raise --mem")?;
    Ok("4 images refused".into())
}

/// Machine code, at 1 MiB and in 64-bit mode, with no table of interrupts.
fn bad_guests(bed: &mut Bed<'_>) -> Result<String> {
    refused(bed, "kvm-undefined", &[0x0f, 0x0b], TRIPLE_FAULT, "triple fault of processor 0")?;
    // mov ecx, 0x12345678; rdmsr
    refused(bed, "kvm-register", &[0xb9, 0x78, 0x56, 0x34, 0x12, 0x0f, 0x32], TRIPLE_FAULT, "refused MSR 0x12345678")?;
    // mov eax, [0xe0000000]
    refused(bed, "kvm-nowhere", &[0xb8, 0, 0, 0, 0xe0, 0x8b, 0x00], NOWHERE, "touched 0xe0000000")?;
    // mov al, 77; out 0xf4, al
    refused(bed, "kvm-good", &[0xb0, 77, 0xe6, 0xf4], 77, "")?;
    Ok("3 guests ended, one that is well".into())
}

fn agent_killed(bed: &mut Bed<'_>) -> Result<String> {
    lost(bed, |bed| Ok(bed.hosts.agent(1)?.context("no agent to kill")?.pid))
}

fn husk_killed(bed: &mut Bed<'_>) -> Result<String> {
    lost(bed, |bed| {
        let processes = bed.hosts.processes(1)?;
        let husk = processes.iter().find(|process| process.name != "dvm-agent");
        Ok(husk.context("no husk to kill")?.pid)
    })
}

/// A guest that would run for ever ends, with the host named, when a process of another host is killed.
fn lost(bed: &Bed<'_>, victim: impl Fn(&Bed<'_>) -> Result<i32>) -> Result<String> {
    const START: Duration = Duration::from_secs(5);
    // jmp to itself: an image that needs no kit.
    let image = bed.workshop.executable("kvm-endless", &[0xeb, 0xfe])?;
    let mut command = bed.hosts.command(0, User::Root, &bed.hosts.binaries().exec)?;
    command.args(["kvm", "run", "--cpus", "2", "--socket"]).arg(&bed.hosts.host(0)?.socket).arg(image);
    let (output, killed) = std::thread::scope(|scope| -> Result<_> {
        let running = scope.spawn(|| output_within(&mut command, LATEST));
        sleep(START);
        kill_process(victim(bed)?);
        let killed = Instant::now();
        let output = running.join().map_err(|_| anyhow::anyhow!("the thread that ran it panicked"))??;
        Ok((output, killed.elapsed()))
    })?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(HOST_LOST), "status {:?}: {told}", output.status.code());
    let name = &bed.hosts.host(1)?.name;
    ensure!(told.contains(name.as_str()), "{name} is not named: {told}");
    ensure!(killed < LOSS_LATEST, "the end took {killed:?}");
    Ok(format!("ended {} ms after", killed.as_millis()))
}

//! Guests: on one host and over several, and what is said of those that cannot go on.
//!
//! Owns what is expected of each. Must not know how a guest is run.

mod operators;
mod programs;

use super::bed::{Bed, left_behind, shortened};
use super::case::{Case, Lacking, Need};
use anyhow::{Context, Result, bail, ensure};
use dvm_hosts::{User, kill_process, output_within};
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// How long a guest may take beside a machine that is busy.
const LATEST: Duration = Duration::from_secs(150);
/// How long the end of a guest may take when a host is lost.
const LOSS_LATEST: Duration = Duration::from_secs(5);
const HOST_LOST: i32 = 87;
const NO_AGENT: i32 = 73;
/// Statuses of docs/kvm.md.
const IMAGE: i32 = 60;
const TRIPLE_FAULT: i32 = 62;
const NOWHERE: i32 = 63;
const STORM: i32 = 65;
/// Host that is harmed, and the one where the guest was started.
const VICTIM: usize = 1;
const ROOT: usize = 0;
/// Least disk of the conformance guest.
const DISK_BYTES: usize = 2 << 20;

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
    cases.push(Case::new("kvm/storm", 2, storm));
    cases.push(Case::new("kvm/linux", 2, |bed| linux(bed, "linux", "KASLR disabled")));
    cases.push(Case::new("kvm/linux-pvh", 2, |bed| linux(bed, "linux-pvh", "Linux version")));
    cases.push(Case::new("kvm/pvh-local", 2, |bed| pvh(bed, &["--local", "--cpus", "2"], 1)));
    for (hosts, cpus) in [(2, "2"), (3, "3")] {
        cases.push(Case::new(format!("kvm/pvh-{hosts}"), hosts, move |bed| pvh(bed, &["--cpus", cpus], hosts)));
    }
    for words in ["x2apic", "xapic"] {
        cases.push(Case::new(format!("kvm/plain-{words}"), 2, move |bed| plain(bed, words)).within_seconds(180));
    }
    cases.extend(operators::cases());
    cases.extend(programs::cases());
    cases.push(Case::new("kvm/agent-killed", 2, agent_killed).harmful());
    cases.push(Case::new("kvm/husk-killed", 2, husk_killed).harmful());
    for hosts in [2, 3] {
        cases.push(Case::new(format!("kvm/root-killed-{hosts}"), hosts, root_killed).harmful());
        cases.push(Case::new(format!("kvm/root-agent-killed-{hosts}"), hosts, root_agent_killed).harmful());
        cases.push(Case::new(format!("kvm/link-cut-{hosts}"), hosts, link_cut).harmful());
        cases.push(Case::new(format!("kvm/link-cut-busy-{hosts}"), hosts, link_cut_busy).harmful());
    }
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

/// The command that runs a guest from the first host.
fn command(bed: &Bed<'_>, options: &[&str], image: &PathBuf, words: &[&str]) -> Result<Command> {
    let mut command = bed.hosts.command(0, User::Root, &bed.hosts.binaries().exec)?;
    command.args(["kvm", "run"]);
    if !options.contains(&"--local") {
        command.arg("--socket").arg(&bed.hosts.host(0)?.socket);
    }
    command.args(options).arg(image).args(words);
    Ok(command)
}

fn run(bed: &Bed<'_>, options: &[&str], image: &PathBuf, words: &[&str]) -> Result<Output> {
    Ok(output_within(&mut command(bed, options, image, words)?, LATEST)?)
}

/// A fresh disk of zeros.
fn disk(bed: &Bed<'_>, name: &str) -> Result<String> {
    let path = bed.workshop.executable(name, &vec![0; DISK_BYTES])?;
    Ok(path.to_str().context("a path that is no text")?.to_owned())
}

/// Every case of the guest's own passes, on every processor.
fn conformance(bed: &mut Bed<'_>, options: &[&str], words: &str) -> Result<String> {
    let image = image("conformance")?;
    let disk = disk(bed, "kvm-conformance")?;
    let started = Instant::now();
    let output = run(bed, &[options, &["--mem", "512M", "--disk", &disk]].concat(), &image, &[words])?;
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(0), "status {:?}: {}{}", output.status.code(), shortened(&said), shortened(&told));
    let passed = said.lines().filter(|line| line.starts_with("ok ")).count();
    ensure!(said.contains(&format!("{passed} cases, 0 failed")) && said.contains("ok disk/transfers"), "{said}");
    let cpus: usize = options.last().context("no processors")?.parse()?;
    for cpu in 0..cpus {
        ensure!(said.contains(&format!("shown by processor {cpu} on the virtio console\n")), "processor {cpu}: {said}");
    }
    Ok(format!("{passed} cases in {:.1} s", started.elapsed().as_secs_f64()))
}

/// The same guest says the same with the kernel's interrupt controllers, which note no error of an illegal vector, and give a level
/// once more that fell before its end was told.
///
/// Halts are left out: a kernel that runs natively in user mode, with its interrupt flag in memory, is not woken by those.
fn kernel_apic(bed: &mut Bed<'_>, words: &str) -> Result<String> {
    const DIFFERENT: [&str; 2] = ["ipi/illegal-vector", "disk/interrupts"];
    let image = image("conformance")?;
    let disk = disk(bed, "kvm-kernel-apic")?;
    let trace = |options: &[&str]| -> Result<Vec<String>> {
        let output = run(bed, options, &image, &[words, "spin"])?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let results = said.lines().filter(|line| line.starts_with("ok ") || line.starts_with("FAILED "));
        Ok(results.map(str::to_owned).collect())
    };
    let options = ["--local", "--cpus", "2", "--mem", "512M", "--disk", &disk];
    let ours = trace(&options)?;
    let theirs = trace(&[&options[..], &["--kernel-apic"]].concat())?;
    ensure!(ours.len() == theirs.len() && !ours.is_empty(), "{} results, {} with the kernel's", ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        ensure!(ours.starts_with("ok "), "{ours}");
        ensure!(
            ours == theirs || DIFFERENT.iter().any(|case| ours.ends_with(case)),
            "`{ours}`, but with the kernel's `{theirs}`"
        );
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
    // Kernels of other architectures: where each has its mark.
    for (name, at, mark) in [("s390", 0x1_0008, &b"S390EP"[..]), ("arm64", 56, b"ARM\x64"), ("riscv", 56, b"RSC\x05")] {
        let mut kernel = vec![0; 0x1_1000];
        kernel[at..at + mark.len()].copy_from_slice(mark);
        refused(bed, &format!("kvm-{name}"), &kernel, IMAGE, &format!("is a kernel for {name}"))?;
    }
    let mut old = vec![0; 0x1000];
    old[0x202..0x206].copy_from_slice(b"HdrS");
    refused(bed, "kvm-old", &old, IMAGE, "has no 64-bit entry")?;
    Ok("8 images refused".into())
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

/// A guest that never asks its disk why it interrupts.
fn storm(bed: &mut Bed<'_>) -> Result<String> {
    let disk = disk(bed, "kvm-storm")?;
    let started = Instant::now();
    let output = run(bed, &["--local", "--disk", &disk], &image("storm")?, &[])?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(STORM), "status {:?}: {told}", output.status.code());
    ensure!(told.contains("interrupt storm: line 17"), "{told}");
    Ok(format!("ended after {:.1} s", started.elapsed().as_secs_f64()))
}

/// An image with a note of PVH is started by that protocol, and finds what it says; KVM that shadows page tables is named.
fn pvh(bed: &mut Bed<'_>, options: &[&str], hosts: usize) -> Result<String> {
    const SAID: [&str; 3] = [
        "pvh: version 1, command line `two words`",
        "pvh: memory from 0x0 on, 639 KiB",
        "pvh: memory from 0x100000 on, 130048 KiB",
    ];
    let output = run(bed, &[options, &["--mem", "128M"]].concat(), &image("pvh")?, &["two", "words"])?;
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(0), "status {:?}: {}{}", output.status.code(), shortened(&said), shortened(&told));
    let lines: Vec<&str> = said.lines().collect();
    ensure!(lines.len() >= SAID.len() && lines[..SAID.len()] == SAID, "{said}");
    for host in 0..hosts {
        ensure!(lines[SAID.len()..].iter().any(|line| line.ends_with(&format!("on host {host}"))), "no host {host}: {said}");
    }
    let warned = told.lines().find(|line| line.contains("KVM shadows page tables"));
    let walks = ["kvm_intel/parameters/ept", "kvm_amd/parameters/npt"].iter().any(|parameter| {
        std::fs::read_to_string(format!("/sys/module/{parameter}")).is_ok_and(|value| value.starts_with(['Y', '1']))
    });
    ensure!(warned.is_some() == (hosts > 1 && !walks), "over {hosts} hosts it says: {told}");
    for host in 0..hosts {
        let name = &bed.hosts.host(host)?.name;
        ensure!(warned.is_none_or(|line| line.contains(name.as_str())), "{name} is not named: {told}");
    }
    Ok(format!("{} lines", lines.len()))
}

/// The image of [`conformance`] where no register offers to run it natively: as on every KVM but that of software, which emulates it.
/// There is less memory, since that takes microseconds for an instruction.
fn plain(bed: &mut Bed<'_>, words: &str) -> Result<String> {
    let hello = run(bed, &["--local", "--plain", "--cpus", "2"], &image("hello")?, &[words])?;
    let said = String::from_utf8_lossy(&hello.stdout);
    for cpu in 0..2 {
        ensure!(said.contains(&format!("processor {cpu} of 2 on host 0: ordinary\n")), "{said}");
    }
    let disk = disk(bed, "kvm-plain")?;
    let started = Instant::now();
    let options = ["--local", "--plain", "--mem", "16M", "--disk", &disk, "--cpus", "2"];
    let output = run(bed, &options, &image("conformance")?, &[words])?;
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(0), "status {:?}: {}{}", output.status.code(), shortened(&said), shortened(&told));
    let passed = said.lines().filter(|line| line.starts_with("ok ")).count();
    ensure!(said.contains(&format!("{passed} cases, 0 failed")), "{said}");
    Ok(format!("{passed} cases in {:.1} s", started.elapsed().as_secs_f64()))
}

/// A stock kernel until it says something. By the boot protocol of Linux the part that unpacks it is the first, of a word that it knows;
/// by that of PVH the kernel itself. It is ended then, since a KVM without VMX and SVM emulates it, which takes minutes to more.
fn linux(bed: &mut Bed<'_>, name: &str, first_line: &str) -> Result<String> {
    const WORDS: [&str; 3] = ["earlyprintk=serial,ttyS0", "console=ttyS0", "nokaslr"];
    let harness = std::env::current_exe()?;
    let image = harness.parent().context("a program lies in a directory")?.with_file_name("guests").join(name);
    if !image.exists() {
        bail!(Lacking(format!("{} is not there: `cargo xtask guests` says why", image.display())));
    }
    let started = Instant::now();
    let mut command = command(bed, &["--local", "--mem", "512M"], &image, &WORDS)?;
    let mut running = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let output = running.stdout.take().context("no output")?;
    let (said, heard) = channel();
    let reading = spawn(move || {
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        // Who no longer waits needs no line.
        said.send(lines.find(|line| !line.trim().is_empty())).unwrap_or(());
    });
    let first = heard.recv_timeout(LATEST);
    running.kill()?;
    let told = running.wait_with_output()?;
    reading.join().map_err(|_| anyhow::anyhow!("the thread that read panicked"))?;
    let first = first.ok().flatten();
    let Some(line) = first.filter(|line| line.contains(first_line)) else {
        bail!("no line with `{first_line}` within {LATEST:?}: {}", String::from_utf8_lossy(&told.stderr));
    };
    Ok(format!("`{}` after {:.1} s", line.trim(), started.elapsed().as_secs_f64()))
}

fn agent_killed(bed: &mut Bed<'_>) -> Result<String> {
    lost(bed, &endless(bed)?, &[], |bed| {
        kill_process(bed.hosts.agent(VICTIM)?.context("no agent to kill")?.pid);
        Ok(())
    })
}

/// The VMM that has the devices, which can say nothing any more.
fn root_killed(bed: &mut Bed<'_>) -> Result<String> {
    let (output, gone) = struck(bed, &endless(bed)?, &[], |bed| kill_executor(bed, ROOT))?;
    ensure!(output.status.code().is_none(), "status {:?} of a process that was killed", output.status.code());
    Ok(gone)
}

fn root_agent_killed(bed: &mut Bed<'_>) -> Result<String> {
    let (output, gone) = struck(bed, &endless(bed)?, &[], |bed| {
        kill_process(bed.hosts.agent(ROOT)?.context("no agent to kill")?.pid);
        Ok(())
    })?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(NO_AGENT), "status {:?}: {told}", output.status.code());
    let name = &bed.hosts.host(ROOT)?.name;
    ensure!(told.contains(name.as_str()), "{name} is not named: {told}");
    Ok(gone)
}

fn kill_executor(bed: &Bed<'_>, host: usize) -> Result<()> {
    let processes = bed.hosts.processes(host)?;
    let executor = processes.iter().find(|process| process.name != "dvm-agent");
    kill_process(executor.context("nothing to kill")?.pid);
    Ok(())
}

fn husk_killed(bed: &mut Bed<'_>) -> Result<String> {
    lost(bed, &endless(bed)?, &[], |bed| kill_executor(bed, VICTIM))
}

fn link_cut(bed: &mut Bed<'_>) -> Result<String> {
    lost(bed, &endless(bed)?, &[], |bed| Ok(bed.hosts.set_cable(VICTIM, false)?))
}

/// Its processors fight over pages, so that some wait for the host that is lost, or touch what was lost with it.
fn link_cut_busy(bed: &mut Bed<'_>) -> Result<String> {
    lost(bed, &image("measure")?, &["fight", "1000000000000"], |bed| Ok(bed.hosts.set_cable(VICTIM, false)?))
}

/// jmp to itself: an image that needs no kit.
fn endless(bed: &Bed<'_>) -> Result<PathBuf> {
    bed.workshop.executable("kvm-endless", &[0xeb, 0xfe])
}

/// A guest that would run for ever ends everywhere, with the host named, when another host of it is struck.
fn lost(bed: &Bed<'_>, image: &PathBuf, words: &[&str], strike: impl Fn(&Bed<'_>) -> Result<()>) -> Result<String> {
    let (output, gone) = struck(bed, image, words, strike)?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(HOST_LOST), "status {:?}: {told}", output.status.code());
    let name = &bed.hosts.host(VICTIM)?.name;
    ensure!(told.contains(name.as_str()), "{name} is not named: {told}");
    Ok(gone)
}

/// How a guest that would run for ever ends, and that nothing of it is left on any host.
fn struck(bed: &Bed<'_>, image: &PathBuf, words: &[&str], strike: impl Fn(&Bed<'_>) -> Result<()>) -> Result<(Output, String)> {
    const START: Duration = Duration::from_secs(5);
    const POLL: Duration = Duration::from_millis(20);
    let cpus = bed.hosts.hosts().len().to_string();
    let mut command = command(bed, &["--cpus", &cpus], image, words)?;
    let (output, struck, ended) = std::thread::scope(|scope| -> Result<_> {
        let running = scope.spawn(|| output_within(&mut command, LATEST));
        sleep(START);
        let struck = Instant::now();
        strike(bed)?;
        let output = running.join().map_err(|_| anyhow::anyhow!("the thread that ran it panicked"))??;
        Ok((output, struck, struck.elapsed()))
    })?;
    loop {
        let left = left_behind(bed.hosts)?;
        if left.is_empty() {
            break;
        }
        ensure!(struck.elapsed() < LOSS_LATEST, "left {LOSS_LATEST:?} after: {}", left.join(", "));
        sleep(POLL);
    }
    let gone = format!("ended {} ms after, gone everywhere {} ms after", ended.as_millis(), struck.elapsed().as_millis());
    Ok((output, gone))
}

//! The figures that are promised, and how each is measured.
//!
//! Owns the bars. Must not know how programs are run: [`crate::bed`] does. The hosts share one machine: both are pinned to
//! processor 0 where a figure says "one core".

use crate::bed::{Bed, latencies, processors, seconds};
use crate::figure::{Bar, Figure, Samples, microseconds};
use anyhow::{Context, Result, ensure};
use dvm_hosts::{Finished, Job};
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// One entry of the list.
pub struct Bench {
    /// Its name.
    pub name: &'static str,
    /// Measures.
    pub run: fn(&mut Bed) -> Result<Vec<Figure>>,
}

/// All of them.
pub const BENCHES: [Bench; 8] = [
    Bench { name: "remote-read", run: remote_read },
    Bench { name: "remote-read-home-busy", run: remote_read_home_busy },
    Bench { name: "write-miss", run: write_miss },
    Bench { name: "ticket-lock", run: ticket_lock },
    Bench { name: "parallel-faults", run: parallel_faults },
    Bench { name: "scan", run: scan },
    Bench { name: "first-touch", run: first_touch },
    Bench { name: "povray", run: povray },
];

const ONE_CORE: &str = "0";
/// Turns in which a figure and its floor are measured.
const ROUNDS: usize = 5;
const SCAN_MEBIBYTES: usize = 128;
const PAGES_PER_MEBIBYTE: usize = 256;
const TOUCH_PAGES: usize = 262_144;
const PARALLEL_THREADS: usize = 8;
const SCENE: &str = include_str!("../../tests/programs/scene.pov");

/// Both hosts and the root on one processor.
fn on_one_core(bed: &Bed) -> Result<()> {
    bed.pin(0, ONE_CORE)?;
    bed.pin(1, ONE_CORE)
}

/// Runs `kinds` in turns, a part of the samples in each, so that what else the machine does falls on all of them alike.
fn in_turns<const N: usize>(bed: &mut Bed, kinds: [&dyn Fn(&mut Bed, usize) -> Result<Samples>; N]) -> Result<[Samples; N]> {
    let mut all = std::array::from_fn(|_| Samples::default());
    let count = bed.samples.div_ceil(ROUNDS);
    for _ in 0..ROUNDS {
        for (kind, samples) in kinds.iter().zip(&mut all) {
            samples.merge(kind(bed, count)?);
        }
    }
    Ok(all)
}

/// 64 bytes there, a page back, blocking, on one core.
fn udp_round_trip(bed: &mut Bed, count: usize) -> Result<Samples> {
    let server = bed.server(ONE_CORE, "udp-server")?;
    let address = bed.hosts.host(0)?.address.clone();
    let udp = latencies(&bed.floor(1, ONE_CORE, &["udp-client", &address, &count.to_string()])?);
    drop(server);
    udp
}

/// A fault answered by another thread of the same process, on one core.
fn local_fault(bed: &mut Bed, count: usize) -> Result<Samples> {
    latencies(&bed.floor(1, ONE_CORE, &["uffd", &count.to_string()])?)
}

fn remote_fault(bed: &mut Bed, count: usize) -> Result<Samples> {
    latencies(&bed.faults("read", count, &[], ONE_CORE)?.output())
}

fn remote_read(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_one_core(bed)?;
    let [read, udp, local] = in_turns(bed, [&remote_fault, &udp_round_trip, &local_fault])?;
    let floor = microseconds(udp.quantile(500) + local.quantile(500));
    let detail = format!("{read}; floor: UDP {udp}, local fault {local}");
    Ok(vec![Figure::new("remote read fault p50, one core (us)", p50(&read), floor, Bar::AtMost(1.5), detail)])
}

fn remote_read_home_busy(bed: &mut Bed) -> Result<Vec<Figure>> {
    bed.pin(0, ONE_CORE)?;
    bed.pin(1, last_core().as_str())?;
    let idle = latencies(&bed.faults("read", bed.samples, &[], ONE_CORE)?.output())?;
    let mut hog = Command::new("taskset")
        .args(["-c", ONE_CORE, "sh", "-c", "while :; do :; done"])
        .stdout(Stdio::null())
        .spawn()
        .context("cannot start a busy process")?;
    let busy = bed.faults("read", bed.samples, &[], ONE_CORE);
    hog.kill().context("cannot end the busy process")?;
    hog.wait().context("cannot end the busy process")?;
    let busy = latencies(&busy?.output())?;
    let detail = format!("busy: {busy}; idle: {idle}");
    Ok(vec![Figure::new("remote read fault p50, home's core busy (us)", p50(&busy), p50(&idle), Bar::AtMost(2.0), detail)])
}

fn write_miss(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_one_core(bed)?;
    let read = latencies(&bed.faults("read", bed.samples, &[], ONE_CORE)?.output())?;
    let write = latencies(&bed.faults("write", bed.samples, &[], ONE_CORE)?.output())?;
    let detail = format!("write: {write}; read: {read}");
    Ok(vec![Figure::new("write miss with one sharer p50 (us)", p50(&write), p50(&read), Bar::AtMost(2.0), detail)])
}

fn ticket_lock(bed: &mut Bed) -> Result<Vec<Figure>> {
    bed.pin(0, ONE_CORE)?;
    bed.pin(1, last_core().as_str())?;
    let write = latencies(&bed.faults("write", bed.samples, &[], ONE_CORE)?.output())?;
    let ticket = latencies(&bed.faults("ticket", bed.samples, &[], ONE_CORE)?.output())?;
    let detail = format!("hand-off: {ticket}; write miss: {write}");
    Ok(vec![Figure::new("ticket lock hand-off p50 (us)", p50(&ticket), p50(&write), Bar::AtMost(3.0), detail)])
}

#[expect(clippy::cast_precision_loss, reason = "counts of pages")]
fn parallel_faults(bed: &mut Bed) -> Result<Vec<Figure>> {
    bed.pin(0, ONE_CORE)?;
    bed.pin(1, last_core().as_str())?;
    let count = bed.samples / PARALLEL_THREADS;
    let threads = PARALLEL_THREADS.to_string();
    let output = bed.faults("parallel", count, &[&threads], ONE_CORE)?.output();
    let one = count as f64 / seconds(&output, "one")?;
    let all = (count * PARALLEL_THREADS) as f64 / seconds(&output, "all")?;
    let detail = format!("{PARALLEL_THREADS} threads, {count} pages each; alone first");
    Ok(vec![Figure::new("faults/s of 8 threads at once", all, one, Bar::AtLeast(1.3), detail)])
}

#[expect(clippy::cast_precision_loss, reason = "counts of messages")]
fn scan(bed: &mut Bed) -> Result<Vec<Figure>> {
    bed.pin(0, ONE_CORE)?;
    bed.pin(1, last_core().as_str())?;
    let pages = SCAN_MEBIBYTES * PAGES_PER_MEBIBYTE;
    let server = bed.server(ONE_CORE, "tcp-server")?;
    let address = bed.hosts.host(0)?.address.clone();
    let tcp = seconds(&bed.floor(1, &last_core(), &["tcp-client", &address, &SCAN_MEBIBYTES.to_string()])?, "tcp")?;
    drop(server);
    let once = bed.faults("scan", pages, &["1"], ONE_CORE)?;
    let twice = bed.faults("scan", pages, &["2"], ONE_CORE)?;
    let rate = |time: f64| SCAN_MEBIBYTES as f64 / time;
    let first = seconds(&once.output(), "scan-1")?;
    let messages = |finished: &Finished| finished.statistics.as_ref().map_or(0, |figures| figures.counter("frames_out"));
    let (one, two) = (messages(&once), messages(&twice));
    ensure!(one > 0, "the job reports no frames_out: nothing to compare");
    let detail = format!("{SCAN_MEBIBYTES} MiB over one TCP connection in {tcp:.3} s, scanned in {first:.3} s");
    let again = format!("frames of the job with one scan and with two; second scan {:.3} s", seconds(&twice.output(), "scan-2")?);
    Ok(vec![
        Figure::new("sequential remote scan (MiB/s)", rate(first), rate(tcp), Bar::AtLeast(0.4), detail),
        Figure::new("frames with a second scan", two as f64, one as f64, Bar::AtMost(1.0), again),
    ])
}

fn first_touch(bed: &mut Bed) -> Result<Vec<Figure>> {
    bed.pin(0, "0-63")?;
    let pages = TOUCH_PAGES.to_string();
    let mut native = Command::new(bed.program("faults"));
    let output = dvm_hosts::output_within(native.args(["touch", &pages]), Duration::from_secs(60))?;
    let floor = seconds(&String::from_utf8_lossy(&output.stdout), "touch")?;
    let ours = seconds(&bed.faults("touch", TOUCH_PAGES, &[], "0-63")?.output(), "touch")?;
    let detail = "1 GiB of fresh private memory".into();
    Ok(vec![Figure::new("first touch (s)", ours, floor, Bar::AtMost(1.5), detail)])
}

fn povray(bed: &mut Bed) -> Result<Vec<Figure>> {
    ensure!(processors() >= 2, "needs two processors");
    let directory = bed.hosts.scratch()?;
    fs::write(directory.join("scene.pov"), SCENE)?;
    let scene = format!("+I{}", directory.join("scene.pov").display());
    let arguments = |threads: &str| {
        [scene.clone(), "+O-".into(), "+FP".into(), "+W480".into(), "+H360".into(), format!("+WT{threads}"), "-D".into()]
    };
    let native = |cores: &str, threads: &str| -> Result<f64> {
        let mut command = Command::new("taskset");
        command.args(["-c", cores, "/usr/bin/povray"]).args(arguments(threads));
        let started = Instant::now();
        let output = dvm_hosts::output_within(&mut command, Duration::from_secs(120))?;
        ensure!(output.status.success(), "native povray ended with {}", output.status);
        Ok(started.elapsed().as_secs_f64())
    };
    let (one_native, two_native) = (native("0", "1")?, native("0,1", "2")?);
    bed.pin(0, "0")?;
    bed.pin(1, "1")?;
    let job =
        |threads: &str, hosts: &str| Job::new("/usr/bin/povray", "").options(["--hosts", hosts]).arguments(arguments(threads));
    let one = bed.job(job("1", "h0"), "0")?.elapsed.as_secs_f64();
    let two = bed.job(job("2", "h0,h1"), "0")?.elapsed.as_secs_f64();
    let detail = format!("native: {one_native:.2} s on one core, {two_native:.2} s on two");
    let gain = format!("{two:.2} s on two hosts of one core each");
    Ok(vec![
        Figure::new("povray on one host (s)", one, one_native, Bar::AtMost(1.1), detail),
        Figure::new("povray's gain from a second host", one_native / two, one_native / two_native, Bar::AtLeast(0.85), gain),
    ])
}

fn p50(samples: &Samples) -> f64 {
    microseconds(samples.quantile(500))
}

/// The second processor, or the only one.
fn last_core() -> String {
    (processors() - 1).min(1).to_string()
}

//! The figures of the page layer that are promised, and how each is measured.
//!
//! Owns the bars. Must not know how programs are run: [`crate::bed`] does. The hosts share one machine: both are pinned to
//! processor 0 where a figure says "one core"; else the root's host has processor 0 and the other one processor 1.

use crate::bed::{Bed, busy, processors, times};
use crate::figure::{Bar, Figure, Samples, microseconds, seconds};
use anyhow::{Context, Result, ensure};
use dvm_hosts::Finished;
use std::process::Command;
use std::time::Duration;

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
    Bench { name: "read-beside-bulk", run: read_beside_bulk },
    Bench { name: "scan", run: scan },
    Bench { name: "first-touch", run: first_touch },
];

/// The processor of the root's host, and of both on one core.
pub const ONE_CORE: &str = "0";
const ANY_CORE: &str = "0-63";
/// Turns in which a figure and its floor are measured.
pub const ROUNDS: usize = 5;
/// The same for measurements of seconds.
pub const LONG_ROUNDS: usize = 3;
/// Memory touched before a scan, as a multiple of what is scanned: both hosts hold it, and the program.
const WARM_SCANS: usize = 3;
const SCAN_MEBIBYTES: usize = 128;
const BULK_MEBIBYTES: usize = 64;
const PAGES_PER_MEBIBYTE: usize = 256;
const TOUCH_PAGES: usize = 262_144;
const PARALLEL_THREADS: usize = 8;
const NATIVE_LATEST: Duration = Duration::from_secs(120);

/// Both hosts and the root on one processor.
pub fn on_one_core(bed: &Bed) -> Result<()> {
    bed.pin(0, ONE_CORE)?;
    bed.pin(1, ONE_CORE)
}

/// Each host on its own processor.
pub fn on_two_cores(bed: &Bed) -> Result<()> {
    bed.pin(0, ONE_CORE)?;
    bed.pin(1, &last_core())
}

/// Measures figure and floor in turns, so that what else the machine does falls on all of them alike.
pub fn in_turns<const N: usize>(
    bed: &mut Bed,
    rounds: usize,
    mut round: impl FnMut(&mut Bed) -> Result<[Samples; N]>,
) -> Result<[Samples; N]> {
    let mut all = std::array::from_fn(|_| Samples::default());
    for _ in 0..rounds {
        for (samples, part) in all.iter_mut().zip(round(bed)?) {
            samples.merge(part);
        }
    }
    Ok(all)
}

/// Samples of one round.
pub fn part(bed: &Bed) -> usize {
    bed.samples.div_ceil(ROUNDS)
}

/// 64 bytes there, a page back, blocking, on one core.
pub fn udp_round_trip(bed: &Bed) -> Result<Samples> {
    let _server = bed.server(ONE_CORE, "udp-server")?;
    let address = bed.hosts.host(0)?.address.clone();
    times(&bed.floor(1, ONE_CORE, &["udp-client", &address, &part(bed).to_string()])?, "latency")
}

/// A fault answered by another thread of the same process, on one core.
pub fn local_fault(bed: &Bed) -> Result<Samples> {
    times(&bed.floor(1, ONE_CORE, &["uffd", &part(bed).to_string()])?, "latency")
}

/// Latencies of a round of `faults` in one of its modes.
pub fn latencies(bed: &mut Bed, mode: &str) -> Result<Samples> {
    let count = part(bed);
    let finished = bed.faults(mode, count, &[], ONE_CORE)?;
    all_remote(&finished, count)?;
    times(&finished.output(), "latency")
}

/// What is measured went over the wire: a thread on the wrong host, or a page that came ahead of its use, would not show.
fn all_remote(finished: &Finished, measured: usize) -> Result<()> {
    let remote = counter(finished, "faults_remote")?;
    ensure!(remote >= measured as u64, "{remote} remote faults where {measured} were to be measured");
    Ok(())
}

fn remote_read(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_one_core(bed)?;
    let [read, udp, local] = in_turns(bed, ROUNDS, |bed| Ok([latencies(bed, "read")?, udp_round_trip(bed)?, local_fault(bed)?]))?;
    let floor = microseconds(udp.median() + local.median());
    let detail = format!("{read}; floor: UDP {udp}, local fault {local}");
    Ok(vec![Figure::new("remote read fault p50, one core (us)", p50(&read), floor, Bar::AtMost(1.5), detail)])
}

fn remote_read_home_busy(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_two_cores(bed)?;
    let [idle, busy] = in_turns(bed, ROUNDS, |bed| {
        let idle = latencies(bed, "read")?;
        let _hog = busy(ONE_CORE)?;
        Ok([idle, latencies(bed, "read")?])
    })?;
    let detail = format!("busy: {busy}; idle: {idle}");
    Ok(vec![Figure::new("remote read fault p50, home's core busy (us)", p50(&busy), p50(&idle), Bar::AtMost(2.0), detail)])
}

fn write_miss(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_one_core(bed)?;
    let [write, read] = in_turns(bed, ROUNDS, |bed| Ok([latencies(bed, "write")?, latencies(bed, "read")?]))?;
    let detail = format!("write: {write}; read: {read}");
    Ok(vec![Figure::new("write miss with one sharer p50 (us)", p50(&write), p50(&read), Bar::AtMost(2.0), detail)])
}

fn ticket_lock(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_two_cores(bed)?;
    let [ticket, write] = in_turns(bed, ROUNDS, |bed| Ok([latencies(bed, "ticket")?, latencies(bed, "write")?]))?;
    let detail = format!("hand-off to the other host: {ticket}; write miss: {write}");
    Ok(vec![Figure::new("ticket lock hand-off p50 (us)", p50(&ticket), p50(&write), Bar::AtMost(3.0), detail)])
}

/// The floor is an agent that serves one fault after the other, its faulting threads on the same host and processor as ours.
#[expect(clippy::cast_precision_loss, reason = "counts of pages")]
fn parallel_faults(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_two_cores(bed)?;
    let pages = bed.samples.div_ceil(PARALLEL_THREADS);
    let total = pages * PARALLEL_THREADS;
    let (count, threads) = (pages.to_string(), PARALLEL_THREADS.to_string());
    let [ours, serial] = in_turns(bed, ROUNDS, |bed| {
        let finished = bed.faults("parallel", pages, &[&threads], ONE_CORE)?;
        all_remote(&finished, total)?;
        let _server = bed.server(ONE_CORE, "udp-server")?;
        let address = bed.hosts.host(0)?.address.clone();
        let floor = bed.floor(1, &last_core(), &["uffd-serial", &address, &count, &threads])?;
        Ok([times(&finished.output(), "all")?, times(&floor, "all")?])
    })?;
    let rate = |times: &Samples| total as f64 / seconds(times.median());
    let detail = format!("{PARALLEL_THREADS} threads, {pages} pages each: {ours}; a serial blocking agent: {serial}");
    Ok(vec![Figure::new("faults/s of 8 threads at once", rate(&ours), rate(&serial), Bar::AtLeast(1.3), detail)])
}

fn read_beside_bulk(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_two_cores(bed)?;
    let bulk = (BULK_MEBIBYTES * PAGES_PER_MEBIBYTE).to_string();
    let [beside, idle, shared, alone] = in_turns(bed, ROUNDS, |bed| {
        let output = bed.faults("beside", part(bed), &[&bulk], ONE_CORE)?.output();
        Ok([times(&output, "beside")?, times(&output, "latency")?, times(&output, "scan-beside")?, times(&output, "scan-alone")?])
    })?;
    let reads = format!("beside: {beside}; idle: {idle}");
    let scans = format!("{BULK_MEBIBYTES} MiB, with a reader: {shared}; alone: {alone}");
    let (with_reader, without) = (rate(BULK_MEBIBYTES, &shared), rate(BULK_MEBIBYTES, &alone));
    Ok(vec![
        Figure::new("remote read fault p50 beside a bulk transfer (us)", p50(&beside), p50(&idle), Bar::AtMost(2.0), reads),
        Figure::new("bulk transfer beside a reader (MiB/s)", with_reader, without, Bar::AtLeast(0.5), scans),
    ])
}

/// The second figure compares contents received by two jobs that differ in their second scan alone: all other pages that go
/// over the wire are the same, so one page fetched again shows.
#[expect(clippy::cast_precision_loss, reason = "counts of pages")]
fn scan(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_two_cores(bed)?;
    let pages = SCAN_MEBIBYTES * PAGES_PER_MEBIBYTE;
    let [first, tcp, second, once, twice] = in_turns(bed, ROUNDS, |bed| {
        let tcp = {
            let _server = bed.server(ONE_CORE, "tcp-server")?;
            let address = bed.hosts.host(0)?.address.clone();
            times(&bed.floor(1, &last_core(), &["tcp-client", &address, &SCAN_MEBIBYTES.to_string()])?, "tcp")?
        };
        let mut scan = |rounds: &str| {
            native_touch(bed, pages * WARM_SCANS)?;
            bed.faults("scan", pages, &[rounds], ONE_CORE)
        };
        let [once, twice] = [scan("1")?, scan("2")?];
        let [one, two] = [counter(&once, "pages_in")?, counter(&twice, "pages_in")?].map(|count| Samples::new(vec![count]));
        Ok([times(&once.output(), "scan-1")?, tcp, times(&twice.output(), "scan-2")?, one, two])
    })?;
    let detail = format!("{SCAN_MEBIBYTES} MiB scanned: {first}; over one TCP connection: {tcp}");
    let [once, twice] = [once.median(), twice.median()];
    let again = format!("pages of the whole job with two scans of {pages}: {twice}, with one: {once}; second scan: {second}");
    let (ours, floor) = (rate(SCAN_MEBIBYTES, &first), rate(SCAN_MEBIBYTES, &tcp));
    Ok(vec![
        Figure::new("sequential remote scan (MiB/s)", ours, floor, Bar::AtLeast(0.4), detail),
        Figure::new("pages received with a second scan", twice as f64, once as f64, Bar::AtMost(1.0), again),
    ])
}

/// The time to touch so many fresh pages without us. A virtual machine has those pages from its own host afterwards, which may
/// take longer to supply one than a page takes over the network.
pub fn native_touch(bed: &Bed, pages: usize) -> Result<Samples> {
    let mut native = Command::new(bed.program("faults"));
    let output = dvm_hosts::output_within(native.args(["touch", &pages.to_string()]), NATIVE_LATEST)?;
    times(&String::from_utf8_lossy(&output.stdout), "touch")
}

fn first_touch(bed: &mut Bed) -> Result<Vec<Figure>> {
    bed.pin(0, ANY_CORE)?;
    bed.pin(1, ANY_CORE)?;
    let [ours, native] = in_turns(bed, LONG_ROUNDS, |bed| {
        let native = native_touch(bed, TOUCH_PAGES)?;
        let ours = bed.faults("touch", TOUCH_PAGES, &[], ANY_CORE)?.output();
        Ok([times(&ours, "touch")?, native])
    })?;
    let detail = format!("1 GiB of fresh private memory: {ours}; native: {native}");
    let [ours, native] = [&ours, &native].map(|times| seconds(times.median()));
    Ok(vec![Figure::new("first touch (s)", ours, native, Bar::AtMost(1.5), detail)])
}

pub fn p50(samples: &Samples) -> f64 {
    microseconds(samples.median())
}

#[expect(clippy::cast_precision_loss, reason = "mebibytes")]
fn rate(mebibytes: usize, times: &Samples) -> f64 {
    mebibytes as f64 / seconds(times.median())
}

/// A counter of the whole job.
pub fn counter(finished: &Finished, name: &str) -> Result<u64> {
    Ok(finished.statistics.as_ref().context("the job left no statistics")?.counter(name))
}

/// The second processor, or the only one.
pub fn last_core() -> String {
    (processors() - 1).min(1).to_string()
}

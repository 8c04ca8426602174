//! Figures of the fast path: what the kernel answers alone, beside what it would cost otherwise.
//!
//! Owns their bars. Must not know how programs are run: [`crate::bed`] does. They need three hosts: the home, a first reader whose
//! reads make the home publish the pages, and the reader that is measured.

use crate::bed::{Bed, busy, processors, times};
use crate::figure::{Bar, Figure, Samples, microseconds};
use crate::idle::IdleWatch;
use crate::list::{Bench, ONE_CORE, ROUNDS, in_turns, last_core, local_fault, native_touch, p50, part, udp_round_trip};
use anyhow::{Context, Result, ensure};
use dvm_hosts::Finished;

/// All of them.
pub const BENCHES: [Bench; 5] = [
    Bench { name: "clean-read", run: clean_read },
    Bench { name: "clean-read-home-busy", run: clean_read_home_busy },
    Bench { name: "three-hop", run: three_hop },
    Bench { name: "clean-scan", run: clean_scan },
    Bench { name: "clean-rate", run: clean_rate },
];

const HOSTS: &str = "h0,h1,h2";
/// Less than a host publishes.
const PAGES: usize = 4000;
const SCAN_PAGES: usize = 6000;
/// Memory touched before, as a multiple of what is read: three hosts hold it.
const WARM: usize = 8;
/// Processor 0, as receive packet steering names it.
const STEER_TO_HOME: &str = "1";
const STEER_NOWHERE: &str = "0";

fn on_one_core(bed: &Bed) -> Result<()> {
    (0..3).try_for_each(|host| bed.pin(host, ONE_CORE))
}

/// Latencies of the third host's reads of pages that the first one has published.
fn clean(bed: &mut Bed) -> Result<Samples> {
    let count = part(bed).min(PAGES);
    native_touch(bed, PAGES * WARM)?;
    let finished = bed.faults_on(HOSTS, "clean", PAGES, &[&count.to_string()], ONE_CORE)?;
    let served = on(&finished, "h2", "frames_in_kernel")?;
    ensure!(
        served >= count as u64,
        "the kernel served {served} of {count} pages; is the fast path attached? see `dvm-agent status`"
    );
    times(&finished.output(), "latency")
}

fn clean_read(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_one_core(bed)?;
    let [read, udp, local] = in_turns(bed, ROUNDS, |bed| Ok([clean(bed)?, udp_round_trip(bed)?, local_fault(bed)?]))?;
    let floor = microseconds(udp.median() + local.median());
    let detail = format!("{read}; floor: UDP {udp}, local fault {local}");
    Ok(vec![Figure::new("remote read fault of a clean page p50, one core (us)", p50(&read), floor, Bar::AtMost(0.9), detail)])
}

fn clean_read_home_busy(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_one_core(bed)?;
    bed.pin(2, &last_core())?;
    let [idle, alone, loaded, steered] = in_turns(bed, ROUNDS, |bed| {
        let idle = clean(bed)?;
        let _hog = busy(ONE_CORE)?;
        let alone = computation(bed, idle.median())?;
        let loaded = clean(bed)?;
        bed.steer(0, STEER_TO_HOME)?;
        let steered = clean(bed);
        bed.steer(0, STEER_NOWHERE)?;
        Ok([idle, alone, loaded, steered?])
    })?;
    let p99 = |samples: &Samples| microseconds(samples.quantile(990));
    let figure = |name, samples: &Samples| {
        Figure::new(
            name,
            p99(samples),
            p50(&idle),
            Bar::AtMost(2.0),
            format!("{samples}; idle: {idle}; as long a computation: {alone}"),
        )
    };
    Ok(vec![
        figure("clean read p99, home's core busy, against idle p50 (us)", &loaded),
        figure("the same, packets steered to the busy core (us)", &steered),
    ])
}

/// A computation as long as a read, on the reader's core: how much of a tail is the machine's own.
fn computation(bed: &Bed, nanoseconds: u64) -> Result<Samples> {
    let [length, count] = [nanoseconds, part(bed) as u64].map(|number| number.to_string());
    times(&bed.floor(2, &last_core(), &["compute", &length, &count])?, "latency")
}

fn three_hop(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_one_core(bed)?;
    let count = part(bed).min(PAGES);
    let [three, two] = in_turns(bed, ROUNDS, |bed| {
        let output = bed.faults_on(HOSTS, "hops", count, &[], ONE_CORE)?.output();
        Ok([times(&output, "three")?, times(&output, "two")?])
    })?;
    let detail = format!("owner elsewhere: {three}; owner at home: {two}");
    Ok(vec![Figure::new("three-hop read p50 (us)", p50(&three), p50(&two), Bar::AtMost(1.15), detail)])
}

/// Two jobs that differ in how many clean pages the third host reads: frames that come up at home must not.
#[expect(clippy::cast_precision_loss, reason = "counts of frames")]
fn clean_scan(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_one_core(bed)?;
    let [some, all] = in_turns(bed, ROUNDS, |bed| {
        let mut frames = |count: usize| -> Result<Samples> {
            let finished = bed.faults_on(HOSTS, "clean", SCAN_PAGES, &[&count.to_string()], ONE_CORE)?;
            let up = on(&finished, "h0", "frames_in_urgent")? + on(&finished, "h0", "frames_in_bulk")?;
            Ok(Samples::new(vec![up]))
        };
        Ok([frames(SCAN_PAGES / 2)?, frames(SCAN_PAGES)?])
    })?;
    let (some, all) = (some.median() as f64, all.median() as f64);
    let more = SCAN_PAGES - SCAN_PAGES / 2;
    let detail = format!("frames that came up at home in a job; in the second one {more} more clean pages are read");
    Ok(vec![Figure::new("frames up with more clean reads", all, some, Bar::AtMost(1.02), detail)])
}

/// How much of home's core a clean page takes, by the kernel and by the agent. Packets are steered to that core; the reader has
/// the other one.
fn clean_rate(bed: &mut Bed) -> Result<Vec<Figure>> {
    ensure!(processors() >= 2, "needs two processors");
    let mut off = bed.without_fast_path()?;
    let [kernel, agent] = in_turns(bed, ROUNDS, |bed| Ok([home_time(bed)?, home_time(&mut off)?]))?;
    let rate = |time: &Samples| 1e6 / p50(time);
    let detail = format!("home's core busy for each page, by the kernel: {kernel}; by the agent: {agent}");
    Ok(vec![Figure::new("clean reads per second of home's core", rate(&kernel), rate(&agent), Bar::AtLeast(1.6), detail)])
}

/// For how long home's core was busy, for each page the third host read.
fn home_time(bed: &mut Bed) -> Result<Samples> {
    bed.pin(0, ONE_CORE)?;
    bed.pin(1, &last_core())?;
    bed.pin(2, &last_core())?;
    bed.steer(0, STEER_TO_HOME)?;
    let count = PAGES.to_string();
    native_touch(bed, PAGES * WARM)?;
    let watch = IdleWatch::start(0)?;
    let output = bed.faults_on(HOSTS, "clean", PAGES, &[&count], ONE_CORE)?.output();
    let [from, to] = ["from", "to"].map(|name| times(&output, name).map(|times| times.median()));
    Ok(Samples::new(vec![watch.busy_ns(from?, to?)? / PAGES as u64]))
}

/// A counter of one host's part of a job.
fn on(finished: &Finished, host: &str, name: &str) -> Result<u64> {
    let statistics = finished.statistics.as_ref().context("the job left no statistics")?;
    let figures = statistics.hosts.iter().find(|figures| figures.host == host).with_context(|| format!("no host {host}"))?;
    Ok(figures.counters.get(name).copied().unwrap_or(0))
}

//! What system calls and threads of a host that is not the root cost.
//!
//! Owns their bars. Must not know how programs are run: [`crate::bed`] does. All hosts share one core but where a figure says
//! "two cores".

use crate::bed::{Bed, times};
use crate::figure::{Bar, Figure, Samples, microseconds};
use crate::list::{Bench, ONE_CORE, ROUNDS, in_turns, last_core, latencies, on_one_core, on_two_cores, p50, part};
use anyhow::{Context, Result, ensure};
use dvm_hosts::Job;

/// All of them.
pub const BENCHES: [Bench; 5] = [
    Bench { name: "call-local", run: local },
    Bench { name: "call-delegated", run: delegated },
    Bench { name: "call-delegated-two-cores", run: delegated_on_two_cores },
    Bench { name: "thread", run: thread },
    Bench { name: "clock", run: clock },
];

const LOCAL_US_MAX: f64 = 2.0;
const CLOCK_MAX: f64 = 1.05;

/// Latencies of a round of `calls`, whose threads were placed in turn over two hosts.
fn remote(bed: &mut Bed, mode: &str) -> Result<Samples> {
    let count = part(bed).to_string();
    let job = Job::new(bed.program("calls"), "").options(["--place", "rr", "--hosts", "h0,h1"]).arguments([mode, &count]);
    let finished = bed.job(job, ONE_CORE)?;
    let statistics = finished.statistics.as_ref().context("the job left no statistics")?;
    let threads = statistics.hosts.get(1).map_or(0, |host| host.threads);
    ensure!(threads > 0, "no thread ran on the other host");
    times(&finished.output(), "latency")
}

/// The same natively.
fn native(bed: &Bed, mode: &str, list: &str) -> Result<Samples> {
    let (_, output) = bed.native(list, &bed.program("calls"), &[mode.into(), part(bed).to_string()])?;
    times(&output, "latency")
}

/// 64 bytes there and back between the hosts, each side asleep until they come.
pub fn tcp_round_trip(bed: &Bed, client: &str) -> Result<Samples> {
    let _server = bed.server(ONE_CORE, "echo-server")?;
    let address = bed.hosts.host(0)?.address.clone();
    times(&bed.floor(1, client, &["echo-client", &address, &part(bed).to_string()])?, "latency")
}

fn local(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_one_core(bed)?;
    let [ours, caught, native] = in_turns(bed, ROUNDS, |bed| {
        let caught = bed.floor(1, ONE_CORE, &["caught", &part(bed).to_string()])?;
        Ok([remote(bed, "gettid")?, times(&caught, "latency")?, native(bed, "gettid", ONE_CORE)?])
    })?;
    let detail = format!("{ours}; a call caught by Syscall User Dispatch alone: {caught}; native: {native}");
    Ok(vec![Figure::new("a call answered locally p50 (us)", p50(&ours), LOCAL_US_MAX, Bar::AtMost(1.0), detail)])
}

fn delegated(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_one_core(bed)?;
    delegated_beside(bed, ONE_CORE, "one core")
}

fn delegated_on_two_cores(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_two_cores(bed)?;
    delegated_beside(bed, &last_core(), "two cores")
}

/// Both calls and the round trip from a member on processor `client`.
fn delegated_beside(bed: &mut Bed, client: &str, cores: &str) -> Result<Vec<Figure>> {
    let [plain, page, tcp] =
        in_turns(bed, ROUNDS, |bed| Ok([remote(bed, "lseek")?, remote(bed, "read")?, tcp_round_trip(bed, client)?]))?;
    let figure = |name: &str, samples: &Samples, most| {
        let detail = format!("{samples}; TCP round trip: {tcp}");
        Figure::new(&format!("{name} p50, {cores} (us)"), p50(samples), p50(&tcp), Bar::AtMost(most), detail)
    };
    Ok(vec![figure("a delegated call without pointers", &plain, 1.3), figure("read() of 4 KiB into a hot buffer", &page, 1.6)])
}

/// The floor is what a thread on another host cannot do without: its own cost, its stack and the words it shares with its creator,
/// and its start and end being told.
fn thread(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_one_core(bed)?;
    let [ours, own, fault, tcp] = in_turns(bed, ROUNDS, |bed| {
        Ok([remote(bed, "create")?, native(bed, "create", ONE_CORE)?, latencies(bed, "read")?, tcp_round_trip(bed, ONE_CORE)?])
    })?;
    let floor = microseconds(own.median() + 4 * fault.median() + 2 * tcp.median());
    let detail = format!("{ours}; native: {own}; remote read fault: {fault}; TCP round trip: {tcp}");
    Ok(vec![Figure::new("remote pthread_create and join p50 (us)", p50(&ours), floor, Bar::AtMost(1.0), detail)])
}

fn clock(bed: &mut Bed) -> Result<Vec<Figure>> {
    on_one_core(bed)?;
    let [ours, own] = in_turns(bed, ROUNDS, |bed| Ok([remote(bed, "clock")?, native(bed, "clock", ONE_CORE)?]))?;
    let detail = format!("{ours}; native: {own}");
    Ok(vec![Figure::new("1,000 times clock_gettime p50 (us)", p50(&ours), p50(&own), Bar::AtMost(CLOCK_MAX), detail)])
}

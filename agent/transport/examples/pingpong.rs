//! Round trips of a 64-byte request and a 4 KiB reply through two endpoints, beside a bare blocking UDP round trip of the same
//! sizes in the same run; then a bulk stream. `pingpong [--local A --remote B] [--mtu N] [--count N]`.
//!
//! Owns the measurement. Both sides on one core, then on two. Prints one line per figure.

use dsm_transport::{Class, Endpoint, EndpointConfig, Event, FaultPlan, Nanos};
use dsm_wire::{Epoch, Era, GrantContent, Line, Message, NodeId, PAGE_BYTES, PageNumber, RequestId, Rights, SpaceId};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

const WARM_UP: usize = 500;
const STREAM_GRANTS: u64 = 4_000;

struct Options {
    mtu: u16,
    count: usize,
}

fn main() -> ExitCode {
    let mut options = Options { mtu: 9000, count: 20_000 };
    let mut arguments = std::env::args().skip(1);
    while let (Some(name), Some(value)) = (arguments.next(), arguments.next()) {
        match (name.as_str(), value.parse::<u32>()) {
            ("--mtu", Ok(value)) => options.mtu = value as u16,
            ("--count", Ok(value)) => options.count = value as usize,
            _ => {
                eprintln!("usage: pingpong [--mtu BYTES] [--count SAMPLES], not {name} {value}");
                return ExitCode::from(2);
            }
        }
    }
    for (cores, label) in [([0, 0], "one core"), ([0, 1], "two cores")] {
        let floor = bare(cores, options.count);
        report(&format!("blocking UDP, {label}"), &floor, None);
        let mut endpoint = through_endpoints(cores, &options);
        report(&format!("endpoints, {label}"), &endpoint.round_trips, Some(floor[floor.len() / 2]));
        endpoint.stream.sort_unstable();
        report(
            &format!("endpoints, {label}, during the stream"),
            &endpoint.stream,
            Some(endpoint.round_trips[endpoint.round_trips.len() / 2]),
        );
        println!(
            "endpoints, {label}: stream of 16-page grants {:.2} GB/s, {:.2} us of processor a page; {:.2} us a single round trip",
            endpoint.stream_gigabytes, endpoint.stream_cpu_us, endpoint.round_trip_cpu_us
        );
    }
    ExitCode::SUCCESS
}

fn report(what: &str, sorted: &[u64], floor: Option<u64>) {
    if sorted.is_empty() {
        println!("{what}: no samples");
        return;
    }
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
    let ratio =
        floor.map_or(String::new(), |floor| format!(", p50 x{:.2} of the line above it", at(0.5) * 1000.0 / floor as f64));
    println!(
        "{what}: p50 {:.1} us, p99 {:.1}, p99.9 {:.1}, max {:.1}, {} samples{ratio}",
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
        sorted.len()
    );
}

fn pin(core: usize) {
    // taskset of this thread, without unsafe: the kernel takes it through the shell tool.
    let thread = std::fs::read_link("/proc/thread-self").ok().and_then(|link| link.file_name().map(std::ffi::OsStr::to_owned));
    let Some(thread) = thread else { return };
    let status = std::process::Command::new("taskset").arg("--pid").arg("--cpu-list").arg(core.to_string()).arg(thread).output();
    if !status.is_ok_and(|output| output.status.success()) {
        eprintln!("not pinned to core {core}: no taskset");
    }
}

fn bare(cores: [usize; 2], count: usize) -> Vec<u64> {
    let bind = || UdpSocket::bind("127.0.0.1:0").expect("loopback socket");
    let (client, server) = (bind(), bind());
    let (client_at, server_at) = (client.local_addr().expect("bound"), server.local_addr().expect("bound"));
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let owner = std::thread::spawn(move || {
        pin(cores[1]);
        server.set_read_timeout(Some(Duration::from_millis(200))).expect("timeout");
        let (mut request, reply) = ([0; 64], [7; 64 + PAGE_BYTES]);
        while !stopped.load(Ordering::Relaxed) {
            if server.recv(&mut request).is_ok() {
                server.send_to(&reply, client_at).expect("reply");
            }
        }
    });
    pin(cores[0]);
    std::thread::sleep(Duration::from_millis(50));
    let (request, mut reply) = ([1; 64], [0; 64 + PAGE_BYTES]);
    let mut samples = Vec::with_capacity(count);
    for round in 0..count + WARM_UP {
        let start = Instant::now();
        client.send_to(&request, server_at).expect("request");
        client.recv(&mut reply).expect("reply");
        if round >= WARM_UP {
            samples.push(start.elapsed().as_nanos() as u64);
        }
    }
    stop.store(true, Ordering::Relaxed);
    owner.join().expect("server ends");
    samples.sort_unstable();
    samples
}

struct Measured {
    round_trips: Vec<u64>,
    round_trip_cpu_us: f64,
    stream: Vec<u64>,
    stream_gigabytes: f64,
    stream_cpu_us: f64,
}

/// Processor time of all threads of this process, in microseconds: what a busy machine does not change.
fn cpu_us() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let spent = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok());
    spent.filter_map(|line| line.split(' ').next()?.parse::<f64>().ok()).sum::<f64>() / 1000.0
}

type Addresses = (SocketAddr, SocketAddr);

fn endpoint(me: u16, mtu: u16) -> Endpoint {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let (me, space, epoch) = (NodeId(me), SpaceId(1), Epoch(1));
    Endpoint::bind(EndpointConfig { me, space, epoch, cluster: 1, cluster_key: [5; 32], address, mtu, faults: FaultPlan::NONE })
        .expect("endpoint on the loopback address")
}

fn through_endpoints(cores: [usize; 2], options: &Options) -> Measured {
    let (mut asker, owner) = (endpoint(0, options.mtu), endpoint(1, options.mtu));
    let (asker_at, owner_at) = (asker.listening(), owner.listening());
    let start = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let (ready, is_ready) = mpsc::channel();
    let server = std::thread::spawn(move || {
        pin(cores[1]);
        serve(owner, asker_at, start, &stopped, &ready);
    });
    pin(cores[0]);
    let clock = || Nanos(start.elapsed().as_nanos() as u64 + 1);
    asker.add_peer(clock(), NodeId(1), owner_at.0, owner_at.1).expect("peer");
    is_ready.recv().expect("server runs");
    std::thread::sleep(Duration::from_millis(50));
    let mut round_trips = Vec::with_capacity(options.count);
    let cpu_before = cpu_us();
    for round in 0..options.count + WARM_UP {
        let begun = Instant::now();
        ask(&mut asker, clock(), round as u64, 1);
        while !granted(&mut asker, &clock, 1, &mut 0) {}
        if round >= WARM_UP {
            round_trips.push(begun.elapsed().as_nanos() as u64);
        }
    }
    round_trips.sort_unstable();
    let cpu_between = cpu_us();
    let (stream, stream_gigabytes) = stream(&mut asker, &clock);
    let stream_cpu_us = (cpu_us() - cpu_between) / (STREAM_GRANTS * 16) as f64;
    let round_trip_cpu_us = (cpu_between - cpu_before) / (options.count + WARM_UP) as f64;
    stop.store(true, Ordering::Relaxed);
    server.join().expect("server ends");
    eprintln!("{:?}", asker.counters());
    Measured { round_trips, round_trip_cpu_us, stream, stream_gigabytes, stream_cpu_us }
}

/// Keeps two 16-page requests under way, and a one-page request besides, whose round trips are returned.
fn stream(asker: &mut Endpoint, clock: &impl Fn() -> Nanos) -> (Vec<u64>, f64) {
    let begun = Instant::now();
    let (mut asked, mut pages) = (2, 0);
    ask(asker, clock(), u64::MAX / 2, 16);
    ask(asker, clock(), u64::MAX / 2 + 1, 16);
    let mut samples = Vec::new();
    let mut single = Instant::now();
    ask(asker, clock(), 0, 1);
    let mut last_progress = Instant::now();
    while pages < STREAM_GRANTS * 16 {
        let before = pages;
        if granted(asker, clock, 1, &mut pages) {
            samples.push(single.elapsed().as_nanos() as u64);
            single = Instant::now();
            ask(asker, clock(), samples.len() as u64, 1);
        }
        if pages != before {
            last_progress = Instant::now();
        } else if last_progress.elapsed() > Duration::from_millis(20) {
            asked = pages / 16;
            last_progress = Instant::now();
        }
        while asked < STREAM_GRANTS && asked * 16 < pages + 32 {
            ask(asker, clock(), u64::MAX / 2 + asked, 16);
            asked += 1;
        }
    }
    let gigabytes = (pages * PAGE_BYTES as u64) as f64 / begun.elapsed().as_nanos() as f64;
    (samples, gigabytes)
}

fn ask(asker: &mut Endpoint, now: Nanos, id: u64, count: u16) {
    let message = Message::Request {
        request: RequestId(id),
        page: PageNumber(id % 4096),
        rights: Rights::Read,
        count,
        copy: None,
        line: Line::default(),
    };
    asker.send(now, NodeId(1), &message, &[], Class::Urgent).expect("one request at a time");
}

/// Waits once. Returns whether a one-page grant came; counts pages of others in `bulk_pages`.
fn granted(asker: &mut Endpoint, clock: &impl Fn() -> Nanos, singles: usize, bulk_pages: &mut u64) -> bool {
    let now = clock();
    asker.wait(now, Some(now.after(Duration::from_millis(5)))).expect("ring works");
    let mut came = 0;
    while let Some(event) = asker.next_event(now) {
        if let Event::Frame { message: Message::Grant { request, .. }, pages, .. } = event {
            if request.0 < u64::MAX / 2 { came += 1 } else { *bulk_pages += pages.len() as u64 }
        }
    }
    came >= singles
}

fn serve(mut owner: Endpoint, asker_at: Addresses, start: Instant, stop: &AtomicBool, ready: &mpsc::Sender<()>) {
    let clock = || Nanos(start.elapsed().as_nanos() as u64 + 1);
    owner.add_peer(clock(), NodeId(0), asker_at.0, asker_at.1).expect("peer");
    ready.send(()).expect("asker waits");
    let page = [9; PAGE_BYTES];
    let pages = [&page; 16];
    while !stop.load(Ordering::Relaxed) {
        let now = clock();
        owner.wait(now, Some(now.after(Duration::from_millis(100)))).expect("ring works");
        loop {
            let (from, request, page, count) = match owner.next_event(now) {
                Some(Event::Frame { from, message: Message::Request { request, page, count, .. }, .. }) => {
                    (from, request, page, count)
                }
                Some(_) => continue,
                None => break,
            };
            let content = GrantContent::Bytes;
            let grant = Message::Grant { request, page, rights: Rights::Read, era: Era(1), count, content };
            let class = if count == 1 { Class::Urgent } else { Class::Bulk };
            if owner.send(now, from, &grant, &pages[..usize::from(count)], class).is_err() {
                eprintln!("refused: the stream asks too much");
            }
        }
    }
}

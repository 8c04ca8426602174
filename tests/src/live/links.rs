//! The fast path where the hosts' links are not plain: native XDP that works, and several queues.
//!
//! Owns what is to be seen there from outside. Must not know how programs are attached.

use super::bed::Bed;
use super::case::{Case, Need};
use super::doctor::Report;
use super::failures::wait_for_start;
use super::fastpath::{attached, count, job, verdicts};
use anyhow::{Context, Result, bail, ensure};
use dvm_hosts::{User, kill_process, output_within};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::{Duration, Instant};

const HOSTS: usize = 3;
/// One more than hosts: the first is nobody's.
const QUEUES: usize = HOSTS + 1;
/// A queue by which so many frames came during a job is some peer's: only those of the control plane are fewer.
const FRAMES_LEAST: u64 = 100;
/// The host whose agent is killed.
const VICTIM: usize = 1;
/// What `status` says where both programs are attached.
const NATIVE: &str = "native XDP and TC";
const COMMAND_LATEST: Duration = Duration::from_secs(10);
const END_LATEST: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// Sends 64 bytes that are no frame to each of the ports.
const SPOIL: &str = "address=$1; shift; for port; do head -c 64 /dev/zero > /dev/udp/$address/$port; done";

/// All of them.
#[must_use]
pub fn cases() -> Vec<Case> {
    let case = |name: &str, run: fn(&mut Bed<'_>) -> Result<String>| {
        let needs = ["pigz", "gcc", "ip", "tc", "bash"].map(Need::Program);
        Case::new(format!("fast-path/{name}"), HOSTS, run).needs(&needs).with_fast_path("auto")
    };
    vec![
        case("native-xdp", native_xdp).with_native_xdp().harmful(),
        case("queues", queues).with_queues(QUEUES).harmful(),
        case("native-xdp-queues", native_xdp_queues).with_native_xdp().with_queues(QUEUES).harmful(),
    ]
}

/// Native XDP is kept on every host and does its part, goes with an agent that is killed, and comes again with the next.
fn native_xdp(bed: &mut Bed<'_>) -> Result<String> {
    all_native(bed)?;
    for host in 0..HOSTS {
        let report = Report::of_host(bed, host, &[])?;
        report.demand("xdp-native", true, "eth0")?;
        report.demand("xdp-foreign", true, "no other")?;
        report.demand("tc-foreign", true, "no other")?;
    }
    let said = native_verdicts(bed)?;
    let dropped = refused_and_killed(bed)?;
    bed.hosts.restart_agent(VICTIM, &[])?;
    all_native(bed)?;
    let again = native_verdicts(bed)?;
    Ok(format!("{said}, dropped {dropped}; after SIGKILL: {again}"))
}

/// Frames come by as many queues as there are peers, and are worked on by all processors.
fn queues(bed: &mut Bed<'_>) -> Result<String> {
    for host in 0..HOSTS {
        bed.hosts.spread_receiving(host)?;
    }
    attached(bed)?;
    let before = verdicts(bed)?;
    let used = each_peer_by_its_queue(bed)?;
    let after = verdicts(bed)?;
    for (host, (after, before)) in after.iter().zip(&before).enumerate() {
        let more = |name: &str| count(after, name) - count(before, name);
        let answered = more("serve") + more("forward") + more("counted") + more("pong");
        ensure!(answered > 0, "the kernel of host {host} answered nothing: {after}");
    }
    let served: u64 = after.iter().zip(&before).map(|(after, before)| count(after, "serve") - count(before, "serve")).sum();
    ensure!(served > 0, "the kernel served nothing; verdicts of the first host: {}", after[0]);
    Ok(format!("served {served}; frames by queue: {used}"))
}

/// The same with native XDP, which each queue runs by itself.
fn native_xdp_queues(bed: &mut Bed<'_>) -> Result<String> {
    all_native(bed)?;
    let before = verdicts(bed)?;
    let used = each_peer_by_its_queue(bed)?;
    Ok(format!("{}; frames by queue: {used}", native_work(&before, &verdicts(bed)?)?))
}

/// Runs a job; demands that every host got frames by as many queues as it has peers. Says how many.
fn each_peer_by_its_queue(bed: &mut Bed<'_>) -> Result<String> {
    let frames = |bed: &Bed<'_>| (0..HOSTS).map(|host| Ok(bed.hosts.frames_by_queue(host)?)).collect::<Result<Vec<_>>>();
    let before = frames(bed)?;
    job(bed)?;
    let after = frames(bed)?;
    let mut said = Vec::new();
    for (host, (after, before)) in after.iter().zip(&before).enumerate() {
        ensure!(after.len() == QUEUES && before.len() == QUEUES, "host {host} has {} queues", after.len());
        let more: Vec<u64> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        let used = more.iter().filter(|frames| **frames >= FRAMES_LEAST).count();
        ensure!(used >= HOSTS - 1, "host {host} got frames {more:?} by its queues: not by one for each peer");
        said.push(format!("{more:?}"));
    }
    Ok(said.join(" "))
}

/// Runs a job; demands that the XDP programs took part.
fn native_verdicts(bed: &mut Bed<'_>) -> Result<String> {
    let before = verdicts(bed)?;
    job(bed)?;
    native_work(&before, &verdicts(bed)?)
}

/// Verdicts of XDP programs between two looks: they answer heartbeats and count acknowledgements, since they see frames first, and leave
/// for later what only TC can do.
fn native_work(before: &[Value], after: &[Value]) -> Result<String> {
    let more = |name: &str| after.iter().zip(before).map(|(after, before)| count(after, name) - count(before, name)).sum::<u64>();
    let names = ["pong", "counted", "pass_later", "serve"];
    for name in names {
        ensure!(more(name) > 0, "no verdict `{name}`; of the first host: {}", after[0]);
    }
    Ok(names.map(|name| format!("{name} {}", more(name))).join(", "))
}

/// While a program runs everywhere, sends a host what is no frame, then kills its agent; demands that the first is dropped and that the
/// second leaves nothing attached. Says how many were dropped.
fn refused_and_killed(bed: &mut Bed<'_>) -> Result<u64> {
    let running = wait_for_start(bed.job("endless", &["6", "60"])?.options(["--place", "rr"]).start(bed.hosts)?)?;
    let dropped = |bed: &Bed<'_>| {
        let verdicts = verdicts(bed)?;
        let of = verdicts[VICTIM].as_object().context("no verdicts")?;
        let of = of.iter().filter(|(name, _)| name.starts_with("drop_")).filter_map(|(_, count)| count.as_u64());
        Ok::<u64, anyhow::Error>(of.sum())
    };
    let before = dropped(bed)?;
    spoil(bed)?;
    let more = dropped(bed)? - before;
    ensure!(more > 0, "nothing was dropped");
    let (link, programs) = on_interface(bed)?;
    ensure!(link.contains("xdp") && programs == "1", "{programs} TC programs, and {link}");
    kill_process(bed.hosts.agent(VICTIM)?.context("no agent to kill")?.pid);
    let latest = Instant::now() + END_LATEST;
    loop {
        let (link, programs) = on_interface(bed)?;
        if !link.contains("xdp") && programs == "0" {
            break;
        }
        ensure!(Instant::now() < latest, "left behind by the agent: {programs} TC programs, and {link}");
        sleep(POLL);
    }
    let finished = running.wait(latest, &AtomicBool::new(false))?;
    ensure!(finished.code().is_some(), "the job does not end without its agent");
    Ok(more)
}

/// Demands that the ladder of every host ended at its top.
fn all_native(bed: &Bed<'_>) -> Result<()> {
    attached(bed)?;
    for host in 0..HOSTS {
        let status = bed.hosts.status(host)?.context("an agent does not answer")?;
        let path = status.get("fast_path").cloned().unwrap_or_default();
        let reasons = path.get("reasons").and_then(Value::as_array).map_or(0, Vec::len);
        let is_native = path.get("attached").and_then(Value::as_str) == Some(NATIVE);
        ensure!(is_native && reasons == 0, "host {host}: not `{NATIVE}`: {path}");
    }
    Ok(())
}

/// Sends what is no frame to each UDP port of the victim.
fn spoil(bed: &Bed<'_>) -> Result<()> {
    let mut command = bed.hosts.command(VICTIM, User::Root, Path::new("/bin/cat"))?;
    let output = output_within(command.arg("/proc/net/udp"), COMMAND_LATEST)?;
    // `sl: address:port ...`, hexadecimal.
    let port = |line: &str| u16::from_str_radix(line.split_whitespace().nth(1)?.split_once(':')?.1, 16).ok();
    let ports: BTreeSet<u16> = String::from_utf8_lossy(&output.stdout).lines().skip(1).filter_map(port).collect();
    ensure!(!ports.is_empty(), "the agent has no UDP port");
    let mut command = bed.hosts.command(0, User::Root, Path::new("/bin/bash"))?;
    command.args(["-c", SPOIL, "bash", &bed.hosts.host(VICTIM)?.address]).args(ports.iter().map(ToString::to_string));
    let output = output_within(&mut command, COMMAND_LATEST)?;
    ensure!(output.status.success(), "cannot send: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

/// What `ip` says of the victim's interface, and how many TC programs are there.
fn on_interface(bed: &Bed<'_>) -> Result<(String, String)> {
    let tcx = bed.workshop.program("tcx")?;
    let said = |program: &Path, words: &[&str]| {
        let mut command = bed.hosts.command(VICTIM, User::Root, program)?;
        let output = output_within(command.args(words), COMMAND_LATEST)?;
        if !output.status.success() {
            bail!("{}: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    Ok((said(Path::new("ip"), &["link", "show", "dev", "eth0"])?, said(&tcx, &["count", "eth0"])?))
}

//! Membership on a real etcd: hosts join, are drained, die, are cut off; etcd itself goes and comes back.
//!
//! Owns what jobs, agents and operators must see of it. Must not know how agents speak to etcd.

mod kills;
mod runners;
mod server;

use super::bed::{Bed, same_bytes, shortened};
use super::case::{Case, Need};
use super::failures::{HOST_LOST, wait_for_start};
use anyhow::{Context, Result, ensure};
use dvm_hosts::{Finished, Job, User, kill_process, output_within, wait_within};
use server::{Etcd, LEASE, names};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::thread::sleep;
use std::time::{Duration, Instant};

const HOSTS: usize = 3;
/// Exit codes of the guide.
const MEMBERSHIP: i32 = 26;
const DRAIN: i32 = 27;
const DRAINING: i32 = 28;
const HOST_DRAINING: i32 = 91;
/// Beyond the lease, for etcd to strike a host out and for the others to hear of it: etcd looks twice a second, and grants no lease
/// shorter than its own election takes.
const SLACK: Duration = Duration::from_secs(3);
/// How long etcd is away.
const AWAY: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_secs(20);
const JOB_LATEST: Duration = Duration::from_secs(90);
/// Between "running" and what happens then, so that pages are on their way.
const SETTLE: Duration = Duration::from_millis(400);
const CUT: &str = "table inet cut { chain out { type filter hook output priority 0; tcp dport 2379 drop; }; }";
const ORDINARY: u32 = 4711;

/// All of them.
#[must_use]
pub fn cases() -> Vec<Case> {
    let case = |name: &str, run: fn(&mut Bed<'_>) -> Result<String>| {
        let needs = ["etcd", "etcdctl", "gcc", "nft", "openssl", "pigz"].map(Need::Program);
        Case::new(format!("etcd/{name}"), HOSTS, run).needs(&needs).within_seconds(200).harmful()
    };
    let mut cases = vec![
        case("join-and-drain", join_and_drain),
        case("killed", killed),
        case("cut-off", cut_off),
        case("away", away),
        case("refusals", refusals),
        case("tls-and-login", tls_and_login),
        case("disa-root-killed", runners::root_killed),
        case("disa-backup-killed", runners::backup_killed),
    ];
    for (name, program) in [("kmeans", kills::KMEANS), ("wordcount", kills::WORD_COUNT)] {
        let run = move |bed: &mut Bed<'_>| kills::kill_any(bed, program);
        let needs = ["etcd", "etcdctl"].map(Need::Program);
        cases.push(Case::new(format!("etcd/disa-any-killed-{name}"), HOSTS, run).needs(&needs).within_seconds(200).harmful());
    }
    cases
}

/// A host that no list names takes part in new jobs; one that is drained ends its part, takes no other, and leaves.
fn join_and_drain(bed: &mut Bed<'_>) -> Result<String> {
    let bed = &*bed;
    let etcd = Etcd::new(bed, false)?;
    start(bed, &etcd, &[0, 1])?;
    let first = job(bed, "endless", &["4", "6"])?.start(bed.hosts)?;
    let first = wait_for_start(first)?;
    start(bed, &etcd, &[2])?;
    let hosts = crowd(bed)?;
    ensure!(hosts == ["h0", "h1", "h2"], "a new job runs on {hosts:?}");
    let first = ended(first.wait(Instant::now() + JOB_LATEST, &AtomicBool::new(false))?)?;
    ensure!(worked(&first) == ["h0", "h1"], "the job that ran before runs on {:?}", worked(&first));

    let sample = bed.workshop.sample(48)?;
    let packing = job(bed, "pigz", &["-p", "6", "-n", "-c"])?.arguments([sample.as_os_str()]);
    let expected = bed.workshop.native("etcd-pigz", &packing)?;
    let packing = packing.start(bed.hosts)?;
    etcd.until("the job is in the space table", SOON, || {
        Ok(etcd.status(2)?["membership"]["spaces"].to_string().contains("pigz"))
    })?;
    sleep(SETTLE);
    let late = output_within(&mut etcd.ask(0, &["drain", "h1", "--wait", "0"])?, SOON)?;
    let said = String::from_utf8_lossy(&late.stdout).into_owned();
    ensure!(late.status.code() == Some(DRAINING), "{:?}: {}", late.status, String::from_utf8_lossy(&late.stderr));
    ensure!(said.contains("h1 takes no new jobs") && said.contains("pigz` on h0, h1, h2"), "{said}");
    let mut waiting = etcd.ask(0, &["drain", "h1", "--wait", "80"])?.stdout(Stdio::null()).spawn()?;
    etcd.until("all know that h1 is drained", SOON, || {
        let told = |index| names(&etcd.status(index)?["membership"]["draining"]);
        Ok((0..HOSTS).map(told).collect::<Result<Vec<_>>>()?.iter().all(|draining| draining == &["h1"]))
    })?;
    let hosts = crowd(bed)?;
    ensure!(hosts == ["h0", "h2"], "a job started while h1 is drained runs on {hosts:?}");
    let named = job(bed, "adversity", &["crowd", "6"])?.options(["--hosts", "h1"]).run(bed.hosts, Instant::now() + JOB_LATEST)?;
    ensure!(
        named.code() == Some(HOST_DRAINING) && named.stderr.contains("host h1 is being drained"),
        "{}",
        shortened(&named.stderr)
    );
    let packing = ended(packing.wait(Instant::now() + JOB_LATEST, &AtomicBool::new(false))?)?;
    same_bytes(&expected, &packing.stdout)?;
    ensure!(worked(&packing) == ["h0", "h1", "h2"], "the job that was drained ran on {:?}", worked(&packing));
    ensure!(wait_within(&mut waiting, SOON)?.success(), "the drained host did not leave");
    etcd.until("the agent of h1 has ended", SOON, || Ok(bed.hosts.agent(1)?.is_none()))?;
    ensure!(etcd.members(0)? == ["h0", "h2"], "{:?}", etcd.members(0)?);
    start(bed, &etcd, &[1])?;
    let undone = output_within(&mut etcd.ask(1, &["drain", "h1", "--undo"])?, SOON)?;
    ensure!(undone.status.code() == Some(DRAIN), "h1 came back as if it were still drained");
    ensure!(crowd(bed)?.len() == HOSTS, "the host that came back takes no jobs");
    Ok(format!("{:.1} s of pigz with h1 drained meanwhile, output as natively", packing.elapsed.as_secs_f64()))
}

/// An agent that is killed ends its jobs at once and is no member any more when its lease has run out.
fn killed(bed: &mut Bed<'_>) -> Result<String> {
    let bed = &*bed;
    let etcd = Etcd::new(bed, false)?;
    start(bed, &etcd, &[0, 1, 2])?;
    let running = wait_for_start(job(bed, "endless", &["6", "60"])?.start(bed.hosts)?)?;
    sleep(SETTLE);
    let struck = Instant::now();
    kill_process(bed.hosts.agent(2)?.context("no agent")?.pid);
    let finished = running.wait(struck + LEASE + SLACK, &AtomicBool::new(false))?;
    let over = struck.elapsed();
    lost(&finished, "h2")?;
    etcd.until("h2 is struck out", (LEASE + SLACK).saturating_sub(struck.elapsed()), || {
        Ok(etcd.members(0)? == ["h0", "h1"] && etcd.members(1)? == ["h0", "h1"])
    })?;
    let out = struck.elapsed();
    ensure!(crowd(bed)? == ["h0", "h1"], "jobs still want the dead host");
    start(bed, &etcd, &[2])?;
    ensure!(crowd(bed)?.len() == HOSTS, "the host that came back takes no jobs");
    // Its number is its own: it was not given to anybody else meanwhile.
    ensure!(etcd.status(2)?["number"] == 2, "{}", etcd.status(2)?["number"]);
    Ok(format!(
        "job over after {:.1} s, struck out after {:.1} s: {}",
        over.as_secs_f64(),
        out.as_secs_f64(),
        shortened(&finished.stderr)
    ))
}

/// A host that etcd alone cannot hear loses its lease: the others end its jobs, and so does it once it hears of that.
fn cut_off(bed: &mut Bed<'_>) -> Result<String> {
    let bed = &*bed;
    let etcd = Etcd::new(bed, false)?;
    start(bed, &etcd, &[0, 1, 2])?;
    let running = wait_for_start(job(bed, "endless", &["6", "60"])?.start(bed.hosts)?)?;
    let mut own = job(bed, "endless", &["2", "60"])?.options(["--hosts", "h2"]);
    own.root = 2;
    let own = wait_for_start(own.start(bed.hosts)?)?;
    sleep(SETTLE);
    nft(bed, 2, CUT)?;
    let struck = Instant::now();
    let finished = running.wait(struck + 2 * LEASE + SLACK, &AtomicBool::new(false))?;
    let over = struck.elapsed();
    lost(&finished, "h2")?;
    ensure!(finished.stderr.contains("lease ran out"), "{}", shortened(&finished.stderr));
    etcd.until("h2 is struck out", SOON, || Ok(etcd.members(0)? == ["h0", "h1"]))?;
    ensure!(crowd(bed)? == ["h0", "h1"], "jobs still want the host that is cut off");
    nft(bed, 2, "delete table inet cut")?;
    let finished = own.wait(Instant::now() + SOON, &AtomicBool::new(false))?;
    lost(&finished, "h2")?;
    ensure!(finished.stderr.contains("its lease of 3 s at etcd ran out"), "{}", shortened(&finished.stderr));
    see_all(bed, &etcd)?;
    ensure!(etcd.status(2)?["counters"]["fenced"] == 1, "h2 was not fenced once");
    ensure!(crowd(bed)?.len() == HOSTS, "the host that came back takes no jobs");
    Ok(format!("given up after {:.1} s; it says: {}", over.as_secs_f64(), shortened(&finished.stderr)))
}

/// etcd is killed and comes back with what it had written: jobs go on, new ones start, nobody is lost.
fn away(bed: &mut Bed<'_>) -> Result<String> {
    let bed = &*bed;
    let mut etcd = Etcd::new(bed, false)?;
    start(bed, &etcd, &[0, 1, 2])?;
    let agents = agents(bed)?;
    let running = wait_for_start(job(bed, "endless", &["6", "18"])?.start(bed.hosts)?)?;
    sleep(SETTLE);
    let gone = Instant::now();
    etcd.stop()?;
    etcd.until("all agents notice", AWAY, || {
        Ok((0..HOSTS)
            .map(|index| etcd.status(index))
            .collect::<Result<Vec<_>>>()?
            .iter()
            .all(|status| status["membership"]["trouble"].is_string()))
    })?;
    ensure!(crowd(bed)?.len() == HOSTS, "a job started meanwhile does not run on all hosts");
    let refused = output_within(&mut etcd.ask(0, &["drain", "h1"])?, SOON)?;
    ensure!(refused.status.code() == Some(DRAIN), "{:?}", refused.status);
    sleep(AWAY.saturating_sub(gone.elapsed()));
    ensure!(etcd.members(0)?.len() == HOSTS, "a host was struck out while etcd was away: {:?}", etcd.members(0)?);
    etcd.start()?;
    let back = etcd.until("all agents follow again", SOON, || {
        Ok((0..HOSTS)
            .map(|index| etcd.status(index))
            .collect::<Result<Vec<_>>>()?
            .iter()
            .all(|status| status["membership"]["trouble"].is_null()))
    })?;
    // Longer than a lease: whoever did not go on with it would be struck out by now.
    sleep(LEASE + SLACK);
    let finished = ended(running.wait(Instant::now() + JOB_LATEST, &AtomicBool::new(false))?)?;
    ensure!(worked(&finished).len() == HOSTS, "the job ran on {:?}", worked(&finished));
    for index in 0..HOSTS {
        let status = etcd.status(index)?;
        ensure!(
            status["counters"]["fenced"] == 0 && status["counters"]["links_lost"] == 0,
            "host {index}: {}",
            status["counters"]
        );
        ensure!(names(&status["membership"]["hosts"])?.len() == HOSTS, "host {index}: {}", status["membership"]);
        ensure!(status["membership"]["spaces"].as_object().is_some_and(serde_json::Map::is_empty), "{}", status["membership"]);
    }
    ensure!(self::agents(bed)? == agents, "agents were started again");
    ensure!(crowd(bed)?.len() == HOSTS, "the next job does not run on all hosts");
    Ok(format!("away for {} s, followed again {:.1} s after its return", AWAY.as_secs(), back.as_secs_f64()))
}

/// Each cause has its exit code and says what to do.
fn refusals(bed: &mut Bed<'_>) -> Result<String> {
    let bed = &*bed;
    let etcd = Etcd::new(bed, false)?;
    start(bed, &etcd, &[0])?;
    let refused = |what: &str, words: &[&str]| {
        let output = etcd.refused_agent(1)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(MEMBERSHIP), "{what}: {:?} {said}", output.status);
        words.iter().try_for_each(|word| {
            ensure!(said.contains(word), "{what}: `{word}` is not said: {said}");
            Ok(())
        })
    };
    let node = bed.hosts.host(1)?.directory.join("node.toml");
    let good = std::fs::read_to_string(&node)?;
    std::fs::write(&node, good.replace("\"h1\"", "\"h0\""))?;
    refused("another host's name", &["a host called h0 is at 10.77.0.1:7400 already", "node.toml"])?;
    std::fs::write(&node, good)?;
    for (words, code, text) in [
        (&["drain", "h7"][..], DRAIN, "no host h7 in the cluster (h0)"),
        (&["drain", "h0", "--undo"], DRAIN, "h0 is not being drained"),
    ] {
        let output = output_within(&mut etcd.ask(0, words)?, SOON)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(code) && said.contains(text), "{words:?}: {:?} {said}", output.status);
    }
    let mut command = bed.hosts.command(0, User::Ordinary(ORDINARY), &bed.hosts.binaries().agent)?;
    let output = output_within(command.args(["drain", "--self", "--socket"]).arg(&bed.hosts.host(0)?.socket), SOON)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(DRAIN) && said.contains("only root may drain"), "{:?} {said}", output.status);
    login(&etcd)?;
    refused("no login", &["it wants a user", "password_file"])?;
    let password = etcd.secret("wrong", "swordfish\n")?;
    etcd.configure(1, &format!("user = \"agents\"\npassword_file = \"{}\"", password.display()), "")?;
    refused("a wrong password", &["it refuses user `agents`", "correct user and password_file"])?;
    let password = etcd.secret("right", "correct horse\n")?;
    etcd.configure(1, &format!("user = \"strangers\"\npassword_file = \"{}\"", password.display()), "")?;
    refused("no rights", &["user `strangers` lacks rights", "below /dvm/"])?;
    Ok("seven causes, each with what to do".to_owned())
}

/// Agents with certificates and a password form a cluster as others do.
fn tls_and_login(bed: &mut Bed<'_>) -> Result<String> {
    let bed = &*bed;
    let etcd = Etcd::new(bed, true)?;
    login(&etcd)?;
    let password = etcd.secret("right", "correct horse\n")?;
    for index in 0..HOSTS {
        etcd.configure(index, &format!("user = \"agents\"\npassword_file = \"{}\"", password.display()), "")?;
    }
    start(bed, &etcd, &[0, 1, 2])?;
    ensure!(crowd(bed)?.len() == HOSTS, "the job does not run on all hosts");
    sleep(LEASE + SLACK);
    ensure!(etcd.members(2)?.len() == HOSTS, "a lease was not kept: {:?}", etcd.members(2)?);
    let rows = etcd.control(&["--user", "root:correct horse", "get", "--prefix", "--keys-only", "/dvm/live/live/"])?;
    ensure!(rows.split_whitespace().count() == HOSTS, "{rows}");
    Ok("three hosts over TLS, with a user that may only see /dvm/".to_owned())
}

/// Two users, of whom one may read and write below /dvm/; then etcd wants a password.
fn login(etcd: &Etcd<'_>) -> Result<()> {
    for words in [
        &["user", "add", "root:correct horse"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "dvm"],
        &["role", "grant-permission", "dvm", "readwrite", "--prefix", "/dvm/"],
        &["user", "add", "agents:correct horse"],
        &["user", "add", "strangers:correct horse"],
        &["user", "grant-role", "agents", "dvm"],
        &["auth", "enable"],
    ] {
        etcd.control(words)?;
    }
    Ok(())
}

/// Starts agents and waits until all that run see each other.
fn start(bed: &Bed<'_>, etcd: &Etcd<'_>, indices: &[usize]) -> Result<()> {
    for index in indices {
        bed.hosts.restart_agent(*index, &[])?;
    }
    see_all(bed, etcd)
}

/// Until every agent that runs sees all others that do.
fn see_all(bed: &Bed<'_>, etcd: &Etcd<'_>) -> Result<()> {
    let mut up = Vec::new();
    for index in 0..HOSTS {
        if bed.hosts.agent(index)?.is_some() {
            up.push(index);
        }
    }
    etcd.until("all agents see each other", SOON, || {
        let sees = |index: &usize| {
            let status = etcd.status(*index)?;
            let peers = status["peers"].as_array().context("no peers")?;
            Ok(peers.len() + 1 == up.len() && peers.iter().all(|peer| peer["up"] == true))
        };
        Ok(up.iter().map(sees).collect::<Result<Vec<bool>>>()?.into_iter().all(|sees| sees))
    })
    .map(drop)
}

fn agents(bed: &Bed<'_>) -> Result<Vec<i32>> {
    (0..HOSTS).map(|index| Ok(bed.hosts.agent(index)?.context("no agent")?.pid)).collect()
}

fn job(bed: &Bed<'_>, program: &str, arguments: &[&str]) -> Result<Job> {
    let job = Job::new(bed.workshop.program(program)?, bed.workshop.job_directory());
    Ok(job.arguments(arguments.iter().copied()).options(["--place", "rr"]))
}

/// The hosts on which a short job of six threads runs.
fn crowd(bed: &Bed<'_>) -> Result<Vec<String>> {
    let finished = ended(job(bed, "adversity", &["crowd", "6"])?.run(bed.hosts, Instant::now() + JOB_LATEST)?)?;
    Ok(worked(&finished))
}

/// Demands that a job ended well.
fn ended(finished: Finished) -> Result<Finished> {
    ensure!(finished.code() == Some(0), "exit code {:?}; stderr: {}", finished.code(), shortened(&finished.stderr));
    Ok(finished)
}

/// The hosts of a job that had threads.
fn worked(finished: &Finished) -> Vec<String> {
    let hosts = finished.statistics.iter().flat_map(|statistics| &statistics.hosts);
    hosts.filter(|host| host.threads > 0).map(|host| host.host.clone()).collect()
}

/// Demands the end of a job that lost a host, and that it is named.
fn lost(finished: &Finished, name: &str) -> Result<()> {
    let said = shortened(&finished.stderr);
    ensure!(finished.code() == Some(HOST_LOST), "exit code {:?} instead of {HOST_LOST}; stderr: {said}", finished.code());
    ensure!(said.contains(name), "the message does not name {name}: {said}");
    Ok(())
}

fn nft(bed: &Bed<'_>, index: usize, rules: &str) -> Result<()> {
    let mut command = bed.hosts.command(index, User::Root, Path::new("nft"))?;
    let output = output_within(command.arg(rules), SOON)?;
    ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

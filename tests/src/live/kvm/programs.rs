//! Programs of the kit over hosts: a service with a disk, a computation, more memory than one host gives.
//!
//! Owns what they must answer.

use super::{LATEST, command, disk, image, run};
use crate::live::bed::{Bed, shortened};
use crate::live::case::Case;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// Hash of the centroids, as `dvm-exec/disa/programs/kmeans.dc` has it.
const CENTROIDS: &str = "50bad9aa63f0251f\n";
/// Keys of the service; enough for each processor to have some.
const KEYS: usize = 24;
/// `memory` of each host.
const LIMIT: &str = "64M";

/// The cases.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (console, words) in [("serial", &[][..]), ("virtio", &["virtio"][..])] {
        let local = move |bed: &mut Bed<'_>| service(bed, &["--local", "--cpus", "2", "--console", console], words, 2);
        cases.push(Case::new(format!("kvm/kv-local-{console}"), 2, local));
        let over = move |bed: &mut Bed<'_>| service(bed, &["--cpus", "3", "--console", console], words, 3);
        cases.push(Case::new(format!("kvm/kv-3-{console}"), 3, over).within_seconds(180));
    }
    cases.push(Case::new("kvm/kmeans-local", 2, |bed| kmeans(bed, &["--local", "--cpus", "2"])).within_seconds(180));
    for (hosts, cpus) in [(2, "2"), (3, "3")] {
        let over = move |bed: &mut Bed<'_>| kmeans(bed, &["--cpus", cpus]);
        cases.push(Case::new(format!("kvm/kmeans-{hosts}"), hosts, over).within_seconds(180));
    }
    for (hosts, memory, filled) in [(2, "128M", "96"), (3, "192M", "144")] {
        let name = format!("kvm/larger-than-one-host-{hosts}");
        let case = Case::new(name, hosts, move |bed| larger(bed, hosts, memory, filled));
        cases.push(case.with_memory(LIMIT).within_seconds(180));
    }
    cases
}

/// What the service says to these commands.
fn conversation(bed: &Bed<'_>, options: &[&str], words: &[&str], typed: String) -> Result<String> {
    let mut command = command(bed, options, &image("kv")?, words)?;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    std::thread::spawn(move || stdin.write_all(typed.as_bytes()));
    let (is_over, told) = std::sync::mpsc::channel();
    let pid = child.id();
    std::thread::spawn(move || {
        if told.recv_timeout(LATEST).is_err() {
            dvm_hosts::kill_process(pid as i32);
        }
    });
    let output = child.wait_with_output()?;
    // Who watches may be gone.
    is_over.send(()).unwrap_or(());
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(0), "status {:?}: {}{}", output.status.code(), shortened(&said), shortened(&told));
    Ok(said.into_owned())
}

/// What is put is there, also for the next guest with that disk, and every processor serves some of it.
fn service(bed: &mut Bed<'_>, options: &[&str], words: &[&str], cpus: usize) -> Result<String> {
    let disk = disk(bed, "kvm-kv")?;
    let options = [options, &["--disk", &disk]].concat();
    let all = |form: &dyn Fn(usize) -> String| (0..KEYS).map(form).collect::<String>();
    let puts = all(&|key| format!("put key{key} value-{key}\n"));
    let said = conversation(bed, &options, words, format!("{puts}del key3\nget key3\nget key4\ncount\nbad words\nend\n"))?;
    let answers: Vec<&str> = said.lines().collect();
    ensure!(answers.first() == Some(&"kv: ready") && answers.len() == KEYS + 6, "{said}");
    ensure!(answers[1..=KEYS].iter().all(|answer| answer.ends_with(" ok")), "{said}");
    for cpu in 0..cpus {
        ensure!(answers[1..=KEYS].contains(&format!("{cpu} ok").as_str()), "no key belongs to processor {cpu}: {said}");
    }
    let rest: Vec<&str> = answers[KEYS + 1..].iter().map(|answer| answer.split_once(' ').map_or("", |(_, rest)| rest)).collect();
    let count = format!("count {}", KEYS - 1);
    ensure!(rest[..4] == ["ok", "none", "value value-4", &count] && rest[4].starts_with("error "), "{said}");
    let gets = all(&|key| format!("get key{key}\n"));
    let again = conversation(bed, &options, words, format!("{gets}count\nend\n"))?;
    for (key, answer) in again.lines().skip(1).take(KEYS).enumerate() {
        let wanted = if key == 3 { " none".to_owned() } else { format!(" value value-{key}") };
        ensure!(answer.ends_with(&wanted), "key {key}: {again}");
    }
    ensure!(again.ends_with(&format!("0 {count}\n")), "{again}");
    Ok(format!("{} answers of {cpus} processors", answers.len() + again.lines().count()))
}

/// The same centroids as everywhere else.
fn kmeans(bed: &mut Bed<'_>, options: &[&str]) -> Result<String> {
    let started = Instant::now();
    let output = run(bed, &[options, &["--mem", "128M"]].concat(), &image("kmeans")?, &[])?;
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(0), "status {:?}: {}{}", output.status.code(), shortened(&said), shortened(&told));
    ensure!(said.ends_with(CENTROIDS), "{said}");
    Ok(format!("{:.1} s, {}", started.elapsed().as_secs_f64(), said.lines().next().unwrap_or_default()))
}

/// A guest fills more than one host has room for, and no host takes more than its limit.
fn larger(bed: &mut Bed<'_>, hosts: usize, memory: &str, filled: &str) -> Result<String> {
    const LIMIT_BYTES: u64 = 64 << 20;
    const ABOVE_PERCENT: u64 = 5;
    let image = image("fill")?;
    let mut most = vec![0; hosts];
    let options = ["--cpus", &hosts.to_string(), "--mem", memory];
    let output = std::thread::scope(|scope| -> Result<_> {
        let running = scope.spawn(|| run(bed, &options, &image, &[filled]));
        while !running.is_finished() {
            for (index, most) in most.iter_mut().enumerate() {
                let status = bed.hosts.status(index)?.context("an agent does not answer")?;
                let used = status.pointer("/memory/used_bytes").and_then(Value::as_u64).context("no memory in the status")?;
                *most = used.max(*most);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        running.join().map_err(|_| anyhow::anyhow!("the thread that ran it panicked"))?
    })?;
    let (said, told) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(0), "status {:?}: {}{}", output.status.code(), shortened(&said), shortened(&told));
    ensure!(said.contains(&format!("{filled} MiB, 0 words wrong")), "{said}");
    let limit = LIMIT_BYTES + LIMIT_BYTES / 100 * ABOVE_PERCENT;
    ensure!(most.iter().all(|used| *used <= limit), "the hosts took up to {most:?} bytes of {LIMIT_BYTES}");
    Ok(format!("up to {:?} MiB", most.iter().map(|used| used >> 20).collect::<Vec<_>>()))
}

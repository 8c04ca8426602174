//! Hosts on which the fast path cannot be had: doctor says so, the agent's status says why, and jobs run all the same.
//!
//! Owns the states a host is put into, and what is to be said of each. Must not know how doctor finds out.

use super::bed::{Bed, same_bytes, shortened};
use super::case::{Case, Lacking, Need};
use super::programs;
use anyhow::{Context, Result, bail, ensure};
use dvm_hosts::{User, kill_process, output_within};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The host that lacks something; jobs start here.
const HOST: usize = 0;
const COMMAND_LATEST: Duration = Duration::from_secs(20);
/// How long an agent may take until its ladder has ended.
const LADDER_LATEST: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);
/// Words before a command that is to run without what loading programs takes.
const WITHOUT_BPF: [&str; 2] = ["setpriv", "--bounding-set=-bpf,-sys_admin,-perfmon"];
/// An XDP program that passes all frames, as code for a machine that the assembler does not know.
const STRANGER: &str = r#"
.section xdp.frags, "ax", @progbits
.globl stranger
.type stranger, @function
stranger:
    .quad 0x00000002000000b7 # r0 = XDP_PASS
    .quad 0x0000000000000095 # return
.size stranger, . - stranger
.section license, "aw", @progbits
    .asciz "GPL"
"#;
/// Codes of a TC program: ask the next one, or take the frame in.
const TCX_NEXT: &str = "-1";
const TCX_PASS: &str = "0";
/// Where an ELF file says its machine, and the number of the BPF machine.
const ELF_MACHINE: std::ops::Range<usize> = 18..20;
const EM_BPF: u16 = 247;

/// One case per state.
#[must_use]
pub fn cases() -> Vec<Case> {
    let case = |name: &str, run: fn(&mut Bed<'_>) -> Result<String>| {
        Case::new(format!("doctor/{name}"), 2, run)
            .needs(&[Need::Program("pigz"), Need::Program("ip")])
            .harmful()
            .with_fast_path("auto")
    };
    vec![
        case("no-cap-bpf", no_cap_bpf).needs(&[Need::Program("setpriv")]),
        case("foreign-xdp", foreign_xdp).needs(&[Need::Program("gcc")]),
        case("foreign-tc", foreign_tc).needs(&[Need::Program("gcc")]),
        case("no-native-xdp", no_native_xdp),
    ]
}

/// The agent may not load programs.
fn no_cap_bpf(bed: &mut Bed<'_>) -> Result<String> {
    let report = Report::of(bed, &WITHOUT_BPF)?;
    report.demand("cap-bpf", false, "CAP_PERFMON, CAP_BPF")?;
    report.demand("fast-path-load", false, "not permitted")?;
    report.demand("xdp-native", true, "eth0")?;
    bed.hosts.restart_agent(HOST, &WITHOUT_BPF)?;
    let reason = ladder_end(bed, "none", "CAP_BPF")?;
    Ok(format!("{reason}; {}", small_job(bed)?))
}

/// Somebody else's XDP program is on the interface: a native one, then a generic one.
fn foreign_xdp(bed: &mut Bed<'_>) -> Result<String> {
    Report::of(bed, &[])?.demand("xdp-foreign", true, "no other")?;
    // While the agent tries native XDP, no stranger gets there.
    ladder_end(bed, "TC", "native XDP: no answer")?;
    let object = stranger(bed)?;
    let object = object.to_str().context("a path that is no UTF-8")?;
    let mut said = Vec::new();
    for (mode, rung) in [("xdpdrv", "TC"), ("xdpgeneric", "none")] {
        let attached = on_host(bed, &["ip", "link", "set", "dev", "eth0", mode, "obj", object, "sec", "xdp.frags"])?;
        ensure!(attached.is_none(), Lacking(format!("ip cannot attach an XDP program: {}", attached.unwrap_or_default())));
        let report = Report::of(bed, &[])?;
        report.demand("xdp-foreign", false, "name `stranger`, id ")?;
        report.demand("fast-path-load", true, "all programs")?;
        bed.hosts.restart_agent(HOST, &[])?;
        let reason = ladder_end(bed, rung, "name `stranger`, id ")?;
        said.push(format!("{mode}: {reason}; {}", small_job(bed)?));
        demand(bed, &["ip", "link", "set", "dev", "eth0", mode, "off"])?;
    }
    Ok(said.join("; "))
}

/// Somebody else's TC program is on the interface before ours: one that hands on every frame, then one that keeps them all.
fn foreign_tc(bed: &mut Bed<'_>) -> Result<String> {
    Report::of(bed, &[])?.demand("tc-foreign", true, "no other TC program")?;
    let mut said = Vec::new();
    for (code, rung, words) in
        [(TCX_NEXT, "TC", "native XDP: no answer"), (TCX_PASS, "generic XDP", "before it run `stranger` (id ")]
    {
        kill_process(bed.hosts.agent(HOST)?.context("no agent to kill")?.pid);
        let stranger = TcStranger::hold(bed, code)?;
        bed.hosts.restart_agent(HOST, &[])?;
        let reason = ladder_end(bed, rung, words)?;
        let report = Report::of(bed, &[])?;
        report.demand("tc-foreign", false, "name `stranger`, id ")?;
        report.demand("xdp-foreign", true, "no other")?;
        said.push(format!("code {code}: {reason}; {}", small_job(bed)?));
        drop(stranger);
        Report::of(bed, &[])?.demand("tc-foreign", true, "no other TC program")?;
    }
    Ok(said.join("; "))
}

/// A TC program on the host's interface, until dropped.
struct TcStranger(Child);

impl TcStranger {
    fn hold(bed: &Bed<'_>, code: &str) -> Result<Self> {
        let mut command = bed.hosts.command(HOST, User::Root, &bed.workshop.program("tcx")?)?;
        let child = command.args(["hold", "eth0", code]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut stranger = Self(child);
        let mut line = String::new();
        BufReader::new(stranger.0.stdout.take().context("no pipe")?).read_line(&mut line)?;
        if line.trim() != "attached" {
            let mut said = String::new();
            stranger.0.stderr.take().context("no pipe")?.read_to_string(&mut said)?;
            bail!(Lacking(format!("a TC program cannot be attached: {}", said.trim())));
        }
        Ok(stranger)
    }
}

impl Drop for TcStranger {
    fn drop(&mut self) {
        if self.0.kill().is_ok() {
            // Reaped, or gone by itself.
            self.0.wait().ok();
        }
    }
}

/// The agent's address is on an interface whose driver has no native XDP.
fn no_native_xdp(bed: &mut Bed<'_>) -> Result<String> {
    Report::of(bed, &[])?.demand("xdp-native", true, "eth0")?;
    let address = format!("{}/24", bed.hosts.host(HOST)?.address);
    // Only the interface that has the address answers for it; else the peer may learn the lower one's.
    demand(bed, &["sh", "-c", "echo 1 > /proc/sys/net/ipv4/conf/all/arp_ignore"])?;
    demand(bed, &["ip", "link", "add", "link", "eth0", "name", "upper0", "type", "macvlan", "mode", "bridge"])?;
    demand(bed, &["ip", "addr", "del", &address, "dev", "eth0"])?;
    demand(bed, &["ip", "addr", "add", &address, "dev", "upper0"])?;
    demand(bed, &["ip", "link", "set", "upper0", "up"])?;
    for host in 0..bed.hosts.hosts().len() {
        // The peer knows the old interface's Ethernet address.
        let mut command = bed.hosts.command(host, User::Root, Path::new("ip"))?;
        output_within(command.args(["neigh", "flush", "all"]), COMMAND_LATEST)?;
    }
    let report = Report::of(bed, &[])?;
    report.demand("xdp-native", false, "upper0: its driver has none (EOPNOTSUPP)")?;
    report.demand("xdp-foreign", true, "upper0")?;
    report.demand("tcx", true, "links")?;
    bed.hosts.restart_agent(HOST, &[])?;
    let reason = ladder_end(bed, "TC", "native XDP: EOPNOTSUPP")?;
    Ok(format!("{reason}; {}", small_job(bed)?))
}

/// What doctor says.
pub(super) struct Report {
    json: Value,
}

impl Report {
    /// Runs it on the host that lacks something, by these words before.
    fn of(bed: &Bed<'_>, before: &[&str]) -> Result<Self> {
        Self::of_host(bed, HOST, before)
    }

    /// Runs it on a host.
    pub(super) fn of_host(bed: &Bed<'_>, host: usize, before: &[&str]) -> Result<Self> {
        let directory = &bed.hosts.host(host)?.directory;
        let mut command = bed.hosts.command(host, User::Root, Path::new("/usr/bin/env"))?;
        command.args(before).arg(&bed.hosts.binaries().agent).args(["doctor", "--json", "--node"]);
        command.arg(directory.join("node.toml")).arg("--cluster").arg(directory.join("cluster.toml"));
        let output = output_within(&mut command, COMMAND_LATEST).context("dvm-agent doctor")?;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success(), "doctor finds the host unfit: {}", shortened(&stderr));
        let report = Self { json: serde_json::from_slice(&output.stdout).context("doctor's JSON")? };
        let object = report.check("fast-path-object")?;
        ensure!(object.0, Lacking(format!("the agent is built without the fast path: {}", object.1)));
        Ok(report)
    }

    /// Whether a check is ok, and what was found.
    fn check(&self, name: &str) -> Result<(bool, String)> {
        let checks = self.json.get("checks").and_then(Value::as_array).context("no checks")?;
        let is_it = |check: &&Value| check.get("name").and_then(Value::as_str) == Some(name);
        let check = checks.iter().find(is_it).with_context(|| format!("doctor has no check `{name}`"))?;
        let ok = check.get("ok").and_then(Value::as_bool).context("a check without `ok`")?;
        let text = |key| check.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        ensure!(check.get("required").and_then(Value::as_bool) == Some(false), "`{name}` is required");
        ensure!(ok == text("fix").is_empty(), "`{name}` is {ok}, its fix `{}`", text("fix"));
        Ok((ok, text("found")))
    }

    pub(super) fn demand(&self, name: &str, ok: bool, words: &str) -> Result<()> {
        let found = self.check(name)?;
        ensure!(found.0 == ok && found.1.contains(words), "{name}: {found:?} instead of ({ok}, `..{words}..`)");
        Ok(())
    }
}

/// Waits until the agent's status says that the fast path is `attached`, and a reason that holds `words`; gives the reason.
fn ladder_end(bed: &Bed<'_>, attached: &str, words: &str) -> Result<String> {
    let latest = Instant::now() + LADDER_LATEST;
    loop {
        let status = bed.hosts.status(HOST)?.unwrap_or_default();
        let path = status.get("fast_path").unwrap_or(&Value::Null);
        let reasons = path.get("reasons").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let reason = reasons.iter().filter_map(Value::as_str).find(|reason| reason.contains(words));
        if let Some(reason) = reason
            && path.get("attached").and_then(Value::as_str) == Some(attached)
        {
            return Ok(format!("attached: {attached}, {reason}"));
        }
        if Instant::now() >= latest {
            bail!("not `{attached}` for a reason like `{words}` after {} s: {path}", LADDER_LATEST.as_secs());
        }
        sleep(POLL);
    }
}

/// A program over both hosts, whose output is that of its native run.
fn small_job(bed: &mut Bed<'_>) -> Result<String> {
    let job = programs::job(bed, "pigz")?.options(["--place", "rr"]);
    let expected = bed.workshop.native("pigz", &job)?;
    let finished = bed.succeed(&job)?;
    same_bytes(&expected, &finished.stdout)?;
    bed.all_hosts_worked(&finished)
}

/// The object file of the stranger's program.
fn stranger(bed: &mut Bed<'_>) -> Result<PathBuf> {
    let directory = bed.workshop.job_directory();
    fs::create_dir_all(&directory)?;
    let (source, object) = (directory.join("stranger.s"), directory.join("stranger.o"));
    fs::write(&source, STRANGER)?;
    let output = output_within(Command::new("gcc").arg("-c").arg(&source).arg("-o").arg(&object), COMMAND_LATEST)?;
    ensure!(output.status.success(), "gcc stranger.s: {}", String::from_utf8_lossy(&output.stderr).trim());
    let mut bytes = fs::read(&object)?;
    bytes.get_mut(ELF_MACHINE).context("no ELF file")?.copy_from_slice(&EM_BPF.to_le_bytes());
    fs::write(&object, bytes)?;
    Ok(object)
}

/// Runs a command on the host; gives what it said if it failed.
fn on_host(bed: &Bed<'_>, words: &[&str]) -> Result<Option<String>> {
    let mut command = bed.hosts.command(HOST, User::Root, Path::new("/usr/bin/env"))?;
    let output = output_within(command.args(words), COMMAND_LATEST)?;
    Ok(if output.status.success() { None } else { Some(shortened(&String::from_utf8_lossy(&output.stderr))) })
}

fn demand(bed: &Bed<'_>, words: &[&str]) -> Result<()> {
    match on_host(bed, words)? {
        None => Ok(()),
        Some(said) => bail!("{}: {said}", words.join(" ")),
    }
}

//! Links that lose, double and reorder frames, whoever sends them: agents, the kernel's fast path, or TCP.
//!
//! Owns what happens to frames at the switch, and that it did happen. Must not know how anything is sent again.
//!
//! ```text
//!  p0 p1 p2 --(nft: 1 % dropped, 1 % copied to, 2 % sent by)--> detour, a tap device --(each frame after its own time)--> br0
//! ```

use super::bed::{Bed, same_bytes, shortened};
use super::case::{Case, Lacking, Need};
use anyhow::{Context, Result, ensure};
use dvm_hosts::{LocalHosts, output_within};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const HOSTS: usize = 3;
const MTU: u32 = 9000;
/// The program of the detour, and its device.
const DETOUR: &str = "detour";
/// Longest time on it: a hundred times what a frame takes otherwise.
const DETOUR_US_MAX: &str = "1000";
const TABLE: &str = "loss";
const COMMAND_LATEST: Duration = Duration::from_secs(10);

/// The stress program once; a soak repeats it.
#[must_use]
pub fn cases() -> Vec<Case> {
    let needs = ["gcc", "ip", "nft"].map(Need::Program);
    vec![Case::new(format!("stress-loss-{HOSTS}"), HOSTS, stress).needs(&needs)]
}

/// The output is the native one.
fn stress(bed: &mut Bed<'_>) -> Result<String> {
    let job = bed.job("stress", &["3", "all", "5"])?.options(["--place", "rr"]);
    let expected = bed.workshop.native("stress-loss", &job)?;
    let detour = bed.workshop.program(DETOUR)?;
    let loss = Loss::begin(bed.hosts, &detour, bed.effort.seed)?;
    let finished = bed.succeed(&job)?;
    let counted = loss.counted()?;
    same_bytes(&expected, &finished.stdout).with_context(|| format!("stderr: {}", shortened(&finished.stderr)))?;
    ensure!(counted.iter().all(|frames| *frames > 0), "frames lost, doubled and reordered: {counted:?}");
    let worked = bed.all_hosts_worked(&finished)?;
    let [lost, doubled, reordered] = counted;
    Ok(format!("{worked}; frames lost {lost}, doubled {doubled}, reordered {reordered}"))
}

/// Bad links, until it is dropped.
struct Loss<'a> {
    hosts: &'a LocalHosts,
    detour: Child,
}

impl<'a> Loss<'a> {
    fn begin(hosts: &'a LocalHosts, detour: &Path, seed: u64) -> Result<Self> {
        let mut command = hosts.switch_command(detour);
        command.args([DETOUR, &seed.to_string(), DETOUR_US_MAX]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut loss = Self { hosts, detour: command.spawn()? };
        let mut line = String::new();
        BufReader::new(loss.detour.stdout.take().context("no output of the detour")?).read_line(&mut line)?;
        if line != "ready\n" {
            return Err(Lacking("this machine makes no tap device".into()).into());
        }
        hosts.join_switch(DETOUR, MTU)?;
        let ports = hosts.switch_ports().join(", ");
        let chance = |each: u32, fate: &str| format!("numgen random mod {each} == 0 counter {fate}\n");
        let rules: String = [(100, "drop"), (100, "dup to \"detour\""), (50, "fwd to \"detour\"")]
            .map(|(each, fate)| chance(each, fate))
            .concat();
        let head = format!("type filter hook ingress devices = {{ {ports} }} priority 0;");
        loss.nft(&format!("table netdev {TABLE} {{\nchain frames {{\n{head}\n{rules}}}\n}}\n"))
            .map_err(|error| Lacking(format!("this kernel cannot lose, double and forward frames: {error:#}")))?;
        Ok(loss)
    }

    /// Frames lost, doubled and reordered so far.
    fn counted(&self) -> Result<[u64; 3]> {
        let mut command = self.hosts.switch_command(Path::new("nft"));
        let output = output_within(command.args(["list", "table", "netdev", TABLE]), COMMAND_LATEST)?;
        let text = String::from_utf8_lossy(&output.stdout);
        let packets = |line: &str| line.split_once("counter packets ")?.1.split(' ').next()?.parse().ok();
        let counts: Vec<u64> = text.lines().filter_map(packets).collect();
        counts.try_into().ok().with_context(|| format!("nft shows other counters: {text}"))
    }

    fn nft(&self, rules: &str) -> Result<()> {
        let mut command: Command = self.hosts.switch_command(Path::new("nft"));
        let mut child = command.args(["-f", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        child.stdin.take().context("no input of nft")?.write_all(rules.as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }
}

impl Drop for Loss<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.nft(&format!("add table netdev {TABLE}\ndelete table netdev {TABLE}\n")) {
            eprintln!("the links stay bad: {error}");
        }
        // Its device goes with it; one that has ended already is as good.
        drop(self.detour.kill());
        drop(self.detour.wait());
    }
}

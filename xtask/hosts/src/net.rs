//! Namespaces, the bridge and the links between them.
//!
//! Owns every call of `ip` and `tc`. Must not know agents.

use crate::{Error, Result, process};
use serde_json::Value;
use std::process::{Command, Stdio};

/// Interface of a host inside its namespace.
const HOST_LINK: &str = "eth0";
const BRIDGE: &str = "br0";

/// What the links between hosts are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Links {
    /// MTU.
    pub mtu: u32,
    /// Queues of each end. If there are several, each host sends by one of its own and the switch counts by queues.
    pub queues: usize,
    /// Whether native XDP can send frames back: the ends at the switch get a program that passes all.
    pub has_native_xdp: bool,
}

impl Links {
    /// Plain ones: one queue, and no native XDP.
    #[must_use]
    pub const fn of_mtu(mtu: u32) -> Self {
        Self { mtu, queues: 1, has_native_xdp: false }
    }
}

/// Makes the switch namespace with its bridge.
pub(crate) fn make_switch(switch: &str, mtu: u32) -> Result<()> {
    ip(&["netns", "add", switch])?;
    ip(&["-n", switch, "link", "add", BRIDGE, "type", "bridge"])?;
    ip(&["-n", switch, "link", "set", BRIDGE, "mtu", &mtu.to_string(), "up"])
}

/// Makes one host's namespace and connects it.
pub(crate) fn make_host(switch: &str, namespace: &str, index: usize, address: &str, links: &Links) -> Result<()> {
    let (port, mtu, queues) = (port(index), links.mtu.to_string(), links.queues.to_string());
    let end = ["mtu", &mtu, "numtxqueues", &queues, "numrxqueues", &queues];
    ip(&["netns", "add", namespace])?;
    ip(&[
        &["-n", switch, "link", "add", &port][..],
        &end,
        &["type", "veth", "peer", "name", HOST_LINK],
        &end,
        &["netns", namespace],
    ]
    .concat())?;
    if links.queues > 1 {
        // The switch chooses the queue to a host by the one on which a frame came, but for the first: that counts as none.
        send_by_queue(namespace, 1 + index % (links.queues - 1))?;
        run("tc", &["-n", switch, "qdisc", "add", "dev", &port, "root", "handle", "1:", "mq"])?;
    }
    ip(&["-n", switch, "link", "set", &port, "master", BRIDGE, "up"])?;
    ip(&["-n", namespace, "link", "set", "lo", "up"])?;
    ip(&["-n", namespace, "addr", "add", &format!("{address}/24"), "dev", HOST_LINK])?;
    ip(&["-n", namespace, "link", "set", HOST_LINK, "up"])
}

/// Removes a namespace with all links in it; a missing one is fine.
pub(crate) fn remove(namespace: &str) -> Result<()> {
    if exists(namespace) { ip(&["netns", "delete", namespace]) } else { Ok(()) }
}

/// Whether the namespace is there.
pub(crate) fn exists(namespace: &str) -> bool {
    std::path::Path::new("/run/netns").join(namespace).exists()
}

/// Namespaces whose name starts with `prefix`.
pub(crate) fn with_prefix(prefix: &str) -> Vec<String> {
    std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect()
}

/// Takes a host's cable out (`connected` false) or plugs it in.
pub(crate) fn set_cable(switch: &str, index: usize, connected: bool) -> Result<()> {
    ip(&["-n", switch, "link", "set", &port(index), if connected { "up" } else { "down" }])
}

/// Makes a device of the switch one more way between hosts; which host is where is not learnt from what it sends.
pub(crate) fn join(switch: &str, device: &str, mtu: u32) -> Result<()> {
    ip(&["-n", switch, "link", "set", device, "mtu", &mtu.to_string(), "master", BRIDGE, "up"])?;
    let quiet = ["learning", "flood", "mcast_flood", "bcast_flood"].into_iter().flat_map(|what| [what, "off"]);
    ip(&["-n", switch, "link", "set", device, "type", "bridge_slave"].into_iter().chain(quiet).collect::<Vec<_>>())
}

/// The command that runs the rest of its arguments in a namespace.
pub(crate) fn enter(namespace: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}"));
    command
}

/// Frames that went to a host, by queue.
pub(crate) fn frames_by_queue(switch: &str, index: usize) -> Result<Vec<u64>> {
    let port = port(index);
    let arguments = ["-n", switch, "-s", "-j", "qdisc", "show", "dev", &port];
    let printed = output("tc", &arguments)?;
    let strange = |what: String| Error::Command {
        command: format!("tc {}", arguments.join(" ")),
        status: "understood nothing".into(),
        stderr: what,
    };
    let disciplines: Vec<Value> = serde_json::from_str(&printed).map_err(|error| strange(format!("{error}: {printed}")))?;
    // The classes of mq are numbered from 1, in hexadecimal.
    let queue = |discipline: &Value| {
        let class = discipline.get("parent")?.as_str()?.strip_prefix("1:")?;
        Some((usize::from_str_radix(class, 16).ok()?.checked_sub(1)?, discipline.get("packets")?.as_u64()?))
    };
    let mut counted: Vec<(usize, u64)> = disciplines.iter().filter_map(queue).collect();
    counted.sort_unstable();
    Ok(counted.into_iter().map(|(_, frames)| frames).collect())
}

/// The name of a host's link at the switch.
pub(crate) fn port(index: usize) -> String {
    format!("p{index}")
}

/// Makes all processors of a host send by this queue.
fn send_by_queue(namespace: &str, queue: usize) -> Result<()> {
    steer(namespace, &format!("tx-{queue}/xps_cpus"))
}

/// Makes a host's processors share the work on frames that come in, whatever their queue.
pub(crate) fn spread_receiving(namespace: &str) -> Result<()> {
    steer(namespace, "rx-*/rps_cpus")
}

/// Writes all processors into these files of the host's queues.
fn steer(namespace: &str, files: &str) -> Result<()> {
    let mask = mask(process::processors());
    // In a namespace of mounts of its own, where /sys is that of the network namespace.
    let script = format!("for file in /sys/class/net/{HOST_LINK}/queues/{files}; do echo {mask} > $file || exit; done");
    ip(&["netns", "exec", namespace, "sh", "-c", &script])
}

/// A mask of the first `count` processors, as files of the kernel have it: words of 32 bits, the highest first.
fn mask(count: usize) -> String {
    let words = (0..count.div_ceil(32)).rev().map(|word| u32::MAX >> (32 - (count - word * 32).min(32)));
    words.map(|word| format!("{word:x}")).collect::<Vec<_>>().join(",")
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    output(program, arguments).map(drop)
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let command = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().map_err(|error| Error::Command {
        command: command(),
        status: "not started".into(),
        stderr: format!("{error}; install the package iproute2"),
    })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Command {
        command: command(),
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_words() {
        for (count, expected) in [(1, "1"), (2, "3"), (32, "ffffffff"), (34, "3,ffffffff"), (64, "ffffffff,ffffffff")] {
            assert_eq!(mask(count), expected);
        }
    }
}

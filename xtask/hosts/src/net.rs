//! Namespaces, the bridge and the links between them.
//!
//! Owns every call of `ip`. Must not know agents.

use crate::{Error, Result};
use std::process::{Command, Stdio};

/// Interface of a host inside its namespace.
const HOST_LINK: &str = "eth0";
const BRIDGE: &str = "br0";

/// Makes the switch namespace with its bridge.
pub(crate) fn make_switch(switch: &str, mtu: u32) -> Result<()> {
    ip(&["netns", "add", switch])?;
    ip(&["-n", switch, "link", "add", BRIDGE, "type", "bridge"])?;
    ip(&["-n", switch, "link", "set", BRIDGE, "mtu", &mtu.to_string(), "up"])
}

/// Makes one host's namespace and connects it.
pub(crate) fn make_host(switch: &str, namespace: &str, index: usize, address: &str, mtu: u32) -> Result<()> {
    let (port, mtu) = (port(index), mtu.to_string());
    ip(&["netns", "add", namespace])?;
    ip(&[
        "-n", switch, "link", "add", &port, "mtu", &mtu, "type", "veth", "peer", "name", HOST_LINK, "mtu", &mtu, "netns",
        namespace,
    ])?;
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

/// The command that runs the rest of its arguments in a namespace.
pub(crate) fn enter(namespace: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}"));
    command
}

fn port(index: usize) -> String {
    format!("p{index}")
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let command = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().map_err(|error| Error::Command {
        command: command(),
        status: "not started".into(),
        stderr: format!("{error}; install the package iproute2"),
    })?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Command {
        command: command(),
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

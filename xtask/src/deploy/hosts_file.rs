//! hosts.toml: the hosts that an operator deploys to.
//!
//! Owns its keys, their defaults and checks. Must not know how hosts are reached.

use serde::Deserialize;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Control port of agents where the file names none.
const AGENT_PORT: u16 = 7400;
const NAME_BYTES_MAX: usize = 64;
/// As many as a cluster may have.
const HOSTS_MAX: usize = 1024;

/// The file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostsFile {
    /// Name of the cluster.
    #[serde(default = "cluster_default")]
    pub cluster: String,
    /// Control port of every agent.
    #[serde(default = "agent_port_default")]
    pub agent_port: u16,
    /// Hosts; their order numbers the nodes.
    pub hosts: Vec<HostEntry>,
}

/// One host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostEntry {
    /// Its name in the cluster.
    pub name: String,
    /// Where ssh finds it: an address, a name, or a `Host` of ~/.ssh/config.
    pub address: String,
    /// User of the ssh connection; one other than root uses `sudo -n`.
    pub user: Option<String>,
    /// Port of its sshd.
    pub port: Option<u16>,
    /// Interface whose address other hosts reach it at; none: `address` is that.
    pub interface: Option<String>,
    /// `memory` of its node.toml.
    pub memory: Option<String>,
    /// Options of ssh, as after `-o`.
    #[serde(default)]
    pub ssh_options: Vec<String>,
}

fn cluster_default() -> String {
    "dvm".to_owned()
}

const fn agent_port_default() -> u16 {
    AGENT_PORT
}

/// Reads and checks the text of a hosts file.
///
/// # Errors
/// The first thing wrong, and what to do.
pub fn parse(text: &str) -> Result<HostsFile, String> {
    let file: HostsFile = toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count());
        format!("line {line}: {}", error.message())
    })?;
    check_name("cluster", &file.cluster)?;
    if file.hosts.is_empty() || file.hosts.len() > HOSTS_MAX {
        return Err(format!("{} hosts; list 1 to {HOSTS_MAX} [[hosts]]", file.hosts.len()));
    }
    if file.agent_port == 0 {
        return Err("agent_port = 0: peers could not find it; write 1 to 65535".to_owned());
    }
    let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
    for host in &file.hosts {
        check_host(host)?;
        if !names.insert(&host.name) {
            return Err(format!("name = \"{}\": two hosts have this name; give each its own", host.name));
        }
        if !places.insert((&host.address, host.port, &host.user)) {
            return Err(format!("host {}: address and port are those of another host; give each its own", host.name));
        }
    }
    Ok(file)
}

fn check_host(host: &HostEntry) -> Result<(), String> {
    check_name("name", &host.name)?;
    let HostEntry { name, address, user, port, interface, memory, .. } = host;
    let words = [("address", Some(address)), ("user", user.as_ref()), ("interface", interface.as_ref())];
    for (key, word) in words {
        let is_word = |word: &String| {
            !word.is_empty()
                && !word.starts_with('-')
                && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:_-%".contains(&byte))
        };
        if let Some(word) = word.filter(|word| !is_word(word)) {
            return Err(format!("host {name}: {key} = {word:?}: write letters, digits, and any of . : _ - %"));
        }
    }
    if *port == Some(0) {
        return Err(format!("host {name}: port = 0: no sshd listens there; write 1 to 65535"));
    }
    if interface.is_none() && address.parse::<IpAddr>().is_err() {
        return Err(format!(
            "host {name}: address = \"{address}\" is no IP address, and agents look up no names; set `interface` to the one that other \
             hosts reach it at"
        ));
    }
    match memory {
        Some(memory) if memory_bytes(memory).is_none() => {
            Err(format!("host {name}: memory = {memory:?}: write a number of bytes, or one with K, M, G or T"))
        }
        _ => Ok(()),
    }
}

fn check_name(key: &str, name: &str) -> Result<(), String> {
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with(['.', '-']) || !name.bytes().all(is_name) {
        return Err(format!("{key} = {name:?}: write 1 to {NAME_BYTES_MAX} letters, digits, '.', '-', '_'"));
    }
    Ok(())
}

/// `text` as bytes: a number, and K, M, G or T for powers of 1024.
#[must_use]
pub fn memory_bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.find(['K', 'M', 'G', 'T']) {
        Some(place) if place + 1 == text.len() => (text.get(..place)?, 10 * (1 + "KMGT".find(text.get(place..)?)?)),
        Some(_) => return None,
        None => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[[hosts]]\nname = \"a\"\naddress = \"10.0.0.1\"\n[[hosts]]\nname = \"b\"\naddress = \"b.lab\"\nuser = \"op\"\nport = 2222\ninterface = \"eth1\"\nmemory = \"2G\"\n";

    #[test]
    fn a_good_file_is_read() {
        let file = parse(GOOD).unwrap();
        assert_eq!((file.cluster.as_str(), file.agent_port, file.hosts.len()), ("dvm", 7400, 2));
        assert_eq!(file.hosts[1].interface.as_deref(), Some("eth1"));
        assert_eq!(
            [memory_bytes("2G"), memory_bytes("7"), memory_bytes("2GG"), memory_bytes("G")],
            [Some(2 << 30), Some(7), None, None]
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, within) in [
            (GOOD.replace("port = 2222", "prot = 2222"), "line 8: unknown field `prot`"),
            (GOOD.replace("port = 2222", "port = 0"), "host b: port = 0"),
            (GOOD.replace("interface = \"eth1\"\n", ""), "host b: address = \"b.lab\" is no IP address"),
            (GOOD.replace("\"b\"", "\"a\""), "name = \"a\": two hosts"),
            (GOOD.replace("\"b\"", "\"../b\""), "name = \"../b\": write 1 to 64"),
            (GOOD.replace("b.lab", "-oProxyCommand=x"), "host b: address = \"-oProxyCommand=x\""),
            (GOOD.replace("eth1", "eth1;reboot"), "host b: interface"),
            (GOOD.replace("2G", "much"), "host b: memory = \"much\""),
            ("hosts = []".to_owned(), "0 hosts; list 1 to 1024"),
            (format!("agent_port = 0\n{GOOD}"), "agent_port = 0"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(within), "{error:?} should contain {within:?}");
        }
    }
}

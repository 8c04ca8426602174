//! node.toml: what is particular to this host.
//!
//! Owns its keys and their checks. Must not know the cluster beyond where it says this node is.

use super::cluster::{NodeEntry, Place, check_place};
use super::{ClusterConfig, ConfigError, NAME_RULE, Source, is_name};
use crate::memory::LIMIT_MIN;
use dsm_bpf::Wanted;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use toml::Spanned;

/// Smallest MTU an IPv6 link may have; below it a frame's header hardly fits.
const MTU_MIN: u16 = 1280;

/// This host's own settings.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Name in the cluster's list.
    pub name: String,
    /// The control socket.
    pub socket: PathBuf,
    /// The executor that husks run.
    pub exec: PathBuf,
    /// Bytes of the largest IP packet to peers; none: as the interface says.
    pub mtu: Option<u16>,
    /// Bytes that pages may take here; none: a part of what is free at the start.
    pub memory: Option<u64>,
    /// How far up the fast path may be attached.
    pub fast_path: Wanted,
    /// Where metrics are served; none: nowhere.
    pub metrics: Option<SocketAddr>,
    /// Where it is, if this file says so: where etcd has the list of hosts.
    place: Option<NodeEntry>,
    file: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFile {
    name: Spanned<String>,
    socket: Option<Spanned<PathBuf>>,
    exec: Option<Spanned<PathBuf>>,
    mtu: Option<Spanned<u16>>,
    memory: Option<Spanned<String>>,
    fast_path: Option<Spanned<String>>,
    metrics: Option<Spanned<String>>,
    address: Option<Spanned<String>>,
    port: Option<Spanned<u16>>,
    cpus: Option<Spanned<u16>>,
}

impl NodeConfig {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// The first thing wrong, with file, line, key and what to do.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        check(&Source::read(path, "--node")?)
    }

    /// Where this node is: as the cluster's list says, or as this file does where etcd has the list.
    ///
    /// # Errors
    /// When neither says it, or the wrong one.
    pub fn entry_in(&self, cluster: &ClusterConfig) -> Result<NodeEntry, ConfigError> {
        let misplaced = |what: &str| ConfigError::Invalid { path: self.file.clone(), line: 1, what: what.to_owned() };
        match (&self.place, &cluster.etcd) {
            (Some(place), Some(_)) => Ok(place.clone()),
            (None, Some(_)) => {
                Err(misplaced("missing field `address`; add it, since cluster.toml leaves the list of hosts to etcd"))
            }
            (Some(_), None) => Err(misplaced("address: cluster.toml has it in [[nodes]]; remove it here")),
            (None, None) => cluster.nodes.iter().find(|node| node.name == self.name).cloned().ok_or_else(|| {
                ConfigError::NotMember { path: self.file.clone(), name: self.name.clone(), known: cluster.names() }
            }),
        }
    }
}

fn check(source: &Source<'_>) -> Result<NodeConfig, ConfigError> {
    let file: NodeFile = source.parse()?;
    let name = file.name.get_ref().clone();
    if !is_name(&name) {
        return Err(source.invalid(&file.name.span(), format!("name = \"{name}\": {NAME_RULE}")));
    }
    for (key, path) in [("socket", &file.socket), ("exec", &file.exec)] {
        if let Some(path) = path.as_ref().filter(|path| !path.get_ref().is_absolute()) {
            let what = format!("{key} = \"{}\": not absolute; write the path from /", path.get_ref().display());
            return Err(source.invalid(&path.span(), what));
        }
    }
    if let Some(mtu) = file.mtu.as_ref().filter(|mtu| *mtu.get_ref() < MTU_MIN) {
        return Err(source.invalid(&mtu.span(), format!("mtu = {}: write at least {MTU_MIN}", mtu.get_ref())));
    }
    let fast_path = match &file.fast_path {
        None => Wanted::default(),
        Some(text) => {
            let wrong = |reason| source.invalid(&text.span(), format!("fast_path = {:?}: {reason}", text.get_ref()));
            text.get_ref().parse().map_err(wrong)?
        }
    };
    let memory = match &file.memory {
        None => None,
        Some(text) => {
            let wrong = |reason| source.invalid(&text.span(), format!("memory = {:?}: {reason}", text.get_ref()));
            Some(bytes(text.get_ref()).map_err(wrong)?)
        }
    };
    let metrics = match &file.metrics {
        None => None,
        Some(text) => {
            let what = format!("metrics = {:?}: write address and port like \"10.0.0.1:9464\"", text.get_ref());
            Some(text.get_ref().parse().map_err(|_| source.invalid(&text.span(), what))?)
        }
    };
    let place = match &file.address {
        Some(address) => {
            let (port, cpus) = (file.port.as_ref(), file.cpus.as_ref());
            Some(check_place(source, Place { name: name.clone(), address, port, cpus })?)
        }
        None => {
            let lonely = [("port", &file.port), ("cpus", &file.cpus)];
            if let Some((key, Some(value))) = lonely.iter().find(|(_, value)| value.is_some()) {
                return Err(source.invalid(&value.span(), format!("{key} without address; add it, or remove {key}")));
            }
            None
        }
    };
    let socket = file.socket.map_or_else(|| PathBuf::from(format!("/run/dvm/{name}.sock")), Spanned::into_inner);
    let exec = file.exec.map_or_else(beside_agent, Spanned::into_inner);
    Ok(NodeConfig {
        name,
        socket,
        exec,
        mtu: file.mtu.map(Spanned::into_inner),
        memory,
        fast_path,
        metrics,
        place,
        file: source.path.to_path_buf(),
    })
}

/// `text` as bytes: a number, and K, M, G or T for powers of 1024.
fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.trim_end_matches(['K', 'M', 'G', 'T']) {
        digits if digits.len() + 1 < text.len() => (text, 0),
        digits => (digits, text.chars().last().and_then(|last| "KMGT".find(last)).map_or(0, |place| 10 * (place as u32 + 1))),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if bytes >= LIMIT_MIN => Ok(bytes),
        Some(_) => Err(format!("write at least {}M", LIMIT_MIN >> 20)),
        None => Err("write a number of bytes, or one with K, M, G or T".to_owned()),
    }
}

fn beside_agent() -> PathBuf {
    let agent = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/usr/bin/dvm-agent"));
    agent.with_file_name("dvm-exec")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(text: &str) -> Result<NodeConfig, String> {
        check(&Source { path: Path::new("n.toml"), text: text.to_owned() }).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_follow_the_name() {
        let node = check_text("name = \"a\"\n").unwrap();
        assert_eq!(node.socket, Path::new("/run/dvm/a.sock"));
        assert!(node.exec.ends_with("dvm-exec"));
        assert_eq!((node.mtu, node.memory), (None, None));
    }

    #[test]
    fn memory_is_read_in_bytes() {
        for (text, bytes) in [("64M", 64 << 20), ("2G", 2 << 30), ("1T", 1 << 40), ("20480K", 20 << 20), ("16777216", 16 << 20)] {
            let node = check_text(&format!("name = \"a\"\nmemory = \"{text}\"\n")).unwrap();
            assert_eq!(node.memory, Some(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (text, start) in [
            ("", "n.toml:1: missing field `name`"),
            ("name = \"a b\"", "n.toml:1: name = \"a b\""),
            ("name = \"a\"\nsocket = \"x\"", "n.toml:2: socket = \"x\": not absolute"),
            ("name = \"a\"\n\nexec = \"x\"", "n.toml:3: exec = \"x\": not absolute"),
            ("name = \"a\"\nmtu = 100", "n.toml:2: mtu = 100: write at least 1280"),
            ("name = \"a\"\nmtu = \"big\"", "n.toml:2: mtu: invalid type"),
            ("name = \"a\"\nfast_path = \"yes\"", "n.toml:2: fast_path = \"yes\": write auto, native, generic, tc or off"),
            ("name = \"a\"\nmemory = 1", "n.toml:2: memory: invalid type"),
            ("name = \"a\"\nmemory = \"1M\"", "n.toml:2: memory = \"1M\": write at least 16M"),
            ("name = \"a\"\nmemory = \"2GM\"", "n.toml:2: memory = \"2GM\": write a number of bytes"),
            ("name = \"a\"\nmetrics = \"9464\"", "n.toml:2: metrics = \"9464\": write address and port"),
            ("name = \"a\"\naddress = \"b\"", "n.toml:2: address = \"b\": not an IP address"),
            ("name = \"a\"\nport = 7", "n.toml:2: port without address"),
            ("name = \"a\"\nthreads = 1", "n.toml:2: unknown field `threads`"),
        ] {
            let error = check_text(text).unwrap_err();
            assert!(error.starts_with(start), "{error:?} should start with {start:?}");
        }
    }
}

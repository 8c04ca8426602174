//! cluster.toml: the same file on every host.
//!
//! Owns its keys, their checks and the fingerprint. Must not know which of its nodes this one is.
//!
//! Either it lists the hosts, or it says where the list is kept (`[control]`).

use super::control::{self, ControlTable, EtcdConfig};
use super::{ConfigError, NAME_RULE, Source, is_name, key};
use crate::limits::NODES_MAX;
use serde::Deserialize;
use siphasher::sip::SipHasher24;
use std::collections::BTreeSet;
use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use toml::Spanned;

/// Control port where the file names none.
const PORT_DEFAULT: u16 = 7400;
/// Fixed: the fingerprint names the definition, it is no secret.
const FINGERPRINT_KEY: [u8; 16] = *b"dvm cluster 0001";

/// The cluster: its name, its key and its hosts.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Name of the cluster.
    pub name: String,
    /// The shared key.
    pub key: [u8; 32],
    /// Hosts; the place in this list is the node's number. Empty where etcd has the list.
    pub nodes: Vec<NodeEntry>,
    /// Where the list of hosts is kept; none: in this file.
    pub etcd: Option<EtcdConfig>,
    /// Tells clusters apart in every handshake and frame.
    pub fingerprint: u32,
}

/// One host of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeEntry {
    /// Its name.
    pub name: String,
    /// Where its agent listens for other agents.
    pub control: SocketAddr,
    /// Processors that jobs may use there; none: all.
    pub cpus: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ClusterFile {
    name: Spanned<String>,
    key_file: Spanned<PathBuf>,
    #[serde(default)]
    nodes: Option<Spanned<Vec<NodeTable>>>,
    control: Option<Spanned<ControlTable>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeTable {
    name: Spanned<String>,
    address: Spanned<String>,
    port: Option<Spanned<u16>>,
    cpus: Option<Spanned<u16>>,
}

impl ClusterConfig {
    /// Reads and checks the file at `path` and the key it names.
    ///
    /// # Errors
    /// The first thing wrong, with file, line, key and what to do.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let source = Source::read(path, "--cluster")?;
        let directory = path.parent().unwrap_or(Path::new("."));
        let Checked { name, key_file, nodes, etcd } = check(&source, directory)?;
        let key = key::read(&directory.join(key_file))?;
        let fingerprint = fingerprint(&name, &nodes);
        Ok(Self { name, key, nodes, etcd, fingerprint })
    }

    /// All names, for messages.
    #[must_use]
    pub fn names(&self) -> String {
        self.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// What the file says.
#[derive(Debug)]
struct Checked {
    name: String,
    key_file: PathBuf,
    nodes: Vec<NodeEntry>,
    etcd: Option<EtcdConfig>,
}

fn check(source: &Source<'_>, directory: &Path) -> Result<Checked, ConfigError> {
    let file: ClusterFile = source.parse()?;
    if !is_name(file.name.get_ref()) {
        return Err(source.invalid(&file.name.span(), format!("name = \"{}\": {NAME_RULE}", file.name.get_ref())));
    }
    let (nodes, etcd) = match (file.nodes, file.control) {
        (Some(nodes), None) => (check_nodes(source, nodes)?, None),
        (None, Some(control)) => (Vec::new(), Some(control::check(source, control.get_ref(), directory)?)),
        (Some(_), Some(control)) => {
            let what = "[control] beside [[nodes]]: with etcd each host enters itself; remove one of the two".to_owned();
            return Err(source.invalid(&control.span(), what));
        }
        (None, None) => {
            let what = "missing field `nodes`; add [[nodes]], or [control] with etcd".to_owned();
            return Err(source.invalid(&(0..0), what));
        }
    };
    Ok(Checked { name: file.name.into_inner(), key_file: file.key_file.into_inner(), nodes, etcd })
}

fn check_nodes(source: &Source<'_>, tables: Spanned<Vec<NodeTable>>) -> Result<Vec<NodeEntry>, ConfigError> {
    let span = tables.span();
    let tables = tables.into_inner();
    if tables.is_empty() || tables.len() > NODES_MAX {
        let what = format!("nodes: {} hosts; list 1 to {NODES_MAX} [[nodes]]", tables.len());
        return Err(source.invalid(&span, what));
    }
    let mut nodes = Vec::with_capacity(tables.len());
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    for table in tables {
        let entry = check_node(source, &table)?;
        if !names.insert(entry.name.clone()) {
            let what = format!("name = \"{}\": two nodes have this name; give each its own", entry.name);
            return Err(source.invalid(&table.name.span(), what));
        }
        if !addresses.insert(entry.control) {
            let what =
                format!("address = \"{}\": two nodes listen at {}; give each its own", table.address.get_ref(), entry.control);
            return Err(source.invalid(&table.address.span(), what));
        }
        nodes.push(entry);
    }
    Ok(nodes)
}

fn check_node(source: &Source<'_>, table: &NodeTable) -> Result<NodeEntry, ConfigError> {
    let name = table.name.get_ref();
    if !is_name(name) {
        return Err(source.invalid(&table.name.span(), format!("name = \"{name}\": {NAME_RULE}")));
    }
    let (address, port, cpus) = (&table.address, table.port.as_ref(), table.cpus.as_ref());
    check_place(source, Place { name: name.clone(), address, port, cpus })
}

/// Where a host is, as either file says it.
pub(super) struct Place<'a> {
    pub(super) name: String,
    pub(super) address: &'a Spanned<String>,
    pub(super) port: Option<&'a Spanned<u16>>,
    pub(super) cpus: Option<&'a Spanned<u16>>,
}

/// Checks where a host is.
pub(super) fn check_place(source: &Source<'_>, place: Place<'_>) -> Result<NodeEntry, ConfigError> {
    let text = place.address.get_ref();
    let address: IpAddr = text.parse().map_err(|_| {
        let what = format!("address = \"{text}\": not an IP address; write it like \"10.0.0.1\" (names are not looked up)");
        source.invalid(&place.address.span(), what)
    })?;
    if address.is_unspecified() || address.is_multicast() {
        let what = format!("address = \"{text}\": not the address of one host; write the one its peers reach it at");
        return Err(source.invalid(&place.address.span(), what));
    }
    let port = place.port.map_or(PORT_DEFAULT, |port| *port.get_ref());
    if let (0, Some(spanned)) = (port, place.port) {
        return Err(source.invalid(&spanned.span(), "port = 0: peers could not find it; write 1 to 65535".to_owned()));
    }
    if let Some(spanned) = place.cpus.filter(|cpus| *cpus.get_ref() == 0) {
        return Err(source.invalid(&spanned.span(), "cpus = 0: a host has at least 1; leave the key out for all".to_owned()));
    }
    let cpus = place.cpus.map(|cpus| *cpus.get_ref());
    Ok(NodeEntry { name: place.name, control: SocketAddr::new(address, port), cpus })
}

/// 32 bits over what all hosts must agree on: names, order, addresses and ports. `cpus` is each host's own affair.
fn fingerprint(name: &str, nodes: &[NodeEntry]) -> u32 {
    let mut hasher = SipHasher24::new_with_key(&FINGERPRINT_KEY);
    hasher.write(format!("{name}\n").as_bytes());
    for node in nodes {
        hasher.write(format!("{} {}\n", node.name, node.control).as_bytes());
    }
    let hash = hasher.finish();
    (hash ^ hash >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = \"lab\"\nkey_file = \"k\"\n[[nodes]]\nname = \"a\"\naddress = \"10.0.0.1\"\n[[nodes]]\nname = \"b\"\naddress = \"::1\"\nport = 9\ncpus = 2\n";

    fn check_text(text: &str) -> Result<Checked, String> {
        let source = Source { path: Path::new("c.toml"), text: text.to_owned() };
        check(&source, Path::new("/nonexistent")).map_err(|error| error.to_string())
    }

    #[test]
    fn a_good_file_is_read() {
        let Checked { name, key_file, nodes, .. } = check_text(GOOD).unwrap();
        assert_eq!((name.as_str(), key_file.as_path()), ("lab", Path::new("k")));
        assert_eq!(nodes[0], NodeEntry { name: "a".into(), control: "10.0.0.1:7400".parse().unwrap(), cpus: None });
        assert_eq!(nodes[1], NodeEntry { name: "b".into(), control: "[::1]:9".parse().unwrap(), cpus: Some(2) });
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let cases = [
            (GOOD.replace("port = 9", "prot = 9"), "c.toml:9: unknown field `prot`", "correct or remove"),
            (GOOD.replace("10.0.0.1", "host1"), "c.toml:5: address = \"host1\": not an IP address", "10.0.0.1"),
            (GOOD.replace("10.0.0.1", "0.0.0.0"), "c.toml:5: address", "not the address of one host"),
            (GOOD.replace("\"b\"", "\"a\""), "c.toml:7: name = \"a\": two nodes", "give each its own"),
            (GOOD.replace("\"::1\"\nport = 9", "\"10.0.0.1\""), "c.toml:8: address", "two nodes listen"),
            (GOOD.replace("port = 9", "port = 0"), "c.toml:9: port = 0", "1 to 65535"),
            (GOOD.replace("port = 9", "port = 70000"), "c.toml:9: port: invalid value: integer `70000`", "correct this value"),
            (GOOD.replace("cpus = 2", "cpus = 0"), "c.toml:10: cpus = 0", "at least 1"),
            (GOOD.replace("\"lab\"", "\"../x\""), "c.toml:1: name", "letters"),
            (GOOD.replace("key_file = \"k\"\n", ""), "c.toml:", "missing field `key_file`; add"),
            ("name = \"x\"\nkey_file = \"k\"\nnodes = []\n".to_owned(), "c.toml:3: nodes: 0 hosts", "[[nodes]]"),
            ("= 3".to_owned(), "c.toml:1: ", ""),
            ("name = \"x\"\nkey_file = \"k\"\n".to_owned(), "c.toml:1: missing field `nodes`", "[control]"),
            (format!("{GOOD}[control]\netcd = [\"http://e:2379\"]\n"), "c.toml:11: [control] beside [[nodes]]", "remove"),
        ];
        for (text, start, within) in cases {
            let error = check_text(&text).unwrap_err();
            assert!(error.starts_with(start), "{error:?} should start with {start:?}");
            assert!(error.contains(within), "{error:?} should contain {within:?}");
            assert!(!error.contains('\n'), "{error:?} is one line");
        }
    }

    #[test]
    fn etcd_stands_for_the_list() {
        const ETCD: &str = "name = \"lab\"\nkey_file = \"k\"\n[control]\netcd = [\"http://10.0.0.9:2379\"]\n";
        let checked = check_text(ETCD).unwrap();
        assert!(checked.nodes.is_empty());
        let etcd = checked.etcd.unwrap();
        assert_eq!((etcd.lease.as_secs(), etcd.login, etcd.tls), (5, None, None));
        let https = ETCD.replace("http:", "https:");
        let cases = [
            (ETCD.replace("\"http://10.0.0.9:2379\"", ""), "c.toml:4: etcd: 0 addresses", "http://"),
            (ETCD.replace("http://", ""), "c.toml:4: etcd = \"10.0.0.9:2379\"", "http://"),
            (ETCD.replace(":2379", ":2379/x"), "c.toml:4: etcd = ", "write all like"),
            (format!("{ETCD}lease_seconds = 1\n"), "c.toml:5: lease_seconds = 1", "2 to 60"),
            (format!("{ETCD}ttl = 1\n"), "c.toml:5: unknown field `ttl`", "correct or remove"),
            (format!("{ETCD}user = \"u\"\n"), "c.toml:5: user without password_file", "add"),
            (format!("{ETCD}password_file = \"p\"\n"), "c.toml:5: password_file without user", "add"),
            (format!("{ETCD}user = \"u\"\npassword_file = \"p\"\n"), "c.toml:6: password_file = \"p\": cannot be opened", "path"),
            (format!("{ETCD}ca_file = \"c\"\n"), "c.toml:5: ca_file: plain http", "https"),
            (https.clone(), "c.toml:4: etcd: https without ca_file", "name"),
            (format!("{https}ca_file = \"c\"\n"), "c.toml:5: ca_file = \"c\": cannot be opened", "path"),
            (format!("{https}ca_file = \"c\"\ncert_file = \"c\"\n"), "c.toml:6: cert_file without cert_key_file", "add"),
        ];
        for (text, start, within) in cases {
            let error = check_text(&text).unwrap_err();
            assert!(error.starts_with(start), "{error:?} should start with {start:?}");
            assert!(error.contains(within) && !error.contains('\n'), "{error:?} should contain {within:?}");
        }
    }

    #[test]
    fn the_fingerprint_sees_names_order_and_addresses_only() {
        let of = |text: &str| {
            let Checked { name, nodes, .. } = check_text(text).unwrap();
            fingerprint(&name, &nodes)
        };
        let good = of(GOOD);
        assert_eq!(good, of(&GOOD.replace("cpus = 2", "cpus = 3")));
        assert_eq!(good, of(&GOOD.replace("key_file = \"k\"", "key_file = \"other\"")));
        for other in [GOOD.replace("lab", "lap"), GOOD.replace("port = 9", "port = 8"), GOOD.replace("\"a\"", "\"c\"")] {
            assert_ne!(good, of(&other));
        }
    }
}

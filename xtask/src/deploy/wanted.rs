//! What a host shall have.
//!
//! Owns the list of files and links, and the configuration's text. Must not know what is there already.

use super::found::Init;
use super::hosts_file::{HostEntry, HostsFile};
use super::layout::{BIN, COMMANDS, CONFIGURATION, CURRENT, ETC, PROGRAMS, UNIT, UNITS, documents, release, version};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

/// A file that a host shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedFile {
    /// Where.
    pub path: String,
    /// Its name among the copies.
    pub staged: String,
    /// Permissions.
    pub mode: u32,
    /// SHA-256 of its contents.
    pub digest: String,
}

/// What a host shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The version: the beginning of a digest of the programs.
    pub id: String,
    /// Files.
    pub files: Vec<WantedFile>,
    /// Symbolic links, with targets.
    pub links: Vec<(String, String)>,
    /// Who starts the agent.
    pub init: Init,
    /// Least glibc that the programs run with.
    pub glibc: (u32, u32),
}

impl Wanted {
    /// Puts the list together. `digests` has one for each name among the copies.
    ///
    /// # Panics
    /// A digest is missing.
    #[must_use]
    pub fn new(id: &str, digests: &BTreeMap<String, String>, init: Init, glibc: (u32, u32)) -> Self {
        let file = |directory: &str, staged: &str, mode| WantedFile {
            path: format!("{directory}/{staged}"),
            staged: staged.to_owned(),
            mode,
            digest: digests.get(staged).expect("every copy has a digest").clone(),
        };
        let mut files: Vec<WantedFile> = PROGRAMS.iter().map(|program| file(&version(id), program, 0o755)).collect();
        files.extend(documents().map(|(name, _)| file(&version(id), &name, 0o644)));
        files.extend(CONFIGURATION.iter().map(|(name, mode)| file(ETC, name, *mode)));
        let mut links = vec![(CURRENT.to_owned(), id.to_owned())];
        links.extend(COMMANDS.iter().map(|command| (format!("{BIN}/{command}"), format!("{CURRENT}/{command}"))));
        links.extend(documents().map(|(name, path)| (path, format!("{CURRENT}/{name}"))));
        if init == Init::Systemd {
            files.push(file(UNITS, UNIT, 0o644));
            links.push((format!("{UNITS}/multi-user.target.wants/{UNIT}"), format!("{UNITS}/{UNIT}")));
        }
        Self { id: id.to_owned(), files, links, init, glibc }
    }

    /// Everything about it that its agent must be started with, as text.
    #[must_use]
    pub fn text(&self) -> String {
        let files = self.files.iter().map(|file| format!("{} {:o} {}\n", file.path, file.mode, file.digest));
        files.chain(self.links.iter().map(|(path, target)| format!("{path} {target}\n"))).collect()
    }
}

/// Every path that a host may have of ours, and the directories above them.
#[must_use]
pub fn paths(id: &str) -> Vec<String> {
    let others = CONFIGURATION.iter().map(|(name, _)| *name).chain([UNIT]).map(str::to_owned);
    let digests = release().into_iter().chain(others).map(|name| (name, String::new())).collect();
    let wanted = Wanted::new(id, &digests, Init::Systemd, (0, 0));
    let mut paths: Vec<String> = wanted.files.into_iter().map(|file| file.path).collect();
    paths.extend(wanted.links.into_iter().map(|(path, _)| path));
    paths.extend(super::plan::directories(Init::Systemd));
    paths
}

/// cluster.toml, the same on all hosts.
#[must_use]
pub fn cluster_toml(file: &HostsFile, addresses: &[IpAddr]) -> String {
    let mut text = format!("name = \"{}\"\nkey_file = \"key\"\n", file.cluster);
    for (host, address) in file.hosts.iter().zip(addresses) {
        write!(text, "\n[[nodes]]\nname = \"{}\"\naddress = \"{address}\"\nport = {}\n", host.name, file.agent_port)
            .expect("writing to a String cannot fail");
    }
    text
}

/// node.toml of a host.
#[must_use]
pub fn node_toml(host: &HostEntry) -> String {
    let memory = host.memory.as_ref().map_or(String::new(), |memory| format!("memory = \"{memory}\"\n"));
    format!("name = \"{}\"\n{memory}", host.name)
}

/// The least glibc that a program was linked for: the highest version among the names of its symbols.
#[must_use]
pub fn glibc_needed(program: &[u8]) -> (u32, u32) {
    const MARK: &[u8] = b"GLIBC_2.";
    let minors = program.windows(MARK.len() + 2).filter(|window| window.starts_with(MARK)).filter_map(|window| {
        let digits: String =
            window.iter().skip(MARK.len()).map_while(|byte| byte.is_ascii_digit().then_some(char::from(*byte))).collect();
        digits.parse().ok()
    });
    (2, minors.max().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::hosts_file;

    #[test]
    fn configuration_is_golden() {
        let text = "agent_port = 7500\n[[hosts]]\nname = \"a\"\naddress = \"10.0.0.1\"\n[[hosts]]\nname = \"b\"\naddress = \"b\"\ninterface = \"eth1\"\nmemory = \"2G\"\n";
        let file = hosts_file::parse(text).unwrap();
        let addresses = ["10.0.0.1".parse().unwrap(), "fd00::2".parse().unwrap()];
        let texts = [cluster_toml(&file, &addresses), node_toml(&file.hosts[0]), node_toml(&file.hosts[1])];
        assert_eq!(texts.join("---\n"), include_str!("golden/configuration"));
    }

    #[test]
    fn the_highest_version_counts() {
        assert_eq!(glibc_needed(b"..GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.9\0.."), (2, 34));
        assert_eq!(glibc_needed(b"static"), (2, 0));
    }
}

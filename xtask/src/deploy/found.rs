//! What a host has: the script that looks, and what it says.
//!
//! Owns the form of the answer. Must not change anything on the host, nor judge it.

use super::layout::{BIN, COMPLETE, LIBRARY, MANIFEST, RUN, STAGING, UNIT};
use super::remote::quoted;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Who starts services on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Init {
    /// systemd.
    Systemd,
    /// Nobody we know: a supervisor of our own.
    None,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A directory.
    Directory,
    /// A symbolic link, to this.
    Link(String),
    /// A file.
    File {
        /// Permissions.
        mode: u32,
        /// SHA-256 of its contents.
        digest: String,
    },
    /// Something else.
    Other,
}

/// A job of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct JobSeen {
    /// Its space.
    pub space: u32,
    /// Program's name.
    pub program: String,
}

/// Another node, as an agent sees it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PeerSeen {
    /// Its name.
    pub name: String,
    /// Whether its agent answers.
    pub up: bool,
}

/// What a running agent says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct StatusSeen {
    /// The other nodes.
    pub peers: Vec<PeerSeen>,
    /// Jobs its host takes part in.
    pub jobs: Vec<JobSeen>,
}

/// What a host has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Whose rights scripts have.
    pub uid: u32,
    /// Machine, as uname says.
    pub machine: String,
    /// Version of glibc; none: another C library.
    pub glibc: Option<(u32, u32)>,
    /// Who starts services.
    pub init: Init,
    /// Addresses of the interface asked for.
    pub addresses: Vec<String>,
    /// What is at the paths asked for; nothing is left out.
    pub entries: BTreeMap<String, Entry>,
    /// Names in the library directory, versions among them.
    pub library: Vec<String>,
    /// Lines of the manifest, if there is one.
    pub manifest: Option<Vec<String>>,
    /// What the agent was last started with.
    pub complete: Option<String>,
    /// Executable of the running agent.
    pub agent: Option<String>,
    /// What it says; none if it does not answer.
    pub status: Option<StatusSeen>,
}

/// The script that says all of it, for these paths.
#[must_use]
pub fn script(name: &str, interface: Option<&str>, paths: &[String]) -> String {
    let paths: Vec<String> = paths.iter().map(|path| quoted(path)).collect();
    let addresses = interface.map_or(String::new(), |interface| {
        format!(
            "ip -o addr show dev {} scope global | awk '{{sub(\"/.*\", \"\", $4); print \"address \" $4}}'\n",
            quoted(interface)
        )
    });
    format!(
        "echo \"uid $(id -u)\"
echo \"machine $(uname -m)\"
echo \"glibc $(getconf GNU_LIBC_VERSION 2>/dev/null)\"
if [ -d /run/systemd/system ]; then echo init systemd; else echo init none; fi
{addresses}for path in {paths}; do
  if [ -L \"$path\" ]; then echo \"link $path $(readlink \"$path\")\"
  elif [ -f \"$path\" ]; then echo \"file $path $(stat -c %a \"$path\") $(sha256sum < \"$path\" | cut -c1-64)\"
  elif [ -d \"$path\" ]; then echo \"directory $path\"
  elif [ -e \"$path\" ]; then echo \"other $path\"
  fi
done
for name in $(ls -A {LIBRARY} 2>/dev/null); do echo \"library $name\"; done
if [ -f {MANIFEST} ]; then echo manifest; sed 's/^/listed /' {MANIFEST}; fi
if [ -f {COMPLETE} ]; then echo \"complete $(cat {COMPLETE})\"; fi
if [ -d /run/systemd/system ]; then pid=$(systemctl show -p MainPID --value {UNIT}); else pid=$(cat {RUN}/agent.pid 2>/dev/null); fi
exe=$(readlink \"/proc/${{pid:-0}}/exe\")
case $exe in {LIBRARY}/*/dvm-agent*)
  echo \"agent ${{exe%% *}}\"
  if status=$(timeout 5 {BIN}/dvm-agent status --json --socket {RUN}/{name}.sock 2>/dev/null); then echo \"status $status\"; fi
esac
true
",
        paths = paths.join(" "),
    )
}

/// Reads what the script said.
///
/// # Errors
/// A line that it does not say.
pub fn parse(text: &str) -> Result<Found, String> {
    let mut found = Found {
        uid: u32::MAX,
        machine: String::new(),
        glibc: None,
        init: Init::None,
        addresses: Vec::new(),
        entries: BTreeMap::new(),
        library: Vec::new(),
        manifest: None,
        complete: None,
        agent: None,
        status: None,
    };
    for line in text.lines() {
        take(&mut found, line).ok_or_else(|| format!("a line that is not understood: {line:?}"))?;
    }
    if found.uid == u32::MAX { Err("no answer to `id -u`".to_owned()) } else { Ok(found) }
}

fn take(found: &mut Found, line: &str) -> Option<()> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "uid" => found.uid = rest.parse().ok()?,
        "machine" => rest.clone_into(&mut found.machine),
        "glibc" => found.glibc = rest.strip_prefix("glibc ").and_then(version),
        "init" => found.init = if rest == "systemd" { Init::Systemd } else { Init::None },
        "address" => found.addresses.push(rest.to_owned()),
        "directory" => drop(found.entries.insert(rest.to_owned(), Entry::Directory)),
        "other" => drop(found.entries.insert(rest.to_owned(), Entry::Other)),
        "link" => {
            let (path, target) = rest.split_once(' ')?;
            found.entries.insert(path.to_owned(), Entry::Link(target.to_owned()));
        }
        "file" => {
            let mut words = rest.split(' ');
            let (path, mode, digest) = (words.next()?, words.next()?, words.next()?);
            let mode = u32::from_str_radix(mode, 8).ok()?;
            found.entries.insert(path.to_owned(), Entry::File { mode, digest: digest.to_owned() });
        }
        "library" => found.library.push(rest.to_owned()),
        "manifest" => found.manifest = Some(Vec::new()),
        "listed" => found.manifest.as_mut()?.push(rest.to_owned()),
        "complete" => found.complete = Some(rest.to_owned()),
        "agent" => found.agent = Some(rest.to_owned()),
        "status" => found.status = Some(serde_json::from_str(rest).ok()?),
        _ => return None,
    }
    Some(())
}

/// `2.36` as numbers.
#[must_use]
pub fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim().split_once('.')?;
    Some((major.parse().ok()?, minor.split('.').next()?.parse().ok()?))
}

impl Found {
    /// Whether an earlier deployment did not come to its end.
    #[must_use]
    pub fn is_half_finished(&self) -> bool {
        let staged = STAGING.rsplit('/').next().unwrap_or_default();
        self.library.iter().any(|name| name == staged) || self.manifest.is_some() && self.complete.is_none()
    }

    /// Jobs that its agent serves.
    #[must_use]
    pub fn jobs(&self) -> Vec<String> {
        let jobs = self.status.iter().flat_map(|status| &status.jobs);
        jobs.map(|job| format!("{} (space {})", job.program, job.space)).collect()
    }

    /// Peers that its agent does not see.
    #[must_use]
    pub fn peers_down(&self) -> Vec<String> {
        let peers = self.status.iter().flat_map(|status| &status.peers);
        peers.filter(|peer| !peer.up).map(|peer| peer.name.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let found = parse(
            "uid 0\nmachine x86_64\nglibc glibc 2.36\ninit none\naddress 10.0.0.1\ndirectory /etc/dvm\nlink /a b\nfile /k 600 ab\n\
             library .staging\nlibrary current\nmanifest\nlisted file /k\ncomplete 12\nagent /usr/local/lib/dvm/x/dvm-agent\n\
             status {\"peers\":[{\"name\":\"b\",\"up\":false,\"x\":1}],\"jobs\":[{\"space\":3,\"program\":\"pigz\"}]}\n",
        )
        .unwrap();
        assert_eq!((found.uid, found.glibc, found.init), (0, Some((2, 36)), Init::None));
        assert_eq!(found.entries["/a"], Entry::Link("b".into()));
        assert_eq!(found.entries["/k"], Entry::File { mode: 0o600, digest: "ab".into() });
        assert!(found.is_half_finished());
        assert_eq!((found.jobs(), found.peers_down()), (vec!["pigz (space 3)".to_owned()], vec!["b".to_owned()]));
        assert_eq!(parse("uid 0\nglibc \ninit systemd\n").unwrap().glibc, None);
    }

    #[test]
    fn what_the_script_does_not_say_is_refused() {
        for text in [
            "",
            "machine x86_64\n",
            "uid root\n",
            "uid 0\nhello\n",
            "uid 0\nfile /a 9 b\n",
            "uid 0\nlisted x\n",
            "uid 0\nstatus {\n",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}

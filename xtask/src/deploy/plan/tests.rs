//! Plans of hosts in every state, and refusals, as text.
//!
//! Owns the states. Must not ask a host.

use super::*;
use crate::deploy::found::{JobSeen, StatusSeen};
use crate::deploy::layout::{CONFIGURATION, UNIT, release};

const ID: &str = "aaaa";
const DIGEST: &str = "d1";

fn wanted(init: Init) -> Wanted {
    let others = CONFIGURATION.iter().map(|(name, _)| *name).chain([UNIT]).map(str::to_owned);
    let digest = |name: String| (name.clone(), format!("sum of {name}"));
    Wanted::new(ID, &release().into_iter().chain(others).map(digest).collect(), init, (2, 34))
}

fn empty(init: Init) -> Found {
    let entries = ["/usr/local/lib", BIN, UNITS].map(|path| (path.to_owned(), Entry::Directory));
    Found {
        uid: 0,
        machine: "x86_64".into(),
        glibc: Some((2, 36)),
        init,
        addresses: Vec::new(),
        entries: entries.into(),
        library: Vec::new(),
        manifest: None,
        complete: None,
        agent: None,
        status: None,
    }
}

/// As a deployment leaves it.
fn installed(init: Init) -> Found {
    let (wanted, mut found) = (wanted(init), empty(init));
    found.manifest = Some(plan(&wanted, &found, DIGEST).expect("a fit host").manifest);
    for file in &wanted.files {
        let entry = Entry::File { mode: file.mode, digest: file.digest.clone() };
        found.entries.insert(file.path.clone(), entry);
    }
    found.entries.extend(wanted.links.iter().map(|(path, target)| (path.clone(), Entry::Link(target.clone()))));
    found.entries.extend(directories(init).into_iter().map(|path| (path, Entry::Directory)));
    found.library = ["aaaa", "complete", "current", "manifest"].map(str::to_owned).into();
    found.complete = Some(DIGEST.into());
    found.agent = Some(format!("{LIBRARY}/{ID}/dvm-agent"));
    found.status = Some(StatusSeen::default());
    found
}

fn changed(change: impl FnOnce(&mut Found)) -> Found {
    let mut found = installed(Init::None);
    change(&mut found);
    found
}

#[test]
fn plans_are_golden() {
    let other_agent = |found: &mut Found| {
        found.agent = Some(format!("{LIBRARY}/bbbb/dvm-agent"));
        found.library.push("bbbb".into());
        found.entries.insert(super::super::layout::CURRENT.into(), Entry::Link("bbbb".into()));
        found.status = Some(StatusSeen { peers: Vec::new(), jobs: vec![JobSeen { space: 3, program: "pigz".into() }] });
    };
    let key = format!("{ETC}/key");
    let cases = [
        ("empty, systemd", empty(Init::Systemd)),
        ("empty, no systemd", empty(Init::None)),
        ("installed", installed(Init::None)),
        ("installed, systemd", installed(Init::Systemd)),
        ("another version with a job", changed(other_agent)),
        (
            "key open to others",
            changed(|found| drop(found.entries.insert(key.clone(), Entry::File { mode: 0o644, digest: "sum of key".into() }))),
        ),
        (
            "another key",
            changed(|found| drop(found.entries.insert(key.clone(), Entry::File { mode: 0o600, digest: "x".into() }))),
        ),
        ("another configuration runs", changed(|found| found.complete = Some("d0".into()))),
        ("agent ended", changed(|found| (found.agent, found.status) = (None, None))),
        ("agent silent", changed(|found| found.status = None)),
        ("ended while copying", changed(|found| found.library.push(".staging".into()))),
        ("ended while switching", changed(|found| found.complete = None)),
    ];
    let mut text = String::new();
    for (name, found) in cases {
        let plan = plan(&wanted(found.init), &found, DIGEST).expect("a fit host");
        text += &format!("# {name}\n");
        for step in &plan.steps {
            text += &format!("{step}\n");
        }
        text += &plan.manifest.iter().map(|line| format!("  {line}\n")).collect::<String>();
    }
    assert_eq!(text, include_str!("../golden/plans"));
}

#[test]
fn refusals_are_golden() {
    let mut cases = vec![empty(Init::Systemd); 5];
    cases[0].uid = 1000;
    cases[1].machine = "aarch64".into();
    cases[2].glibc = Some((2, 31));
    cases[3].glibc = None;
    cases[4].entries.insert(format!("{BIN}/dvm-exec"), Entry::File { mode: 0o755, digest: "x".into() });
    cases[4].entries.insert(format!("{ETC}/key"), Entry::File { mode: 0o600, digest: "x".into() });
    let mut text = String::new();
    for found in cases {
        text += &format!("{}\n", plan(&wanted(Init::Systemd), &found, DIGEST).unwrap_err().join("\n"));
    }
    assert_eq!(text, include_str!("../golden/refusals"));
}

#[test]
fn a_second_manifest_forgets_nothing() {
    let mut found = installed(Init::None);
    let first = found.manifest.clone().expect("a manifest");
    assert!(first.contains(&"directory /etc/dvm".to_owned()));
    assert_eq!(plan(&wanted(Init::None), &found, DIGEST).expect("a fit host").manifest, first);
    found.manifest.as_mut().expect("a manifest").push("file /etc/dvm/of-an-old-release".into());
    assert!(
        plan(&wanted(Init::None), &found, DIGEST)
            .expect("a fit host")
            .manifest
            .contains(&"file /etc/dvm/of-an-old-release".to_owned())
    );
}

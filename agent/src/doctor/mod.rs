//! `doctor`: what this host can do, and the fix for what it cannot.
//!
//! Owns the list of checks and the report's form. Must not change anything on the host.

mod fast;
mod probe;

use crate::config::{ClusterConfig, NodeConfig};
use crate::exit::{Exit, Failure};
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;

/// One thing a host needs.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    /// Whether jobs cannot run without it.
    required: bool,
    found: String,
    /// What to do; empty when ok.
    fix: &'static str,
}

/// What a probe saw.
struct Seen {
    ok: bool,
    found: String,
}

#[derive(Debug, Serialize)]
struct Report {
    healthy: bool,
    checks: Vec<Check>,
}

/// The report, and whether everything required is there. With both files the interface of the node's address is looked at.
///
/// # Errors
/// When a file is given and wrong, or the node is not in the cluster.
pub fn doctor(node: Option<&Path>, cluster: Option<&Path>, is_json: bool) -> Result<(String, bool), Failure> {
    let node = node.map(NodeConfig::read).transpose()?;
    let mut checks = checks(node.as_ref());
    if let (Some(node), Some(cluster)) = (&node, cluster) {
        let cluster = ClusterConfig::read(cluster)?;
        checks.extend(fast::checks_of(node.entry_in(&cluster)?.control.ip()));
    }
    let report = Report { healthy: checks.iter().all(|check| check.ok || !check.required), checks };
    let text = if is_json {
        let text = serde_json::to_string(&report).map_err(|error| Failure::new(Exit::Internal, error))?;
        text + "\n"
    } else {
        table(&report)
    };
    Ok((text, report.healthy))
}

fn checks(node: Option<&NodeConfig>) -> Vec<Check> {
    let mut checks = vec![
        check("kernel", true, probe::kernel(), "boot Linux 6.1 or later"),
        check(
            "userfaultfd",
            true,
            probe::userfaultfd(),
            "run the agent as root on a kernel with CONFIG_USERFAULTFD and /dev/userfaultfd",
        ),
        check(
            "userfaultfd-poison",
            false,
            probe::userfaultfd_poison(),
            "boot Linux 6.6: lost pages end the job instead of raising SIGBUS",
        ),
        check(
            "io-uring",
            true,
            probe::io_uring(),
            "set kernel.io_uring_disabled=0, allow it in the container's seccomp profile, or boot Linux 6.1",
        ),
        check("receive-buffer", true, probe::receive_buffer(), "run the agent as root, or raise net.core.rmem_max to 67108864"),
        check("cap-net-admin", true, probe::capability(12), "run the agent as root or give it CAP_NET_ADMIN"),
        check("cap-setuid", true, probe::capability(7), "run the agent as root: it starts husks as the users who called"),
        check(
            "fsgsbase",
            true,
            probe::fsgsbase(),
            "use a processor of 2013 or later and no nofsgsbase on the kernel's command line",
        ),
        check("syscall-user-dispatch", true, probe::dispatch(), "boot Linux 5.11 or later with CONFIG_GENERIC_ENTRY"),
        check("memfd", true, probe::memory(), "mount tmpfs support: CONFIG_MEMFD_CREATE"),
        check("namespace-tools", false, probe::tools(), "install iproute2 and util-linux; only `cargo xtask hosts` needs them"),
    ];
    if let Some(node) = node {
        checks.push(check(
            "executor",
            true,
            probe::executor(&node.exec),
            "install dvm-exec for all users or set `exec` in node.toml",
        ));
    }
    checks.extend(fast::checks());
    checks
}

fn check(name: &'static str, required: bool, seen: Seen, fix: &'static str) -> Check {
    Check { name, ok: seen.ok, required, found: seen.found, fix: if seen.ok { "" } else { fix } }
}

fn table(report: &Report) -> String {
    let mut text = String::new();
    for Check { name, ok, required, found, fix } in &report.checks {
        let state = match (ok, required) {
            (true, _) => "ok",
            (false, true) => "missing",
            (false, false) => "missing (not required)",
        };
        let fix = if *ok { String::new() } else { format!("; {fix}") };
        writeln!(text, "{name}: {state}: {found}{fix}").expect("writing to a String cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_missing_thing_has_a_fix() {
        for ok in [true, false] {
            let seen = Seen { ok, found: "something".to_owned() };
            let check = check("thing", false, seen, "do this");
            assert_eq!(check.fix.is_empty(), ok);
            let text = table(&Report { healthy: true, checks: vec![check] });
            let expected = if ok { "thing: ok: something\n" } else { "thing: missing (not required): something; do this\n" };
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn every_probe_answers_here_without_privilege() {
        let mut checks = checks(None);
        checks.extend(fast::checks_of([127, 0, 0, 1].into()));
        assert!(checks.iter().all(|check| !check.found.is_empty()), "{checks:?}");
        assert!(checks.iter().any(|check| check.name == "kernel" && check.ok));
    }
}

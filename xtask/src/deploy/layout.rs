//! Where things lie on a host.
//!
//! Owns the paths. Must not know what is in the files.

/// All versions, the manifest, and what is on its way.
pub const LIBRARY: &str = "/usr/local/lib/dvm";
/// The version that is used.
pub const CURRENT: &str = "/usr/local/lib/dvm/current";
/// What was installed, a line each; written before anything else.
pub const MANIFEST: &str = "/usr/local/lib/dvm/manifest";
/// What the agent was last started with; not there while a deployment is under way.
pub const COMPLETE: &str = "/usr/local/lib/dvm/complete";
/// Copies that are not installed yet.
pub const STAGING: &str = "/usr/local/lib/dvm/.staging";
/// Configuration.
pub const ETC: &str = "/etc/dvm";
/// Where users find the commands.
pub const BIN: &str = "/usr/local/bin";
/// Units of systemd.
pub const UNITS: &str = "/etc/systemd/system";
/// Sockets, and what the supervisor keeps where there is no systemd.
pub const RUN: &str = "/run/dvm";

/// The programs of a version.
pub const PROGRAMS: [&str; 4] = ["dvm-agent", "dvm-exec", "libdvm_alloc.so", "dvm-supervise"];
/// Those that users call.
pub const COMMANDS: [&str; 2] = ["dvm-agent", "dvm-exec"];
/// The configuration of a host, with modes.
pub const CONFIGURATION: [(&str, u32); 3] = [("cluster.toml", 0o644), ("node.toml", 0o644), ("key", 0o600)];
/// The unit.
pub const UNIT: &str = "dvm-agent.service";

/// The directory of a version.
#[must_use]
pub fn version(id: &str) -> String {
    format!("{LIBRARY}/{id}")
}

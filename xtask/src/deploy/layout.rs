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
/// Manual pages of those, as they write them.
pub const PAGES: [&str; 27] = [
    "dvm-agent",
    "dvm-agent-doctor",
    "dvm-agent-drain",
    "dvm-agent-histograms",
    "dvm-agent-run",
    "dvm-agent-status",
    "dvm-agent-top",
    "dvm-agent-trace",
    "dvm-exec",
    "dvm-exec-disa",
    "dvm-exec-disa-as",
    "dvm-exec-disa-attach",
    "dvm-exec-disa-cc",
    "dvm-exec-disa-dbg",
    "dvm-exec-disa-fmt",
    "dvm-exec-disa-link",
    "dvm-exec-disa-objdump",
    "dvm-exec-disa-prof",
    "dvm-exec-disa-replay",
    "dvm-exec-disa-run",
    "dvm-exec-disa-why",
    "dvm-exec-kvm",
    "dvm-exec-kvm-pause",
    "dvm-exec-kvm-ps",
    "dvm-exec-kvm-resume",
    "dvm-exec-kvm-run",
    "dvm-exec-kvm-stat",
];
/// Their completions, and where shells look for them.
pub const COMPLETIONS: [(&str, &str); 6] = [
    ("dvm-agent.bash", "/usr/local/share/bash-completion/completions/dvm-agent"),
    ("dvm-exec.bash", "/usr/local/share/bash-completion/completions/dvm-exec"),
    ("_dvm-agent", "/usr/local/share/zsh/site-functions/_dvm-agent"),
    ("_dvm-exec", "/usr/local/share/zsh/site-functions/_dvm-exec"),
    ("dvm-agent.fish", "/usr/local/share/fish/vendor_completions.d/dvm-agent.fish"),
    ("dvm-exec.fish", "/usr/local/share/fish/vendor_completions.d/dvm-exec.fish"),
];
/// Directories for links to them, from above.
pub const SHARED: [&str; 9] = [
    "/usr/local/share",
    "/usr/local/share/man",
    "/usr/local/share/man/man1",
    "/usr/local/share/bash-completion",
    "/usr/local/share/bash-completion/completions",
    "/usr/local/share/zsh",
    "/usr/local/share/zsh/site-functions",
    "/usr/local/share/fish",
    "/usr/local/share/fish/vendor_completions.d",
];
/// The configuration of a host, with modes.
pub const CONFIGURATION: [(&str, u32); 3] = [("cluster.toml", 0o644), ("node.toml", 0o644), ("key", 0o600)];
/// The unit.
pub const UNIT: &str = "dvm-agent.service";

/// The directory of a version.
#[must_use]
pub fn version(id: &str) -> String {
    format!("{LIBRARY}/{id}")
}

/// Manual pages and completions: their names in a version, and where they are looked for.
pub fn documents() -> impl Iterator<Item = (String, String)> {
    let pages = PAGES.iter().map(|page| (format!("{page}.1"), format!("/usr/local/share/man/man1/{page}.1")));
    pages.chain(COMPLETIONS.iter().map(|(name, path)| ((*name).to_owned(), (*path).to_owned())))
}

/// All files of a version.
#[must_use]
pub fn release() -> Vec<String> {
    PROGRAMS.iter().map(|name| (*name).to_owned()).chain(documents().map(|(name, _)| name)).collect()
}

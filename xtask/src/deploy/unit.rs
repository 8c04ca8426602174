//! How an agent is started: by systemd, or by a supervisor where that does not run.
//!
//! Owns the unit, the supervisor's script and the capabilities. Must not know how they get to a host.

use super::hosts_file::memory_bytes;
use super::layout::{CURRENT, ETC, RUN};

/// What the agent does with each:
const CAPABILITIES: [(&str, &str); 8] = [
    ("BPF", "load the fast path"),
    ("NET_ADMIN", "attach it; large receive buffers"),
    ("PERFMON", "programs that compare pointers; perf events of husks"),
    ("IPC_LOCK", "rings of perf events and io_uring"),
    ("SYS_NICE", "shards run before others"),
    ("SETUID", "husks run as the users who called"),
    ("SETGID", "and with their groups"),
    ("KILL", "husks of users are ended"),
];

/// Groups of calls that neither agent nor husks ever make.
const REFUSED_CALLS: &str = "@clock @cpu-emulation @module @mount @obsolete @raw-io @reboot @swap";
/// Of a host whose hosts.toml names no `memory`: the agent then takes 80 % of what is free.
const MEMORY_MAX_DEFAULT: &str = "90%";
/// Beside the pages: the agent, its husks, buffers, what programs keep in the kernel.
const MEMORY_BESIDE: u64 = 1 << 30;

/// The command line of the agent.
fn agent() -> String {
    format!("{CURRENT}/dvm-agent run --cluster {ETC}/cluster.toml --node {ETC}/node.toml")
}

/// The unit of systemd for a host whose pages may take `memory`.
#[must_use]
pub fn unit(memory: Option<&str>) -> String {
    let capabilities: Vec<String> = CAPABILITIES.iter().map(|(name, _)| format!("CAP_{name}")).collect();
    let memory_max = memory
        .and_then(memory_bytes)
        .map_or(MEMORY_MAX_DEFAULT.to_owned(), |bytes| bytes.saturating_add(bytes / 4).saturating_add(MEMORY_BESIDE).to_string());
    format!(
        "[Unit]
Description=dvm agent: owns the pages of distributed address spaces on this host
Wants=network-online.target
After=network-online.target

[Service]
Type=exec
ExecStart={agent}
Restart=on-failure
RestartSec=1
TimeoutStopSec=20
RuntimeDirectory=dvm
CapabilityBoundingSet={capabilities}
NoNewPrivileges=yes
SystemCallArchitectures=native
SystemCallFilter=~{REFUSED_CALLS}
SystemCallErrorNumber=EPERM
ProtectSystem=strict
MemoryMax={memory_max}
LimitNOFILE=1048576
LimitMEMLOCK=infinity
TasksMax=infinity

[Install]
WantedBy=multi-user.target
",
        agent = agent(),
        capabilities = capabilities.join(" "),
    )
}

/// Shell words that run the rest of their command line with the agent's capabilities and no more, in `$within`; none where
/// setpriv cannot do it.
#[must_use]
pub fn within() -> String {
    let names: Vec<String> = CAPABILITIES.iter().map(|(name, _)| format!("+{}", name.to_lowercase())).collect();
    format!(
        "within='setpriv --no-new-privs --inh-caps=-all --bounding-set=-all,{}'\n$within true 2>/dev/null || within=\n",
        names.join(",")
    )
}

/// The script that keeps an agent running where systemd does not; it ends with its agent on SIGTERM.
#[must_use]
pub fn supervisor() -> String {
    format!(
        "#!/bin/sh
# Keeps dvm-agent running where there is no systemd.
umask 022
mkdir -p {RUN}
ulimit -n 1048576 2>/dev/null || ulimit -n \"$(ulimit -H -n)\"
ulimit -l unlimited 2>/dev/null
{within}agent=
end() {{
  [ -z \"$agent\" ] || {{ kill -TERM \"$agent\"; wait \"$agent\"; }}
  rm -f {RUN}/agent.pid {RUN}/supervise.pid
  exit 0
}}
trap end TERM INT
echo $$ > {RUN}/supervise.pid
while :; do
  $within {agent} >> {RUN}/agent.log 2>&1 < /dev/null &
  agent=$!
  echo $agent > {RUN}/agent.pid
  wait $agent && end
  agent=
  sleep 1
done
",
        within = within(),
        agent = agent(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_and_supervisor_are_golden() {
        assert_eq!(unit(None), include_str!("golden/dvm-agent.service"));
        assert_eq!(supervisor(), include_str!("golden/dvm-supervise"));
    }

    #[test]
    fn a_limit_leaves_room_beside_the_pages() {
        assert!(unit(Some("8G")).contains("\nMemoryMax=11811160064\n"));
    }
}

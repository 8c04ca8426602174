//! Every maximum and every deadline of the control plane.
//!
//! Owns the numbers and how they relate. Must not know who waits.

use std::time::Duration;

/// Most hosts of a cluster: a space's number has ten bits for its root.
pub const NODES_MAX: usize = 1 << NODE_BITS;
/// Bits of a space's number that name its root.
pub const NODE_BITS: u32 = 10;
/// Bits of a space's number that count the root's spaces.
pub const SPACE_COUNTER_BITS: u32 = 32 - NODE_BITS;

/// Most jobs that one host takes part in.
pub const JOBS_MAX: usize = 64;
/// Most Unix connections at a time.
pub const LOCAL_CONNECTIONS_MAX: usize = 256;
/// Most Unix connections of one user other than root at a time.
pub const LOCAL_CONNECTIONS_PER_USER_MAX: usize = 64;
/// Most TCP connections that have not yet proved who they are.
pub const STRANGERS_MAX: usize = 256;
/// Most husk-to-husk connections that are opened to one peer at the same moment; others wait.
pub const DIALS_PER_PEER_MAX: usize = 4;
/// Attempts at one of them where nothing comes back: packets get lost.
pub const DIAL_TRIES_MAX: usize = 4;
/// Most husk-to-husk connections one job opens at the same moment.
pub const CONNECTS_PENDING_MAX: usize = 256;
/// Most orders about pages of one husk under way; the husk waits for an answer long before.
pub const ORDERS_PENDING_MAX: usize = 4096;
/// Most notes waiting for one job.
pub const JOB_NOTES_MAX: usize = 1024;
/// Most messages waiting for one peer.
pub const PEER_MESSAGES_MAX: usize = 1024;
/// Most reports to peers being made at a time.
pub const REPORTS_MAX: usize = 64;
/// Most connections for metrics at a time.
pub const METRICS_CONNECTIONS_MAX: usize = 8;
/// Longest request for metrics, in bytes.
pub const METRICS_REQUEST_BYTES_MAX: usize = 8 << 10;
/// For a scrape, from the connection to the last byte.
pub const METRICS_DEADLINE: Duration = Duration::from_secs(8);
/// Most groups of a caller that are carried to other hosts.
pub const GROUPS_MAX: usize = 1024;
/// Longest program name kept, in bytes.
pub const PROGRAM_BYTES_MAX: usize = 256;
/// Most lines of a husk's stderr that are logged; the rest is read and dropped.
pub const HUSK_LINES_MAX: usize = 100;
/// Longest line of a husk's stderr that is logged whole, in bytes.
pub const HUSK_LINE_BYTES_MAX: usize = 512;
/// Longest message between agents, in bytes.
pub const PEER_MESSAGE_BYTES_MAX: usize = 4 << 20;
/// Longest configuration or key file, in bytes.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Most addresses of etcd's servers.
pub const ENDPOINTS_MAX: usize = 16;
/// Send buffer of a control socket, in bytes: a longest packet must fit.
pub const CONTROL_BUFFER_BYTES: usize = 1 << 20;

/// Time between two heartbeats of a control connection.
pub const HEARTBEAT: Duration = Duration::from_millis(500);
/// Silence after which a peer is lost.
pub const LEASE: Duration = Duration::from_millis(2500);
/// How often an agent looks whether a root's husk was stopped: the kernel tells only its parent.
pub const STOP_CHECK: Duration = Duration::from_millis(250);
/// How often leases are looked at.
pub const LEASE_CHECK: Duration = Duration::from_millis(250);
/// For a TCP connection and its handshake, each.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(2);
/// For one step of a job's opening.
pub const STEP_DEADLINE: Duration = Duration::from_secs(10);
/// For a member to start its husk and reach the others; it says what is missing before the root stops waiting.
pub const MEMBER_DEADLINE: Duration = Duration::from_secs(8);
/// For a peer that is down to come up while a job waits for it.
pub const REACH_DEADLINE: Duration = Duration::from_secs(3);
/// For the view that has all hosts of a job: one has just joined.
pub const VIEW_DEADLINE: Duration = Duration::from_secs(2);
/// Time between two looks at whether a host that is drained has jobs left.
pub const DRAIN_CHECK: Duration = Duration::from_millis(500);
/// For etcd to answer one request.
#[cfg(feature = "etcd")]
pub const ETCD_DEADLINE: Duration = Duration::from_secs(3);
/// For all of it when the agent starts: connecting, the lease, the first view.
#[cfg(feature = "etcd")]
pub const JOIN_DEADLINE: Duration = Duration::from_secs(8);
/// How long it stands in etcd that a host is of a job no more. Who does not read it in time has lost its own lease, and its jobs.
#[cfg(feature = "etcd")]
pub const GIVEN_UP_KEPT: Duration = Duration::from_secs(3600);
/// First and longest pause between two attempts to reach etcd.
#[cfg(feature = "etcd")]
pub const ETCD_PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Attempts at a transaction that others may have overtaken.
#[cfg(feature = "etcd")]
pub const TRANSACTION_TRIES_MAX: usize = 64;
/// For the first packet on a Unix connection.
pub const FIRST_PACKET_DEADLINE: Duration = Duration::from_secs(10);
/// For a husk to take a packet.
pub const HUSK_SEND_DEADLINE: Duration = Duration::from_secs(2);
/// For figures to come.
pub const STATISTICS_DEADLINE: Duration = Duration::from_secs(2);
/// For a husk to leave by itself before it is killed.
pub const HUSK_GRACE: Duration = Duration::from_millis(300);
/// For the root to close a job whose husk here has gone, before that counts as a loss.
pub const ROOT_SAYS_WHY: Duration = Duration::from_millis(250);
/// For the last words of a husk that is gone.
pub const LAST_WORDS: Duration = Duration::from_millis(100);
/// For the root husk to tell its user and leave after a host was lost.
pub const ROOT_GRACE: Duration = Duration::from_millis(1500);
/// For a killed process to be gone, and for a stopped shard to end.
pub const REAP_DEADLINE: Duration = Duration::from_secs(2);
/// For the port of an agent that was killed: the kernel takes its ring down, and with it the listener, in its own time.
pub const BIND_DEADLINE: Duration = Duration::from_secs(3);
/// First and longest pause between two attempts to reach a peer.
pub const DIAL_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

const _: () = assert!(LEASE.as_millis() >= 4 * HEARTBEAT.as_millis(), "one late heartbeat must not end a lease");
const _: () = assert!(
    LEASE.as_millis() + LEASE_CHECK.as_millis() + ROOT_SAYS_WHY.as_millis() + ROOT_GRACE.as_millis() < 5000,
    "a job must have ended 5 s after a host was lost"
);
const _: () = assert!(STRANGERS_MAX >= 64 * DIALS_PER_PEER_MAX, "64 hosts do not turn each other away");
const _: () = assert!(MEMBER_DEADLINE.as_millis() < STEP_DEADLINE.as_millis(), "the member knows more than the root");
const _: () = assert!(CONTROL_BUFFER_BYTES > 2 * dvm_api::local::PACKET_BYTES_MAX, "the kernel counts its own overhead");
